"""A binary index on disk: vectors are added, replaced and deleted while it is searched; nothing is rebuilt.

folder/binary.json    dtype, shards, checksum of coder.npz; dim, bits, cells for who reads it
folder/coder.npz      rotation and centroids (codes.Coder)
folder/writer.lock    held by the one process that writes
folder/shard-000 ...  see shard.py; an id lives in the shard of its checksum

A write that returned is on the disk and outlives a kill at any moment; of a write that was interrupted, each id is
there whole or not at all. One process writes, any number read: they see what was written when they call `refresh`.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import json
import os
import pathlib
import threading
import zlib
from collections.abc import Iterable

import numpy as np
import tqdm

from retrieval_jax.embeddings import Embeddings, Ids, places
from retrieval_jax.errors import InputError
from retrieval_jax.files.arrays import file_sha256
from retrieval_jax.files.atomic import replace_folder
from retrieval_jax.index import exact
from retrieval_jax.index.binary import log, rerank, shard
from retrieval_jax.index.binary.codes import Coder, fit, probed
from retrieval_jax.scoring.ranking import Ranking

FORMAT = 1


def create(
    folder: str | os.PathLike,
    training: np.ndarray | Embeddings,
    *,
    shards: int = 1,
    dtype: str = "float32",
    bits: int | None = None,
    cells: int | None = None,
    rounds: int = 10,
    seed: int = 0,
    candidates: int = 200,
    probes: int | None = None,
) -> Store:
    """Creates an empty index.

    Args:
      folder: where to; must not exist yet.
      training: [n, D] vectors like those that will come: rotation and cells are fitted on them. They are not added.
      shards: parts, each with files of its own.
      dtype: of the vectors on disk, "float32" or "float16".
      bits: see `codes.fit`.
      cells: see `codes.fit`; the default looks at the number of training vectors, so give it if many more will come.
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
        raise InputError(f"{folder} exists already: open it, or choose another folder")
    if not 1 <= shards <= 1000 or dtype not in ("float32", "float16"):
        raise InputError(f"an index has 1 to 1000 shards of float32 or float16 vectors: got {shards} and {dtype!r}")
    coder = fit(training, bits=bits, cells=cells, rounds=rounds, seed=seed)

    def fill(new: pathlib.Path) -> None:
        coder.save(new / "coder.npz")
        for number in range(shards):
            shard.start(new / f"shard-{number:03d}")
        (new / "writer.lock").touch()
        info = {
            "format": FORMAT,
            "dim": len(coder.mean),
            "dtype": dtype,
            "bits": coder.bits,
            "cells": coder.cells,
            "shards": shards,
            "coder_sha256": file_sha256(new / "coder.npz"),
        }
        (new / "binary.json").write_text(json.dumps(info, indent=1))
        for file in ("coder.npz", "binary.json"):
            log.sync(new / file)
        log.sync(new)

    replace_folder(folder, fill)
    log.sync(folder.parent)
    return open(folder, write=True, candidates=candidates, probes=probes)


def open(folder: str | os.PathLike, write: bool = False, *, candidates: int = 200, probes: int | None = None) -> Store:
    """Opens an index that `create` made.

    Args:
      folder: of the index.
      write: for writing too; one process at a time.
      candidates: rows of smallest Hamming distance that are re-ranked by exact cosine: more of them, more recall.
      probes: cells searched for a query; by default 16, or 1 / 16 of them where that is more.

    Raises:
      InputError: no index there, a damaged file (named), or another process writes.
    """
    return Store(pathlib.Path(folder), write, candidates, probes)


def _read_info(folder: pathlib.Path) -> dict:
    file = folder / "binary.json"
    try:
        info = json.loads(file.read_text())
        good = info["shards"] >= 1 and info["dtype"] in ("float32", "float16") and info["coder_sha256"].isalnum()
        if not good or type(info["shards"]) is not int or type(info["format"]) is not int:
            raise ValueError(info)
    except FileNotFoundError as error:
        raise InputError(f"{file} not found: there is no binary index in {folder}; create one") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} is not the description of a binary index ({error!r}): copy it back, or create the index again"
        ) from error
    if info["format"] != FORMAT:
        raise InputError(f"{file} has format {info['format']}, this version reads {FORMAT}: create the index again")
    return info


