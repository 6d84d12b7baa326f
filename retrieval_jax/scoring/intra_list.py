"""Similarity of the results of a query to each other, by vectors that had no part in the search."""

from __future__ import annotations

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.ranking import Ranking

_NUMBERS = 1 << 24  # of vectors and thumbnails in memory at once


def similarity(
    ranking: Ranking, vectors, thumbnails: np.ndarray | None = None, *, max_difference: float = 0.05, depth: int = 10
) -> dict[str, np.ndarray]:
    """Measures the similarity of the results of each query by vectors that had no part in the search.

    Near-duplicates raise the mean: a list of copies of one picture is the most similar of all. With thumbnails the
    mean without such pairs, and their share, stand beside it.

    Args:
      ranking: [Q, k] results.
      vectors: [G, D], of the gallery by an outside model; an array or what `Embeddings.vectors` holds.
      thumbnails: uint8 [G, T] of the gallery's pictures (see `duplicates.thumbnails`), or None.
      max_difference: largest root mean square difference of near-duplicates' thumbnails, as a share of the contrast of
        the one with more.
      depth: results that count.

    Returns:
      {name: [Q] float64, NaN where no pair counts}: "similarity@K", the mean cosine over the pairs of the first K; with
      thumbnails "similarity_distinct@K", without the pairs of near-duplicates, and "near_duplicates@K", their share.

    Raises:
      InputError: vectors or thumbnails of another gallery, or a depth below 1.

    Source: average intra-list similarity, Ziegler et al., "Improving Recommendation Lists Through Topic
    Diversification", WWW 2005; of pictures found by picture and words, DeepStyle, arXiv 1801.03002.
    """
    depth = arguments.integer(depth, "depth", "intra_list")
    rows = ranking.item_rows[:, :depth]
    for what, side in (("vectors", vectors), ("thumbnails", thumbnails)):
        if side is not None and rows.size and rows.max() >= len(side):
            raise InputError(f"intra_list: {what} of {len(side):,} listings, and the ranking has row {rows.max():,}")
    count, width = rows.shape
    first, second = np.triu_indices(width, 1)
    found = [f"similarity@{depth}"]
    if thumbnails is not None:
        found += [f"similarity_distinct@{depth}", f"near_duplicates@{depth}"]
    out = {name: np.full(count, np.nan) for name in found}
    numbers = width * (vectors.shape[1] + (0 if thumbnails is None else thumbnails.shape[1]))
    step = max(1, _NUMBERS // max(1, numbers))
    for start in range(0, count, step):
        some = rows[start : start + step]
        block = slice(start, start + len(some))
        pair = (some[:, first] >= 0) & (some[:, second] >= 0)
        unit = np.asarray(vectors[np.maximum(some, 0)], np.float64)
        length = np.linalg.norm(unit, axis=2, keepdims=True)
        unit = np.divide(unit, length, out=np.zeros_like(unit), where=length > 0)
        cosine = (unit @ unit.transpose(0, 2, 1))[:, first, second]
        out[f"similarity@{depth}"][block] = _mean(cosine, pair)
        if thumbnails is not None:
            near = pair & _near(np.asarray(thumbnails[np.maximum(some, 0)]), first, second, max_difference)
            out[f"similarity_distinct@{depth}"][block] = _mean(cosine, pair & ~near)
            out[f"near_duplicates@{depth}"][block] = _mean(near, pair)
    return out


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns the means over some columns of each row, NaN for none."""
    return np.where(where, values, 0.0).sum(1) / np.where(where.any(1), where.sum(1), np.nan)


def _near(thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray, limit: float) -> np.ndarray:
    """Returns which pairs of each list are near-duplicates, bool [n, pairs]."""
    pictures = thumbnails.astype(np.float32)
    contrast, squares = pictures.std(2), np.einsum("nkd,nkd->nk", pictures, pictures)  # integers below 2^24: exact
    distance = squares[:, first] + squares[:, second] - 2 * (pictures @ pictures.transpose(0, 2, 1))[:, first, second]
    most = limit * np.maximum(contrast[:, first], contrast[:, second])
    return distance <= pictures.shape[2] * np.square(most)
