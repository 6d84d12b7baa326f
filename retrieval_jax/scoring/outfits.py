"""Scores of outfits: fill in the blank, the AUC of compatibility, and how often a look is completed with what was worn.

The public protocol (Polyvore): items are points, the distance between two is Euclidean, an outfit's score is 1 less the
mean distance of its pairs, and a blank takes the answer with the smallest sum of distances to the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError

_NUMBERS = 1 << 24  # that are in memory at once


def compatibility(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Scores whole outfits: 1 less the mean distance of their pairs.

    Args:
      vectors: [G, D] of items, each already projected by its type.
      rows: int [n, k], the items of each outfit, rows of `vectors`; -1 for none.

    Returns:
      float64 [n]; NaN for outfits of fewer than two items.

    Raises:
      InputError: other shapes, or rows that there are not.

    Source: Vasileva et al., "Learning Type-Aware Embeddings for Fashion Compatibility", ECCV 2018, and its code.
    """
    vectors, rows = _items(vectors, rows, "compatibility")
    out = np.full(len(rows), np.nan)
    for of, some in _by_length(rows, vectors.shape[1]):
        count = some.shape[1]
        if count < 2:
            continue
        block, total = vectors[some].astype(np.float64), np.zeros(len(of))
        for item in range(1, count):
            total += np.linalg.norm(block[:, item:] - block[:, item - 1 : item], axis=2).sum(1)
        out[of] = 1.0 - total / (count * (count - 1) / 2)
    return out


