"""Further columns of listings (text, attributes, numbers), from the listings' own files or from a file beside them.

A further column is declared as name=(header, kind) or name=(header, kind, file), where a kind is one of

    text      n strings, "" where empty
    category  int32 [n], rows of the column's names, -1 where empty or unknown
    list      `Ragged` of such rows; the values are separated by "|", or are a JSON or Parquet list
    number    float32 [n], NaN where empty, written as `numbers` reads it; a tuple of k headers gives [n, k]

and a file is one with a row per listing, which it names by id. The names are those that occur in train (else in val,
else in any split), sorted, numbers by value. "box" holds shares of height and width: ymin, xmin, ymax, xmax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax import pairs
from retrieval_jax.data.catalog import Column
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.pictures import sources
from retrieval_jax.data.tables import numbers, row_checks, table_files
from retrieval_jax.data.tables import values as values_lib
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError, short

KINDS = ("text", "category", "list", "number")
SETTING = "config.data.kwargs.columns"
# Reasons that are held against no file beside the listings.
NO_LISTING = "no listing has this id"
FALLEN = "its listing was set aside"
SEPARATOR = "|"


@dataclasses.dataclass(frozen=True)
class Further:
    """A further column.

    Attributes:
      name: ours.
      headers: its names in the file; several for kind "number" only.
      kind: one of KINDS.
      file: below the root, "" for the files of the listings.
    """

    name: str
    headers: tuple[str, ...]
    kind: str
    file: str = ""

    @property
    def wanted(self) -> dict[str, str]:
        """Returns {column of a frame: header}, for `table_files.read`."""
        return {f"further {self.name} {number}": header for number, header in enumerate(self.headers)}


def declared(columns: Mapping[str, Any], known: Sequence[str]) -> tuple[dict[str, Any], list[Further]]:
    """Separates the columns that every catalogue may have from further ones.

    Args:
      columns: config.data.kwargs.columns.
      known: names of the former.

    Returns:
      The former as they are, and the further ones.

    Raises:
      InputError: an unknown name without a kind, or a declaration that cannot be.
    """
    own, further = {}, []
    for name, given in columns.items():
        if name in known:
            own[name] = given
            continue
        if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
            raise InputError(
                f"{SETTING} has {name!r}; it takes {', '.join([*known, 'and further columns with their kind'])} "
                f"({', '.join(KINDS)}), such as colour=('base_colour', 'category')"
            )
        header, kind, file = (*given, "")[:3]
        headers = (header,) if isinstance(header, str) else tuple(header or ())
        if kind not in KINDS:
            raise InputError(f"{SETTING}.{name}: there is no kind {kind!r}{pairs.near(kind, KINDS)}")
        if not headers or not all(isinstance(one, str) for one in (*headers, file)):
            raise InputError(f"{SETTING}.{name} is {given!r}: give (header, kind) or (header, kind, file)")
        if len(headers) > 1 and kind != "number":
            raise InputError(f"{SETTING}.{name} has {len(headers)} headers; only a column of kind 'number' may")
        if not str(name).isidentifier() or name == "title":
            raise InputError(f"{SETTING} has {name!r}: a further column's name is a word, and not 'title'")
        if name == "box" and (kind != "number" or len(headers) != 4):
            raise InputError(f"{SETTING}.box: give four headers (ymin, xmin, ymax, xmax) and the kind 'number'")
        if problem := sources.path_problem(file):
            raise InputError(f"{SETTING}.{name}: the file {file!r} leaves the root ({problem})")
        further.append(Further(name, headers, kind, file))
    return own, further


def in_listings(further: Sequence[Further]) -> dict[str, str]:
    """Returns {column of a frame: header} of the columns that are in the listings' own files."""
    return {ours: theirs for one in further if not one.file for ours, theirs in one.wanted.items()}


def lists(further: Sequence[Further]) -> dict[str, str]:
    """Returns {column of a frame: separator} of those that may hold lists."""
    return {ours: SEPARATOR for one in further if one.kind == "list" for ours in one.wanted}


def check_found(further: Sequence[Further], tables: Mapping[str, Rows], root: Any, encoding: str) -> None:
    """Raises InputError where no split's files have a column; a split may lack it.

    Args:
      further: the columns.
      tables: rows of every split.
      root: folder of the files.
      encoding: of their text.
    """
    for one in further:
        if not one.file and not any(set(one.wanted) <= set(rows.frame.columns) for rows in tables.values()):
            path = next(iter(tables.values())).files[0]
            found = table_files.header(root, path, encoding)
            for header in one.headers:
                table_files.check_columns(path, found, {one.name: header}, {one.name: header}, SETTING)


