"""Category of a photo: the network's softmax, fused with a vote of the nearest listings whose category is known.

The softmax knows what is common to a category, the vote what single listings look like. `fit` finds the temperature of
the softmax, how much nearer listings outvote others, and the share of the vote, all on listings that neither the
network nor the reference set has seen, such as val. The reference set grows by `Reference.add`, without training and
without fitting again.

One distribution is fused, that over the finest categories. `coarser` sums it along the tree, so that the levels always
agree: shoes are as likely as all kinds of shoes together. Weights of their own for every level would say that a photo
shows trainers and yet no shoes.

Source: Zhang et al., "Visual Search at Alibaba", arXiv 2102.04674: a classifier and the weighted vote of the 30 nearest
listings of a reference set; how they are weighted is not stated there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact

WHERE = "category_fusion"
SCALES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5)  # of cosines; tried by `fit`
SHARES = tuple(step / 20 for step in range(21))  # of the vote
LEAST = 1e-3  # chance of what no neighbour is, spread over all categories: logarithms stay finite


class Reference:
    """Listings of known category, among which photos look for their neighbours.

    Args:
      vectors: [N, D] of the listings, of any length but 0. With Embeddings, a photo's own id is never its neighbour.
      categories: integers [N], below `count`; -1 where unknown: those listings are left out.
      count: number of categories.

    Raises:
      InputError: arrays that do not fit each other, or no listing of known category.
    """

    def __repr__(self) -> str:
        return f"category_fusion.Reference({brief.size(self.index.gallery)}, {self.count} categories)"

    def __init__(self, vectors: np.ndarray | Embeddings, categories: np.ndarray, count: int):
        self.count = arguments.integer(count, "count", WHERE)
        found = arguments.rows(categories, "categories", WHERE, (len(vectors),), self.count, padding=True)
        known = np.flatnonzero(found >= 0)
        if not len(known):
            raise InputError(
                f"{WHERE}: none of the {len(found):,} listings of the reference set has a known category: give "
                "listings with categories"
            )
        if len(known) < len(found):
            vectors = vectors.take(known) if isinstance(vectors, Embeddings) else vectors[known]
        self.vectors, self.categories = vectors, found[known].astype(np.int32)
        self.index = exact.Index(vectors)

    def __len__(self) -> int:
        return len(self.categories)

    def add(self, vectors: np.ndarray | Embeddings, categories: np.ndarray) -> Reference:
        """Returns the reference set with further listings, such as users' photos.

        Args:
          vectors: [n, D] of the new listings; ids are kept where both sides are Embeddings.
          categories: integers [n]; -1 where unknown: those listings are left out.

        Raises:
          InputError: see `Reference`; or vectors of another dimension.
        """
        old, new = self.vectors, vectors
        both = np.concatenate([_read(old), _read(new, self.index.gallery.shape[1])])
        if isinstance(old, Embeddings) and isinstance(new, Embeddings):
            both = Embeddings([*old.ids, *new.ids], both, old.meta)
        more = arguments.rows(categories, "categories", WHERE, (len(new),), self.count, padding=True)
        return Reference(both, np.concatenate([self.categories, more]), self.count)

    def neighbours(self, photos: np.ndarray | Embeddings, k: int = 30) -> tuple[np.ndarray, np.ndarray]:
        """Returns the categories, int32 [Q, k], and cosines, float32 [Q, k], of the k nearest listings, nearest first.

        A slot without a listing, such as a photo's own, has the category -1.

        Args:
          photos: [Q, D].
          k: number of neighbours.

        Raises:
          InputError: k is larger than the reference set, another dimension, or a non-finite vector.
        """
        k = arguments.integer(k, "k", WHERE)
        if k > len(self):
            raise InputError(
                f"{WHERE}: k={k} neighbours, and the reference set has {len(self):,} listings of known category: give "
                "a smaller k, or more listings"
            )
        found = self.index.search(photos, k)
        return np.where(found.item_rows >= 0, self.categories[found.item_rows], -1), found.scores


@dataclasses.dataclass(frozen=True)
class Weights:
    """How the softmax and the vote are weighted.

    Attributes:
      temperature: that logits are divided by.
      scale: of cosines; a neighbour that is this much nearer counts e times as much.
      share: of the vote in the fused distribution; the softmax has the rest.
      k: number of neighbours.
    """

    temperature: float = 1.0
    scale: float = 0.05
    share: float = 0.5
    k: int = 30


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns the distributions of logits, float64 [Q, C].

    Args:
      logits: [Q, C].
      temperature: that they are divided by; above 1 makes a distribution flatter.

    Raises:
      InputError: a non-finite logit, or a temperature that is not positive.
    """
    temperature = arguments.number(temperature, "temperature", WHERE, low=1e-6)
    found = arguments.array(logits, "logits", WHERE, ("Q", "C")).astype(np.float64) / temperature
    arguments.finite(found, f"{WHERE}: logits")
    found = np.exp(found - found.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def vote(categories: np.ndarray, cosines: np.ndarray, count: int, scale: float) -> np.ndarray:
    """Returns the distributions that neighbours vote for, float64 [Q, C]; uniform without neighbours.

    What no neighbour is keeps a small chance (`LEAST`).

    Args:
      categories: [Q, k] of the neighbours, -1 for none; see `Reference.neighbours`.
      cosines: [Q, k].
      count: number of categories, C.
      scale: see `Weights`.

    Raises:
      InputError: arrays that do not fit each other, or a scale that is not positive.
    """
    scale = arguments.number(scale, "scale", WHERE, low=1e-6)
    found = arguments.rows(categories, "categories", WHERE, ("Q", "k"), count, padding=True)
    near = arguments.array(cosines, "cosines", WHERE, found.shape).astype(np.float64)
    near = np.where(found >= 0, near, -np.inf)
    weights = np.exp((near - np.maximum(near.max(1, keepdims=True), -2)) / scale)
    out = np.zeros((len(found), count + 1))
    np.add.at(out, (np.arange(len(found))[:, None], found), weights)  # -1 is the last column, of weight 0
    total = out[:, :count].sum(1, keepdims=True)
    voted = np.where(total > 0, out[:, :count] / np.where(total > 0, total, 1), 1 / count)
    return (1 - LEAST) * voted + LEAST / count


def fused(logits: np.ndarray, neighbours: tuple[np.ndarray, np.ndarray], weights: Weights) -> np.ndarray:
    """Returns the fused distributions over the categories, float64 [Q, C].

    Args:
      logits: [Q, C] of the network, or of a `linear_classifier.Classifier`.
      neighbours: from `Reference.neighbours`.
      weights: from `fit`.
    """
    chances = softmax(logits, weights.temperature)
    votes = vote(*(part[:, : weights.k] for part in neighbours), chances.shape[1], weights.scale)
    return (1 - weights.share) * chances + weights.share * votes


def fit(
    logits: np.ndarray,
    neighbours: tuple[np.ndarray, np.ndarray],
    categories: np.ndarray,
    *,
    ks: Sequence[int] = (30,),
    shares: Sequence[float] = SHARES,
) -> tuple[Weights, dict]:
    """Finds the weights under which the categories of listings that were not learned from are likeliest.

    Few numbers are fitted, none of them for a category: those that none of these listings has are no worse off.

    Args:
      logits: [n, C] of the listings.
      neighbours: theirs, from `Reference.neighbours`, at least max(ks) of each.
      categories: integers [n], -1 where unknown: those listings are left out.
      ks: numbers of neighbours to try.
      shares: of the vote to try; (0.0,) for the softmax alone, (1.0,) for the vote alone.

    Returns:
      The `Weights`, and {"listings", "set_aside", "log_likelihood" (mean), "accuracy"} on these listings.

    Raises:
      InputError: arrays that do not fit each other, no listing of known category, or more neighbours wanted than given.

    Source: temperature: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599; a mixture fitted by
    held-out likelihood, for which nearest neighbours are one part: Khandelwal et al., "Generalization through
    Memorization", arXiv 1911.00172.
    """
    logits = arguments.array(logits, "logits", WHERE, ("n", "C"))
    count, own = logits.shape[1], arguments.rows(categories, "categories", WHERE, (len(logits),), logits.shape[1], True)
    known = np.flatnonzero(own >= 0)
    if not len(known):
        raise InputError(
            f"{WHERE}: none of the {len(own):,} listings to fit the weights on has a known category: give some, such "
            "as those of val"
        )
    found, near = (arguments.array(part, "neighbours", WHERE, (len(logits), "k"))[known] for part in neighbours)
    widths = [arguments.integer(k, "ks", WHERE, high=found.shape[1]) for k in ks]
    shares = [arguments.number(share, "shares", WHERE, low=0, high=1) for share in shares]
    labels, rows, logits = own[known], np.arange(len(known)), logits[known]
    votes = {
        (k, scale): vote(found[:, :k], near[:, :k], count, scale)[rows, labels] for k in widths for scale in SCALES
    }

    def loss(chance: np.ndarray, share: float, voted: np.ndarray) -> float:
        return -float(np.log(np.maximum((1 - share) * chance + share * voted, 1e-300)).mean())

    def own_chance(log_temperature: float) -> np.ndarray:
        return softmax(logits, float(np.exp(log_temperature)))[rows, labels]

    # One line of temperatures for all shares and scales: softmax is what takes time.
    lines = np.linspace(np.log(0.1), np.log(10), 41)
    chances = [own_chance(line) for line in lines]
    tried = [
        (loss(chance, share, voted), number, share, key)
        for key, voted in votes.items()
        for share in shares
        for number, chance in enumerate(chances)
    ]
    _, number, share, (k, scale) = min(tried)
    step = lines[1] - lines[0]
    between = (lines[number] - step, lines[number] + step)
    finer = optimize.minimize_scalar(
        lambda line: loss(own_chance(line), share, votes[k, scale]), bounds=between, method="bounded"
    )
    best = Weights(float(np.exp(finer.x)), scale, share, k)
    guess = fused(logits, (found, near), best).argmax(1)
    return best, {
        "listings": len(known),
        "set_aside": len(own) - len(known),
        "log_likelihood": -finer.fun,
        "accuracy": float((guess == labels).mean()),
    }


def coarser(chances: np.ndarray, above: np.ndarray, count: int) -> np.ndarray:
    """Returns the distributions over a coarser level: the sums of the categories below each of its own, [Q, count].

    Args:
      chances: [Q, C].
      above: integers [C], the coarser category of each; -1 for none.
      count: number of categories of the coarser level.

    Raises:
      InputError: arrays that do not fit each other, or a coarser category that does not exist.
    """
    chances = arguments.array(chances, "chances", WHERE, ("Q", "C"))
    above = arguments.rows(above, "above", WHERE, (chances.shape[1],), count, padding=True)
    out = np.zeros((count + 1, len(chances)))
    np.add.at(out, above, chances.T)  # -1 is the last row
    return out[:count].T


def top(chances: np.ndarray, mass: float) -> np.ndarray:
    """Returns which categories are needed, likeliest first, until they have a share of the mass, bool [Q, C].

    Args:
      chances: [Q, C] distributions.
      mass: the share, above 0; the likeliest category is always among them.

    Raises:
      InputError: a share out of range.
    """
    mass = arguments.number(mass, "mass", WHERE, low=0, high=1)
    chances = arguments.array(chances, "chances", WHERE, ("Q", "C"))
    order = np.argsort(-chances, axis=1, kind="stable")
    ranked = np.take_along_axis(chances, order, 1)
    before = np.cumsum(ranked, axis=1) - ranked
    wanted = before < mass - 1e-12
    wanted[:, 0] = True
    wanted &= (ranked > 0) | (np.arange(chances.shape[1]) == 0)
    out = np.zeros(chances.shape, bool)
    np.put_along_axis(out, order, wanted, 1)
    return out


def conditions(
    chances: np.ndarray, names: Sequence[str], field: str, mass: float, known: Sequence[str] | None = None
) -> list[Mapping]:
    """Returns the conditions of each photo for `index.attribute`: listings of its likely categories come first.

    They are preferred, not required, so that a photo whose categories have fewer listings than wanted gets others
    after them; listings of unknown category count as if they had one of them.

    Args:
      chances: [Q, C] distributions.
      names: of the categories, C.
      field: that the gallery's listings have them in.
      mass: see `top`.
      known: names that the gallery has; others are left out. None for all.

    Returns:
      {"preferred": [clause]} per photo, {} where the gallery has none of its categories.
    """
    have = set(names if known is None else known)
    out = []
    for row in top(chances, mass):
        values = tuple(dict.fromkeys(names[number] for number in np.flatnonzero(row) if names[number] in have))
        out.append({"preferred": [{"field": field, "values": values, "unknown": True}]} if values else {})
    return out


def _read(vectors: np.ndarray | Embeddings, dim: int | None = None) -> np.ndarray:
    """Returns vectors in memory, float32 [n, D]."""
    found = vectors.vectors if isinstance(vectors, Embeddings) else vectors
    return np.asarray(arguments.vectors(found, "vectors", WHERE, dim)[:], np.float32)
