"""A catalogue: listings of four splits, what is known about them, and the gallery listings relevant to each query.

eProduct calls the split that is searched "index". Here it is the *gallery*; an index is the structure that searches it.

Beside pictures, titles and categories, a split may have further columns (text, attributes, boxes), and a catalogue may
have tables that refer to listings:

    clicks   photo: rows [n] of the split "photo" or "query"; clicked, unclicked: Ragged rows of the listings shown;
             clicked_position, unclicked_position (optional): Ragged int32, places on the page from 1, -1 if unknown
    outfits  listings: rows [n, k], -1 past the end of a shorter outfit; compatible: int32 [n], 1, 0, or -1 if unknown
    queries  text: n strings; clicked: Ragged rows, most clicked first; count, position (optional): Ragged int32, one
             value per listing of "clicked": clicks, 0 if only shown; place on the page from 1, -1 if unknown; weight
             (optional): Ragged float32, log(1 + clicks) corrected for places; part (optional): n strings, "train",
             "val" or "" (not said)
    edits    reference: rows [n]; words: n strings, "the same but in red"; targets: Ragged rows of what was meant

A table is kept once per split that its listings are in, under the key "<name>/<split>", such as "clicks/train".
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import brief, pairs
from retrieval_jax.data.examples import Ragged
from retrieval_jax.embeddings.ids import Ids
from retrieval_jax.errors import InputError, short

_log = logging.getLogger(__name__)
SPLITS = ("train", "val", "query", "gallery")
REFERENCE = "reference"  # text column of queries about a listing: its id, "" for none; it is never a result
PHOTO = "photo"  # a fifth split that only tables refer to: shoppers' photos, which are nobody's listing

Column = np.ndarray | Ragged | Sequence[str]


class Lazy(Mapping):
    """A mapping whose values are computed on first access and kept.

    Args:
      makers: {name: function without arguments that returns the value}.
      made_of: identifies the values without computing them: a text, or the mappings that they are computed from.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Any]], made_of: str | Sequence[Mapping]):
        self.makers, self.made_of = dict(makers), made_of
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self.makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:  # that of Mapping would compute the value
        return name in self.makers

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


