"""Diffusion re-ranking: spreads a query's similarity along the nearest-neighbour graph, following curved manifolds.

Source: Iscen et al., "Efficient Diffusion on Region Manifolds: Recovering Small Objects with Compact CNN
  Representations" (CVPR 2017): mutual neighbours, affinity cosine ** gamma, conjugate gradient, truncation to the first
  results.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import tqdm

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.database_augmentation import neighbours
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.postprocess.reranking import check_depth

BLOCK_BYTES = 64 << 20  # vectors read at once


def _affinity(left: np.ndarray, right, rows: np.ndarray, gamma: float) -> np.ndarray:
    """Returns max(cosine, 0) ** gamma [n, m] float64 of vectors [n, D] with rows [n, m] of `right`; 0 at padding."""
    there = np.unique(rows[rows >= 0])
    if not len(there):
        return np.zeros(rows.shape)
    block, own = normalize(right[there]), normalize(left)
    slots = np.searchsorted(there, np.maximum(rows, there[0]))
    cosine = np.stack([np.einsum("nd,nd->n", own, block[slot], dtype=np.float64) for slot in slots.T], 1)
    return np.where(rows >= 0, np.maximum(cosine, 0.0) ** gamma, 0.0)


def _blocks(count: int, dim: int, width: int):
    size = max(1, BLOCK_BYTES // (4 * dim * (width + 1)))
    return [slice(start, start + size) for start in range(0, count, size)]


def graph(
    gallery, k: int = 50, gamma: float = 3.0, index: str = "exact", index_kwargs: dict | None = None
) -> scipy.sparse.csr_array:
    """Returns the normalised affinities [G, G] float64, sparse and symmetric, at most k per row.

    Two listings are connected if each is among the other's k nearest; their affinity is divided by the square root of
    the product of the two row sums.

    Args:
      gallery: [G, D].
      k: neighbours per listing.
      gamma: exponent of the cosine.
      index: see `database_augmentation.neighbours`.
      index_kwargs: see `database_augmentation.neighbours`.
    """
    k = arguments.integer(k, "k", "diffusion")
    gamma = arguments.number(gamma, "gamma", "diffusion", low=0)
    gallery = arguments.vectors(gallery, "gallery", "diffusion")
    near = neighbours(gallery, k, index, index_kwargs)
    count = len(near)
    values = [_affinity(gallery[part], gallery, near[part], gamma) for part in _blocks(count, gallery.shape[1], k)]
    there = near >= 0
    indptr = np.concatenate([[0], np.cumsum(there.sum(1))])
    values = np.concatenate(values) if values else np.zeros(near.shape)
    lists = scipy.sparse.csr_array((values[there], near[there], indptr), (count, count))
    joined = lists.minimum(lists.T.tocsr()).tocsr()  # both directions carry the same cosine
    scale = joined.sum(1)
    scale = np.divide(1.0, np.sqrt(scale), out=np.zeros(count), where=scale > 0)
    row = np.repeat(np.arange(count), np.diff(joined.indptr))
    joined.data *= scale[row] * scale[joined.indices]
    return joined


def diffuse(
    query,
    gallery,
    candidates: np.ndarray,
    affinities: scipy.sparse.csr_array,
    *,
    neighbours_of_query: int = 10,
    alpha: float = 0.99,
    gamma: float = 3.0,
) -> np.ndarray:
    """Returns each query's diffusion scores over its candidates, (1 - alpha)(I - alpha S)^-1 y.

    Args:
      query: [Q, D].
      gallery: [G, D].
      candidates: [Q, K] rows of the gallery, best first; -1 is padding. The graph is truncated to them, so memory and
        time are bounded by K, not by G.
      affinities: S [G, G] from `graph`.
      neighbours_of_query: the source y: the first candidates, weighted by cosine ** gamma.
      alpha: share that flows on at each step, 0 <= alpha < 1.
      gamma: exponent of the cosine.

    Returns:
      [Q, K] float32, larger is closer; 0 for candidates that no flow reaches, -inf at padding.

    Raises:
      InputError: a parameter out of range.
    """
    alpha = arguments.number(alpha, "alpha", "diffusion", low=0, high=1, below=True)
    gamma = arguments.number(gamma, "gamma", "diffusion", low=0)
    neighbours_of_query = arguments.integer(neighbours_of_query, "neighbours_of_query", "diffusion")
    gallery = arguments.vectors(gallery, "gallery", "diffusion")
    query = arguments.vectors(query, "query", "diffusion", gallery.shape[1])
    candidates = arguments.rows(candidates, "candidates", "diffusion", (len(query), "K"), len(gallery), padding=True)
    if arguments.shape_of(affinities, "affinities", "diffusion", (len(gallery), len(gallery))) and not hasattr(
        affinities, "tocsr"
    ):
        raise InputError("diffusion: affinities must be sparse, as from diffusion.graph")
    affinities = affinities.tocsr()
    if not np.isfinite(affinities.data).all():
        raise InputError("diffusion: affinities are non-finite: make them with diffusion.graph")
    out = np.full(candidates.shape, -np.inf, np.float32)
    first = candidates[:, :neighbours_of_query]
    parts = _blocks(len(candidates), gallery.shape[1], first.shape[1])
    inflow = [_affinity(np.asarray(query[part]), gallery, first[part], gamma) for part in parts]
    inflow = np.concatenate(inflow) if inflow else np.zeros(first.shape)
    quiet = len(candidates) < 2000
    for number in tqdm.tqdm(range(len(candidates)), "diffusion", unit="query", mininterval=1, disable=quiet):
        rows = candidates[number][candidates[number] >= 0]
        if not len(rows):
            continue
        system = scipy.sparse.eye_array(len(rows), format="csr") - alpha * affinities[rows][:, rows]
        source = np.zeros(len(rows))
        source[: first.shape[1]] = inflow[number, : len(rows)]
        # positive definite with eigenvalues in [1 - alpha, 1 + alpha], so it converges
        flow, failed = scipy.sparse.linalg.cg(system, source, rtol=1e-8, maxiter=1000)
        if failed:
            raise InputError(
                f"diffusion: query {number} did not converge in 1,000 steps: lower alpha={alpha}, such as 0.99"
            )
        out[number, : len(rows)] = (1 - alpha) * np.maximum(flow, 0.0)
    return out


def step(
    state: State,
    *,
    depth: int | None = None,
    k: int = 50,
    neighbours_of_query: int = 10,
    alpha: float = 0.99,
    gamma: float = 3.0,
    index: str = "exact",
    index_kwargs: dict | None = None,
) -> State:
    """Reorders the first `depth` results by diffusion among them and drops the rest; scores become diffusion scores.

    Args:
      state: one member and its ranking.
      depth: candidates per query, at most search.k; min(100, search.k) by default.
      k: see `graph`.
      neighbours_of_query: see `diffuse`.
      alpha: see `diffuse`.
      gamma: see `graph`.
      index: see `graph`.
      index_kwargs: see `graph`.

    Raises:
      InputError: several members, no ranking yet, or a ranking of fewer than `depth` candidates.
    """
    depth = check_depth(state, depth, "diffusion")
    queries, gallery = (side.vectors for side in state.members[0])
    rows = state.ranking.item_rows[:, :depth]
    scores = diffuse(queries, gallery, rows, graph(gallery, k, gamma, index, index_kwargs),
                     neighbours_of_query=neighbours_of_query, alpha=alpha, gamma=gamma)  # fmt: skip
    order = np.argsort(-scores, axis=1, kind="stable")  # candidates that no flow reaches keep their order
    ranking = dataclasses.replace(
        state.ranking, item_rows=np.take_along_axis(rows, order, 1), scores=np.take_along_axis(scores, order, 1)
    )
    return dataclasses.replace(state, ranking=ranking)
