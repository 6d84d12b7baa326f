"""Tables that refer to listings: clicks, outfits, typed queries, edits. One row of a file is one row of the table.

    clicks   photo: id of the photo searched with; clicked, unclicked: ids of listings that were shown;
             clicked_position, unclicked_position (optional): one whole number per id, its place on the page, from 1
    outfits  listings: ids of two or more; compatible (optional): 1 or 0, empty if unknown
    queries  text: as typed; clicked: ids; count, position (optional): one whole number per id: clicks, 0 for a listing
             that was only shown; place on the page, from 1; weight (optional): one number of 0 or more per id, what a
             click is worth, log(1 + clicks) corrected for places; wrong (optional): one whole number per id, how often
             it was judged to be no result; part (optional): "train" or "val"
    edits    reference: id of the listing in view; words: what to change; targets: ids of the listings that are meant

Several ids are separated by blanks, or are a JSON or Parquet list. Rows of "queries" with equal text are one query:
their clicks are added up, so one row per text and listing will do as well.

The listings of a row (without photo and reference) are all of one split, the first of train, val, gallery and query
that has them all; `Catalog.tables` has a table for every split. Photos are looked up in the split "photo" or the
queries, references in the same split as the targets or the queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax import brief, pairs
from retrieval_jax.data.catalog import PHOTO, Column, Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.pictures import sources
from retrieval_jax.data.tables import table_files, typed_queries
from retrieval_jax.data.tables import values as values_lib
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError, short

SETTING = "config.data.kwargs.tables"
FALLEN = "its listings were set aside"  # held against no file
SPLITS = ("train", "val", "gallery", "query")


@dataclasses.dataclass(frozen=True)
class Form:
    """What a table looks like.

    Attributes:
      listings: columns of ids of listings, the first must not be empty.
      anchor: column of one id, of a listing or photo; "" for none.
      texts: columns of text.
      optional: columns that a file may lack.
    """

    listings: tuple[str, ...]
    anchor: str = ""
    texts: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        return (*((self.anchor,) if self.anchor else ()), *self.texts, *self.listings, *self.optional)


FORMS = {
    "clicks": Form(("clicked", "unclicked"), anchor="photo", optional=("clicked_position", "unclicked_position")),
    "outfits": Form(("listings",), optional=("compatible",)),
    "queries": Form(("clicked",), texts=("text",), optional=("count", "position", "weight", "wrong", "part")),
    "edits": Form(("targets",), anchor="reference", texts=("words",)),
}
# Columns with a number per listing of another one, of "queries" and "clicks".
PER_LISTING = {
    **dict.fromkeys(("count", "position", "weight", "wrong", "clicked_position"), "clicked"),
    "unclicked_position": "unclicked",
}
PARTS = ("train", "val", "")  # which queries are trained on; "" where the file does not say
_NEW = {"yes": 1, "true": 1, "1": 1, "no": 0, "false": 0, "0": 0, "": -1}  # values of "compatible"


def read(tables: Mapping[str, Any] | None, root: Any, encoding: str) -> dict[str, Rows]:
    """Reads the files of tables.

    Args:
      tables: config.data.kwargs.tables, {name: file below root, or dict(file=..., column=header, ...)}.
      root: folder of the files.
      encoding: of their text.

    Returns:
      {name: `Rows`}, not checked yet.

    Raises:
      InputError: an unknown table or column, a file outside the root, or see `table_files.read`.
    """
    found = {}
    for name, given in (tables or {}).items():
        if not given:
            continue
        if name not in FORMS:
            raise InputError(f"{SETTING}: there is no table {name!r}{pairs.near(name, FORMS)}")
        form, headers = FORMS[name], {"file": given} if isinstance(given, str) else given
        if not isinstance(headers, Mapping) or not all(isinstance(value, str) for value in headers.values()):
            raise InputError(f"{SETTING}.{name} is {given!r}: give a file, or dict(file=..., column=header, ...)")
        pairs.check_arguments(name, headers, ("file", *form.columns), SETTING, "table")
        if "file" not in headers:
            raise InputError(f"{SETTING}.{name} has no file; give dict(file=..., {form.columns[0]}=header, ...)")
        if problem := sources.path_problem(headers["file"]):
            raise InputError(f"{SETTING}.{name}: the file {headers['file']!r} leaves the root ({problem})")
        wanted = {column: headers.get(column, column) for column in form.columns}
        optional = {column: wanted.pop(column) for column in form.optional if column not in headers}
        lists = dict.fromkeys((*form.listings, *PER_LISTING), " ")
        found[name] = table_files.read(
            name, root, [headers["file"]], wanted, optional, encoding, lists=lists, setting=f"{SETTING}.{name}"
        )
        found[name].frame = _mended(found[name].frame, form)
        if form.anchor:  # for messages and set_aside.csv
            found[name].frame = found[name].frame.with_columns(pl.col(form.anchor).alias("id"))
    return found


def _mended(frame: pl.DataFrame, form: Form) -> pl.DataFrame:
    """Returns the columns of a table with ids and numbers repaired, see `values.cell`; null words are empty."""
    one_value = [column for column in (form.anchor, "compatible", "part") if column in frame.columns]
    several = [column for column in (*form.listings, *PER_LISTING) if column in frame.columns]
    anchors = {column: values_lib.cells(frame[column]) for column in one_value}
    empty = {column: found.set(pl.Series(values_lib.nulls(found)), "") for column, found in anchors.items()}
    texts = {column: frame[column].set(pl.Series(values_lib.nulls(frame[column])), "") for column in form.texts}
    return frame.with_columns(**empty, **texts, **{column: values_lib.lists(frame[column]) for column in several})


@dataclasses.dataclass(frozen=True)
class Found:
    """Where the rows of a table refer to; rows are those of the splits' files.

    Attributes:
      split: int [n], number in SPLITS of the split of the listings.
      anchors: (split of the anchors of each split of listings, int64 [n] rows); ({}, None) where there are none.
      listings: {column: (owner, the row of the table; place, the listing's row; entry, its number among all ids of the
        column)}, int64 [m] each, without listings that were set aside.
    """

    split: np.ndarray
    anchors: tuple[dict[str, str], np.ndarray | None]
    listings: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]

    __repr__ = brief.line


def check(name: str, rows: Rows, splits: Mapping[str, Rows]) -> Found:
    """Marks rows with missing or impossible values, and those that refer to unknown listings.

    Args:
      name: of the table.
      rows: of the table; bad ones are marked.
      splits: rows of every split, checked.

    Returns:
      Where the good rows refer to.
    """
    form, frame = FORMS[name], rows.frame
    for column in (*form.texts, *((form.anchor,) if form.anchor else ()), form.listings[0]):
        for row in np.flatnonzero((frame[column].str.strip_chars() == "").to_numpy()):
            rows.mark(int(row), "missing value", f"{column} is empty; fill it in or remove the row")
    exploded = {column: _exploded(frame[column]) for column in form.listings}
    if name == "outfits":
        distinct = exploded["listings"].unique(["row", "id"])
        few = np.bincount(distinct["row"].to_numpy(), minlength=len(rows)) < 2
        for row in np.flatnonzero(few):
            rows.mark(
                int(row),
                "fewer than two listings",
                "an outfit has two different listings or more; add one or remove the row",
            )
    for column in form.optional:
        _check_values(rows, column)
    split, places = _places(rows, exploded, splits)
    anchors: tuple[dict[str, str], np.ndarray | None] = {}, None
    if form.anchor:
        anchors = _anchors(name, rows, split, splits)
    listings = {}
    for column, (owner, place, entry, kept) in places.items():
        alive = np.bincount(owner[kept], minlength=len(rows)) > 0
        some = np.bincount(owner, minlength=len(rows)) > 0
        if name == "outfits":
            alive &= np.bincount(owner[~kept], minlength=len(rows)) == 0
        for row in np.flatnonzero(some & ~alive) if column == form.listings[0] else ():
            rows.mark(int(row), FALLEN, f"its listings ({column}) are bad rows of their split")
        listings[column] = owner[kept], place[kept], entry[kept]
    return Found(split, anchors, listings)


def _exploded(column: pl.Series) -> pl.DataFrame:
    """Returns (row, id) of every id of a column."""
    listed = column.str.extract_all(r"\S+")
    return pl.DataFrame({"row": np.arange(len(column)), "id": listed}).explode("id").drop_nulls("id")


def _check_values(rows: Rows, column: str) -> None:
    """Marks rows with impossible values of "compatible", "part", or a column of `PER_LISTING`."""
    if column not in rows.frame.columns:
        return
    values = rows.frame[column].str.strip_chars().str.to_lowercase().to_list()
    if column == "compatible":
        for row, value in enumerate(values):
            if value not in _NEW:
                rows.mark(row, "not yes or no", f"compatible is {short(value)!r}; give 1, 0, or nothing if unknown")
        return
    if column == "part":
        for row, value in enumerate(values):
            if value not in PARTS:
                rows.mark(row, "not a part", f"part is {short(value)!r}; give 'train' or 'val', or leave it empty")
        return
    listings = PER_LISTING[column]
    counts = rows.frame[listings].str.extract_all(r"\S+").list.len().to_list()
    for row, (value, ids) in enumerate(zip(values, counts, strict=True)):
        numbers = value.split()
        if column == "weight":
            wrong = [number for number in numbers if typed_queries.weight(number) is None]
            wanted = f"a number from 0 to {typed_queries.MOST_WEIGHT:g}, such as log(1 + clicks)"
        else:
            wrong = [number for number in numbers if not number.isdecimal() or len(number) > 9]
            wanted = "a whole number from 0"
        if wrong:
            rows.mark(row, "not a number", f"{column} is {short(wrong[0])!r}, not {wanted}; correct it")
        elif numbers and len(numbers) != ids:
            rows.mark(
                row,
                "wrong number of values",
                f"{column} has {len(numbers)} values for {ids} {listings} listings; give one each, or none",
            )


def _places(rows: Rows, exploded: dict[str, pl.DataFrame], splits: Mapping[str, Rows]) -> tuple[np.ndarray, dict]:
    """Finds the split that has all the listings of a row.

    Returns:
      int [n], number in SPLITS, -1 for a bad row; and {column: (owner, place, entry, whether the listing is kept)} of
      the listings of good rows, see `Found`.
    """
    every = pl.concat(list(exploded.values()))
    owner = every["row"].to_numpy()
    found = [_lookup(every["id"], splits.get(split)) for split in SPLITS]
    split = np.full(len(rows), -1)
    for number in reversed(range(len(SPLITS))):
        split[np.bincount(owner[found[number][0] < 0], minlength=len(rows)) == 0] = number
    split[np.bincount(owner, minlength=len(rows)) == 0] = -1
    nowhere = np.max([place for place, _ in found], axis=0) < 0
    unknown = every.filter(pl.Series(nowhere))
    _mark_unknown(rows, unknown, splits, "any split")
    for row in np.flatnonzero(split < 0):
        rows.mark(int(row), "listings of several splits", "no one split has all its listings; make it several rows")
    split[list(rows.bad)] = -1
    good = split[owner] >= 0
    place = np.stack([place for place, _ in found])[split[owner], np.arange(len(owner))]
    kept = np.stack([kept for _, kept in found])[split[owner], np.arange(len(owner))]
    ends = np.cumsum([0, *map(len, exploded.values())])
    out = {}
    for column, start, stop in zip(exploded, ends[:-1], ends[1:], strict=True):
        chosen = np.arange(start, stop)[good[start:stop]]
        out[column] = owner[chosen], place[chosen], chosen - start, kept[chosen]
    return split, out


def _lookup(ids: pl.Series, rows: Rows | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of ids in a split, int64 [n], -1 where it has none, and bool [n], whether the row is good."""
    if rows is None or not len(ids):
        return np.full(len(ids), -1, np.int64), np.zeros(len(ids), bool)
    known = pl.DataFrame({"id": rows.frame["id"], "place": np.arange(len(rows), dtype=np.int64), "kept": rows.good()})
    known = known.sort("kept", descending=True, maintain_order=True).unique("id", keep="first", maintain_order=True)
    found = ids.rename("id").to_frame().join(known, on="id", how="left", maintain_order="left")
    return found["place"].fill_null(-1).to_numpy(), found["kept"].fill_null(False).to_numpy()