@dataclasses.dataclass
class Split:
    """Listings of one split, column by column; row i of every column is the same listing.

    Attributes:
      name: "train", "val", "query", "gallery" or "photo".
      ids: listing ids, n strings; a list or a lazy sequence.
      titles: n strings, or None where the split has no titles.
      categories: int32 [n, levels], rows of `Catalog.category_names[level]`, -1 where unknown; or None.
      images: random access, `images[row]` is uint8 [H, W, 3] RGB at the picture's own size.
      category_names: those of the catalogue, which fills them in.
      sources: int32 [n], which catalogue a listing is from where several are joined; or None.
      column_names: those of the catalogue, which fills them in.
      category_levels: those of the catalogue, which fills them in.
      columns: further columns by name. Text: n strings, "" where unknown. Attributes: int32 [n], rows of
        `Catalog.column_names[name]`, -1 where unknown, or a `Ragged` of such rows. Numbers: float32 [n] or [n, k], NaN
        where unknown. The text column "reference" of queries has the id of the listing that a query is about, "" for
        none, which is never a result: the catalogue gives it to `ids` (`Ids.about`). "box" is float32 [n, 4]: ymin,
        xmin, ymax, xmax of the product, as shares of height and width.
    """

    name: str
    ids: Sequence[str]
    titles: Sequence[str] | None
    categories: np.ndarray | None
    images: Any
    category_names: tuple[list[str], ...] = ()
    sources: np.ndarray | None = None
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)
    column_names: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    category_levels: tuple[str, ...] = ()

    __repr__ = brief.line

    def __post_init__(self):
        if not isinstance(self.columns, Lazy):
            _check_lengths(f"the {self.name} split", {"ids": self.ids, **self.columns})

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> Column:
        """Returns a further column, or the titles for "title"; raises InputError, naming those that exist."""
        titles = {} if self.titles is None else {"title": self.titles}
        if name in titles or name in self.columns:
            return titles[name] if name in titles else self.columns[name]
        known = [*titles, *self.columns]
        raise InputError(
            f"the {self.name} split has no column {name!r}{pairs.near(name, known)}; name its header in "
            "config.data.kwargs.columns"
        )

    def texts(self, name: str) -> Column:
        """Returns a column of text, "" where it is unknown; raises InputError for another kind, whose values do not
        tell listings apart: attributes that train does not have are unknown, and numbers are rounded."""
        found = self.column(name)
        if not _is_text(found):
            raise InputError(
                f"the column {name!r} is of attributes or numbers, and has to be text: give its kind with its header, "
                f"config.data.kwargs.columns.{name} = ('header', 'text')"
            )
        return found

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the rows of embedded listings, int64 [n]; raises InputError for one that the split does not have.

        Args:
          ids: of the listings, in the order wanted.
        """
        row_of = {name: row for row, name in enumerate(self.ids)}
        if missing := next((name for name in ids if name not in row_of), None):
            raise InputError(
                f"the {self.name} split has no listing {missing}, which was embedded: embed this catalogue"
            )
        return np.array([row_of[name] for name in ids], np.int64)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows that refer to listings; the module lists the tables and their columns.

    Attributes:
      columns: {name: n rows}: int64 rows of splits ([n], [n, k] or Ragged), texts, numbers.
      rows_of: {column: name of the split that its values are rows of}; columns that hold no rows are not in it.
    """

    columns: Mapping[str, Column]
    rows_of: Mapping[str, str]

    __repr__ = brief.line

    def __post_init__(self):
        _check_lengths("a table", self.columns)
        if missing := [name for name in self.rows_of if name not in self.columns]:
            raise InputError(f"a table has no column {missing[0]!r}; it has {', '.join(self.columns)}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def take(self, rows: np.ndarray) -> Table:
        """Returns some rows, in the order given.

        Args:
          rows: int [m].
        """
        return dataclasses.replace(self, columns={name: take(column, rows) for name, column in self.columns.items()})

    def moved(self, places: Mapping[str, np.ndarray]) -> Table:
        """Returns the table for splits whose listings have moved to other rows; rows that refer to a listing that is
        gone are dropped.

        Args:
          places: {split: int64 [rows before], the row now, -1 where the listing is gone}; a split that is not in it has
            not moved.
        """
        columns, alive = dict(self.columns), np.ones(len(self), bool)
        for name, split in self.rows_of.items():
            if split not in places:
                continue
            column, place = columns[name], np.append(places[split], -1)  # -1, no listing, indexes the last
            if isinstance(column, Ragged):
                rows = place[column.values]
                owner = np.repeat(np.arange(len(self)), np.diff(column.indptr))
                alive[owner[(rows < 0) & (column.values >= 0)]] = False
                columns[name] = Ragged(column.indptr, rows)
            else:
                rows = place[column]
                gone = (rows < 0) & (column >= 0)
                alive &= ~(gone.any(1) if gone.ndim == 2 else gone)
                columns[name] = rows
        return Table(columns, self.rows_of).take(np.flatnonzero(alive))


@dataclasses.dataclass
class Catalog:
    """The splits of a catalogue and what is known about them.

    Attributes:
      name: of the catalogue.
      train, val, query, gallery: a `Split`, or None where the catalogue has none.
      truth: `ranking.Truth`, the relevant gallery rows of every query, or None where unknown.
      category_levels: names of the category levels, coarse to fine; the last is the leaf.
      category_names: for every level the names that `Split.categories` refers to.
      counts: {file or split: {"read": n, "kept": n, "set_aside": {reason: n}}}; read = kept + the sum of set_aside.
      set_aside: the rows that were left out: dict(file, row, id, reason, sentence).
      photo: shoppers' photos that tables refer to, a `Split` without titles; or None.
      column_names: {attribute: the names that its values in `Split.columns` refer to}.
      tables: {"<name>/<split>": Table}, see the module.
      references: of queries with the column "reference", how many of the "queries" are about a listing "in_gallery",
        "elsewhere" (the gallery lacks it), or about "none" but their own id; and those "without_answer" because their
        only right answer is the listing that they are about. {} for other queries.
    """

    name: str
    train: Split | None = None
    val: Split | None = None
    query: Split | None = None
    gallery: Split | None = None
    truth: Any = None
    category_levels: tuple[str, ...] = ()
    category_names: tuple[list[str], ...] = ()
    counts: dict = dataclasses.field(default_factory=dict)
    set_aside: list[dict] = dataclasses.field(default_factory=list)
    photo: Split | None = None
    column_names: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    references: dict[str, int] = dataclasses.field(default_factory=dict)

    __repr__ = brief.line

    def __post_init__(self):
        for split in self.splits().values():
            split.category_names, split.category_levels = self.category_names, self.category_levels
            split.column_names = self.column_names
            if split is self.query and _is_text(split.columns.get(REFERENCE)):
                self._say_about(split.columns[REFERENCE])
            if not isinstance(split.columns, Lazy):
                for name in split.columns.keys() & self.column_names.keys():
                    known = len(self.column_names[name])
                    self._check_range(f"column {name} of the {split.name} split", split.columns[name], known)
        if not isinstance(self.tables, Lazy):
            for key, table in self.tables.items():
                for column, split in table.rows_of.items():
                    count = len(self.splits().get(split, ()))
                    self._check_range(f"{column} of the table {key} ({split})", table.columns[column], count)

    def _say_about(self, reference: Sequence[str]) -> None:
        """Gives the queries, and those of the truth, the ids of the listings that they are about."""
        self.query.ids, lost = Ids.of(self.query.ids).with_about(reference), 0
        if self.truth is not None:
            about = dict(zip(self.query.ids, self.query.ids.about, strict=True))
            queries = Ids.of(self.truth.query_ids)
            queries = queries.with_about(about.get(name, "") for name in queries)
            had = self.truth.num_relevant > 0
            self.truth = dataclasses.replace(self.truth, query_ids=queries)  # drops them from the right answers
            lost = int((had & (self.truth.num_relevant == 0)).sum())
        if not self.references:  # a copy of a catalogue has been counted
            self._count_references(lost)

    def _count_references(self, lost: int) -> None:
        """Counts what queries are about, and warns where the column seems to mean something else."""
        ids, there = self.query.ids, set(() if self.gallery is None else self.gallery.ids)
        named = [about for own, about in zip(ids, ids.about, strict=True) if own != about]
        missing = [about for about in named if about not in there]
        if not named:
            return
        self.references = {
            "queries": len(ids),
            "in_gallery": len(named) - len(missing),
            "elsewhere": len(missing),
            "none": len(ids) - len(named),
            "without_answer": lost,
        }
        if there and 2 * len(missing) > len(ids):
            _log.warning(
                "the column %r of the queries names listings that the gallery lacks in %s of %s queries, such as %r: it"
                " holds the id of the listing that a query is about; if yours means something else, give it another"
                " name in config.data.kwargs.columns",
                REFERENCE, f"{len(missing):,}", f"{len(ids):,}", short(missing[0]),
            )  # fmt: skip
        if lost:
            _log.warning(
                "%s of %s queries have no right answer, because the only one is the listing that they are about"
                " (column %r), which is never a result",
                f"{lost:,}", f"{len(ids):,}", REFERENCE,
            )  # fmt: skip

    def _check_range(self, what: str, column: np.ndarray | Ragged, count: int) -> None:
        """Raises InputError where values do not run from -1 to below the number of things that they refer to."""
        values = column.values if isinstance(column, Ragged) else np.asarray(column)
        if values.dtype.kind not in "iu" or (values.size and (values.min() < -1 or values.max() >= count)):
            raise InputError(f"catalogue {self.name}: {what} does not refer to {count:,} entries; load the data again")

    def splits(self) -> dict[str, Split]:
        """Returns the splits that the catalogue has, by name."""
        found = {name: getattr(self, name) for name in (*SPLITS, PHOTO)}
        return {name: split for name, split in found.items() if split is not None}

    def split(self, name: str) -> Split:
        """Returns the split of that name; raises InputError, naming the existing ones, if it is missing."""
        splits = self.splits()
        if name not in splits:
            raise InputError(f"catalogue {self.name} has no split {name!r}; it has {', '.join(splits) or 'none'}")
        return splits[name]

    def table(self, name: str, split: str) -> Table:
        """Returns the table of that name about listings of a split; raises InputError, naming the existing ones, if it
        is missing."""
        if f"{name}/{split}" not in self.tables:
            known = ", ".join(self.tables) or "none"
            raise InputError(
                f"catalogue {self.name} has no table {name!r} about the {split} split (tables: {known}); give its file "
                "in config.data.kwargs.tables"
            )
        return self.tables[f"{name}/{split}"]


def take(column: Column, rows: np.ndarray) -> Column:
    """Returns some entries of a column, in the order given.

    Args:
      column: n entries.
      rows: int [m].
    """
    if isinstance(column, Ragged):
        return column.take(rows)
    if isinstance(column, np.ndarray):
        return column[rows]
    return [column[row] for row in np.asarray(rows).tolist()]


def _is_text(column: Column | None) -> bool:
    return column is not None and not isinstance(column, (np.ndarray, Ragged))


def _check_lengths(what: str, columns: Mapping[str, Any]) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {count:,}" for name, count in lengths.items())
        raise InputError(f"the columns of {what} have different numbers of rows: {listed}")
