"""Other indexes inside an attribute index: they search among the rows that meet the conditions, each in its own way.

faiss skips the rows that are not selected, Milvus gets the conditions as a filter expression, and any other index is
asked for more results than wanted, of which those that meet the conditions are kept. What comes out is checked by the
caller: rows that do not match are dropped, and a query with fewer results than there are matches is searched exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from retrieval_jax import index, pairs
from retrieval_jax.errors import InputError
from retrieval_jax.index.attribute.conditions import Clause, Conditions
from retrieval_jax.index.attribute.table import Table
from retrieval_jax.scoring.ranking import Ranking

SPARE = 1.5  # results asked for beyond those that are expected to meet the conditions
MOST = 1 << 14  # results asked for per query; a search that needs more is better done exactly
UNKNOWN = float(np.finfo(np.float32).min)  # Milvus's number for unknown: its own null is not in milvus-lite

# Returns a ranking of row numbers for queries, k, conditions and the mask of the rows that meet them.
Search = Callable[[np.ndarray, int, Conditions, np.ndarray], Ranking]


def make(kind: str, gallery, ids, kwargs: dict, table: Table) -> Search | None:
    """Returns the search of another index, None for "exact", which needs no other.

    Args:
      kind: name of the index.
      gallery, ids: see its `Index`.
      kwargs: its arguments.
      table: attributes of the gallery, for Milvus's fields.

    Raises:
      InputError: there is no such index, it has no such argument, or it cannot be made.
    """
    if kind == "exact":
        pairs.check_arguments(kind, kwargs, (), "index attribute: inner_kwargs", "index")
        return None
    if kind == "attribute":
        raise InputError(
            "index attribute: inner='attribute' would hold itself: use exact, binary, faiss_index or milvus"
        )
    if kind == "milvus":
        kwargs = {"fields": milvus_fields(table), **kwargs}
    engine = index.make(kind, gallery, kwargs, "index attribute", ids)
    if kind == "milvus":
        return lambda vectors, k, given, mask: engine.search(vectors, k, filter=milvus_filter(given, table))
    if kind == "faiss_index":
        return lambda vectors, k, given, mask: engine.search(vectors, k, only=mask)

    def more(vectors: np.ndarray, k: int, given: Conditions, mask: np.ndarray) -> Ranking:
        share = max(1, int(mask.sum())) / len(mask)
        wanted = min(len(mask), MOST, int(SPARE * k / share) + 16)
        return engine.search(vectors, wanted)

    return more


def kept(found: Ranking, mask: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first k rows [Q, k] and cosines [Q, k] of a ranking that are selected and not a query's own."""
    rows, scores = np.array(found.item_rows), np.array(found.scores)
    good = (rows >= 0) & mask[rows]
    for query, row in own.tolist():
        good[query] &= rows[query] != row
    order = np.argsort(~good, axis=1, kind="stable")[:, :k]
    good = np.take_along_axis(good, order, 1)
    out = np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), -np.inf, np.float32)
    width = order.shape[1]
    out[0][:, :width] = np.where(good, np.take_along_axis(rows, order, 1), -1)
    out[1][:, :width] = np.where(good, np.take_along_axis(scores, order, 1), -np.inf)
    return out


def milvus_fields(table: Table) -> dict[str, list]:
    """Returns the attributes as fields of a Milvus collection: lists of value numbers, and numbers.

    Milvus has rules for names of fields, so they are numbered: values0, values1, ... and number0, ...
    """
    lists = [[[] for _ in range(table.rows)] for _ in table.fields]
    for row, values, _ in table.values_of(np.arange(table.rows)):
        for value in values.tolist():
            lists[int(table.field_of[value])][row].append(value)
    out = {f"values{number}": rows for number, rows in enumerate(lists)}
    for number, column in enumerate(table.columns):
        out[f"number{number}"] = np.nan_to_num(column.array[:, 0], nan=UNKNOWN).astype(np.float64).tolist()
    return out


def milvus_filter(given: Conditions, table: Table) -> str:
    """Returns the required, excluded and preferred clauses as an expression over `milvus_fields`, "" without any."""
    parts = [_milvus_clause(clause, table) for clause in (*given.required, *given.preferred)]
    parts += [f"not {_milvus_clause(clause, table)}" for clause in given.excluded]
    return " and ".join(parts)


def _milvus_clause(clause: Clause, table: Table) -> str:
    if clause.is_range:
        name = f"number{table.numbers.index(clause.field)}"
        with np.errstate(over="ignore"):
            low, high = (None if end is None else float(np.float32(end)) for end in (clause.low, clause.high))
        parts = [f"{name} > {UNKNOWN!r}" if low is None or low == -np.inf else f"{name} >= {low!r}"]
        parts += [] if high is None or high == np.inf else [f"{name} <= {high!r}"]
        text = f"({' and '.join(parts)})"
        return f"({text} or {name} == {UNKNOWN!r})" if clause.unknown else text
    name = f"values{table.fields.index(clause.field)}"
    numbers = [table.number(clause.field, value) for value in clause.values]
    text = f"array_contains_any({name}, {json.dumps(numbers)})"
    return f"({text} or array_length({name}) == 0)" if clause.unknown else f"({text})"
