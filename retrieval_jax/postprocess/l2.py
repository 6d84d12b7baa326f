"""L2 normalisation: scales every vector to length 1."""

import dataclasses

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.postprocess import State


def normalize(vectors: np.ndarray) -> np.ndarray:
    """Returns `vectors` [n, dim] scaled to length 1, float32; a zero vector stays zero.

    Raises:
      InputError: not vectors, or a non-finite one, which dividing would turn into zero.
    """
    wide = np.asarray(arguments.vectors(vectors, "vectors", "l2"), np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    odd = np.flatnonzero(~((length > 1e-140) & (length < 1e140)))  # zero, or squares that float64 cannot hold
    if len(odd):
        some, wide = wide[odd], wide.copy()
        arguments.finite(some, "l2", None, odd)
        largest = np.abs(some).max(1, keepdims=True)
        wide[odd] = some = np.divide(some, largest, out=np.zeros_like(some), where=largest > 0)
        length[odd, 0] = np.sqrt(np.einsum("nd,nd->n", some, some))
    return np.divide(wide, length, out=np.zeros_like(wide), where=length > 0).astype(np.float32)


def step(state: State) -> State:
    """Normalises queries and gallery of every member.

    Args:
      state: with any number of members.

    Returns:
      The state with unit vectors and no ranking.
    """
    arguments.instance(state, State, "state", "l2")
    members = [(queries.map(normalize), gallery.map(normalize)) for queries, gallery in state.members]
    return dataclasses.replace(state, members=members, ranking=None)
