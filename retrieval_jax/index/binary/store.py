"""A binary index on disk: vectors can be added, replaced and deleted while it is searched, without a rebuild.

Once a write has returned it is on disk and survives a kill at any moment; after an interrupted write, each id is either
there completely or not at all. One process writes, any number read; readers see new writes when they call `refresh`.
The files are described in layout.py and shard.py.

Longer than 400 lines: one class, whose methods share its locks.
"""

from __future__ import annotations

import collections
import os
import pathlib
import threading
import time
import zlib
from collections.abc import Iterable

import numpy as np
import tqdm

from retrieval_jax import arguments
from retrieval_jax.embeddings import Embeddings, Ids, places
from retrieval_jax.errors import InputError
from retrieval_jax.files import generations
from retrieval_jax.index import exact
from retrieval_jax.index.binary import layout, rerank, shard
from retrieval_jax.index.binary.codes import Coder, candidates, fit, probed
from retrieval_jax.scoring.ranking import Ranking


def create(
    folder: str | os.PathLike,
    training: np.ndarray | Embeddings,
    *,
    shards: int = 1,
    dtype: str = "float32",
    bits: int | None = None,
    cells: int | None = None,
    method: str = "itq",
    rounds: int = 10,
    seed: int = 0,
    candidates: int = 200,
    probes: int | None = None,
) -> Store:
    """Creates an empty index.

    Args:
      folder: where to create it; must not exist.
      training: [n, D] vectors like those to be added: rotation and cells are fitted on them. They are not added.
      shards: number of shards, each with its own files.
      dtype: dtype of the vectors on disk, "float32" or "float16".
      bits: see `codes.fit`.
      cells: see `codes.fit`; the default depends on the number of training vectors, so set it if many more will come.
      method: see `codes.fit`.
      rounds: see `codes.fit`.
      seed: see `codes.fit`.
      candidates: see `open`.
      probes: see `open`.

    Returns:
      The index, open for writing.

    Raises:
      InputError: the folder exists, or settings out of range.
    """
    folder = pathlib.Path(folder)
    if folder.exists():
        raise InputError(f"{folder} already exists: open it, or choose a different folder")
    shards = arguments.integer(shards, "shards", "binary.create", high=layout.MOST_SHARDS)
    arguments.choice(dtype, "dtype", "binary.create", ("float32", "float16"))
    candidates = arguments.integer(candidates, "candidates", "binary.create")
    coder = fit(training, bits=bits, cells=cells, method=method, rounds=rounds, seed=seed)

    layout.write(folder, coder, shards, dtype)
    return open(folder, write=True, candidates=candidates, probes=probes)


def open(folder: str | os.PathLike, write: bool = False, *, candidates: int = 200, probes: int | None = None) -> Store:
    """Opens an index that `create` made.

    Args:
      folder: folder of the index.
      write: open for writing too; one process at a time.
      candidates: rows of smallest Hamming distance to re-rank by exact cosine; more give higher recall.
      probes: cells to search per query; by default the larger of 16 and 1/16 of them.

    Raises:
      InputError: there is no index, a file is damaged (the message names it), or another process is writing.
    """
    return Store(pathlib.Path(folder), write, candidates, probes)


