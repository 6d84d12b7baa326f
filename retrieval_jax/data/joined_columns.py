"""Columns and tables of several catalogues as those of one; `joined` joins the rest.

A column that a catalogue lacks is unknown for its listings: "", -1, NaN, or an empty list. Rows of tables follow the
listings that they refer to.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from retrieval_jax.data.catalog import Catalog, Column, Lazy, Split, Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError

# Columns of tables with one value per entry of another column.
_PARALLEL = {"count": "clicked", "position": "clicked", "weight": "clicked", "wrong": "clicked"}
_PARALLEL |= {"clicked_position": "clicked", "unclicked_position": "unclicked"}


def numbered(names: Mapping[str, list[str]], same: bool) -> tuple[list[str], dict[str, np.ndarray]]:
    """Joins names that several catalogues give to one attribute or category level.

    Args:
      names: {catalogue: its names}.
      same: whether equal names mean the same; otherwise they are called "catalogue/name", those of one catalogue after
        those of another.

    Returns:
      The joined names, and {catalogue: int32 [its names + 1], where its names stand among them}; the last, for unknown
      values, is -1.
    """
    if same:
        joined = sorted({value for own in names.values() for value in own})
    else:  # two categories of one catalogue that are called alike stay two
        joined = [f"{name}/{value}" for name, own in names.items() for value in own]
    place, places, start = {value: number for number, value in enumerate(joined)}, {}, 0
    for name, own in names.items():
        rows = [place[value] for value in own] if same else range(start, start + len(own))
        places[name] = np.array([*rows, -1], np.int32)
        start += len(own)
    return joined, places


class Attributes:
    """The attributes of several catalogues, numbered as one.

    Args:
      parts: the catalogues, by name.
      same: see `numbered`.

    Attributes:
      names: {attribute: joined names}.

    Raises:
      InputError: a column is an attribute in one catalogue and text or numbers in another.
    """

    def __init__(self, parts: Mapping[str, Catalog], same: bool):
        self.names, self._places = {}, {}
        for column in dict.fromkeys(column for part in parts.values() for column in part.column_names):
            own = {name: list(part.column_names[column]) for name, part in parts.items() if column in part.column_names}
            for name, part in parts.items():
                if name not in own and any(column in split.columns for split in part.splits().values()):
                    raise InputError(
                        f"config.data.kwargs.catalogs: {column} is an attribute in {next(iter(own))} and not in "
                        f"{name}; give it another name in one of them"
                    )
            self.names[column], self._places[column] = numbered(own, same)

    def renumbered(self, catalogue: str, name: str, column: Column) -> Column:
        """Returns a column of a catalogue with its values as rows of the joined names."""
        if name not in self.names:
            return column
        places = self._places[name][catalogue]
        if isinstance(column, Ragged):
            return Ragged(column.indptr, places[column.values])
        return places[column]

    def of_split(self, catalogue: str, split: Split) -> Mapping[str, Column]:
        """Returns the columns of a catalogue's split, renumbered."""
        makers = {
            name: functools.partial(lambda name: self.renumbered(catalogue, name, split.columns[name]), name)
            for name in split.columns
        }
        return _made(makers, [split.columns])

    def of_splits(self, splits: Mapping[str, Split]) -> Mapping[str, Column]:
        """Returns the columns of the splits of several catalogues, {catalogue: split}, one after the other."""

        def join(column: str) -> Column:
            found = {
                name: self.renumbered(name, column, split.columns[column])
                for name, split in splits.items()
                if column in split.columns
            }
            try:
                return concatenated([found.get(name) for name in splits], [len(split) for split in splits.values()])
            except ValueError as error:
                raise InputError(
                    f"config.data.kwargs.catalogs: the column {column} is of different kinds in {', '.join(found)} "
                    f"({error}); give it another name in one of them"
                ) from error

        every = dict.fromkeys(column for split in splits.values() for column in split.columns)
        makers = {column: functools.partial(join, column) for column in every}
        return _made(makers, [split.columns for split in splits.values()])


def _made(makers: Mapping[str, Callable[[], Any]], of: list[Mapping]) -> Mapping[str, Any]:
    """Computes values at once, unless one that they are made of is computed on demand itself."""
    if any(isinstance(mapping, Lazy) for mapping in of):
        return Lazy(makers, of)
    return {name: make() for name, make in makers.items()}


