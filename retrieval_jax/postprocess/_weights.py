"""Chooses the weights of an ensemble's members without knowing which listings show the same product.

The evidence is mutual agreement: the share of queries whose best listing has that query as its own best one. A true
match is the closest in both directions; a listing that is close to everything (a hub) is not. Weights with more mutual
matches ranked better in every pair of members measured (docs/results.md).

Source: reciprocal neighbours as in Qin et al., "Hello neighbor: accurate object retrieval with k-reciprocal nearest
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

    Members join one after the other, each with the weight that has most mutual matches, smoothed over three weights
    (the share is a count, and neighbouring weights rank nearly alike). Among equal ones the one nearest to an equal
    share for everyone is taken. Deterministic; takes seconds, whatever the size of the gallery.

    Args:
      members: (queries, gallery) of each; rows in the same order for all members.
      names: of the members.

    Returns:
      The weights, and a record of what was tried: [{"member", "weights", "mutual", "smoothed", "chosen"}].
    """
    sides = [tuple(map(_sample, both, (MOST_QUERIES, MOST_GALLERY))) for both in members]
    weights, tried = [1.0], []
    for number in range(1, len(sides)):
        shares = _mutual(sides[: number + 1], weights)
        smoothed = np.convolve(np.pad(shares, 1, mode="edge"), np.ones(3) / 3, mode="valid")
        best = np.flatnonzero(smoothed >= smoothed.max() - 1e-9)
        chosen = GRID[best[np.abs(np.array(GRID)[best] - 1 / (number + 1)).argmin()]]
        weights = [*(weight * (1 - chosen) for weight in weights), chosen]
        tried.append(
            {
                "member": names[number],
                "weights": list(GRID),
                "mutual": [round(float(share), 4) for share in shares],
                "smoothed": [round(float(share), 4) for share in smoothed],
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


def _sample(side: Embeddings, most: int) -> np.ndarray:
    rows = spread(len(side), most)
    return normalize(np.asarray(side.vectors[rows], np.float32))


def _mutual(sides: Sequence[tuple[np.ndarray, np.ndarray]], weights: Sequence[float]) -> np.ndarray:
    """Returns the share of mutual matches for every weight of the last member in `GRID`, [weights]."""
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
    return (np.take_along_axis(owner, found, 1) == np.arange(count)).mean(1)