class Store:
    """A binary index on disk, from `create` or `open`. Threads may write and search at the same time.

    Attributes:
      coder: computes the codes.
      candidates: see `open`; may be changed.
      probes: see `open`; may be changed.
    """

    def __init__(self, folder: pathlib.Path, write: bool, candidates: int, probes: int | None):
        candidates = arguments.integer(candidates, "candidates", "binary.open")
        self.folder, self.candidates, self._lock_file = folder, candidates, None
        info = layout.read(folder)
        self.coder = Coder.load(folder / "coder.npz")
        self.dim, self.dtype, self.probes = len(self.coder.mean), info["dtype"], probed(self.coder.cells, probes)
        self._memory, self._writing = threading.RLock(), threading.Lock()
        self._row_of: dict[bytes, int] | None = None  # filled on demand: by writes, and by searches with ids
        try:
            if write:
                self._lock_file = generations.lock(folder)
            self._shards = []
            for number in range(info["shards"]):
                self._shards.append(self._open_shard(number, info["shards"]))
        except BaseException:
            self.close()
            raise

    def _open_shard(self, number: int, shards: int) -> shard.Shard:
        folder = self.folder / f"shard-{number:03d}"
        while True:
            generation = generations.current(folder)
            try:
                return shard.Shard(
                    folder,
                    number,
                    shards,
                    dim=self.dim,
                    dtype=self.dtype,
                    bits=self.coder.bits,
                    cells=self.coder.cells,
                    write=self._lock_file is not None,
                )
            except (InputError, OSError):
                if generations.current(folder) == generation:  # otherwise a writer compacted it meanwhile
                    raise

    def __len__(self) -> int:
        return sum(len(part.lists) for part in self._shards)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files and releases the writer lock; there is nothing left to save."""
        for part in getattr(self, "_shards", ()):
            part.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @property
    def dead(self) -> int:
        """Number of deleted or replaced rows still on disk; `compact` frees them."""
        return sum(part.rows for part in self._shards) - len(self)

    def _rows(self) -> dict[bytes, int]:
        with self._memory:  # otherwise a search and a write could each fill a table, and one of them would be lost
            if self._row_of is None:
                self._row_of = {
                    part.name(row): row * part.shards + part.number
                    for part in self._shards
                    for row in np.flatnonzero(np.frombuffer(bytes(part.alive), np.uint8)).tolist()
                }
            return self._row_of

    def _begin(self) -> None:
        if self._lock_file is None:
            raise InputError(f"{self.folder} is not open for writing: open(folder, write=True)")

    def add(self, ids: Iterable[str], vectors: np.ndarray | Embeddings) -> None:
        """Adds vectors under new ids; on return they are on disk and searchable.

        Large additions are written in blocks of 4,096; after an interruption the finished blocks are in.

        Args:
          ids: n distinct ids.
          vectors: [n, D] array, memory-mapped array or Embeddings.

        Raises:
          InputError: an id that already exists or is repeated, a wrong shape, or a non-finite vector.
        """
        self._put(ids, vectors, False)

    def update(self, ids: Iterable[str], vectors: np.ndarray | Embeddings) -> None:
        """Adds vectors, replacing those of existing ids; see `add`. Safe to repeat after an interruption."""
        self._put(ids, vectors, True)

    def _put(self, ids: Iterable[str], vectors: np.ndarray | Embeddings, replace: bool) -> None:
        ids = Ids.of(ids)
        names = [item.encode() for item in ids]
        vectors = vectors.vectors if isinstance(vectors, Embeddings) else vectors
        vectors = arguments.vectors(vectors, "vectors", f"{self.folder}")
        if vectors.shape != (len(names), self.dim):
            raise InputError(
                f"{len(names)} ids and vectors of shape {tuple(vectors.shape)}: this index takes one vector of "
                f"{self.dim} dimensions per id"
            )
        if len(set(names)) != len(names):
            twice = collections.Counter(names).most_common(1)[0][0]
            raise InputError(f"id {twice.decode()!r} is repeated: give every id once")
        with self._writing:
            self._begin()
            row_of = self._rows()
            if not replace and (there := next((name for name in names if name in row_of), None)) is not None:
                raise InputError(f"id {there.decode()!r} is already in {self.folder}: use update to replace its vector")
            starts = range(0, len(names), shard.BLOCK)
            for first in starts:  # all of them before the first is written
                block = self._read(vectors, first)
                with np.errstate(over="ignore"):
                    kept = block.astype(self.dtype)
                exact.lengths_of(kept, ids, "new", first)  # rejects non-finite vectors
                lost = ~kept.any(1) & block.any(1)
                if lost.any():
                    row = first + int(lost.argmax())
                    raise InputError(
                        f"the vector of row {row} ({ids[row]}) is so short that it becomes zero in {self.dtype}: scale "
                        "it, or create an index of float32"
                    )
            for first in tqdm.tqdm(starts, desc="add", unit="block", mininterval=1, disable=len(starts) < 16):
                self._put_block(names[first : first + shard.BLOCK], self._read(vectors, first))

    def _read(self, vectors, first: int) -> np.ndarray:
        """Returns a block of vectors to write, [n, D] float32."""
        with np.errstate(over="ignore"):
            return np.asarray(vectors[first : first + shard.BLOCK], np.float32)

    def _put_block(self, names: list[bytes], block: np.ndarray) -> None:
        codes, cells = self.coder.encode(block)
        home = np.array([zlib.crc32(name) % len(self._shards) for name in names])
        row_of = self._rows()
        for part in self._shards:
            here = np.flatnonzero(home == part.number)
            if not len(here):
                continue
            mine = [names[row] for row in here]
            old = np.array([row_of.get(name, -1) for name in mine])
            replaced = np.where(old >= 0, old // part.shards, -1)
            with generations.closing_on_failure(self):
                put = part.put(mine, replaced, block[here], codes[here], cells[here, 0])
                rows = (np.arange(len(mine)) + put.first) * part.shards + part.number
                with self._memory:
                    part.apply(put)
                    row_of.update(zip(mine, rows.tolist(), strict=True))

    def delete(self, ids: Iterable[str]) -> int:
        """Deletes ids; on return the deletion is on disk and they are no longer found.

        Args:
          ids: ids to delete; unknown ones are ignored.

        Returns:
          How many existed.
        """
        names = {item.encode() for item in Ids.of(ids)}
        with self._writing:
            self._begin()
            row_of = self._rows()
            found = sorted(row_of[name] for name in names if name in row_of)
            for part in self._shards:
                rows = np.array([row // part.shards for row in found if row % part.shards == part.number], np.int64)
                if not len(rows):
                    continue
                with generations.closing_on_failure(self):
                    part.delete(rows)
                    with self._memory:
                        part.kill(rows)
                        for row in rows.tolist():
                            del row_of[part.name(row)]
        return len(found)

    def compact(self) -> None:
        """Removes deleted and replaced rows from disk and renumbers the rest; searches continue meanwhile."""
        with self._writing:
            self._begin()
            for number, part in enumerate(self._shards):
                if part.rows == len(part.lists):
                    continue
                with generations.closing_on_failure(self):
                    part.compact()
                    fresh = self._open_shard(number, len(self._shards))
                    with self._memory:
                        part.close()
                        self._replace(part, fresh)

    def refresh(self) -> None:
        """Reads what another process has written since; does nothing if the index is open for writing."""
        if self._lock_file is not None:
            return
        with self._memory:
            for number, part in enumerate(self._shards):
                try:
                    if generations.current(part.folder) == part.generation:
                        end = part.log_end
                        part.refresh()
                        self._row_of = self._row_of if part.log_end == end else None
                        continue
                except (InputError, OSError):
                    if generations.current(part.folder) == part.generation:  # otherwise a writer compacted it meanwhile
                        raise
                fresh = self._open_shard(number, len(self._shards))
                self._replace(part, fresh)

    def _replace(self, old: shard.Shard, new: shard.Shard) -> None:
        self._shards = [new if part is old else part for part in self._shards]  # running searches keep the old list
        self._row_of = None

    def verify(self) -> None:
        """Reads everything on disk and verifies the checksums; other threads and processes may write meanwhile.

        Raises:
          InputError: a damaged file; the message names it.
        """
        for number in range(len(self._shards)):
            part = self._shards[number]
            while True:
                try:
                    part.verify()
                    break
                except (InputError, OSError):
                    if generations.current(part.folder) == part.generation:  # otherwise a writer compacted it meanwhile
                        raise
                if self._lock_file is None:  # what this reader has in memory stays as it is until `refresh`
                    part = self._open_shard(number, len(self._shards))
                else:
                    time.sleep(0.01)  # until the thread that compacts has put the new one in its place
                    part = self._shards[number]

    def names(self, rows: np.ndarray) -> list:
        """Returns the ids of rows (a Ranking's item_rows), as nested lists of the same shape; "" for -1.

        Row numbers are valid until the next compaction, in readers until the `refresh` after it.
        """
        parts = self._shards
        count = len(parts) * max(part.rows for part in parts)
        shape = [f"n{axis}" for axis in range(np.ndim(rows))]
        rows = arguments.rows(rows, "rows", "binary index: names", shape, count, padding=True)

        def named(rows):
            if isinstance(rows, list):
                return [named(row) for row in rows]
            part = parts[rows % len(parts)]
            if rows >= 0 and rows // len(parts) >= part.rows:
                raise InputError(f"binary index: row {rows} does not exist")
            return part.name(rows // len(parts)).decode() if rows >= 0 else ""

        return named(rows.tolist())

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns the best k candidates of every query.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the row with the query's own id is left out.
          k: results per query; the ranking is padded if fewer are found.

        Returns:
          Ranking with item_rows [Q, k] (`names` gives their ids) and scores [Q, k] (exact cosines); ties go by id.

        Raises:
          InputError: a dimension that differs from the index's, k below 1, or a non-finite vector.
        """
        ids, vectors, k = exact.check_queries(queries, self.dim, k)
        with self._memory:
            parts = self._shards
            row_of = self._rows() if ids is not None else {}
            left_out = [()] * len(vectors) if ids is None else ids.left_out()
            found = [[row_of.get(name.encode(), -1) for name in names] for names in left_out]
            own = [np.array([row for row in rows if row >= 0], np.int64) for rows in found]

        def by_id(rows: np.ndarray) -> np.ndarray:
            return places(parts[row % len(parts)].name(row // len(parts)) for row in rows.tolist())

        def fetch(rows: np.ndarray) -> np.ndarray:
            if len(parts) == 1:
                return parts[0].fetch(rows)
            out = np.empty((len(rows), self.dim), np.float32)
            for part in parts:
                here = rows % len(parts) == part.number
                out[here] = part.fetch(rows[here] // len(parts))
            return out

        def find(some: slice, codes: np.ndarray, cells: np.ndarray) -> list[np.ndarray]:
            lists = [part.lists for part in parts]
            with self._memory:
                return candidates(lists, codes, cells, max(self.candidates, k), own[some], by_id)

        rows, scores = rerank.search(
            vectors, ids, k, coder=self.coder, probes=self.probes, find=find, by_id=by_id, fetch=fetch
        )
        exact.warn_zero(exact.zero_rows(vectors, scores), len(vectors), "query", ids)
        return Ranking(ids if ids is not None else Ids.of(map(str, range(len(vectors)))), rows, scores)
