"""Ensemble by concatenation: the cosine of concatenated unit vectors is the (weighted) mean of the members' cosines.

The concatenated vectors are computed on read, so no full-width copy exists in memory or on disk. Weights are given, or
chosen without labels, from how many best matches are mutual (`_weights`).

Source: the eProduct runner-up (arXiv 2208.00955): whiten each member, L2, concatenate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.embeddings import Embeddings, computed
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.postprocess import State, _weights
from retrieval_jax.postprocess.l2 import normalize

CHOSEN = "chosen"


def align(members: Sequence[Embeddings], names: Sequence[str] = ()) -> list[Embeddings]:
    """Puts the rows of all members in the order of the first one's ids.

    Args:
      members: embeddings of the same ids, in any order.
      names: the members' names, for messages.

    Returns:
      The members; those in a different order are reindexed on read, not copied.

    Raises:
      InputError: a member lacks ids that another one has, or has duplicate ids; the message names it and counts them.
    """
    members = arguments.sequence(members, "members", "ensemble")
    if not len(members) or not all(isinstance(member, Embeddings) for member in members):
        raise InputError("ensemble: members are Embeddings, at least one")
    names = [names[number] if number < len(names) else str(number) for number in range(len(members))]
    out = list(members[:1])
    first, place = members[0].ids, None
    for number in range(1, len(members)):
        member = members[number]
        if member.ids == first:
            out.append(member)
            continue
        if place is None:
            place = _places(members[0], names[0])
        own = _places(member, names[number])
        for lacking, having, theirs in ((names[number], names[0], own), (names[0], names[number], place)):
            wanted = place if theirs is own else own
            missing = [item for item in wanted if item not in theirs]
            if missing:
                raise InputError(
                    f"ensemble member {lacking} lacks {len(missing)} of the {len(wanted)} ids of {having}, "
                    f"starting with {missing[0]}: embed the same catalogue with both"
                )
        out.append(member.take(np.fromiter((own[item] for item in first), np.int64, len(first))))
    return out


def _places(member: Embeddings, name: str) -> dict[str, int]:
    place = {item: row for row, item in enumerate(member.ids)}
    if len(place) != len(member):
        raise InputError(
            f"ensemble member {name} has {len(member) - len(place)} duplicate ids, so its rows cannot be put in "
            "another member's order: embed a catalogue whose ids are distinct"
        )
    return place


def shares(weights: Sequence[float] | None, count: int) -> np.ndarray:
    """Returns the share of each of `count` members, [count] float64 summing to 1; equal by default.

    Raises:
      InputError: not one weight of 0 or more per member.
    """
    if not count:
        raise InputError("the ensemble has no members: list them in search.members")
    weights = np.ones(count) if weights is None else arguments.array(weights, "weights", "ensemble", ("members",))
    if weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.max() <= 0:
        raise InputError(
            f"the ensemble has {count} members and weights {weights}: give one weight, 0 or more, for each"
        )
    weights = weights.astype(np.float64)
    if not weights.sum() < np.inf:
        weights = weights / weights.max()
    return weights / weights.sum()


def concatenate(
    members: Sequence[Embeddings], weights: Sequence[float] | None = None, names: Sequence[str] = ()
) -> Embeddings:
    """Concatenates the members' L2-normalised vectors and normalises the result.

    Args:
      members: embeddings [n, D_i] of the same ids; rows follow the first one's order.
      weights: one per member, all 1 by default: how much its cosine counts (vectors are scaled by the square root).
      names: the members' names, for messages.

    Returns:
      Embeddings [n, sum of D_i], computed on read if large; meta["space"] joins the members' spaces.

    Raises:
      InputError: a member lacks ids, or the weights do not match the members.
    """
    aligned = align(members, names)
    scales = np.sqrt(shares(weights, len(aligned))).astype(np.float32)

    def read(key) -> np.ndarray:
        parts = [scale * normalize(member.vectors[key]) for scale, member in zip(scales, aligned, strict=True)]
        return normalize(np.concatenate(parts, 1))  # again: a member's zero vector leaves it shorter than 1

    first, members = aligned[0], aligned
    space = "+".join(str(member.meta.get("space", "")) for member in members)
    meta = {**first.meta, "space": space, "members": [member.meta for member in members]}
    return computed(first.ids, read, sum(member.dim for member in members), meta)


def step(state: State, *, weights: Sequence[float] | str | None = None) -> State:
    """Concatenates all members into one: queries with queries, gallery with gallery.

    Args:
      state: with any number of members; with weights "chosen", ensemble_weights.json is saved if it has a folder.
      weights: see `concatenate`; or "chosen": found without labels (`postprocess._weights`), and printed.

    Returns:
      The state with one member, named "ensemble", and no ranking.
    """
    arguments.instance(state, State, "state", "ensemble")
    sides = list(zip(*state.members, strict=True))
    if isinstance(weights, str):
        if weights != CHOSEN:
            raise InputError(f"ensemble: weights={weights!r}: give one number for each member, or {CHOSEN!r}")
        sides = [align(side, state.names) for side in sides]
        names = [state.name(number) for number in range(len(state.members))]
        weights, tried = _weights.choose(list(zip(*sides, strict=True)), names)
        print(f"ensemble: {_weights.sentence(names, weights, tried)}", flush=True)
        if state.folder is not None:
            record = {"weights": dict(zip(names, weights, strict=True)), "tried": tried}
            atomic.write_json(state.folder / "ensemble_weights.json", record)
    queries, gallery = (concatenate(side, weights, state.names) for side in sides)
    return dataclasses.replace(state, members=[(queries, gallery)], ranking=None, rankings=(), names=("ensemble",))