def _mark_unknown(rows: Rows, unknown: pl.DataFrame, splits: Mapping[str, Rows], where: str) -> None:
    near: dict[str, str] = {}
    for other in splits.values() if len(unknown) else ():
        near = values_lib.near(unknown["id"].unique(), other.frame["id"].fill_null("")) | near
    for row, one in unknown.iter_rows():
        there = values_lib.there_is(near, one)
        rows.mark(row, "unknown listing", f"{short(one)!r} is not in {where}{there}; correct it or remove it")


def _anchors(
    name: str, rows: Rows, split: np.ndarray, splits: Mapping[str, Rows]
) -> tuple[dict[str, str], np.ndarray | None]:
    """Finds the photos or references, and marks rows without one, or with one in another split than most others."""
    anchor = FORMS[name].anchor
    ids = rows.frame[anchor].str.strip_chars()
    into, place = {}, np.full(len(rows), -1, np.int64)
    for number, own in enumerate(SPLITS):
        chosen = np.flatnonzero(split == number)
        if not len(chosen):
            continue
        order = (PHOTO, "query", own) if name == "clicks" else (own, "query")
        found = {other: _lookup(ids[chosen], splits[other]) for other in dict.fromkeys(order) if other in splits}
        into[own] = max(found, key=lambda other: (found[other][0] >= 0).sum())
        there, kept = found[into[own]]
        place[chosen] = there
        unknown = pl.DataFrame({"row": chosen[there < 0], "id": ids[chosen[there < 0]]})
        _mark_unknown(rows, unknown, {into[own]: splits[into[own]]}, f"the {into[own]} split")
        for row in chosen[(there >= 0) & ~kept]:
            rows.mark(int(row), FALLEN, f"its {anchor} is a bad row of the {into[own]} split")
    return into, place


