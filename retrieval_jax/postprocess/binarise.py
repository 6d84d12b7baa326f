"""Binary codes: every dimension becomes its sign, so that cosine is Hamming distance.

For vectors of a middle stage of a network (`pool_stages`), whose signs say which patterns are there. Cosine = 1 - 2 *
(differing signs) / dimensions, so exact search and ensembles take the codes as they are. `index = "binary"` does not
pack them: it makes codes of its own of whatever vectors it gets, after a rotation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments, pairs
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State


def step(state: State, *, members: Sequence[str] = ()) -> State:
    """Replaces the vectors of queries and gallery by their signs.

    Args:
      state: with any number of members.
      members: names of those to binarise; () for all.

    Returns:
      The state with vectors of +-1 / sqrt(dim), and no ranking.

    Raises:
      InputError: a member that does not exist.

    Source: activations binarised at 0 and compared by Hamming distance: Visual Fashion-Product Search at SK Planet,
    arXiv 1609.07859.
    """
    arguments.instance(state, State, "state", "binarise")
    names = [state.name(number) for number in range(len(state.members))]
    for name in members:
        if name not in names:
            raise InputError(f"binarise: there is no member {name!r}{pairs.near(name, names)}")
    made = [
        tuple(map(codes, both)) if not members or name in members else both
        for name, both in zip(names, state.members, strict=True)
    ]
    return dataclasses.replace(state, members=made, ranking=None)


def codes(side: Embeddings) -> Embeddings:
    """Returns the signs of embeddings [n, dim] as vectors of length 1; 0 counts as negative."""
    return side.map(signs)


def signs(vectors: np.ndarray) -> np.ndarray:
    """Returns the signs of vectors [n, dim] as float32 vectors of length 1; 0 counts as negative."""
    vectors = np.asarray(vectors)
    scale = np.float32(vectors.shape[1] ** -0.5)
    return np.where(vectors > 0, scale, -scale)
