"""Alpha query expansion: a query becomes the weighted mean of itself and its first results, and is searched again.

Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI 2018), section 5.2: weights
  cosine ** alpha; alpha = 0 is average query expansion (Chum et al., ICCV 2007).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.postprocess.reranking import check_depth

CHUNK_BYTES = 64 << 20  # of the vectors that one chunk reads


def expand(vectors: np.ndarray, gallery, rows: np.ndarray, alpha: float) -> np.ndarray:
    """Adds their neighbours to vectors: normalised(v + sum of cosine(v, x) ** alpha * x), all of length 1.

    Args:
      vectors: [n, D], read by slices.
      gallery: [G, D], read by arrays of rows, each distinct one once a chunk.
      rows: [n, m] gallery rows of each vector's neighbours; -1 is padding.
      alpha: 0 or more; the larger, the less a distant neighbour counts. A negative cosine counts as 0.

    Returns:
      [n, D] float32.

    Raises:
      InputError: a negative alpha.
    """
    if alpha < 0:
        raise InputError(f"expansion with alpha={alpha}: near neighbours count more with 0 or more, for instance 3")
    out = np.empty((len(vectors), vectors.shape[1]), np.float32)
    chunk = max(1, CHUNK_BYTES // (4 * vectors.shape[1] * (rows.shape[1] + 1)))
    for start in range(0, len(out), chunk):
        near = rows[start : start + chunk]
        own = normalize(np.asarray(vectors[start : start + chunk])).astype(np.float64)
        total = own.copy()
        there = np.unique(near[near >= 0])
        block = normalize(gallery[there]) if len(there) else np.zeros((1, own.shape[1]), np.float32)
        slots = np.searchsorted(there, np.maximum(near, there[0] if len(there) else 0))
        for slot, valid in zip(slots.T, (near >= 0).T, strict=True):
            neighbour = block[slot].astype(np.float64)
            cosine = np.maximum(np.einsum("nd,nd->n", own, neighbour), 0.0)
            total += np.where(valid, cosine**alpha, 0.0)[:, None] * neighbour
        out[start : start + chunk] = normalize(total)
    return out


def step(state: State, *, depth: int = 10, alpha: float = 3.0) -> State:
    """Replaces each query by the weighted mean of itself and its first `depth` results.

    It helps where most of the first results are right, and drifts away where they are not: evaluate says which.

    Args:
      state: one member and its ranking.
      depth: results that join a query, at most search.k.
      alpha: see `expand`.

    Returns:
      The state with new queries and no ranking.

    Raises:
      InputError: several members, no ranking yet, or one of fewer than `depth` results.
    """
    depth = check_depth(state, depth, "query_expansion")
    queries, gallery = state.members[0]
    new = expand(queries.vectors, gallery.vectors, state.ranking.item_rows[:, :depth], alpha)
    members = [(Embeddings(queries.ids, new, queries.meta), gallery)]
    return dataclasses.replace(state, members=members, ranking=None)
