"""k-reciprocal re-ranking of each query within its top candidates, without a gallery x gallery matrix.

Two listings are k-reciprocal neighbours if each is among the other's k nearest; listings whose sets of such neighbours
overlap are close (Jaccard distance), even where a single distance misleads.

Everything that decides the order is summed in integers: coordinates are rounded to 2**-26 of the longest vector, so a
matrix product is exact in float64 in any summation order, and weights are rounded to 2**-30. Equal distances therefore
come out equal, ties go to the better candidate, and neither chunk size, BLAS nor thread count changes a result.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017), as used by the
eProduct runner-up (arXiv 2208.00955): within a query and its 100 candidates, k1 = 10, k2 = 6, lambda = 0.5.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses

import numpy as np
import tqdm

from retrieval_jax import arguments
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.workdir.provenance import cores

CHUNK_BYTES = 64 << 20  # gallery rows that a thread holds at once
BATCH_BYTES = 1 << 20  # distance matrix of the queries encoded together; should stay in the cache
MOST_NEIGHBOURS = 1 << 20  # k1 and k2: weights are integers in units of 2**-30 / k2
EXACT_BITS = 26  # per coordinate: products then have 52 bits, and their sum fits float64's 53


def _gram(query: np.ndarray, block: np.ndarray, slots: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns exact inner products [B, n, n] of each query and its candidates, integers up to 2**52 in float64.

    Args:
      query: [B, D].
      block: [rows, D], the gallery rows of the chunk.
      slots: [B, n - 1] rows of the block.
      lengths: [B], an upper bound on the lengths of each query and its candidates; sets the power of two by which
        the query's coordinates are scaled.
    """
    count, size = len(query), slots.shape[1] + 1
    points, wide = np.empty((size, query.shape[1]), np.float32), np.empty((size, query.shape[1]))
    out = np.empty((count, size, size))
    exponent = np.frexp(lengths)[1]
    for number in range(count):
        points[0] = query[number]
        np.take(block, slots[number], axis=0, out=points[1:], mode="clip")  # mode="raise" would make another copy
        np.multiply(points, 2.0 ** (EXACT_BITS - exponent[number]), out=wide, dtype=np.float64)
        np.rint(wide, out=wide)
        np.matmul(wide, wide.T, out=out[number])
    return out