def sums(vectors: np.ndarray, rows: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Sums the distances of every answer to the items of its outfit.

    Args:
      vectors: [G, D] of items, each already projected by its type.
      rows: int [n, k], the items that are there, rows of `vectors`; -1 at the blank and past the end.
      answers: int [n, c], rows of `vectors`.

    Returns:
      float64 [n, c].

    Raises:
      InputError: other shapes, or rows that there are not.
    """
    vectors, rows = _items(vectors, rows, "outfits")
    answers = arguments.rows(answers, "answers", "outfits", (len(rows), "c"), len(vectors))
    out = np.empty(answers.shape)
    for of, some in _by_length(rows, vectors.shape[1] * answers.shape[1]):
        apart = vectors[answers[of]][:, :, None].astype(np.float64) - vectors[some].astype(np.float64)[:, None]
        out[of] = np.linalg.norm(apart, axis=3).sum(2)
    return out


def fill_in_the_blank(totals: np.ndarray, right: np.ndarray | int = 0) -> np.ndarray:
    """Returns which questions are answered right: the right answer has the smallest sum of distances.

    Args:
      totals: [n, c], of `sums`; for scores that are better the higher they are, their negatives.
      right: int [n], the place of the right answer, or one for all.

    Returns:
      float64 [n]: 1 where right, 0 where not; of m equally near answers each counts 1 / m.

    Raises:
      InputError: another shape, or a place that no answer has.
    """
    totals = arguments.array(totals, "totals", "fill_in_the_blank", ("n", "c")).astype(np.float64)
    right = np.broadcast_to(np.asarray(right), len(totals))
    if right.size and not (0 <= right.min() and right.max() < totals.shape[1]):
        raise InputError(
            f"fill_in_the_blank: right runs from {right.min()} to {right.max()}, and a question has "
            f"{totals.shape[1]} answers: give places from 0"
        )
    best = totals == totals.min(1, keepdims=True)
    return best[np.arange(len(totals)), right] / best.sum(1)


def auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Returns the area under the ROC curve: how often a compatible outfit scores above one that is not.

    Args:
      labels: [n], true for compatible outfits.
      scores: [n], finite; equal scores count half.
      weights: [n], how often each outfit counts; None for once.

    Returns:
      0 to 1; NaN where one of the two kinds is missing.

    Raises:
      InputError: another shape, or a score that is non-finite.

    Source: Mann and Whitney, 1947; equal to scikit-learn's `roc_auc_score`.
    """
    labels = arguments.array(labels, "labels", "auc", ("n",)).astype(bool)
    scores = arguments.array(scores, "scores", "auc", labels.shape).astype(np.float64)
    if not np.isfinite(scores).all():
        raise InputError("auc: a score is non-finite; leave out outfits of fewer than two items")
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    _, place = np.unique(scores, return_inverse=True)
    return _auc(labels, place, weights)


def _blocks(count: int, each: int) -> Iterator[slice]:
    """Yields slices of rows, of which `each` numbers are needed at once."""
    step = max(1, _NUMBERS // max(1, each))
    for start in range(0, count, step):
        yield slice(start, start + step)


def _items(vectors: np.ndarray, rows: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors [G, D] and rows [n, k] of them as arrays, checked."""
    vectors = arguments.array(vectors, "vectors", where, ("G", "D"))
    return vectors, arguments.rows(rows, "rows", where, ("n", "k"), len(vectors), padding=True)


def _by_length(rows: np.ndarray, each: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields outfits of equal length, numbers [m] and items [m, w], of each item of which `each` numbers are needed.

    So that one long outfit does not make all of them as long.
    """
    counts = (rows >= 0).sum(1)
    left = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), 1)
    for count in np.unique(counts).tolist():
        of = np.flatnonzero(counts == count)
        for some in _blocks(len(of), count * each):
            yield of[some], left[of[some], :count]


def _auc(labels: np.ndarray, place: np.ndarray, weights: np.ndarray) -> float:
    """Returns the weighted AUC by places in the order of scores, equal for equal scores."""
    count = int(place.max(initial=-1)) + 1
    good = np.bincount(place[labels], weights[labels], count)
    bad = np.bincount(place[~labels], weights[~labels], count)
    total = good.sum() * bad.sum()
    return float((good * (np.cumsum(bad) - bad / 2)).sum() / total) if total else float("nan")


def auc_difference(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, members: np.ndarray
) -> tuple[float, float, float]:
    """Compares two runs by the AUC of the same outfits: how much better is the second?

    Args:
      labels: [n], true for compatible outfits.
      first, second: [n] or [seeds, n] scores; the AUC is averaged over seeds.
      members: int [n, m], what is in each outfit, such as products; -1 for nothing. Outfits that share one are not
        independent.

    Returns:
      The difference, and the ends of its 95 % interval; NaN where one of the two kinds is missing, and ends
      of NaN where every outfit of a kind shares a member with every other, or is the only one.

    Raises:
      InputError: other shapes.

    Source: the variance of an AUC by placements, DeLong et al., Biometrics 1988; see `mean_difference`.
    """
    labels = arguments.array(labels, "labels", "auc_difference", ("n",)).astype(bool)
    if labels.all() or not labels.any():
        return float("nan"), float("nan"), float("nan")
    sides = []
    for name, side in (("first", first), ("second", second)):
        side = arguments.array(np.atleast_2d(side), name, "auc_difference", ("seeds", len(labels)))
        sides.append(np.mean([_placements(labels, one) for one in side], axis=0))
    gain = sides[1] - sides[0]
    difference = float(gain[labels].mean())
    parts = (gain - difference) / np.where(labels, labels.sum(), (~labels).sum())
    return _interval(difference, parts, labels.astype(int), members)


def mean_difference(first: np.ndarray, second: np.ndarray, members: np.ndarray) -> tuple[float, float, float]:
    """Compares two runs by the mean score of the same questions, which may share listings.

    Args:
      first, second: [n] or [seeds, n] scores; averaged over seeds.
      members: int [n, m], as of `auc_difference`.

    Returns:
      The difference, and the ends of its 95 % interval; NaN where every question shares a member with every other.

    Raises:
      InputError: other shapes.

    Source: the variance of a mean whose terms are correlated where they share a member, Aronow, Samii and Assenova,
      "Cluster-Robust Variance Estimation for Dyadic Data", Political Analysis 2015, with more than two members.
    """
    first, second = (np.atleast_2d(np.asarray(side, np.float64)).mean(axis=0) for side in (first, second))
    gain = arguments.array(second, "second", "mean_difference", first.shape) - first
    parts = (gain - gain.mean()) / max(len(gain), 1)
    return _interval(float(gain.mean()), parts, np.zeros(len(gain), int), members)


def _placements(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the share of outfits of the other kind that each is on the right side of, [n]; equal ones count half."""
    out = np.empty(len(labels))
    for kind, sign in ((True, 1.0), (False, -1.0)):
        own, others = sign * scores[labels == kind], np.sort(sign * scores[labels != kind])
        below = np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")
        out[labels == kind] = below / (2 * len(others))
    return out


def _interval(value: float, parts: np.ndarray, kinds: np.ndarray, members: np.ndarray) -> tuple[float, float, float]:
    """Returns a sum and its 95 % interval, by the deviations [n] of its terms from the mean of their kind [n], and what
    each has as members."""
    members = arguments.array(members, "members", "outfits", (len(parts), "m"))
    count = len(parts)
    owner, place = np.nonzero(members >= 0)
    order = np.argsort(members[owner, place], kind="stable")
    starts = np.flatnonzero(np.diff(members[owner, place][order])) + 1
    rows = [
        np.arange(count),
        *map(np.unique, np.split(owner[order], starts)),
    ]
    pairs = [rows[0] * (count + 1), *((one[:, None] * count + one).ravel() for one in rows[1:])]
    first, second = np.divmod(np.unique(np.concatenate(pairs)), max(count, 1))
    # Deviations from the mean of their own kind are too small, the more so the more terms share members: by n / (n - 1)
    # where none do. Elsewhere such intervals covered the truth in .92 to .95 of simulated cases.
    alike = first[kinds[first] == kinds[second]]
    sizes = np.bincount(kinds, minlength=2)
    free = sizes - np.bincount(kinds[alike], minlength=2) / np.maximum(sizes, 1)
    if (free[sizes > 0] <= 0).any():  # every term of a kind shares a member with every other, or there is one alone
        return value, float("nan"), float("nan")
    parts = parts * np.sqrt(sizes / np.maximum(free, 1e-12))[kinds]
    # The estimate may be negative: never below independent terms.
    variance = max(float((parts[first] * parts[second]).sum()), float(parts @ parts))
    return value, value - 1.96 * variance**0.5, value + 1.96 * variance**0.5


def ranks(
    vectors: np.ndarray,
    rows: np.ndarray,
    hidden: np.ndarray,
    types: np.ndarray,
    *,
    products: np.ndarray | None = None,
    ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Ranks the hidden item of each outfit among the gallery's listings of its type, by the sum of distances.

    Args:
      vectors: [G, D] of the gallery, projected by type.
      rows: int [n, k], gallery rows of the items that are left, which complete nothing; -1 for none.
      hidden: int [n], the gallery row of the item that was taken out.
      types: int [G], of the listings.
      products: int [G], equal for listings of one product, any of which is right; None where each is its own.
      ids: G ids, by which equal sums are ordered; None for the order of rows.

    Returns:
      int64 [n], from 1: the rank of the first listing of the hidden product.

    Raises:
      InputError: other shapes, rows that there are not, or an outfit that still has all that would be right.
    """
    gallery, rows = _items(vectors, rows, "completion")
    gallery = gallery.astype(np.float64)
    hidden = arguments.rows(hidden, "hidden", "completion", (len(rows),), len(gallery))
    types = arguments.array(types, "types", "completion", (len(gallery),))
    products = np.arange(len(gallery)) if products is None else np.asarray(products)
    place = np.arange(len(gallery))
    if ids is not None:
        place[np.argsort(np.asarray(ids, object).astype(str), kind="stable")] = np.arange(len(gallery))
    out = np.zeros(len(rows), np.int64)
    squares = np.einsum("gd,gd->g", gallery, gallery)
    for kind in np.unique(types[hidden]):
        alike = np.flatnonzero(types == kind)
        asked = np.flatnonzero(types[hidden] == kind)
        for block in _blocks(len(asked), len(alike) * rows.shape[1]):
            some = asked[block]
            own = rows[some]
            left = gallery[own]
            dots = np.einsum("nkd,gd->nkg", left, gallery[alike])
            square = squares[own][..., None] + squares[alike] - 2 * dots
            total = np.where((own >= 0)[..., None], np.sqrt(np.maximum(square, 0.0)), 0.0).sum(1)
            there_already = (alike == own[..., None]).any(1)
            right = (products[alike] == products[hidden[some]][:, None]) & ~there_already
            total = np.where(there_already, np.inf, total)
            if not right.any(1).all():
                raise InputError("completion: rows has the hidden item, or all listings of its product: take it out")
            order = np.lexsort((np.broadcast_to(place[alike], total.shape), total), axis=1)
            out[some] = np.take_along_axis(right, order, axis=1).argmax(1) + 1
    return out
