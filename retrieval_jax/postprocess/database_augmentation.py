"""Database augmentation: replaces every listing with the weighted mean of itself and its nearest neighbours.

Query expansion for the gallery side, done once for all queries.

Source: Turcot & Lowe (ICCV workshops 2009) and Arandjelovic & Zisserman, "Three things everyone should know to improve
  object retrieval" (CVPR 2012); weights cosine ** alpha as in Radenovic et al. (TPAMI 2018).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax import arguments
from retrieval_jax import index as index_room
from retrieval_jax.embeddings import Embeddings, computed
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.query_expansion import expand


def neighbours(vectors, count: int, index: str = "exact", index_kwargs: dict | None = None) -> np.ndarray:
    """Returns [G, count] int32: each row's nearest other rows, nearest first, ties by row; -1 where there are fewer.

    Args:
      vectors: [G, D], need not be normalised.
      count: neighbours per row.
      index: kind of index that searches the gallery against itself; the exact one costs G^2 D.
      index_kwargs: its arguments.
    """
    engine = index_room.make(index, vectors, index_kwargs, "neighbours")
    count = arguments.integer(count, "count", "neighbours")
    arguments.memory(24 * len(vectors) * int(count), f"{count:,} neighbours per listing", "neighbours", "take fewer")
    near, _ = index_room.nearest_rows(engine, vectors, count + 1)
    itself = near == np.arange(len(near))[:, None]  # not always first: duplicates tie with it
    return np.take_along_axis(near, np.argsort(itself, axis=1, kind="stable")[:, :count], 1)


def augment(
    gallery: Embeddings, depth: int, alpha: float, index: str = "exact", index_kwargs: dict | None = None
) -> Embeddings:
    """Returns the gallery with each row's nearest rows mixed into it, all of length 1.

    The neighbour lists stay in memory, [G, depth] int32; if the vectors would take more than `embeddings.computed`
    keeps, they are mixed on each read, from depth + 1 rows each.

    Args:
      gallery: [G, D].
      depth: neighbours mixed into a row.
      alpha: see `query_expansion.expand`.
      index: see `neighbours`.
      index_kwargs: see `neighbours`.

    Raises:
      InputError: depth or alpha out of range.
    """
    arguments.instance(gallery, Embeddings, "gallery", "database_augmentation")
    depth = arguments.integer(depth, "depth", "database_augmentation")
    alpha = arguments.number(alpha, "alpha", "database_augmentation", low=0)
    rows, vectors = neighbours(gallery.vectors, depth, index, index_kwargs), gallery.vectors
    return computed(
        gallery.ids, lambda key: expand(np.asarray(vectors[key]), vectors, rows[key], alpha), gallery.dim, gallery.meta
    )


def step(
    state: State, *, depth: int = 10, alpha: float = 3.0, index: str = "exact", index_kwargs: dict | None = None
) -> State:
    """Mixes each listing's nearest neighbours into it, in every member's gallery.

    Args:
      state: with any number of members.
      depth: neighbours mixed into a listing.
      alpha: see `query_expansion.expand`.
      index: see `neighbours`.
      index_kwargs: see `neighbours`.

    Returns:
      The state with new galleries and no ranking.
    """
    arguments.instance(state, State, "state", "database_augmentation")
    members = [(queries, augment(gallery, depth, alpha, index, index_kwargs)) for queries, gallery in state.members]
    return dataclasses.replace(state, members=members, ranking=None)
