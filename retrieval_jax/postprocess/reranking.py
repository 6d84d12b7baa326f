"""k-reciprocal re-ranking of each query inside its first candidates: no gallery x gallery matrix.

Two listings are k-reciprocal neighbours when each is among the other's k nearest; listings whose sets of such
neighbours overlap are close (Jaccard distance), even where a single distance misleads.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017), in the form of the
eProduct runner-up (arXiv 2208.00955): the set of a query is itself and its 100 candidates, k1 = 10, k2 = 6,
lambda = 0.5.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tqdm

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize

MAX_BYTES = 96 << 20  # of the vectors and square matrices of one chunk of queries


def _distances(points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Returns squared distances [B, n, n] float64, each row over its own maximum; inf where a point is padding."""
    length = np.einsum("bnd,bnd->bn", points, points)
    squared = length[:, :, None] + length[:, None, :] - 2.0 * (points @ points.transpose(0, 2, 1))
    np.maximum(squared, 0.0, out=squared)
    diagonal = np.arange(squared.shape[1])
    squared[:, diagonal, diagonal] = 0.0
    pair = valid[:, :, None] & valid[:, None, :]
    largest = np.where(pair, squared, 0.0).max(2, keepdims=True)
    scaled = np.divide(squared, largest, out=np.zeros_like(squared), where=largest > 0)  # all equal: distance 0
    return np.where(pair, scaled, np.inf)


def _encode(distance: np.ndarray, valid: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """Returns the k-reciprocal encoding [B, n, n] float32: row i holds the weights of its neighbours, summing to 1."""
    order = np.argsort(distance, axis=2, kind="stable")  # equal distances: the better candidate first; padding last
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(distance.shape[1])[None, None, :], 2)
    pair = valid[:, :, None] & valid[:, None, :]

    def reciprocal(k: int) -> np.ndarray:
        near = (place <= k) & pair  # k neighbours and the point itself
        return (near & near.transpose(0, 2, 1)).astype(np.float32)

    # A neighbour brings its own (half as many) neighbours in when more than 2/3 of them are already there.
    wide, half = reciprocal(k1), reciprocal(int(np.around(k1 / 2)))
    # shared[b, i, c]: how many of c's neighbours are i's; whole numbers, exact in float32
    shared = wide @ half.transpose(0, 2, 1)
    trusted = (wide > 0) & (3.0 * shared > 2.0 * half.sum(2)[:, None, :])
    members = (wide > 0) | (trusted.astype(np.float32) @ half > 0)
    weights = np.where(members, np.exp(-distance), 0.0)
    total = weights.sum(2, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0).astype(np.float32)
    if k2 <= 1:
        return weights
    # local query expansion: the mean over the k2 nearest, itself included
    nearest = ((place < k2) & pair).astype(np.float32)
    return (nearest @ weights) / np.maximum(nearest.sum(2, keepdims=True), 1.0)


