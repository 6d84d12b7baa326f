"""Listings on their way into a table: their fields are checked, new values found, and rows put into its own form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retrieval_jax import pairs
from retrieval_jax.errors import InputError, short
from retrieval_jax.index.attribute.fields import WHERE, Field, checked
from retrieval_jax.index.attribute.table import BLOCK, Block, Table


def build(fields: Mapping[str, Field | np.ndarray], rows: int) -> Table:
    """Returns the table of listings, built in one pass over them.

    Args:
      fields: {name: a `Field`, or numbers [n], NaN where unknown}.
      rows: number of listings.

    Raises:
      InputError: see `fields.checked`.
    """
    found = checked(fields, rows)
    out = Table({name: not isinstance(field, Field) for name, field in found.items()})
    out.learn(new_values(out, found))
    for start in range(0, rows, BLOCK):
        out.append(encode(out, found, start, min(rows, start + BLOCK)))
    return out


def check_fields(table: Table, fields: Mapping[str, Field | np.ndarray], rows: int) -> dict[str, Field | np.ndarray]:
    """Returns fields of further listings, checked; one that is missing is unknown for all of them.

    Raises:
      InputError: a field that the table does not have, one of the other kind, or a value with another parent.
    """
    found = checked(fields, rows)
    for name, field in found.items():
        known = table.fields if isinstance(field, Field) else table.numbers
        if name not in known:
            raise InputError(f"{WHERE}: there is no field {name!r} of that kind{pairs.near(name, known)}")
        if isinstance(field, Field) and field.parents is not None:
            number_of = table.number_of[table.fields.index(name)]
            for value, above in zip(field.values, field.parents.tolist(), strict=True):
                there = table.parent[number_of[value]] if value in number_of else None
                if there is not None and (table.names[there] if there >= 0 else "") != (
                    field.values[above] if above >= 0 else ""
                ):
                    raise InputError(
                        f"{WHERE}: the value {short(value)!r} of {name!r} already has another parent: build the "
                        "index again to change its hierarchy"
                    )
    empty = Field((), np.zeros(rows + 1, np.int64), np.zeros(0, np.int64))
    out = {name: found.get(name, empty) for name in table.fields}
    return out | {name: found.get(name, np.full(rows, np.nan, np.float32)) for name in table.numbers}


def new_values(table: Table, fields: Mapping[str, Field | np.ndarray]) -> list[tuple[int, str, int]]:
    """Returns (field, name, number of its parent) of the values that the table does not have yet."""
    out, next_number = [], len(table.names)
    for number, name in enumerate(table.fields):
        field, known = fields[name], dict(table.number_of[number])
        waiting = list(range(len(field.values)))
        while waiting:  # parents first
            later = []
            for value in waiting:
                above = -1 if field.parents is None else int(field.parents[value])
                if field.values[value] in known:
                    continue
                if above >= 0 and field.values[above] not in known:
                    later.append(value)
                    continue
                out.append((number, field.values[value], known[field.values[above]] if above >= 0 else -1))
                known[field.values[value]] = next_number
                next_number += 1
            waiting = later
    return out


def encode(table: Table, fields: Mapping[str, Field | np.ndarray], start: int, stop: int) -> Block:
    """Returns listings start .. stop - 1 of checked fields, whose values the table has learnt."""
    parts, counts = [], np.zeros((len(table.fields), stop - start), np.int64)
    for number, name in enumerate(table.fields):
        owner, values, chance = _entries(table, fields[name], number, start, stop)
        counts[number] = np.bincount(owner, minlength=stop - start)
        parts.append((owner, values, chance))
    indptr = np.concatenate([[0], np.cumsum(counts.sum(0))])
    values = np.empty(indptr[-1], np.uint16 if len(table.names) <= 1 << 16 else np.uint32)
    chances = None if all(chance is None for *_, chance in parts) else np.ones(indptr[-1], np.float16)
    before = indptr[:-1].copy()
    for number, (owner, found, chance) in enumerate(parts):
        first = np.cumsum(counts[number]) - counts[number]
        place = np.arange(len(owner)) + (before - first)[owner]
        values[place] = found
        if chance is not None:
            chances[place] = chance
        before += counts[number]
    numbers = [fields[name][start:stop] for name in table.numbers]
    numbers = np.stack(numbers, 1) if numbers else np.zeros((stop - start, 0), np.float32)
    return Block(indptr, values, chances, numbers.astype(np.float32, copy=False))


def _entries(table: Table, field: Field, number: int, start: int, stop: int) -> tuple:
    """Returns owner, value and probability (or None) of a field's entries, ancestors included, without repeats."""
    lookup = np.array([table.number_of[number][name] for name in field.values], np.int64)
    first, last = int(field.indptr[start]), int(field.indptr[stop])
    owner = np.repeat(np.arange(stop - start), np.diff(field.indptr[start : stop + 1]))
    values = lookup[field.value_ids[first:last]]
    chance = None if field.probability is None else field.probability[first:last]
    levels = [(owner, values, chance)]
    while (above := table.parent[levels[-1][1]]).max(initial=-1) >= 0:
        keep = above >= 0
        owners, _, chances = levels[-1]
        levels.append((owners[keep], above[keep], None if chances is None else chances[keep]))
    if len(levels) > 1:
        owner, values = (np.concatenate([level[part] for level in levels]) for part in (0, 1))
        chance = None if chance is None else np.concatenate([level[2] for level in levels])
    key = owner * len(table.names) + values
    if len(key) and not (np.diff(key) > 0).all():
        order = np.lexsort((key,) if chance is None else (-chance, key))
        order = order[np.diff(key[order], prepend=-1) > 0]  # the likeliest of repeats
        owner, values = owner[order], values[order]
        chance = None if chance is None else chance[order]
    if chance is not None:  # float16 must not turn a likely value into a known one, nor an unlikely one into 0
        rounded = np.maximum(chance.astype(np.float16), np.float16(2.0**-14))
        chance = np.where((chance < 1) & (rounded >= 1), np.float16(1 - 2.0**-11), rounded)
    return owner, values, chance
