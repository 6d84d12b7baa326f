"""One shard of a binary index on disk: vectors in one file, a log of writes and deletions beside it, codes in memory.

shard-000/current.json      {"generation": 1}: which files are current
shard-000/000001.vectors    [rows, dim] floats, row by row, append-only
shard-000/000001.log        records (files/journal.py): rows put, with id, cell and code, or rows deleted

A write appends vectors, syncs, appends its record, and syncs again: the record commits it. Vectors without a record are
truncated when the next writer opens the shard. Row numbers are never reused; compaction writes the live rows to files
of the next generation and replaces current.json.
"""

from __future__ import annotations

import array
import dataclasses
import os
import pathlib
import struct
import zlib
from typing import BinaryIO

import numpy as np

from retrieval_jax import brief
from retrieval_jax.errors import InputError
from retrieval_jax.files import generations, journal
from retrieval_jax.files.opening import opened
from retrieval_jax.index.binary.codes import Lists

PUT, DELETE = 1, 2
BLOCK = 4096  # rows per record
HEAD = struct.Struct("<QIII")
KINDS = ("vectors", "log")


@dataclasses.dataclass(frozen=True, eq=False)
class Put:
    """Rows written together.

    Attributes:
      first: number of the first row.
      replaced: [n] int64, rows that these replace, -1 for none.
      cells: [n] int32.
      ends: [n] int32, end of each id in `names`.
      names: ids, concatenated.
      codes: [n, bits / 8] uint8.
      crc: checksum of the vectors' bytes.
    """

    first: int
    replaced: np.ndarray
    cells: np.ndarray
    ends: np.ndarray
    names: bytes
    codes: np.ndarray
    crc: int

    __repr__ = brief.line

    def pack(self) -> list[bytes]:
        """Returns the payload of a record."""
        head = HEAD.pack(self.first, len(self.cells), len(self.names), self.crc)
        arrays = (self.replaced.astype("<i8"), self.cells.astype("<i4"), self.ends.astype("<i4"))
        return [head, *(part.tobytes() for part in arrays), self.names, np.ascontiguousarray(self.codes).tobytes()]

    @classmethod
    def unpack(cls, payload: bytes, code_bytes: int) -> Put:
        """Returns the rows that `pack` packed; raises ValueError or struct.error for anything else."""
        first, count, length, crc = HEAD.unpack_from(payload)
        if len(payload) != HEAD.size + count * (16 + code_bytes) + length:
            raise ValueError("length")
        at = HEAD.size
        replaced = np.frombuffer(payload, "<i8", count, at)
        cells = np.frombuffer(payload, "<i4", count, at + 8 * count)
        ends = np.frombuffer(payload, "<i4", count, at + 12 * count)
        at += 16 * count
        codes = np.frombuffer(payload, np.uint8, count * code_bytes, at + length).reshape(count, code_bytes)
        return cls(first, replaced, cells, ends, payload[at : at + length], codes, crc)


def start(folder: pathlib.Path) -> None:
    """Creates the files of an empty shard."""
    folder.mkdir(exist_ok=True)
    for kind in KINDS:
        generations.path(folder, 1, kind).touch()
    generations.set_current(folder, 1)