def _bits(rows: np.ndarray) -> np.ndarray:
    """Packs [B, n, n] bool into [words, B * n] uint64: one set of points per point."""
    packed = np.packbits(rows.reshape(-1, rows.shape[2]), axis=1, bitorder="little")
    words = -(-rows.shape[2] // 64)
    out = np.zeros((len(packed), words * 8), np.uint8)
    out[:, : packed.shape[1]] = packed
    return np.ascontiguousarray(out.view("<u8").T)


def _rerank(gram: np.ndarray, valid: np.ndarray, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """Returns the new distances [B, K] float64 of queries to candidates; undefined at padding.

    Args:
      gram: [B, 1 + K, 1 + K] from `_gram`, query first; overwritten.
      valid: [B, 1 + K] bool, False at padding.
      k1: see `local_k_reciprocal`.
      k2: see `local_k_reciprocal`.
      lambda_value: see `local_k_reciprocal`.
    """
    count, size = valid.shape
    length = np.einsum("bii->bi", gram).copy()
    squared = np.multiply(gram, -2.0, out=gram)
    squared += length[:, :, None]
    squared += length[:, None, :]
    ragged = not valid.all()
    if ragged:
        squared[~(valid[:, :, None] & valid[:, None, :])] = 0.0

    # Neighbours: sorting the integer (distance, column) sorts by distance, ties to the better candidate.
    width = max(1, (size - 1).bit_length())
    key = squared.astype(np.int64)
    if 55 + width > 62:  # many candidates: drop the lowest bits of the distance to make room
        key >>= 55 + width - 62
    key <<= width
    key |= np.arange(size)
    if ragged:
        key |= np.where(valid, 0, 1 << 62)[:, None, :]
    ordered = np.sort(key, axis=2)
    if ragged:
        largest = squared.max(2, keepdims=True)
    else:
        largest = np.take_along_axis(squared, ordered[:, :, -1:] & ((1 << width) - 1), 2)
    half_k1 = int(np.around(k1 / 2))

    def reciprocal(k: int) -> np.ndarray:
        near = key <= ordered[:, :, min(k, size - 1), None]  # k neighbours and the point itself
        if ragged:
            near &= valid[:, None, :]
        return near & near.transpose(0, 2, 1)

    wide = reciprocal(k1)
    wide_bits, half_bits = _bits(wide), _bits(reciprocal(half_k1))
    near = min(max(k1 + 1, k2), size)
    column = ordered[:, :, :near] & ((1 << width) - 1)
    neighbour = column + (np.arange(count) * size)[:, None, None]
    neighbour = np.ascontiguousarray(neighbour.reshape(-1, near).T)  # [near, B * n], numbered across all queries

    # A neighbour's own k1/2-reciprocal set is merged in if more than 2/3 of it is already there.
    first = neighbour[: k1 + 1]
    mutual = np.take_along_axis(wide.reshape(-1, size), column.reshape(-1, near)[:, : k1 + 1], 1).T
    brought = half_bits[:, first]
    shared = np.bitwise_count(brought & wide_bits[:, None, :]).sum(0, dtype=np.int32)
    all_of_it = np.bitwise_count(half_bits).sum(0, dtype=np.int32)
    trusted = mutual & (3 * shared > 2 * all_of_it[first])
    brought *= trusted
    member_bits = wide_bits | np.bitwise_or.reduce(brought, axis=1)
    member_bytes = np.ascontiguousarray(member_bits.T).astype("<u8", copy=False).view(np.uint8)
    members = np.unpackbits(member_bytes, axis=1, count=size, bitorder="little").reshape(count, size, size)

    # The encoding: exp(-distance) over the members, normalised to sum to 1, in units of 2**-30 / k2.
    scale = np.divide(1.0, largest, out=np.zeros_like(largest), where=largest > 0)  # all points equal: distance 0
    weights = np.multiply(squared, -scale, dtype=np.float32, casting="same_kind")
    np.exp(weights, out=weights)
    weights *= members
    unit = (1 << 30) // k2
    total = weights.sum(2, keepdims=True)
    weights *= unit / np.maximum(total, np.float32(1e-30))
    encoding = np.rint(weights, out=weights).astype(np.int32).reshape(-1, size)

    # local query expansion: the sum over the k2 nearest, itself included
    averaged = np.minimum(valid.sum(1), k2)
    if ragged:
        encoding[~valid.reshape(-1)] = 0
    if k2 > 1:
        summed = encoding[neighbour[0]]
        for row in neighbour[1:k2]:
            summed += encoding[row]
        encoding = summed
    encoding = encoding.reshape(count, size, size)
    both = np.minimum(encoding[:, :1], encoding[:, 1:]).sum(2, dtype=np.int32)
    both = both / (averaged * float(unit))[:, None]
    # both rows sum to 1, so the union of their weights is 2 - intersection
    return (1.0 - lambda_value) * (1.0 - both / (2.0 - both)) + lambda_value * squared[:, 0, 1:] * scale[:, 0]


def check_arguments(query, gallery, candidates, k1: int, k2: int, lambda_value: float) -> tuple:
    """Checks the arguments of a re-ranking; returns vectors [Q, D], [G, D], candidates [Q, K], k1, k2, lambda.

    Args:
      query: [Q, D] array or Embeddings.
      gallery: [G, D] array or Embeddings, may be memory-mapped.
      candidates: [Q, K] rows of the gallery; -1 is padding.
      k1, k2, lambda_value: see `local_k_reciprocal`.

    Raises:
      InputError: shapes, rows or parameters out of range.
    """
    query, gallery = (side.vectors if isinstance(side, Embeddings) else side for side in (query, gallery))
    gallery = arguments.vectors(gallery, "gallery", "re-ranking")
    query = arguments.vectors(query, "query", "re-ranking", gallery.shape[1])
    candidates = arguments.rows(candidates, "candidates", "re-ranking", (len(query), "K"), len(gallery), padding=True)
    k1 = arguments.integer(k1, "k1", "re-ranking", high=MOST_NEIGHBOURS)
    k2 = arguments.integer(k2, "k2", "re-ranking", high=MOST_NEIGHBOURS)
    lambda_value = arguments.number(lambda_value, "lambda_value", "re-ranking", low=0, high=1)
    return query, gallery, candidates, k1, k2, lambda_value


def local_k_reciprocal(
    query: np.ndarray | Embeddings,
    gallery: np.ndarray | Embeddings,
    candidates: np.ndarray,
    *,
    k1: int = 10,
    k2: int = 6,
    lambda_value: float = 0.5,
    threads: int | None = None,
) -> np.ndarray:
    """Recomputes the distances of each query to its candidates from the neighbourhoods among query and candidates.

    Works on several chunks of queries at once, in memory that does not grow with the gallery; a gallery row is read
    once per chunk. The row-wise scaling makes the distance matrix asymmetric, as in the source. If there are fewer than
    k1 candidates, all of them are neighbours.

    Args:
      query: [Q, D], L2-normalised if the ranking is by cosine.
      gallery: [G, D], may be memory-mapped.
      candidates: [Q, K] rows of the gallery, best first; -1 is padding.
      k1: neighbours in the reciprocal sets.
      k2: neighbours over which encodings are averaged; 1 disables it.
      lambda_value: weight of the original (squared, scaled) distance; 1 - lambda_value goes to the Jaccard distance.
      threads: chunks processed in parallel, one per core by default; the result does not depend on it.

    Returns:
      [Q, K] float32, smaller is closer; inf at padding.

    Raises:
      InputError: shapes, rows or parameters out of range.
    """
    checked = check_arguments(query, gallery, candidates, k1, k2, lambda_value)
    query, gallery, candidates, k1, k2, lambda_value = checked
    count, width = candidates.shape
    out = np.full((count, width), np.inf, np.float32)
    if not candidates.size:
        return out
    threads = cores() if threads is None else arguments.integer(threads, "threads", "re-ranking", high=4096)
    chunk = max(1, CHUNK_BYTES // (4 * (width + 1) * query.shape[1]))
    batch = max(1, BATCH_BYTES // (8 * (width + 1) ** 2))

    def rerank(start: int) -> None:
        rows = candidates[start : start + chunk]
        asked = np.asarray(query[start : start + chunk], np.float32)
        there = np.unique(rows)
        there = there[there >= 0]
        if not len(there):
            return
        block = np.asarray(gallery[there], np.float32)
        slots = np.searchsorted(there, np.maximum(rows, there[0]))
        lengths = [np.sqrt(np.einsum("nd,nd->n", side, side)) for side in (asked, block)]
        arguments.finite(asked, "re-ranking: queries", None, start)
        arguments.finite(block, "re-ranking: gallery", None, there)
        if not all(np.isfinite(length).all() for length in lengths):
            raise InputError("re-ranking: a vector has values beyond 1e19, whose squares overflow: normalise them")
        longest = 1.001 * np.maximum(lengths[0], np.where(rows >= 0, lengths[1][slots], 0.0).max(1))
        valid = np.concatenate([np.ones((len(rows), 1), bool), rows >= 0], 1)
        for first in range(0, len(rows), batch):
            part = slice(first, first + batch)
            gram = _gram(asked[part], block, slots[part], longest[part])
            out[start : start + chunk][part] = _rerank(gram, valid[part], k1, k2, lambda_value)
        out[start : start + chunk][rows < 0] = np.inf

    # Multi-threaded BLAS is several times slower on matrices this small, and competes with our threads.
    with (
        exact.one_thread(True),
        concurrent.futures.ThreadPoolExecutor(threads) as pool,
        tqdm.tqdm(total=count, desc="re-rank", unit="query", mininterval=1, disable=count < 5000) as bar,
    ):
        for _ in pool.map(rerank, range(0, count, chunk)):
            bar.update(min(chunk, count - bar.n))
    return out


def check_depth(state: State, depth: int | None, name: str) -> int:
    """Checks that a step has a ranking to reorder and returns its depth, min(100, search.k) by default.

    Args:
      state: input of the step.
      depth: results that the step takes; None for the default.
      name: name of the step.

    Raises:
      InputError: several members, no ranking yet, or a ranking of fewer than `depth` candidates.
    """
    arguments.instance(state, State, "state", name)
    if len(state.members) != 1:
        raise InputError(
            f"{name} needs a single member, but there are {len(state.members)}: put ensemble before {name} in "
            "search.steps"
        )
    if state.ranking is None:
        raise InputError(
            f"{name} needs a ranking: add the stage before it to search.stages, or leave search.stages empty"
        )
    found = state.ranking.k
    depth = min(100, found) if depth is None else arguments.integer(depth, "depth", name)
    if found < min(depth, len(state.members[0][1])):
        raise InputError(
            f"{name}: depth={depth} needs that many candidates, but search.k is {found}: raise search.k or lower the "
            "step's depth"
        )
    return depth


def step(state: State, *, k1: int = 10, k2: int = 6, lambda_value: float = 0.5, depth: int | None = None) -> State:
    """Reorders the first `depth` results of the current ranking and drops the rest; scores become -distance.

    Args:
      state: one member and its ranking.
      k1: see `local_k_reciprocal`.
      k2: see `local_k_reciprocal`.
      lambda_value: see `local_k_reciprocal`.
      depth: candidates per query, at most search.k; min(100, search.k) by default.

    Raises:
      InputError: several members, no ranking yet, or a ranking of fewer than `depth` candidates.
    """
    depth = check_depth(state, depth, "reranking")
    queries, gallery = state.members[0]
    # The candidates were found by cosine, so the distances that reorder them must be between unit vectors too.
    queries, gallery = (side.map(normalize) for side in (queries, gallery))
    rows = state.ranking.item_rows[:, :depth]
    distance = local_k_reciprocal(queries, gallery, rows, k1=k1, k2=k2, lambda_value=lambda_value)
    order = np.argsort(distance, axis=1, kind="stable")  # ties keep their order, padding stays last
    ranking = dataclasses.replace(
        state.ranking, item_rows=np.take_along_axis(rows, order, 1), scores=-np.take_along_axis(distance, order, 1)
    )
    return dataclasses.replace(state, ranking=ranking)
