"""An attribute index on disk: listings can be added, replaced and deleted while it is searched.

folder/attribute.json    format, dim and dtype of the vectors
folder/writer.lock       held by the one process that writes
folder/current.json      {"generation": 1}: which files are current
folder/000001.table/     listings of the beginning, saved whole: ids and attributes (storage.py)
folder/000001.vectors    [rows, dim] floats, row by row, append-only
folder/000001.log        records (files/journal.py): listings put after these, with ids and attributes, or rows deleted

Once a write has returned it is on disk and survives a kill at any moment; after an interrupted write, each id is either
there completely, vector and attributes, or not at all. A write appends vectors, syncs, appends its record, and syncs
again: the record commits it. `compact` writes the live listings as files of the next generation and replaces
current.json. One process writes, any number read; readers see new writes when they call `refresh`.

Longer than 400 lines: one class, whose methods share its lock.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import struct
import threading
import zlib
from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.embeddings import Embeddings, Ids, places
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents, generations, journal
from retrieval_jax.files.opening import opened
from retrieval_jax.index import exact
from retrieval_jax.index.attribute import candidates, encoding, facets, finding, storage
from retrieval_jax.index.attribute.explain import Explanation, explain
from retrieval_jax.index.attribute.fields import Field
from retrieval_jax.index.attribute.finding import Found
from retrieval_jax.index.attribute.scan import Scan
from retrieval_jax.index.attribute.table import Table, to_rows

FORMAT = 1
PUT, DELETE = 1, 2
BLOCK = 4096  # rows per record
KINDS = ("table", "vectors", "log")
REMEDY = "restore it from a backup, or build the index again"


class _Info(TypedDict):
    """attribute.json."""

    format: int
    dim: documents.Size
    dtype: Literal["float32", "float16"]


def create(
    folder: str | os.PathLike,
    vectors: np.ndarray | Embeddings,
    fields: Mapping[str, Field | np.ndarray],
    ids: Iterable[str] | None = None,
    *,
    dtype: str = "float32",
) -> Store:
    """Creates an index of listings, saved whole.

    Args:
      folder: where to create it; must not exist.
      vectors: [n, D] array or Embeddings; n may be 0.
      fields: {name: a `Field`, or numbers [n], NaN where unknown}; later additions have fields of these names.
      ids: n distinct ids, for arrays.
      dtype: dtype of the vectors on disk, "float32" or "float16".

    Returns:
      The index, open for writing.

    Raises:
      InputError: the folder exists, ids that are repeated, or arrays that do not match.
    """
    folder = pathlib.Path(folder)
    if folder.exists():
        raise InputError(f"{folder} already exists: open it, or choose a different folder")
    arguments.choice(dtype, "dtype", "attribute.create", ("float32", "float16"))
    if isinstance(vectors, Embeddings):
        vectors, ids = vectors.vectors, vectors.ids if ids is None else ids
    vectors = arguments.vectors(vectors, "vectors", "attribute.create")
    ids = Ids.of(() if ids is None else ids)
    _check_ids(ids, len(vectors), folder)
    table = encoding.build(fields, len(vectors))
    for first in range(0, len(vectors), BLOCK):
        _stored(vectors, first, dtype, ids)  # all of them before the first is written

    def fill(new: pathlib.Path) -> None:
        with generations.path(new, 1, "vectors").open("wb") as stream:
            for first in range(0, len(vectors), BLOCK):
                stream.write(_stored(vectors, first, dtype, ids).tobytes())
        _write_table(generations.path(new, 1, "table"), table, ids)
        generations.path(new, 1, "log").touch()
        (new / generations.LOCK).touch()
        info = {"format": FORMAT, "dim": vectors.shape[1], "dtype": dtype}
        atomic.write_text(new / "attribute.json", json.dumps(info))
        generations.set_current(new, 1)

    atomic.replace_folder(folder, fill)
    atomic.sync(folder.parent)
    return open(folder, write=True)


def open(folder: str | os.PathLike, write: bool = False) -> Store:
    """Opens an index that `create` made.

    Args:
      folder: folder of the index.
      write: open for writing too; one process at a time.

    Raises:
      InputError: there is no index, a file is damaged (the message names it), or another process is writing.
    """
    return Store(pathlib.Path(folder), write)


def _write_table(folder: pathlib.Path, table: Table, ids: Ids) -> None:
    folder.mkdir()
    ids.save(folder)
    storage.write(table, folder)
    atomic.settle_files(folder)
    atomic.sync(folder)


def _check_ids(ids: Ids, count: int, folder: pathlib.Path) -> None:
    if len(ids) != count:
        raise InputError(f"{folder}: {len(ids)} ids for {count} vectors: give one id per vector")
    if len(set(ids)) != len(ids):
        twice = collections.Counter(ids).most_common(1)[0][0]
        raise InputError(f"{folder}: id {twice!r} is repeated: give every id once")


def _stored(vectors, first: int, dtype: str, ids: Ids) -> np.ndarray:
    """Returns a block of vectors as they are kept on disk; raises InputError for those that cannot be."""
    with np.errstate(over="ignore"):
        block = np.asarray(vectors[first : first + BLOCK], np.float32)
        kept = block.astype(dtype)
    exact.lengths_of(kept, ids, "new", first)
    if (lost := ~kept.any(1) & block.any(1)).any():
        row = first + int(lost.argmax())
        raise InputError(
            f"the vector of row {row} ({ids[row]}) is so short that it becomes zero in {dtype}: scale it, or create an "
            "index of float32"
        )
    return kept


class Store:
    """An attribute index on disk, from `create` or `open`. Threads may write and search; they take turns."""

    def __init__(self, folder: pathlib.Path, write: bool):
        self.folder, self._memory, self._descriptors, self._lock = folder, threading.RLock(), None, None
        info = documents.read(
            folder / "attribute.json",
            _Info,
            remedy=REMEDY,
            missing=f"there is no attribute index in {folder}; create one",
        )
        if info["format"] != FORMAT:
            raise InputError(
                f"{folder} has format {info['format']}, this version reads {FORMAT}: build the index again"
            )
        self.dim, self.dtype = info["dim"], np.dtype(info["dtype"])
        try:
            if write:
                self._lock = generations.lock(folder)
            self._open()
            if write:
                self._append()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"attribute.Store({len(self):,} x {self.dim})"

    def __len__(self) -> int:
        return len(self.table)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files and releases the writer's lock; there is nothing left to save."""
        for descriptor in (*(self._descriptors or ()), *([] if self._lock is None else [self._lock])):
            os.close(descriptor)
        self._descriptors = self._lock = None

    @property
    def dead(self) -> int:
        """Number of deleted or replaced rows still on disk; `compact` frees them."""
        return self.table.rows - len(self.table)

    # ----------------------------------------------------------------------------------------------- opening, reading

    def _open(self) -> None:
        """Reads the current generation, again if a writer compacts it meanwhile."""
        while True:
            self.generation = generations.current(self.folder)
            try:
                self._load()
                return
            except (InputError, OSError):
                if generations.current(self.folder) == self.generation:
                    raise

    def _path(self, kind: str) -> pathlib.Path:
        return generations.path(self.folder, self.generation, kind)

    def _load(self) -> None:
        self.table = storage.read(self._path("table"))
        self._base = Ids.load(self._path("table"))
        if len(self._base) != self.table.rows:
            raise InputError(f"{self._path('table')} has {len(self._base)} ids for {self.table.rows} rows: {REMEDY}")
        self._added: list[str] = []
        self._row_of: dict[str, int] | None = None  # filled on demand: by writes, and by searches with ids
        self._log_end, self._scan = 0, None
        self._vectors = np.zeros((0, self.dim), self.dtype)
        last = self._replay()
        if last is not None and zlib.crc32(self._bytes(last.first, len(last.ids))) != last.crc:
            raise self._changed(last)

    def _replay(self) -> storage.Put | None:
        """Applies new records of the log; returns the last listings put, if any."""
        last = None
        for kind, payload, end in journal.read(self._path("log"), self._log_end):
            try:
                if kind == PUT:
                    last = storage.Put.unpack(payload, self.table)
                    self._apply(last)
                elif kind == DELETE and len(payload) % 8 == 0:
                    rows = np.frombuffer(payload, "<i8")
                    if len(rows) and not 0 <= rows.min() <= rows.max() < self.table.rows:
                        raise ValueError("rows")
                    self._kill(rows)
                else:
                    raise ValueError("kind")
            except (ValueError, struct.error) as error:
                raise InputError(
                    f"{self._path('log')}: the record ending at byte {end} does not match this index: {REMEDY}"
                ) from error
            self._log_end = end
        self._map()
        return last

    def _apply(self, put: storage.Put) -> None:
        self._kill(put.replaced[put.replaced >= 0])
        self.table.learn(put.learnt)
        self.table.append(put.block)
        self._added += put.ids
        if self._row_of is not None:
            self._row_of.update(zip(put.ids, range(put.first, put.first + len(put.ids)), strict=True))

    def _kill(self, rows: np.ndarray) -> None:
        if len(rows):
            self.table.kill(rows)
            if self._row_of is not None:
                for row in rows.tolist():
                    del self._row_of[self.name(row)]

    def _map(self) -> None:
        # Eagerly, not when rows are fetched: after a compaction the file is unlinked.
        if self.table.rows > len(self._vectors):
            shape = self.table.rows, self.dim
            with self._stream() as stream:
                if os.fstat(stream.fileno()).st_size < self.table.rows * self._row_bytes:
                    raise InputError(
                        f"{self._path('vectors')} is truncated: it should hold {self.table.rows} rows of "
                        f"{self._row_bytes} bytes: {REMEDY}"
                    )
                self._vectors = np.memmap(stream, self.dtype, "r", shape=shape).view(np.ndarray)

    @property
    def _row_bytes(self) -> int:
        return self.dim * self.dtype.itemsize

    def _stream(self):
        try:
            return opened(self._path("vectors"))
        except FileNotFoundError as error:
            raise InputError(f"{self._path('vectors')} not found: {REMEDY}") from error

    def _bytes(self, first: int, count: int) -> bytes:
        with self._stream() as stream:
            stream.seek(first * self._row_bytes)
            return stream.read(count * self._row_bytes)

    def _changed(self, put: storage.Put) -> InputError:
        return InputError(
            f"{self._path('vectors')}: rows {put.first} to {put.first + len(put.ids) - 1} have changed since they were "
            f"written: {REMEDY}; nothing was changed"
        )

    def refresh(self) -> None:
        """Reads what another process has written since; does nothing if the index is open for writing."""
        if self._lock is not None:
            return
        with self._memory:
            try:
                if generations.current(self.folder) == self.generation:
                    self._replay()
                    return
            except (InputError, OSError):
                if generations.current(self.folder) == self.generation:  # otherwise a writer compacted it meanwhile
                    raise
            self._open()

    def name(self, row: int) -> str:
        """Returns the id of a row; rows are valid until a compaction, in readers until the `refresh` after it."""
        return self._base[row] if row < len(self._base) else self._added[row - len(self._base)]

    def names(self, rows: np.ndarray) -> list:
        """Returns the ids of rows (a Ranking's item_rows), as nested lists of the same shape; "" for -1."""
        if np.ndim(rows):
            return [self.names(row) for row in rows]
        return self.name(int(rows)) if rows >= 0 else ""

    def _rows(self) -> dict[str, int]:
        with self._memory:
            if self._row_of is None:
                self._row_of = {self.name(row): row for row in self.table.alive}
            return self._row_of

    # ----------------------------------------------------------------------------------------------------- writing

    def _append(self) -> None:
        """Opens the current files for appending, without unacknowledged writes and files of other generations."""
        generations.remove_others(self.folder, self.generation, KINDS)
        self._stream().close()  # says so if it is missing, or is not a file
        ends = self._log_end, self.table.rows * self._row_bytes
        self._descriptors = journal.open_repaired(self._path("log"), self._path("vectors"), *ends)

    def _begin(self) -> None:
        if self._lock is None:
            raise InputError(f"{self.folder} is not open for writing: open(folder, write=True)")

    def add(self, ids: Iterable[str], vectors, fields: Mapping[str, Field | np.ndarray]) -> None:
        """Adds listings under new ids; on return they are on disk and searchable.

        Large additions are written in blocks of 4,096; after an interruption the finished blocks are in.

        Args:
          ids: n distinct ids.
          vectors: [n, D] array, memory-mapped array or Embeddings.
          fields: {name: a `Field` of n listings, or numbers [n]}; a field that is left out is unknown for all of them.
            Values may be new, fields may not.

        Raises:
          InputError: an id that already exists or is repeated, arrays that do not match, an unknown field, or a
            non-finite vector.
        """
        self._put(ids, vectors, fields, False)

    def update(self, ids: Iterable[str], vectors, fields: Mapping[str, Field | np.ndarray]) -> None:
        """Adds listings, replacing existing ones whole; see `add`. Safe to repeat after an interruption."""
        self._put(ids, vectors, fields, True)

    def _put(self, ids, vectors, fields, replace: bool) -> None:
        ids = Ids.of(ids)
        vectors = vectors.vectors if isinstance(vectors, Embeddings) else vectors
        vectors = arguments.vectors(vectors, "vectors", f"{self.folder}", self.dim)
        _check_ids(ids, len(vectors), self.folder)
        with self._memory:
            self._begin()
            found = encoding.check_fields(self.table, fields, len(ids))
            row_of = self._rows()
            if not replace and (there := next((name for name in ids if name in row_of), None)) is not None:
                raise InputError(f"id {there!r} is already in {self.folder}: use update to replace it")
            starts = range(0, len(ids), BLOCK)
            for first in starts:  # all of them before the first is written
                _stored(vectors, first, self.dtype.name, ids)
            for first in starts:
                with generations.closing_on_failure(self):
                    self._put_block(
                        ids[first : first + BLOCK], _stored(vectors, first, self.dtype.name, ids), found, first
                    )

    def _put_block(self, ids: list[str], block: np.ndarray, fields: dict, first: int) -> None:
        row_of = self._rows()
        learnt = encoding.new_values(self.table, fields)
        known = self.table.with_values(learnt)  # the table itself learns them with the record
        encoded = encoding.encode(known, fields, first, first + len(ids))
        replaced = np.array([row_of.get(name, -1) for name in ids])
        data = block.tobytes()
        put = storage.Put(self.table.rows, ids, replaced, learnt, encoded, zlib.crc32(data))
        journal.write_all(self._descriptors[0], data)
        os.fdatasync(self._descriptors[0])
        self._log_end += journal.append(self._descriptors[1], PUT, put.pack())
        self._apply(put)
        self._map()

    def delete(self, ids: Iterable[str]) -> int:
        """Deletes ids; on return the deletion is on disk and they are no longer found.

        Args:
          ids: ids to delete; unknown ones are ignored.

        Returns:
          How many existed.
        """
        names = set(Ids.of(ids))
        with self._memory:
            self._begin()
            row_of = self._rows()
            rows = np.array(sorted(row_of[name] for name in names if name in row_of), np.int64)
            if len(rows):
                with generations.closing_on_failure(self):
                    payload = rows.astype("<i8").tobytes()
                    self._log_end += journal.append(self._descriptors[1], DELETE, [payload])
                    self._kill(rows)
        return len(rows)

    def compact(self) -> None:
        """Writes the live listings as a whole, without deleted and replaced rows, and renumbers them."""
        with self._memory:
            self._begin()
            with generations.closing_on_failure(self):
                rows, generation = to_rows(self.table.alive), self.generation + 1
                with generations.path(self.folder, generation, "vectors").open("wb") as stream:
                    for first in range(0, len(rows), BLOCK):
                        stream.write(self._vectors[rows[first : first + BLOCK]].tobytes())
                    stream.flush()
                    os.fsync(stream.fileno())
                names = Ids.of([self.name(row) for row in rows.tolist()])
                _write_table(generations.path(self.folder, generation, "table"), self.table.taken(rows), names)
                generations.path(self.folder, generation, "log").touch()
                generations.set_current(self.folder, generation)
                for descriptor in self._descriptors:
                    os.close(descriptor)
                self._descriptors = None
                self._open()
                self._append()

    def verify(self) -> None:
        """Reads everything on disk and verifies the checksums of what was added since the last compaction.

        Raises:
          InputError: a damaged file; the message names it.
        """
        with self._memory:
            table = storage.read(self._path("table"))
            for kind, payload, _ in journal.read(self._path("log")):
                if kind == PUT:
                    put = storage.Put.unpack(payload, table)
                    table.learn(put.learnt)
                    table.append(put.block)
                    if zlib.crc32(self._bytes(put.first, len(put.ids))) != put.crc:
                        raise self._changed(put)

    # ----------------------------------------------------------------------------------------------------- searching

    def _searched(self) -> Scan:
        if self._scan is None or self._scan.engine.gallery is not self._vectors:
            engine = exact.Index(self._vectors)
            engine.place = _ByName(self)
            if self._scan is None:
                self._scan = Scan(engine)
            else:
                self._scan.grown(engine)
        return self._scan

    def search(self, queries: np.ndarray | Embeddings, k: int = 10, conditions=None) -> Found:
        """Returns the k best listings that meet the conditions of every query; see `attribute.Index.find`.

        The ranking has row numbers; `names` gives their ids.
        """
        ids, vectors, k = exact.check_queries(queries, self.dim, k)
        with self._memory:
            given = finding.per_query(conditions, len(vectors), self.table)
            row_of = self._rows() if ids is not None else {}
            left_out = enumerate(() if ids is None else ids.left_out())
            own = [(query, row_of[name]) for query, names in left_out for name in names if name in row_of]
            own = np.array(sorted(own), np.int64).reshape(-1, 2)
            found = finding.find(self.table, self._searched(), None, ids, vectors, k, given, own)
            return dataclasses.replace(found, generation=self.generation)

    def facets(self, conditions=None, fields: Iterable[str] | None = None, top: int | None = None) -> dict:
        """Returns how many of the listings that meet the conditions have each value; see `attribute.Index.facets`."""
        with self._memory:
            (given,) = finding.per_query(conditions, 1, self.table)
            return facets.count(
                self.table, self.table.matching(given, 0), None if fields is None else list(fields), top
            )

    def candidates(self, attributes: Mapping[str, Mapping[str, float]], budget: int) -> np.ndarray:
        """Returns the rows that share the most predicted attributes with a query; see `candidates.choose`."""
        with self._memory:
            return candidates.choose(self.table, attributes, budget, _ByName(self))

    def explain(self, found: Found, query: int, parts=None, weights=None) -> list[Explanation]:
        """Explains the results of a query; see `explain.explain`.

        Raises:
          InputError: see there; or the results are of before a compaction, which numbered the rows anew.
        """
        with self._memory:
            if found.generation != self.generation:
                raise InputError(
                    f"{self.folder}: these results are not of the current files (generation {found.generation}, now "
                    f"{self.generation}), whose rows have other numbers: search again"
                )
            return explain(self.table, found, query, self.names, parts, weights)


class _ByName:
    """Ranks of rows by id, computed for the rows that are asked for: of these alone the order is needed."""

    def __init__(self, store: Store):
        self._store = store

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return places(self._store.name(row).encode() for row in rows.tolist())