def read_beside(further: Sequence[Further], root: Any, id_header: str, encoding: str) -> list[Rows]:
    """Reads the files beside the listings.

    Args:
      further: the columns.
      root: folder of the files.
      id_header: name of the column of ids, as in the listings' files.
      encoding: of their text.

    Returns:
      The `Rows` of every such file, checked as far as they can be alone.

    Raises:
      InputError: see `table_files.read`.
    """
    found = []
    for file in dict.fromkeys(one.file for one in further if one.file):
        own = [one for one in further if one.file == file]
        wanted = {"id": id_header} | {ours: theirs for one in own for ours, theirs in one.wanted.items()}
        rows = table_files.read(f"columns of {file}", root, [file], wanted, encoding=encoding, lists=lists(own))
        row_checks.check_ids(rows)
        found.append(rows)
    return found


def settle_numbers(tables: Sequence[Rows], further: Sequence[Further]) -> None:
    """Writes numbers plainly, as the values of all tables together say what a comma means; see `numbers`.

    Args:
      tables: rows of every split, or of one file beside the listings.
      further: all further columns.
    """
    for name in [ours for one in further if one.kind == "number" for ours in one.wanted]:
        having = [rows for rows in tables if name in rows.frame.columns]
        if not having:
            continue
        every = numbers.written_plainly(pl.concat([_clean(rows.frame[name]) for rows in having]))
        start = 0
        for rows in having:
            rows.frame = rows.frame.with_columns(every[start : start + len(rows)].alias(name))
            start += len(rows)


def check(rows: Rows, further: Sequence[Further]) -> None:
    """Marks rows with a value that is not a number where one should be, or with a box that cannot be.

    Args:
      rows: of a split, or of a file beside the listings; bad ones are marked, and values are cleaned.
      further: all further columns; those that the rows have are checked.
    """
    for one in further:
        if not set(one.wanted) <= set(rows.frame.columns):
            continue
        clean = _without_nulls if one.kind == "text" else _clean
        rows.frame = rows.frame.with_columns(clean(rows.frame[column]) for column in one.wanted)
        if one.kind != "number":
            continue
        clean = [rows.frame[column] for column in one.wanted]
        values = np.stack([_numbers(column) for column in clean], 1)
        empty = np.stack([(column == "").to_numpy() for column in clean], 1)
        for row, at in zip(*np.nonzero(~empty & ~np.isfinite(values)), strict=True):
            text = short(clean[at][int(row)])
            rows.mark(int(row), "not a number", f"{one.headers[at]} is {text!r}, {numbers.about(clean[at][int(row)])}")
        for row in np.flatnonzero(empty.any(1) & ~empty.all(1)):
            header = one.headers[int(empty[row].argmax())]
            rows.mark(int(row), "missing value", f"{header} is empty, but other values of {one.name} are not; give all")
        if one.name == "box":
            low, high = values[:, :2], values[:, 2:]
            with np.errstate(invalid="ignore"):
                wrong = (low < 0).any(1) | (high > 1).any(1) | (low >= high).any(1)
            for row in np.flatnonzero(wrong & ~empty.any(1)):
                listed = ", ".join(f"{value:g}" for value in values[row])
                rows.mark(
                    int(row),
                    "not a box",
                    f"the box {listed} is not one: ymin, xmin, ymax, xmax are shares of height and width, 0 to 1, the "
                    "former below the latter",
                )


def plain_numbers(texts: Sequence[str]) -> list[str]:
    """Returns the cells of a whole column of numbers, written plainly; see `numbers`."""
    return numbers.written_plainly(_clean(pl.Series(texts, dtype=pl.String))).to_list()


def are_numbers(texts: Sequence[str]) -> bool:
    """Returns whether every value of a column that is not empty is read as a number, and there is one.

    Args:
      texts: n cells.
    """
    column = pl.Series(plain_numbers(texts), dtype=pl.String)
    column = column.filter(column != "")
    return len(column) > 0 and bool(np.isfinite(_numbers(column).astype(np.float32)).all())


