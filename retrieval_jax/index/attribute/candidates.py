"""Candidates by predicted attributes: the listings that share the most with a query, which alone are scanned.

Source: Kim et al., "Visual Fashion-Product Search at SK Planet", arXiv 1609.07859: every attribute is a key with a list
  of listings, and a query searches inside the lists of its own predicted attributes. How its lists are combined is not
  stated there; here a listing is worth the sum over the shared attributes of
  (probability in the query) x (probability in the listing) x log(listings / listings that have it).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.index.attribute.table import Table, to_rows


def worth(table: Table, attributes: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """Returns how much each row shares with a query, [rows] float32; -inf for deleted rows.

    Args:
      table: the attributes.
      attributes: {field: {value: probability}} predicted for the query; values that no listing has are ignored.

    Raises:
      InputError: an unknown field, one of numbers, or a probability out of range.
    """
    where = "candidates"
    out = np.zeros(table.rows, np.float32)
    for field, values in sorted(arguments.mapping(attributes, "attributes", where).items()):
        table.check_field(field, where)
        if field not in table.fields:
            raise InputError(f"{where}: {field!r} is a number, which has no values to share: leave it out")
        known = table.number_of[table.fields.index(field)]
        for value, chance in sorted(arguments.mapping(values, f"attributes[{field!r}]", where).items()):
            chance = arguments.number(chance, f"attributes[{field!r}][{value!r}]", where, low=0, high=1)
            if value in known:
                number = known[value]
                rows = to_rows(table.posting(number))
                weight = chance * np.log1p(table.rows / max(1, len(rows)))
                out[rows] += np.float32(weight) * table.chances(number, rows)
    dead = np.ones(table.rows, bool)
    dead[to_rows(table.alive)] = False
    out[dead] = -np.inf
    return out


def choose(table: Table, attributes: Mapping[str, Mapping[str, float]], budget: int, place: np.ndarray) -> np.ndarray:
    """Returns the rows to scan for a query, at most `budget`, ascending; rows that share nothing are left out.

    Args:
      table: the attributes.
      attributes: {field: {value: probability}} predicted for the query; values that no listing has are ignored.
      budget: most rows.
      place: [rows] each row's rank by id, which decides between rows that share equally much.

    Raises:
      InputError: see `worth`, or a budget below 1.
    """
    budget = arguments.integer(budget, "budget", "candidates")
    return best(worth(table, attributes), budget, place)


def best(shared: np.ndarray, budget: int, place: np.ndarray) -> np.ndarray:
    """Returns the rows that share most, at most `budget`, ascending.

    Args:
      shared: [rows] from `worth`.
      budget: see `choose`.
      place: see `choose`.
    """
    rows = np.flatnonzero(shared > 0)
    if len(rows) > budget:
        least = -np.partition(-shared[rows], budget - 1)[budget - 1]
        more, equal = rows[shared[rows] > least], rows[shared[rows] == least]
        equal = equal[np.argsort(place[equal], kind="stable")[: budget - len(more)]]
        rows = np.sort(np.concatenate([more, equal]))
    return rows
