"""Ensemble by concatenation: the cosine of joined unit vectors is the (weighted) mean of the members' cosines.

Source: the eProduct runner-up (arXiv 2208.00955): whiten each member, L2, concatenate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from retrieval_jax.embeddings import BLOCK_ROWS, Embeddings, allocate
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize


def concatenate(members: Sequence[Embeddings], weights: Sequence[float] | None = None) -> Embeddings:
    """Joins the members' L2-normalised vectors side by side and normalises the result.

    Args:
      members: embeddings [n, D_i] of the same ids in the same order.
      weights: one a member, default all 1: how much its cosine counts (vectors are scaled by the square root).

    Returns:
      Embeddings [n, sum of D_i]; meta["space"] joins the members' spaces.

    Raises:
      InputError: ids differ, or weights do not fit.
    """
    weights = [1.0] * len(members) if weights is None else [float(weight) for weight in weights]
    if len(weights) != len(members) or not members or min(weights) < 0 or max(weights) <= 0:
        raise InputError(
            f"the ensemble has {len(members)} members, and weights {tuple(weights)}: give one of 0 or more each"
        )
    first = members[0]
    for number, member in enumerate(members):
        if member.ids != first.ids:
            raise InputError(
                f"members 0 and {number} of the ensemble hold different ids ({len(first)} and {len(member)} rows): "
                "embed the same catalogue with both"
            )
    scales = [np.float32(np.sqrt(weight / sum(weights))) for weight in weights]
    out = allocate((len(first), sum(member.dim for member in members)))
    for start in range(0, len(first), BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        parts = [scale * normalize(member.block(start, stop)) for scale, member in zip(scales, members, strict=True)]
        # once more: a member's zero vector leaves the joined one short
        out[start:stop] = normalize(np.concatenate(parts, 1))
    space = "+".join(str(member.meta.get("space", "")) for member in members)
    return Embeddings(first.ids, out, {**first.meta, "space": space, "members": [member.meta for member in members]})


def step(state: State, *, weights: Sequence[float] | None = None) -> State:
    """Makes one member of all: queries with queries, gallery with gallery.

    Args:
      state: with any number of members.
      weights: see `concatenate`.

    Returns:
      The state with one member, named "ensemble", and no ranking.
    """
    queries, gallery = (concatenate(side, weights) for side in zip(*state.members, strict=True))
    return dataclasses.replace(state, members=[(queries, gallery)], ranking=None, names=("ensemble",))