def _clean(column: pl.Series) -> pl.Series:
    """Returns values after `values.cell`, "" for null words."""
    return _without_nulls(values_lib.cells(column))


def _without_nulls(column: pl.Series) -> pl.Series:
    """Returns texts, "" for null words; "none" may be a value."""
    return column.set(pl.Series(values_lib.nulls(column, none=False)), "")


def _numbers(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().astype(np.float64)


def attach(tables: Mapping[str, Rows], beside: Rows, further: Sequence[Further]) -> None:
    """Gives the splits the columns of a file beside the listings.

    Args:
      tables: rows of every split; those with a listing of the file get its columns.
      beside: rows of the file; those without a listing are marked.
      further: all further columns.
    """
    ids, known, kept = beside.frame["id"], np.zeros(len(beside), bool), np.zeros(len(beside), bool)
    for rows in tables.values():
        own = rows.frame["id"].fill_null("")
        known |= ids.is_in(own.implode()).to_numpy()
        kept |= ids.is_in(own.filter(pl.Series(rows.good())).implode()).to_numpy()
    for row in np.flatnonzero(~known):
        beside.mark(int(row), NO_LISTING, "no listing has this id; its values are not used")
    for row in np.flatnonzero(known & ~kept):
        beside.mark(int(row), FALLEN, "the listing of this id is a bad row of its split")
    columns = [ours for one in further if one.file == beside.files[0] for ours in one.wanted]
    good = beside.frame.filter(pl.Series(beside.good())).select("id", *columns)
    for rows in tables.values():
        if rows.frame["id"].is_in(good["id"].implode()).any():
            frame = rows.frame.join(good, on="id", how="left", maintain_order="left")
            rows.frame = frame.with_columns(pl.col(columns).fill_null(""))


def names(tables: Mapping[str, Rows], further: Sequence[Further]) -> dict[str, list[str]]:
    """Returns the names that the values of every attribute refer to.

    Args:
      tables: rows of every split, checked.
      further: all further columns.
    """
    out = {}
    for one in further:
        if one.kind not in ("category", "list"):
            continue
        [column] = one.wanted
        having = {split: rows for split, rows in tables.items() if column in rows.frame.columns}
        defining = next(([having[split]] for split in ("train", "val") if split in having), list(having.values()))
        values = set()
        for rows in defining:
            found = rows.frame[column].filter(pl.Series(rows.good()))
            values.update((_values(found).explode() if one.kind == "list" else found).unique())
        out[one.name] = row_checks.by_value(value for value in values if value)
    return out


def _values(column: pl.Series) -> pl.Series:
    """Returns the values of every list, each without blanks around, as a polars list of texts."""
    flat = pl.DataFrame({"row": np.arange(len(column)), "value": column.str.split(SEPARATOR)}).explode("value")
    flat = flat.with_columns(value=_clean(flat["value"])).filter(pl.col("value") != "")
    listed = flat.group_by("row", maintain_order=True).agg("value")
    rows = pl.DataFrame({"row": np.arange(len(column))}).join(listed, on="row", how="left", maintain_order="left")
    return rows["value"].fill_null([])


def of_split(rows: Rows, kept: np.ndarray, further: Sequence[Further], known: Mapping[str, list]) -> dict[str, Column]:
    """Returns the further columns of a split.

    Args:
      rows: of the split, checked.
      kept: int [n], the rows that became listings.
      further: all further columns; those that the rows lack are left out.
      known: as of `names`.
    """
    out = {}
    for one in further:
        if not set(one.wanted) <= set(rows.frame.columns):
            continue
        frame = rows.frame.select(*one.wanted)[kept]
        first = frame.to_series(0)
        if one.kind == "text":
            out[one.name] = first.to_list()
        elif one.kind == "number":
            values = np.stack([_numbers(column) for column in frame], 1).astype(np.float32)
            out[one.name] = values if len(one.headers) > 1 else values[:, 0]
        elif one.kind == "category":
            out[one.name] = row_checks.places(first, known[one.name])
        else:
            listed = _values(first)
            flat = pl.DataFrame({"row": np.arange(len(first)), "value": listed}).explode("value").drop_nulls("value")
            place = row_checks.places(flat["value"], known[one.name])
            owner = flat["row"].to_numpy()[place >= 0]  # a value that train does not have is not in the list
            indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(first)))])
            out[one.name] = Ragged(indptr, place[place >= 0])
    return out
