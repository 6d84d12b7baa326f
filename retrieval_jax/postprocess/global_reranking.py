"""k-reciprocal re-ranking over the graph of all queries and the whole gallery: k neighbours per point, nothing dense.

`reranking` looks at a query's top candidates only; here every query and every listing finds its neighbours among all
of them, which gives better neighbourhoods and results that the first search missed. The price is a search of everything
against everything: (queries + gallery) squared. Memory is O((Q + G) k): neighbour lists, then sparse rows.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses

import numpy as np
import scipy.sparse
import tqdm

from retrieval_jax import index as index_room
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.vectors import Computed, Shards
from retrieval_jax.index import exact
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.postprocess.reranking import check_arguments, check_depth
from retrieval_jax.workdir.provenance import cores

BLOCK = 4096  # points encoded per task


def _distances(points, first: int, rows: scipy.sparse.csr_array) -> np.ndarray:
    """Returns the squared distances [nnz] float32 of points first, first + 1, ... to the columns of their rows."""
    own = normalize(points[first : first + rows.shape[0]])
    there, slot = np.unique(rows.indices, return_inverse=True)
    block = normalize(points[there])
    out = np.empty(len(slot), np.float32)
    for number in range(len(own)):
        part = slice(rows.indptr[number], rows.indptr[number + 1])
        out[part] = np.einsum("nd,d->n", block[slot[part]], own[number])  # einsum: a pair's sum is position-independent
    return np.maximum(2.0 - 2.0 * out, 0.0)


def _lists(rows: np.ndarray, count: int) -> scipy.sparse.csr_array:
    """Returns a sparse [n, count] float32 with ones at each point's neighbours; -1 is padding."""
    there = rows >= 0
    indptr = np.concatenate([[0], np.cumsum(there.sum(1))])
    ones = np.ones(indptr[-1], np.float32)
    small = np.int32 if max(indptr[-1], count) < 2**31 else np.int64
    return scipy.sparse.csr_array((ones, rows[there].astype(small), indptr.astype(small)), (len(rows), count))


def _encode(points, near: np.ndarray, largest: np.ndarray, k1: int, k2: int) -> scipy.sparse.csr_array:
    """Returns the sparse k-reciprocal encodings [n, n] float32: each row holds neighbour weights that sum to 1.

    Args:
      points: [n, D].
      near: [n, max(k1 + 1, k2)] neighbours, nearest first, including the point itself.
      largest: [n] each point's largest squared distance.
      k1: see `global_k_reciprocal`.
      k2: see `global_k_reciprocal`.
    """
    count = len(points)

    def reciprocal(k: int) -> scipy.sparse.csr_array:
        lists = _lists(near[:, : k + 1], count)
        return lists.multiply(lists.T.tocsr()).tocsr()

    wide, half = reciprocal(k1), reciprocal(int(np.around(k1 / 2)))
    half_size = half.sum(1)

    def block(start: int) -> scipy.sparse.csr_array:
        mine = wide[start : start + BLOCK]
        # A neighbour's own k1/2-reciprocal set is merged in if more than 2/3 of it is already there. `half` is
        # symmetric, so it needs no transpose.
        trusted = (mine @ half).multiply(mine).tocsr()
        trusted.data = (3.0 * trusted.data > 2.0 * half_size[trusted.indices]).astype(np.float32)
        members = (mine + trusted @ half).tocsr()
        members.eliminate_zeros()
        members.sort_indices()
        row = np.repeat(np.arange(members.shape[0]), np.diff(members.indptr))
        scale = largest[start : start + BLOCK][row]
        squared = _distances(points, start, members)
        weights = np.exp(-np.divide(squared, scale, out=np.zeros(len(scale)), where=scale > 0))
        total = np.bincount(row, weights, minlength=members.shape[0])
        members.data = (weights / total[row]).astype(np.float32)
        return members

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        starts = range(0, count, BLOCK)
        done = pool.map(block, starts)
        blocks = list(tqdm.tqdm(done, "re-rank: encode", len(starts), mininterval=1, disable=count < 50_000))
    encoding = scipy.sparse.vstack(blocks, format="csr")
    if k2 > 1:  # local query expansion: the mean over the k2 nearest, itself included
        mean = _lists(near[:, :k2], count)
        size = np.diff(mean.indptr)
        mean.data = (1.0 / np.repeat(size, size)).astype(np.float32)
        encoding = mean @ encoding
        encoding.sort_indices()
    return encoding


def _overlap(encoding: scipy.sparse.csr_array, query: int, columns: scipy.sparse.csc_array):
    """Returns the gallery rows that share a neighbour with a query, ascending, and the sums of minimum weights."""
    part = slice(encoding.indptr[query], encoding.indptr[query + 1])
    start = columns.indptr[encoding.indices[part]]
    many = columns.indptr[encoding.indices[part] + 1] - start
    place = np.arange(many.sum()) + np.repeat(start - np.cumsum(many) + many, many)
    smaller = np.minimum(columns.data[place], np.repeat(encoding.data[part], many))
    rows, slot = np.unique(columns.indices[place], return_inverse=True)
    return rows, np.bincount(slot, smaller, minlength=len(rows))


