"""Chooses the weights of an ensemble's members without knowing which listings show the same product.

The evidence is mutual agreement: the share of queries whose best listing has that query as its own best one. A true
match is the closest in both directions; a listing that is close to everything (a hub) is not. It is a count, and flat
where two strong members meet: so not the weight with most of it is taken, but the middle of all that are as good within
one standard error. docs/choosing_steps.md has what was measured.

Sources: the rule of one standard error, Breiman et al., "Classification and Regression Trees" (1984); reciprocal
neighbours as in Qin et al., "Hello neighbor: accurate object retrieval with k-reciprocal nearest
neighbors", CVPR 2011; here they judge a metric instead of re-ranking a list.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.postprocess.l2 import normalize

GRID = tuple(step / 20 for step in range(21))  # weights tried for the member that joins those before it
MOST_QUERIES, MOST_GALLERY = 2_000, 20_000  # evenly spaced rows that are compared
BLOCK = 256  # queries at once


def choose(members: Sequence[tuple[Embeddings, Embeddings]], names: Sequence[str]) -> tuple[list[float], list[dict]]:
    """Chooses one weight per member; they sum to 1.

    Members join one after the other. The shares are smoothed over three weights, and each member gets the middle of the
    weights around the best one that have no fewer mutual matches beyond one standard error. Deterministic; takes
    seconds, whatever the size of the gallery.

    Args:
      members: (queries, gallery) of each; rows in the same order for all members.
      names: of the members.

    Returns:
      The weights, and a record of what was tried: [{"member", "weights", "mutual", "smoothed", "equal", "chosen"}];
      "equal" are the first and the last weight of those that are as good as the best.
    """
    sides = [tuple(map(_sample, both, (MOST_QUERIES, MOST_GALLERY))) for both in members]
    weights, tried = [1.0], []
    for number in range(1, len(sides)):
        mutual = _mutual(sides[: number + 1], weights)
        smoothed = _smoothed(mutual)
        first, last = _as_good(smoothed)
        chosen = round((GRID[first] + GRID[last]) / 2, 4)
        weights = [*(weight * (1 - chosen) for weight in weights), chosen]
        tried.append(
            {
                "member": names[number],
                "weights": list(GRID),
                "mutual": [round(float(share), 4) for share in mutual.mean(1)],
                "smoothed": [round(float(share), 4) for share in smoothed.mean(1)],
                "equal": [GRID[first], GRID[last]],
                "chosen": chosen,
            }
        )
    return [round(weight, 6) for weight in weights], tried


def sentence(names: Sequence[str], weights: Sequence[float], tried: Sequence[dict]) -> str:
    """Returns what was chosen and why, for the terminal.

    Args:
      names, weights: of the members.
      tried: from `choose`.
    """
    shares = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=True))
    reasons = [
        f"with {one['member']} {100 * max(one['smoothed']):.1f} % of best matches are mutual, without it "
        f"{100 * one['mutual'][0]:.1f} %, alone {100 * one['mutual'][-1]:.1f} %"
        for one in tried
    ]
    return "; ".join([f"weights {shares}, chosen without labels", *reasons])


def _smoothed(mutual: np.ndarray) -> np.ndarray:
    """Returns [weights, Q] means over three neighbouring weights, which rank nearly alike."""
    padded = np.pad(mutual.astype(np.float64), ((1, 1), (0, 0)), mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _as_good(smoothed: np.ndarray) -> tuple[int, int]:
    """Returns the first and the last weight around the best one that lose less to it than one standard error."""
    best = int(smoothed.mean(1).argmax())
    lost = smoothed[best] - smoothed
    worse = lost.mean(1) > lost.std(1) / np.sqrt(lost.shape[1]) + 1e-9
    below, above = np.flatnonzero(worse[:best]), np.flatnonzero(worse[best:])
    return int(below[-1]) + 1 if len(below) else 0, best + int(above[0]) - 1 if len(above) else len(worse) - 1


def _sample(side: Embeddings, most: int) -> np.ndarray:
    rows = spread(len(side), most)
    return normalize(np.asarray(side.vectors[rows], np.float32))


def _mutual(sides: Sequence[tuple[np.ndarray, np.ndarray]], weights: Sequence[float]) -> np.ndarray:
    """Returns whether each query's best match is mutual, by the weight of the last member in `GRID`, [weights, Q]."""
    count, size = len(sides[0][0]), len(sides[0][1])
    found = np.empty((len(GRID), count), np.int64)  # the best listing of each query
    best = np.full((len(GRID), size), -np.inf, np.float32)  # each listing's best score so far, and whose it is
    owner = np.zeros((len(GRID), size), np.int64)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        before = sum(
            np.float32(weight) * (queries[start:stop] @ gallery.T)
            for weight, (queries, gallery) in zip(weights, sides[:-1], strict=True)
        )
        last = sides[-1][0][start:stop] @ sides[-1][1].T
        for number, weight in enumerate(GRID):
            scores = np.float32(1 - weight) * before + np.float32(weight) * last
            found[number, start:stop] = scores.argmax(1)
            row = scores.argmax(0)
            top = scores[row, np.arange(size)]
            better = top > best[number]
            best[number][better], owner[number][better] = top[better], row[better] + start
    return np.take_along_axis(owner, found, 1) == np.arange(count)
