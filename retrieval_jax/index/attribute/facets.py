"""Facets: how many of the matches have each value, exact, for the side bar of a page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyroaring import BitMap

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.index.attribute.table import Table, to_rows

ENTRIES = 2_000_000  # entries of matches up to which their values are counted; beyond, bitmaps are intersected


def count(
    table: Table, matches: BitMap, fields: Sequence[str] | None = None, top: int | None = None
) -> dict[str, list[tuple[str, int]]]:
    """Counts the values of matches.

    Few matches are counted value by value. For many, each value's bitmap is intersected with the matches, which costs a
    few microseconds; with `top`, those that are too rare to be among the largest are never looked at.

    Args:
      table: the attributes.
      matches: rows, from `Table.matching`.
      fields: names of the fields to count; None for all that have values.
      top: values per field, the most frequent; None for all that occur.

    Returns:
      {field: [(value, matches that have it)]}, largest first, ties by name. A listing with several values counts for
      each; a descendant counts for its ancestors too.

    Raises:
      InputError: an unknown field, or one of numbers.
    """
    where = "facets"
    chosen = table.fields if fields is None else [arguments.text(name, "fields", where) for name in fields]
    for name in chosen:
        table.check_field(name, where)
        if name not in table.fields:
            raise InputError(f"{where}: {name!r} is a number, which has a range and no values: leave it out")
    top = None if top is None else arguments.integer(top, "top", where)
    entries = sum(int(block.indptr[-1]) for _, block in table.segments)
    if len(matches) * entries <= ENTRIES * max(1, table.rows):
        parts = [values for _, values, _ in table.values_of(to_rows(matches))]
        counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *parts]), minlength=len(table.names))
        return {name: _best(table, name, counts, top) for name in chosen}
    out = {}
    for name in chosen:
        values = table.frequent(name)
        found = np.zeros(len(values), np.int64)
        least: list[int] = []  # the largest counts so far, ascending
        for number, (value, most) in enumerate(values):
            if top is not None and len(least) == top and most < least[0]:
                break
            found[number] = matches.intersection_cardinality(table.posting(value))
            if top is not None and found[number]:
                least = sorted([*least, int(found[number])])[-top:]
        counts = np.zeros(len(table.names), np.int64)
        counts[[value for value, _ in values]] = found
        out[name] = _best(table, name, counts, top)
    return out


def _best(table: Table, field: str, counts: np.ndarray, top: int | None) -> list[tuple[str, int]]:
    values = np.flatnonzero((table.field_of == table.fields.index(field)) & (counts > 0))
    if top is not None and len(values) > top:
        least = np.partition(counts[values], len(values) - top)[len(values) - top]
        values = values[counts[values] >= least]
    found = sorted((-int(counts[value]), table.names[value]) for value in values.tolist())
    return [(name, -number) for number, name in found[:top]]