def make(name: str, rows: Rows, found: Found, kept: Mapping[str, np.ndarray]) -> dict[str, Table]:
    """Makes the tables of the good rows, one per split.

    Args:
      name: of the table.
      rows: its rows, checked.
      found: as of `check`.
      kept: {split: int64, the rows of its files that became listings, ascending}.

    Returns:
      {"<name>/<split>": Table}.
    """
    form, out, good = FORMS[name], {}, rows.good()
    into, anchors = found.anchors
    for number, split in enumerate(SPLITS):
        chosen = np.flatnonzero((found.split == number) & good)
        if not len(chosen):
            continue
        columns: dict[str, Column] = {}
        rows_of = dict.fromkeys(form.listings, split)
        if anchors is not None:
            columns[form.anchor] = np.searchsorted(kept[into[split]], anchors[chosen])
            rows_of[form.anchor] = into[split]
        columns |= {column: rows.frame[column][chosen].to_list() for column in form.texts}
        new = np.full(len(rows), -1)
        new[chosen] = np.arange(len(chosen))
        for column in form.listings:
            owner, place, entry = found.listings[column]
            own = new[owner] >= 0
            lengths = np.bincount(new[owner[own]], minlength=len(chosen))
            listed = np.searchsorted(kept[split], place[own])  # rows of a table come in order, so do its listings
            columns[column] = Ragged(np.concatenate([[0], np.cumsum(lengths)]), listed)
            if (position := f"{column}_position") in rows.frame.columns:
                places = typed_queries.numbers(rows, position, column, -1, int)[entry[own]]
                columns[position] = Ragged(columns[column].indptr, np.where(places > 0, places, -1).astype(np.int32))
        if name == "queries":
            part = rows.frame["part"][chosen].to_list() if "part" in rows.frame.columns else None
            columns |= typed_queries.added_up(
                columns["text"], columns["clicked"], typed_queries.values(rows, entry[own]), part
            )
        if name == "outfits":
            columns["listings"] = _rectangle(columns["listings"])
            if "compatible" in rows.frame.columns:
                values = rows.frame["compatible"][chosen].str.strip_chars().str.to_lowercase()
                columns["compatible"] = np.array([_NEW[value] for value in values], np.int32)
            else:
                columns["compatible"] = np.full(len(chosen), -1, np.int32)
        out[f"{name}/{split}"] = Table(columns, rows_of)
    return out


def _rectangle(ragged: Ragged) -> np.ndarray:
    """Returns rows as int64 [n, k], -1 past the end of a shorter one."""
    values, mask = ragged.padded(np.arange(len(ragged)))
    return np.where(mask, values, -1).astype(np.int64)
