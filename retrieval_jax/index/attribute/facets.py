"""Facets: how many of the matches have each value, exact, for the side bar of a page."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from pyroaring import BitMap

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.index.attribute.table import Table, to_rows

# Measured costs in nanoseconds: of counting one entry of a match, of intersecting a posting, per row of it and at all.
ENTRY, ROW, POSTING = 5.0, 1.3, 1000.0


def count(
    table: Table, matches: BitMap, fields: Sequence[str] | None = None, top: int | None = None
) -> dict[str, list[tuple[str, int]]]:
    """Counts the values of matches.

    The values of few matches are counted row by row. For many, each value's bitmap is intersected with the matches, the
    most frequent first; with `top`, those that are too rare to be among the largest are never looked at. That makes a
    side bar of the largest values fast, however many match, where all values of half a million would take longer.

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
    order = {name: _by_size(table, name) for name in chosen}
    mean = table.sizes.sum() / max(1, table.rows)
    by_rows = ENTRY * len(matches) * mean
    by_values = sum(_cost(table.sizes[values], len(matches) / max(1, table.rows), top) for values in order.values())
    if by_rows <= by_values:
        counts = table.counted(to_rows(matches))
        return {name: _best(table, name, counts, top) for name in chosen}
    counts = np.zeros(len(table.names), np.int64)
    for values in order.values():
        least: list[int] = []  # the largest counts so far, ascending
        for value, most in zip(values.tolist(), table.sizes[values].tolist(), strict=True):
            if top is not None and len(least) == top and most < least[0]:
                break
            counts[value] = found = matches.intersection_cardinality(table.posting(value))
            if top is not None and (len(least) < top or found > least[0]):
                bisect.insort(least, found)
                del least[:-top]
    return {name: _best(table, name, counts, top) for name in chosen}


def _by_size(table: Table, field: str) -> np.ndarray:
    """Returns the values of a field, those that most rows have first."""
    values = np.flatnonzero(table.field_of == table.fields.index(field))
    return values[np.argsort(-table.sizes[values], kind="stable")]


def _cost(sizes: np.ndarray, share: float, top: int | None) -> float:
    """Returns the expected cost of intersecting postings of descending sizes with a share of all rows."""
    if top is not None and len(sizes) > top:  # those that can have more matches than the top ones are expected to have
        sizes = sizes[sizes >= sizes[top - 1] * share]
    return float(ROW * sizes.sum() + POSTING * len(sizes))


def _best(table: Table, field: str, counts: np.ndarray, top: int | None) -> list[tuple[str, int]]:
    values = np.flatnonzero((table.field_of == table.fields.index(field)) & (counts > 0))
    if top is not None and len(values) > top:
        least = np.partition(counts[values], len(values) - top)[len(values) - top]
        values = values[counts[values] >= least]
    found = sorted((-int(counts[value]), table.names[value]) for value in values.tolist())
    return [(name, -number) for number, name in found[:top]]
