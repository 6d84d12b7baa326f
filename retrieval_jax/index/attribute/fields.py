"""Attributes of listings as arrays: what an attribute index is built from and added to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.errors import InputError, short

WHERE = "attribute index"


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """The values that listings have in one field, row by row; a listing without any is unknown there.

    Attributes:
      values: V names.
      indptr: [n + 1] int; the values of listing i are value_ids[indptr[i]:indptr[i + 1]].
      value_ids: [indptr[-1]] int, rows of `values`.
      probability: [indptr[-1]] float above 0 and up to 1: below 1 the value is only predicted; None if all are known.
      parents: [V] int, the value that each is a kind of, -1 for a root; None for values without a hierarchy. A
        listing with a value has its ancestors too.

    Raises:
      InputError: arrays that do not match, values out of range, a name that occurs twice, or a value that is its own
        ancestor.
    """

    values: Sequence[str]
    indptr: np.ndarray
    value_ids: np.ndarray
    probability: np.ndarray | None = None
    parents: np.ndarray | None = None

    __repr__ = brief.line

    def __post_init__(self):
        names = [_name(name, "value") for name in arguments.sequence(self.values, "values", WHERE)]
        indptr = arguments.array(self.indptr, "indptr", WHERE, ("n + 1",), kind="integers")
        ids = arguments.array(self.value_ids, "value_ids", WHERE, ("entries",), kind="integers")
        if len(set(names)) != len(names):
            twice = next(name for number, name in enumerate(names) if name in names[:number])
            raise InputError(f"{WHERE}: the value {short(twice)!r} is in `values` twice: give every name once")
        if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(ids) or (np.diff(indptr.astype(np.int64)) < 0).any():
            raise InputError(f"{WHERE}: indptr must ascend from 0 to the number of value_ids, {len(ids)}")
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(names):
            raise InputError(f"{WHERE}: value_ids from {ids.min()} to {ids.max()}, but there are {len(names)} values")
        if self.probability is not None:
            chance = arguments.array(self.probability, "probability", WHERE, ("entries",))
            if chance.shape != ids.shape or not ((chance > 0) & (chance <= 1)).all():
                raise InputError(f"{WHERE}: probability needs one number above 0 and up to 1 per value_ids")
            object.__setattr__(self, "probability", chance.astype(np.float32, copy=False))
        if self.parents is not None:
            parents = arguments.array(self.parents, "parents", WHERE, ("V",), kind="integers").astype(np.int64)
            if parents.shape != (len(names),) or (
                len(parents) and not -1 <= parents.min() <= parents.max() < len(names)
            ):
                raise InputError(f"{WHERE}: parents needs one row of `values`, or -1, per value")
            object.__setattr__(self, "parents", parents)
            ancestors(names, parents)
        object.__setattr__(self, "values", names)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @classmethod
    def of(cls, listings: Sequence[Sequence[str] | str | None], parents: Mapping[str, str] | None = None) -> Field:
        """Returns the field of listings that are given by their values' names.

        Args:
          listings: per listing a list of names, one name, or None (or "" or an empty list) where it is unknown.
          parents: {value: the value that it is a kind of}.
        """
        parents = arguments.mapping(parents, "parents", WHERE)
        rows = [[one] if isinstance(one, str) and one else list(one or ()) for one in listings]
        names = sorted({name for row in rows for name in row} | set(parents) | set(parents.values()))
        number = {name: value for value, name in enumerate(names)}
        indptr = np.cumsum([0, *map(len, rows)])
        ids = np.array([number[name] for row in rows for name in row], np.int64)
        above = np.array([number[parents[name]] if name in parents else -1 for name in names], np.int64)
        return cls(names, indptr, ids, None, above if parents else None)


def _name(name: object, what: str) -> str:
    """Returns the name of a value or field; raises InputError for one that no file could hold."""
    name = arguments.text(name, f"{what}s", WHERE)
    try:
        name.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise InputError(f"{WHERE}: the {what} {short(ascii(name))} is not valid Unicode: rename it") from error
    return name


def ancestors(names: Sequence[str], parents: np.ndarray) -> list[list[int]]:
    """Returns the ancestors of every value, nearest first; raises InputError for a value that is its own ancestor."""
    out = []
    for value in range(len(names)):
        found, above = [], int(parents[value])
        while above >= 0:
            if above == value or above in found:
                raise InputError(f"{WHERE}: the value {short(names[value])!r} is its own ancestor: correct its parents")
            found.append(above)
            above = int(parents[above])
        out.append(found)
    return out


def checked(fields: Mapping[str, Field | np.ndarray], rows: int) -> dict[str, Field | np.ndarray]:
    """Returns fields, with numbers as float32.

    Args:
      fields: {name: a `Field` (or what `data.fields` makes), or numbers [n], NaN where unknown}.
      rows: number of listings.

    Raises:
      InputError: a field of another length, one that is neither, or a name that is not valid Unicode.
    """
    out = {}
    for name, field in arguments.mapping(fields, "fields", WHERE).items():
        _name(name, "field")
        if not isinstance(field, Field) and hasattr(field, "value_ids"):
            field = Field(field.values, field.indptr, field.value_ids, field.probability, field.parents)
        if not isinstance(field, Field):
            field = arguments.array(field, f"fields[{name!r}]", WHERE, ("n",))
            with np.errstate(over="ignore"):
                field = field.astype(np.float32)
            if np.isinf(field).any():
                raise InputError(f"{WHERE}: fields[{name!r}] is infinite in row {int(np.isinf(field).argmax())}")
        if len(field) != rows:
            raise InputError(f"{WHERE}: field {name!r} is of {len(field)} listings, not of {rows}: give one row each")
        out[name] = field
    return out
