"""Alpha query expansion: replaces a query with the weighted mean of itself and its top results, then searches again.

Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI 2018), section 5.2: weights
  cosine ** alpha; alpha = 0 is average query expansion (Chum et al., ICCV 2007).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.postprocess.reranking import check_depth

CHUNK_BYTES = 64 << 20  # vectors read per chunk


def expand(vectors: np.ndarray, gallery, rows: np.ndarray, alpha: float) -> np.ndarray:
    """Adds its neighbours to each vector: normalised(v + sum of cosine(v, x) ** alpha * x), all of length 1.

    Args:
      vectors: [n, D], read in slices.
      gallery: [G, D], indexed with arrays of rows, each distinct row once per chunk.
      rows: [n, m] gallery rows of each vector's neighbours; -1 is padding.
      alpha: 0 or more; the larger it is, the less distant neighbours count. Negative cosines count as 0.

    Returns:
      [n, D] float32.

    Raises:
      InputError: a negative alpha, shapes that do not fit, rows that do not exist, or a non-finite vector.
    """
    alpha = arguments.number(
        alpha, "alpha", "expansion", low=0
    )  # below 0, distant neighbours would get the most weight
    gallery = arguments.vectors(gallery, "gallery", "expansion")
    vectors = arguments.vectors(vectors, "vectors", "expansion", gallery.shape[1])
    rows = arguments.rows(rows, "rows", "expansion", (len(vectors), "m"), len(gallery), padding=True)
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
    """Replaces each query with the weighted mean of itself and its first `depth` results.

    Helps where most of the top results are right; where they are not, the query drifts. Evaluate to find out.

    Args:
      state: one member and its ranking.
      depth: results mixed into a query, at most search.k.
      alpha: see `expand`.

    Returns:
      The state with new queries and no ranking.

    Raises:
      InputError: several members, no ranking yet, or a ranking of fewer than `depth` results.
    """
    depth = check_depth(state, depth, "query_expansion")
    queries, gallery = state.members[0]
    new = expand(queries.vectors, gallery.vectors, state.ranking.item_rows[:, :depth], alpha)
    members = [(Embeddings(queries.ids, new, queries.meta), gallery)]
    return dataclasses.replace(state, members=members, ranking=None)