def concatenated(columns: list[Column | None], lengths: list[int], padding: float | None = None) -> Column:
    """Returns columns one after the other.

    Args:
      columns: the columns, None for one that is unknown; at least one is known.
      lengths: entries of each.
      padding: what narrower arrays [n, k] are filled up with; None refuses them.

    Raises:
      ValueError: they are of different kinds.
    """
    known = [column for column in columns if column is not None]
    first = known[0]
    kinds = sorted({_kind(column) for column in known})
    if len(kinds) > 1 and not (padding is not None and all(kind.startswith("rows of") for kind in kinds)):
        raise ValueError(" and ".join(kinds))
    if isinstance(first, Ragged):
        empty = first.values[:0]
        parts = [
            Ragged(np.zeros(count + 1, np.int64), empty) if column is None else column
            for column, count in zip(columns, lengths, strict=True)
        ]
        indptr = np.concatenate([[0], *(np.diff(part.indptr) for part in parts)])
        return Ragged(np.cumsum(indptr), np.concatenate([part.values for part in parts]))
    if isinstance(first, np.ndarray):
        width = max(column.shape[-1] for column in known) if first.ndim == 2 else 0
        unknown = np.nan if first.dtype.kind == "f" else -1
        parts = []
        for column, count in zip(columns, lengths, strict=True):
            if column is None:
                column = np.full((count, *first.shape[1:]), unknown, first.dtype)
            if width > column.shape[-1] and first.ndim == 2:
                column = np.pad(column, ((0, 0), (0, width - column.shape[1])), constant_values=padding)
            parts.append(column)
        return np.concatenate(parts)
    filled = ([""] * count if column is None else column for column, count in zip(columns, lengths, strict=True))
    return [text for column in filled for text in column]


def _kind(column: Column) -> str:
    if isinstance(column, Ragged):
        return "lists"
    if not isinstance(column, np.ndarray):
        return "texts"
    number = "integers" if column.dtype.kind in "iu" else "numbers"
    return number if column.ndim == 1 else f"rows of {column.shape[1]} {number}"


def tables(parts: Mapping[str, Catalog], search: str) -> Mapping[str, Table]:
    """Returns the tables of several catalogues, those of one name and split one after the other.

    What refers to queries or gallery of a catalogue that is not searched is left out, with a line in the log.

    Args:
      parts: the catalogues, by name.
      search: name of the one whose queries and gallery are searched.
    """

    def usable(name: str, key: str) -> bool:
        part = parts[name]
        refers_to = {key.rpartition("/")[2]}
        if not isinstance(part.tables, Lazy):
            refers_to |= set(part.tables[key].rows_of.values())
        return name == search or not refers_to & {"query", "gallery"}

    found: dict[str, list[str]] = {}
    for name, part in parts.items():
        left_out = [key for key in part.tables if not usable(name, key)]
        if left_out:
            logging.getLogger(__name__).info(
                "joined: %s of %s are left out, which refer to its queries or gallery", ", ".join(left_out), name
            )
        for key in part.tables:
            if key not in left_out:
                found.setdefault(key, []).append(name)
    makers = {key: functools.partial(_joined_table, key, names, parts) for key, names in found.items()}
    return _made(makers, [part.tables for part in parts.values()])


def _joined_table(key: str, names: list[str], parts: Mapping[str, Catalog]) -> Table:
    moved, starts = {}, dict.fromkeys(("train", "val", "photo"), 0)
    for name, part in parts.items():
        splits = {split: listings for split, listings in part.splits().items() if split in starts}
        if name in names:
            places = {split: np.arange(len(listings)) + starts[split] for split, listings in splits.items()}
            moved[name] = part.tables[key].moved(places)
        for split, listings in splits.items():
            starts[split] += len(listings)
    first, *others = moved.values()
    for name, table in moved.items():
        for column, split in table.rows_of.items():
            if split != first.rows_of.get(column, split):
                raise InputError(
                    f"config.data.kwargs.catalogs: {column} of the table {key} refers to the {split} split in {name} "
                    f"and to {first.rows_of[column]} in {next(iter(moved))}; leave the table out of one of them"
                )
    columns = {}
    for column in dict.fromkeys(column for table in moved.values() for column in table.columns):
        values = [_column_of(table, column) for table in moved.values()]
        columns[column] = concatenated(values, [len(table) for table in moved.values()], padding=-1)
    return Table(columns, {column: split for table in (first, *others) for column, split in table.rows_of.items()})


def _column_of(table: Table, column: str) -> Column | None:
    """Returns a table's column; None if it is unknown, or -1 for each value of the column that it is parallel to."""
    if column in table.columns or column not in _PARALLEL:
        return table.columns.get(column)
    beside = table.columns[_PARALLEL[column]]
    return Ragged(beside.indptr, np.full(len(beside.values), -1, np.float32 if column == "weight" else np.int32))
