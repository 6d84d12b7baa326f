"""L2 normalisation: scales every vector to length 1."""

import dataclasses

import numpy as np

from retrieval_jax.postprocess import State


def normalize(vectors: np.ndarray) -> np.ndarray:
    """Returns `vectors` [n, dim] scaled to length 1, float32; a zero vector stays zero."""
    wide = np.asarray(vectors, np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return np.divide(wide, length, out=np.zeros_like(wide), where=length > 0).astype(np.float32)


def step(state: State) -> State:
    """Normalises queries and gallery of every member.

    Args:
      state: with any number of members.

    Returns:
      The state with unit vectors and no ranking.
    """
    members = [(queries.map(normalize), gallery.map(normalize)) for queries, gallery in state.members]
    return dataclasses.replace(state, members=members, ranking=None)
