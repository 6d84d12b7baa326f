"""Fields that filters refer to: a gallery's values, checked and typed the way Milvus stores them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

import numpy as np

from retrieval_jax.errors import InputError

BLOCK = 8192  # values hashed at once


class Column:
    """A field's values in a Milvus type.

    Attributes:
      kind: Milvus type of a value, or of a list's items.
      many: capacity of the lists, 0 for plain values.
      longest: most bytes of a string, 0 for other kinds.
      values: one per gallery row.
      width: most bytes per row.
    """

    def __init__(self, kind: str, many: int, longest: int, values: list):
        self.kind, self.many, self.longest, self.values = kind, many, longest, values
        self.width = max(1, many) * (longest if kind == "VARCHAR" else 8)


def typed(name: str, values: Sequence, rows: int) -> Column:
    """Returns a field's values, typed.

    Args:
      name: name of the field.
      values: one per gallery row: integers, floats, booleans, strings, or lists of integers or strings.
      rows: number of gallery rows.

    Raises:
      InputError: a name that Milvus does not allow, a wrong number of values, or values of mixed kinds.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in ("row", "id", "vector"):
        raise InputError(f"a field cannot be named {name!r}: use letters, digits and _, and not row, id or vector")
    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(values) != rows:
        raise InputError(f"field {name!r} has {len(values)} values for a gallery of {rows} rows: give one per row")
    values = [value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for value in values]
    lists = [isinstance(value, (list, tuple)) for value in values]
    flat = [item for value in values for item in value] if any(lists) and all(lists) else values
    kinds = {type(value) for value in flat}
    kind = {
        frozenset(): "INT64",
        frozenset({int}): "INT64",
        frozenset({bool}): "BOOL",
        frozenset({str}): "VARCHAR",
        frozenset({float}): "DOUBLE",
        frozenset({int, float}): "DOUBLE",
    }.get(frozenset(kinds))
    if kind is None:
        row = next((row for row, value in enumerate(values) if type(value) is not type(values[0])), 0)
        raise InputError(
            f"field {name!r} holds {values[row]!r} (row {row}): a field takes integers, floats, booleans, strings or "
            "lists of them, the same kind in all rows; for unknown values use -1, an empty string or an empty list"
        )
    if kind == "DOUBLE":
        values = [[float(item) for item in value] for value in values] if all(lists) else [float(v) for v in values]
    many = max(1, max(map(len, values), default=1)) if lists and all(lists) else 0
    longest = max([1, *(len(item.encode()) for item in flat)]) if kind == "VARCHAR" else 0
    return Column(kind, many, longest, values)


def columns_sha256(columns: dict[str, Column]) -> str:
    """Returns a checksum of the names, types and values of fields, "" without fields."""
    digest = hashlib.sha256()
    for name in sorted(columns):
        column = columns[name]
        digest.update(canonical([name, column.kind, column.many]).encode())
        for start in range(0, len(column.values), BLOCK):
            digest.update(canonical(column.values[start : start + BLOCK]).encode())
    return digest.hexdigest() if columns else ""


def canonical(value) -> str:
    """Returns a value as JSON, the same text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
