"""Half-whitens the parts of a vector each for itself, then joins them again by their weights.

For vectors that are several descriptors in a row, such as edges and colours (`data.pictures.colour_and_edges`). One
whitening of the whole vector would mix the parts and undo their weights; full whitening (power 0.5) would make the
noise of the many small directions of a histogram as loud as its large ones.
"""

from __future__ import annotations

import dataclasses

from retrieval_jax import arguments
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, ensemble, whitening

POWER = 0.25  # half of a full whitening's


def parts(side: Embeddings) -> list[tuple[str, int, float]]:
    """Returns (name, length, weight) of a vector's parts, from meta["parts"]; the whole vector if it names none.

    Raises:
      InputError: parts that do not add up to the vector.
    """
    found = side.meta.get("parts") or [["all", side.dim, 1.0]]
    try:
        out = [(str(name), int(length), float(weight)) for name, length, weight in found]
    except (TypeError, ValueError):
        out = []
    if sum(length for _, length, _ in out) != side.dim or min(length for _, length, _ in out) < 1:
        raise InputError(
            f"whitening_by_parts: meta['parts'] is {found!r}, for vectors of {side.dim} dimensions: expected [name, "
            "length, weight] of each part, in order; embed again"
        )
    return out


def step(state: State, *, power: float = POWER) -> State:
    """Whitens each part on each member's gallery by eigenvalues ** -power, then joins the parts by their weights.

    A part that is the same in the whole gallery (no edges in pictures of one colour each) is left as it is.

    Args:
      state: whitening_<member>_<part>.npz are saved if the state has a folder.
      power: 0 only centres, 0.25 is halfway to a full whitening, 0.5.

    Returns:
      The state with unit vectors, computed on read if large, and no ranking.

    Raises:
      InputError: a power out of range, or parts that do not add up to the vector.
    """
    arguments.instance(state, State, "state", "whitening_by_parts")
    power = arguments.number(power, "power", "whitening_by_parts", low=0, high=1)
    members = [_member(state, number, power) for number in range(len(state.members))]
    return dataclasses.replace(state, members=members, ranking=None)


def _member(state: State, number: int, power: float) -> tuple[Embeddings, Embeddings]:
    queries, gallery = state.members[number]
    found, start, weights = [], 0, []
    for name, length, weight in parts(gallery):
        both = tuple(_cut(side, start, start + length, name) for side in (queries, gallery))
        own = State([both], None, (f"{state.name(number)}_{name}",), state.folder)
        fitted = _fit(both[1], power)
        found.append(both if fitted is None else whitening.apply_to_member(own, 0, fitted))
        start, weights = start + length, [*weights, weight]
    return tuple(ensemble.concatenate(side, weights) for side in zip(*found, strict=True))


def _cut(side: Embeddings, start: int, stop: int, name: str) -> Embeddings:
    cut = side.map(lambda vectors: vectors[:, start:stop], stop - start)
    meta = {key: value for key, value in side.meta.items() if key != "parts"}
    return dataclasses.replace(cut, meta={**meta, "space": f"{side.meta.get('space', '')}/{name}"})


def _fit(gallery: Embeddings, power: float) -> whitening.Whitening | None:
    try:
        return whitening.fit(gallery, 0.0, power=power)
    except InputError:  # fewer than two listings, or all alike
        return None