class Store:
    """A binary index on disk; made by `create` and `open`. Threads may write and search at the same time.

    Attributes:
      coder: what makes the codes.
      candidates: see `open`; may be changed.
      probes: see `open`; may be changed.
    """

    def __init__(self, folder: pathlib.Path, write: bool, candidates: int, probes: int | None):
        if candidates < 1:
            raise InputError(f"candidates is {candidates}: re-rank at least one")
        self.folder, self.candidates, self._lock_file = folder, candidates, None
        info = _read_info(folder)
        if not (folder / "coder.npz").exists() or file_sha256(folder / "coder.npz") != info["coder_sha256"]:
            raise InputError(
                f"{folder / 'coder.npz'} has changed since it was written: copy it back from a backup, or "
                "create the index again"
            )
        self.coder = Coder.load(folder / "coder.npz")
        self.dim, self.dtype, self.probes = len(self.coder.mean), info["dtype"], probed(self.coder.cells, probes)
        self._memory, self._writing = threading.RLock(), threading.Lock()
        self._row_of: dict[bytes, int] | None = None  # filled when first needed: by writers, and where ids are queries
        try:
            if write:
                self._lock_file = os.open(folder / "writer.lock", os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise InputError(
                        f"{folder} is open for writing elsewhere: close it there first, or open it without write=True"
                    ) from error
            self._shards = []
            for number in range(info["shards"]):
                self._shards.append(self._open_shard(number, info["shards"]))
        except BaseException:
            self.close()
            raise

    def _open_shard(self, number: int, shards: int) -> shard.Shard:
        folder = self.folder / f"shard-{number:03d}"
        while True:
            generation = shard.current(folder)
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
                if shard.current(folder) == generation:  # else a writer compacted it meanwhile
                    raise

    def __len__(self) -> int:
        return sum(len(part.lists) for part in self._shards)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files and lets another process write; nothing is left to save."""
        for part in getattr(self, "_shards", ()):
            part.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @property
    def dead(self) -> int:
        """Rows that are deleted or replaced and still on the disk: `compact` frees them."""
        return sum(part.rows for part in self._shards) - len(self)

    def _rows(self) -> dict[bytes, int]:
        with self._memory:  # a search and a write that both found none would each fill one, and one would be forgotten
            if self._row_of is None:
                self._row_of = {
                    part.name(row): row * part.shards + part.number
                    for part in self._shards
                    for row in np.flatnonzero(np.frombuffer(bytes(part.alive), np.uint8)).tolist()
                }
            return self._row_of

    @contextlib.contextmanager
    def _closed_if_interrupted(self):
        """Closes the index when a write fails (full disk, signal): opening it again cuts off what is not whole."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        if self._lock_file is None:
            raise InputError(f"{self.folder} is not open for writing: open(folder, write=True)")

    def add(self, ids: Iterable[str], vectors: np.ndarray | Embeddings) -> None:
        """Adds vectors under new ids; when it returns they are on the disk and found.

        A long addition is written in blocks of 4,096: if it is interrupted, those before are in.

        Args:
          ids: n distinct ids.
          vectors: [n, D] array, memory-mapped array or Embeddings.

        Raises:
          InputError: an id that is there already or comes twice, a vector that does not fit or is not finite.
        """
        self._put(ids, vectors, False)

    def update(self, ids: Iterable[str], vectors: np.ndarray | Embeddings) -> None:
        """Like `add`, but an id that is there already gets the new vector; safe to repeat after an interruption."""
        self._put(ids, vectors, True)

    def _put(self, ids: Iterable[str], vectors: np.ndarray | Embeddings, replace: bool) -> None:
        ids = Ids.of(ids)
        names = [item.encode() for item in ids]
        vectors = vectors.vectors if isinstance(vectors, Embeddings) else vectors
        if vectors.shape != (len(names), self.dim):
            raise InputError(
                f"{len(names)} ids and vectors of shape {tuple(vectors.shape)}: this index takes one "
                f"vector of {self.dim} numbers for each id"
            )
        if len(set(names)) != len(names):
            twice = collections.Counter(names).most_common(1)[0][0]
            raise InputError(f"id {twice.decode()!r} comes twice: give every id once")
        with self._writing:
            self._begin()
            row_of = self._rows()
            if not replace and (there := next((name for name in names if name in row_of), None)) is not None:
                raise InputError(f"id {there.decode()!r} is in {self.folder} already: use update to replace its vector")
            starts = range(0, len(names), shard.BLOCK)
            for first in tqdm.tqdm(starts, desc="add", unit="block", mininterval=1, disable=len(starts) < 16):
                block = np.asarray(vectors[first : first + shard.BLOCK], np.float32)
                with np.errstate(over="ignore"):
                    exact.lengths_of(block.astype(self.dtype), ids, "new", first)  # refuses what is not finite
                self._put_block(names[first : first + shard.BLOCK], block)

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
            with self._closed_if_interrupted():
                put = part.put(mine, replaced, block[here], codes[here], cells[here, 0])
                rows = (np.arange(len(mine)) + put.first) * part.shards + part.number
                with self._memory:
                    part.apply(put)
                    row_of.update(zip(mine, rows.tolist(), strict=True))

    def delete(self, ids: Iterable[str]) -> int:
        """Deletes ids; when it returns this is on the disk and they are not found any more.

        Args:
          ids: those that are not there are ignored.

        Returns:
          How many were there.
        """
        names = {str(item).encode() for item in ids}
        with self._writing:
            self._begin()
            row_of = self._rows()
            found = sorted(row_of[name] for name in names if name in row_of)
            for part in self._shards:
                rows = np.array([row // part.shards for row in found if row % part.shards == part.number], np.int64)
                if not len(rows):
                    continue
                with self._closed_if_interrupted():
                    part.delete(rows)
                    with self._memory:
                        part.kill(rows)
                        for row in rows.tolist():
                            del row_of[part.name(row)]
        return len(found)

    def compact(self) -> None:
        """Frees the disk of deleted and replaced rows; rows are numbered anew. Searches go on meanwhile."""
        with self._writing:
            self._begin()
            for number, part in enumerate(self._shards):
                if part.rows == len(part.lists):
                    continue
                with self._closed_if_interrupted():
                    part.compact()
                    fresh = self._open_shard(number, len(self._shards))
                    with self._memory:
                        part.close()
                        self._replace(part, fresh)

    def refresh(self) -> None:
        """Reads what another process has written since; one that writes itself has nothing to read."""
        if self._lock_file is not None:
            return
        with self._memory:
            for number, part in enumerate(self._shards):
                try:
                    if shard.current(part.folder) == part.generation:
                        end = part.log_end
                        part.refresh()
                        self._row_of = self._row_of if part.log_end == end else None
                        continue
                except (InputError, OSError):
                    if shard.current(part.folder) == part.generation:  # else a writer compacted it meanwhile
                        raise
                fresh = self._open_shard(number, len(self._shards))
                self._replace(part, fresh)

    def _replace(self, old: shard.Shard, new: shard.Shard) -> None:
        self._shards = [new if part is old else part for part in self._shards]  # searches that go on keep the old list
        self._row_of = None

    def verify(self) -> None:
        """Reads everything and compares the checksums.

        Raises:
          InputError: a damaged file, named.
        """
        for part in self._shards:
            part.verify()

    def names(self, rows: np.ndarray) -> list:
        """Returns the ids of rows (a Ranking's item_rows), as nested lists of the same shape; "" for -1.

        Rows keep their meaning until the next compaction, in readers until the `refresh` after it.
        """
        rows = np.asarray(rows)
        if rows.ndim:
            return [self.names(row) for row in rows]
        number, parts = int(rows), self._shards
        return parts[number % len(parts)].name(number // len(parts)).decode() if number >= 0 else ""

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns, for every query, the best k of its candidates.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the row with the query's own id is left out.
          k: how many; where fewer are found, the ranking is padded.

        Returns:
          Ranking with item_rows [Q, k] (`names` gives their ids) and scores [Q, k] (exact cosines); equal scores ascend
          by id.

        Raises:
          InputError: another dimension than the index's, k below 1, or a vector that is not finite.
        """
        ids, vectors = exact.check_queries(queries, self.dim, k)
        with self._memory:
            parts = self._shards
            row_of = self._rows() if ids is not None else {}
            found = [row_of.get(name.encode(), -1) for name in ids] if ids is not None else [-1] * len(vectors)
            own = [np.array([row] if row >= 0 else [], np.int64) for row in found]

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

        rows, scores = rerank.search(
            vectors,
            ids,
            k,
            coder=self.coder,
            shards=[part.lists for part in parts],
            count=self.candidates,
            probes=self.probes,
            own=own,
            by_id=by_id,
            fetch=fetch,
            lock=self._memory,
        )
        return Ranking(ids if ids is not None else Ids.of(map(str, range(len(vectors)))), rows, scores)