class Shard:
    """The contents of one shard in memory; row r of shard s of n is row r * n + s of the index.

    Args:
      folder: folder of the shard.
      number: s.
      shards: n.
      dim: dimension of the vectors.
      dtype: dtype of the vectors on disk.
      bits: bits per code.
      cells: number of cells.
      write: open for appending; the caller holds the index's lock.

    Raises:
      InputError: a missing or damaged file; the message names it.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        number: int,
        shards: int,
        *,
        dim: int,
        dtype: str,
        bits: int,
        cells: int,
        write: bool,
    ):
        self.folder, self.number, self.shards = folder, number, shards
        self.dim, self.dtype, self.bits, self.cells = dim, np.dtype(dtype), bits, cells
        self.generation = generations.current(folder)
        self.log_file, self.vectors_file = (
            generations.path(folder, self.generation, kind) for kind in ("log", "vectors")
        )
        self.lists = Lists(bits, cells)
        self.names, self.ends = bytearray(), array.array("q", [0])  # ids of all rows, dead ones included
        self.alive = bytearray()
        self.log_end = 0
        self._map = np.zeros((0, dim), self.dtype)
        self._descriptors = None
        self._load()
        if write:
            self._repair()

    @property
    def rows(self) -> int:
        """Rows on disk, dead ones included."""
        return len(self.alive)

    def _load(self) -> None:
        counts = np.zeros(self.cells, np.int64)
        for kind, payload, end in journal.read(self.log_file):
            if kind == PUT:
                counts += np.bincount(self._unpack(payload, end).cells, minlength=self.cells)
        self.lists.reserve(counts)
        last = self.refresh()
        if last is not None and zlib.crc32(self._read(last.first, len(last.cells))) != last.crc:
            raise self._damaged_vectors(last)

    def _damaged_vectors(self, put: Put) -> InputError:
        return InputError(
            f"{self.vectors_file}: rows {put.first} to {put.first + len(put.cells) - 1} have changed since they were "
            "written: restore this file from a backup, or rebuild the index; nothing was changed"
        )

    def _unpack(self, payload: bytes, end: int) -> Put:
        try:
            put = Put.unpack(payload, self.bits // 8)
            if len(put.cells) and not 0 <= put.cells.min() <= put.cells.max() < self.cells:
                raise ValueError("cell")
            ends, names = put.ends, np.frombuffer(put.names, np.uint8)
            if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != len(names):
                raise ValueError("ids")
            put.names.decode()  # and no id begins inside of a character
            starts = ends[:-1][ends[:-1] < len(names)]
            if len(starts) and (names[starts] & 0xC0 == 0x80).any():
                raise ValueError("ids")
            return put
        except (ValueError, struct.error) as error:
            raise InputError(f"{self.log_file}: the record ending at byte {end} does not match this index") from error

    def refresh(self) -> Put | None:
        """Reads new log records; returns the last rows put, if any."""
        last = None
        for kind, payload, end in journal.read(self.log_file, self.log_end):
            if kind == PUT:
                last = self._unpack(payload, end)
                if last.first != self.rows or (len(last.cells) and last.replaced.max() >= self.rows):
                    raise InputError(f"{self.log_file}: the record ending at byte {end} is out of sequence")
                self._add(last)
            elif kind == DELETE and len(payload) % 8 == 0:
                rows = np.frombuffer(payload, "<i8")
                if len(rows) and not 0 <= rows.min() <= rows.max() < self.rows:
                    raise InputError(f"{self.log_file}: the record ending at byte {end} deletes rows that do not exist")
                self.kill(rows)
            else:
                raise InputError(f"{self.log_file}: the record ending at byte {end} has unknown kind {kind}")
            self.log_end = end
        self._extend_map()
        return last

    def _extend_map(self) -> None:
        # Eagerly, not when rows are fetched: after a compaction the file is unlinked.
        if self.rows > len(self._map):
            with self._opened() as stream:
                if os.fstat(stream.fileno()).st_size < self.rows * self.row_bytes:
                    raise InputError(
                        f"{self.vectors_file} is truncated: it should hold {self.rows} rows of {self.row_bytes} bytes; "
                        "restore it from a backup, or rebuild the index; nothing was changed"
                    )
                mapped = np.memmap(stream, self.dtype, "r", shape=(self.rows, self.dim))
            self._map = mapped.view(np.ndarray)  # indexing a plain array is faster than indexing a memmap

    def apply(self, put: Put) -> None:
        """Makes rows that are on disk visible in memory."""
        self._add(put)
        self._extend_map()

    def _add(self, put: Put) -> None:
        self.kill(put.replaced[put.replaced >= 0])
        rows = np.arange(put.first, put.first + len(put.cells))
        self.lists.add(rows * self.shards + self.number, put.cells, put.codes)
        base = len(self.names)
        self.names += put.names
        self.ends.extend((put.ends + np.int64(base)).tolist())
        self.alive += b"\1" * len(rows)

    def kill(self, rows: np.ndarray) -> None:
        """Removes rows [n] from search."""
        if len(rows):
            self.lists.remove(rows * self.shards + self.number)
        for row in rows.tolist():
            self.alive[row] = 0

    def _repair(self) -> None:
        """Truncates unacknowledged writes, removes files of other generations, opens the rest for appending."""
        generations.remove_others(self.folder, self.generation, KINDS)
        self._opened().close()  # says so if it is missing, or is not a file
        ends = self.log_end, self.rows * self.row_bytes
        self._descriptors = journal.open_repaired(self.log_file, self.vectors_file, *ends)

    @property
    def row_bytes(self) -> int:
        """Bytes per vector on disk."""
        return self.dim * self.dtype.itemsize

    def _opened(self) -> BinaryIO:
        try:
            return opened(self.vectors_file)
        except FileNotFoundError as error:
            raise InputError(
                f"{self.vectors_file} not found: restore it from a backup, or rebuild the index"
            ) from error

    def _read(self, first: int, count: int) -> bytes:
        with self._opened() as stream:
            stream.seek(first * self.row_bytes)
            return stream.read(count * self.row_bytes)

    def put(
        self, ids: list[bytes], replaced: np.ndarray, vectors: np.ndarray, codes: np.ndarray, cells: np.ndarray
    ) -> Put:
        """Writes rows and waits until they are on disk; `apply` then makes them visible.

        Args:
          ids: n ids.
          replaced: [n] rows of this shard that they replace, -1 for none.
          vectors: [n, dim], finite in the shard's dtype.
          codes: [n, bits / 8].
          cells: [n].
        """
        data = np.ascontiguousarray(vectors, self.dtype).tobytes()
        ends = np.cumsum([len(item) for item in ids])
        put = Put(self.rows, replaced, cells, ends, b"".join(ids), codes, zlib.crc32(data))
        vectors_descriptor, log_descriptor = self._descriptors
        journal.write_all(vectors_descriptor, data)
        os.fdatasync(vectors_descriptor)
        self.log_end += journal.append(log_descriptor, PUT, put.pack())
        return put

    def delete(self, rows: np.ndarray) -> None:
        """Records the deletion of rows and waits until it is on disk; `kill` then makes it visible."""
        self.log_end += journal.append(self._descriptors[1], DELETE, [rows.astype("<i8").tobytes()])

    def name(self, row: int) -> bytes:
        """Returns the id of a row of this shard."""
        return bytes(self.names[self.ends[row] : self.ends[row + 1]])

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Returns the vectors of rows of this shard, in the dtype on disk."""
        return self._map[rows]

    def verify(self) -> None:
        """Reads every vector and verifies the checksums.

        Raises:
          InputError: a damaged file; the message names it.
        """
        for kind, payload, end in journal.read(self.log_file):
            if kind == PUT:
                put = self._unpack(payload, end)
                if zlib.crc32(self._read(put.first, len(put.cells))) != put.crc:
                    raise self._damaged_vectors(put)

    def compact(self) -> None:
        """Writes the live rows to files of the next generation and makes it current; this object is then outdated.

        The files of the old generation are removed; processes that have them open can keep reading.
        """
        generation = self.generation + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptors = [os.open(generations.path(self.folder, generation, kind), flags, 0o666) for kind in KINDS]
        try:
            first, waiting = 0, []

            def flush() -> int:
                rows = np.concatenate([part[0] for part in waiting])
                data = self.fetch(rows).tobytes()
                ids = [self.name(row) for row in rows.tolist()]
                put = Put(
                    first,
                    np.full(len(rows), -1),
                    np.concatenate([part[1] for part in waiting]),
                    np.cumsum([len(item) for item in ids]),
                    b"".join(ids),
                    np.concatenate([part[2] for part in waiting]),
                    zlib.crc32(data),
                )
                journal.write_all(descriptors[0], data)
                os.fdatasync(descriptors[0])
                journal.append(descriptors[1], PUT, put.pack())
                return len(rows)

            alive = np.frombuffer(bytes(self.alive), np.uint8)
            for kind, payload, end in journal.read(self.log_file):
                if kind == PUT:
                    put = self._unpack(payload, end)
                    keep = np.flatnonzero(alive[put.first : put.first + len(put.cells)])
                    waiting.append((put.first + keep, put.cells[keep], put.codes[keep]))
                    if sum(len(part[0]) for part in waiting) >= BLOCK:
                        first += flush()
                        waiting = []
            if any(len(part[0]) for part in waiting):
                flush()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        generations.set_current(self.folder, generation)
        self.log_file.unlink()
        self.vectors_file.unlink()

    def close(self) -> None:
        """Closes the files."""
        for descriptor in self._descriptors or ():
            os.close(descriptor)
        self._descriptors = None
