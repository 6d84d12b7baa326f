"""Counts what a side bar shows: the values and ranges of the listings that meet conditions."""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax.index import attribute
from retrieval_jax.index.attribute import facets
from retrieval_jax.index.attribute.table import to_rows


@dataclasses.dataclass(frozen=True)
class Counted:
    """What was counted.

    Attributes:
      matches: listings that meet all conditions.
      fields: {field: (value, listings) of its most frequent values}.
      numbers: {field: (lowest, highest, listings)}.
    """

    matches: int
    fields: dict[str, list[tuple[str, int]]]
    numbers: dict[str, tuple[float, float, int]]


def count(table: attribute.Table, given: attribute.Conditions, top: int) -> Counted:
    """Counts values; a field with a required condition of its own is counted without it, so that it can be changed.

    Args:
      table: the attributes.
      given: checked conditions; the preferred ones do not count.
      top: values per field, the most frequent.
    """

    def without(field: str):
        others = tuple(clause for clause in given.required if clause.field != field)
        if others == given.required:
            return matching
        return table.matching(attribute.Conditions(others, (), given.excluded), 0)

    matching = table.matching(given, 0)
    own = {clause.field for clause in given.required}
    found = facets.count(table, matching, [name for name in table.fields if name not in own], top)
    for name in sorted(own & set(table.fields)):
        found |= facets.count(table, without(name), [name], top)
    numbers = {}
    for number, name in enumerate(table.numbers):
        values = np.asarray(table.columns[number].array[to_rows(without(name)), 0])
        values = values[~np.isnan(values)]
        if len(values):
            numbers[name] = round(float(values.min()), 6), round(float(values.max()), 6), len(values)
    return Counted(len(matching), {name: found[name] for name in table.fields if found.get(name)}, numbers)