def local_k_reciprocal(
    query: np.ndarray | Embeddings,
    gallery: np.ndarray | Embeddings,
    candidates: np.ndarray,
    *,
    k1: int = 10,
    k2: int = 6,
    lambda_value: float = 0.5,
) -> np.ndarray:
    """Distances of each query to its candidates, re-computed from the neighbourhoods among query and candidates.

    Works on chunks of queries at once; a chunk's memory is bounded whatever the gallery's size. The row-wise scaling
    makes the distance matrix asymmetric, as in the source. With fewer candidates than k1, all of them are neighbours.

    Args:
      query: [Q, D], L2-normalised where the ranking is by cosine.
      gallery: [G, D], may be memory-mapped.
      candidates: [Q, K] rows of the gallery, best first; -1 is padding.
      k1: neighbours of the reciprocal sets.
      k2: neighbours over which encodings are averaged; 1 for none.
      lambda_value: weight of the original (squared, scaled) distance; 1 - lambda_value goes to the Jaccard distance.

    Returns:
      [Q, K] float32, smaller is closer; inf at padding.

    Raises:
      InputError: shapes, rows or parameters out of range.
    """
    candidates = np.asarray(candidates, np.int64)
    query, gallery = (side.vectors if isinstance(side, Embeddings) else np.asarray(side) for side in (query, gallery))
    if candidates.ndim != 2 or len(candidates) != len(query) or query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"re-ranking needs queries [Q, D], gallery [G, D] and candidates [Q, K], got {tuple(query.shape)}, "
            f"{tuple(gallery.shape)} and {candidates.shape}"
        )
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise InputError(
            f"re-ranking with k1={k1}, k2={k2}, lambda_value={lambda_value}: k1 and k2 are at least 1, "
            "lambda_value 0 to 1"
        )
    if candidates.size and (candidates.max() >= len(gallery) or candidates.min() < -1):
        raise InputError(
            f"candidates name gallery rows {candidates.min()} to {candidates.max()}, but the gallery has "
            f"{len(gallery)} "
            "rows (and -1 for padding)"
        )
    count, width = candidates.shape
    out = np.full((count, width), np.inf, np.float32)
    if not candidates.size:
        return out
    points_each = width + 1
    chunk = max(1, MAX_BYTES // (8 * points_each * (query.shape[1] + 12 * points_each)))
    for start in tqdm.tqdm(
        range(0, count, chunk), desc="re-rank", unit="chunk", mininterval=1, disable=count <= 20 * chunk
    ):
        rows = candidates[start : start + chunk]
        valid = np.concatenate([np.ones((len(rows), 1), bool), rows >= 0], 1)
        points = np.concatenate(
            [np.asarray(query[start : start + chunk], np.float64)[:, None], gallery[np.maximum(rows, 0)]], 1
        )
        distance = _distances(points, valid)
        encoding = _encode(distance, valid, k1, k2)
        # both rows sum to 1, so the union of their weights is 2 minus the intersection
        shared = np.minimum(encoding[:, :1], encoding[:, 1:]).sum(2, dtype=np.float64)
        final = (1.0 - lambda_value) * (1.0 - shared / (2.0 - shared)) + lambda_value * distance[:, 0, 1:]
        out[start : start + chunk] = np.where(rows >= 0, final, np.inf)
    return out


def step(state: State, *, k1: int = 10, k2: int = 6, lambda_value: float = 0.5,
         depth: int | None = None) -> State:
    """Reorders the first `depth` results of the current ranking and cuts off the rest; scores become -distance.

    Args:
      state: one member and its ranking.
      k1: see `local_k_reciprocal`.
      k2: see `local_k_reciprocal`.
      lambda_value: see `local_k_reciprocal`.
      depth: candidates a query, at most search.k; by default 100, or search.k where that is less.

    Raises:
      InputError: several members, no ranking yet, or one of fewer than `depth` candidates.
    """
    if state.ranking is None or len(state.members) != 1:
        raise InputError(
            f"re-ranking needs the ranking of one member, there are {len(state.members)}: put ensemble before "
            "reranking in search.steps"
        )
    if depth is None:
        depth = min(100, state.ranking.k)
    if depth < 1:
        raise InputError(f"re-ranking to depth={depth}: give the number of candidates to reorder, for instance 100")
    queries, gallery = state.members[0]
    found = state.ranking.k
    if found < min(depth, len(gallery)):
        raise InputError(
            f"re-ranking to depth={depth} needs as many candidates, and search.k is {found}: raise search.k or lower "
            "the step's depth"
        )
    # The candidates were found by cosine: the distances that reorder them must be between unit vectors too.
    queries, gallery = (side.map(normalize) for side in (queries, gallery))
    rows = state.ranking.item_rows[:, :depth]
    distance = local_k_reciprocal(queries, gallery, rows, k1=k1, k2=k2, lambda_value=lambda_value)
    order = np.argsort(distance, axis=1, kind="stable")  # equal distances keep their order, padding stays behind
    ranking = dataclasses.replace(
        state.ranking, item_rows=np.take_along_axis(rows, order, 1), scores=-np.take_along_axis(distance, order, 1)
    )
    return dataclasses.replace(state, ranking=ranking)