def global_k_reciprocal(
    query: np.ndarray | Embeddings,
    gallery: np.ndarray | Embeddings,
    candidates: np.ndarray,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    index: str = "exact",
    index_kwargs: dict | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the gallery rows of smallest k-reciprocal distance to every query, over the whole gallery.

    A listing that shares no neighbour with the query has Jaccard distance 1, so among those the order by cosine stands:
    the candidates plus all listings that share a neighbour contain the K best of the whole gallery.

    Args:
      query: [Q, D]; need not be normalised.
      gallery: [G, D], may be memory-mapped.
      candidates: [Q, K] gallery rows of highest cosine, best first; -1 is padding.
      k1: neighbours in the reciprocal sets.
      k2: neighbours over which encodings are averaged; 1 disables it.
      lambda_value: weight of the squared distance, relative to the query's largest; the rest goes to the Jaccard
        distance.
      index: kind of index that builds the neighbour lists; the exact one costs (Q + G)^2 D twice, as each point's
        farthest point is searched for too.
      index_kwargs: its arguments.

    Returns:
      Gallery rows [Q, K] int64, best first, and distances [Q, K] float32; -1 and inf where there are fewer. Ties go by
      the gallery's ids, or by row if it is an array.

    Raises:
      InputError: shapes, rows or parameters out of range.
    """
    ids = [side.ids if isinstance(side, Embeddings) else None for side in (query, gallery)]
    checked = check_arguments(query, gallery, candidates, k1, k2, lambda_value)
    query, gallery, candidates, k1, k2, lambda_value = checked
    parts = exact.Index(gallery, ids[1])  # only for its places and own_rows
    own = parts.own_rows(ids[0])  # a query's own listing is never a result

    points = Shards([query, gallery], query.shape[1])
    count, width = candidates.shape
    engine = index_room.make(index, points, index_kwargs, "global_reranking")
    near, _ = index_room.nearest_rows(engine, points, min(max(k1 + 1, k2), len(points)))
    opposite = Computed(lambda key: -points[key], points.shape)
    largest = 2.0 + 2.0 * index_room.nearest_rows(engine, opposite, 1)[1][:, 0].astype(np.float64)
    rows_out, out = np.full((count, width), -1, np.int64), np.full((count, width), np.inf, np.float32)
    with exact.one_thread(True):
        encoding = _encode(points, near, largest, k1, k2)
        columns = encoding[count:].tocsc()

        def block(start: int) -> None:
            found = []
            for number in range(start, min(start + 64, count)):
                rows, shared = _overlap(encoding, number, columns)
                mine = candidates[number][candidates[number] >= 0]
                every = np.setdiff1d(np.union1d(rows, mine), own[own[:, 0] == number, 1])
                both = np.zeros(len(every))
                kept = np.isin(rows, every)
                both[np.searchsorted(every, rows[kept])] = shared[kept]
                found.append((every, both))
            lists = scipy.sparse.csr_array(
                (
                    np.concatenate([both for _, both in found]),
                    np.concatenate([every for every, _ in found]) + count,
                    np.cumsum([0] + [len(every) for every, _ in found]),
                ),
                (len(found), len(points)),
            )
            squared = _distances(points, start, lists)
            for number, (every, both) in enumerate(found, start):
                part = slice(lists.indptr[number - start], lists.indptr[number - start + 1])
                scaled = squared[part] / largest[number] if largest[number] > 0 else np.zeros(len(every))
                final = ((1 - lambda_value) * (1 - both / (2 - both)) + lambda_value * scaled).astype(np.float32)
                best = np.lexsort((parts.place[every], final))[:width]
                rows_out[number, : len(best)], out[number, : len(best)] = every[best], final[best]

        with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
            starts = range(0, count, 64)
            list(tqdm.tqdm(pool.map(block, starts), "re-rank", len(starts), mininterval=1, disable=count < 5000))
    return rows_out, out


def step(
    state: State,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    depth: int | None = None,
    index: str = "exact",
    index_kwargs: dict | None = None,
) -> State:
    """Re-ranks by neighbourhoods among all queries and the whole gallery; scores become -distance.

    Args:
      state: one member and its ranking.
      k1: see `global_k_reciprocal`.
      k2: see `global_k_reciprocal`.
      lambda_value: see `global_k_reciprocal`.
      depth: results per query, at most search.k; min(100, search.k) by default.
      index: see `global_k_reciprocal`.
      index_kwargs: see `global_k_reciprocal`.

    Raises:
      InputError: several members, no ranking yet, or a ranking of fewer than `depth` results.
    """
    depth = check_depth(state, depth, "global_reranking")
    (queries, gallery), ranking = state.members[0], state.ranking
    rows, distance = global_k_reciprocal(
        queries,
        gallery,
        ranking.item_rows[:, :depth],
        k1=k1,
        k2=k2,
        lambda_value=lambda_value,
        index=index,
        index_kwargs=index_kwargs,
    )
    return dataclasses.replace(state, ranking=dataclasses.replace(ranking, item_rows=rows, scores=-distance))
