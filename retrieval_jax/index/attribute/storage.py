"""Files of an attribute table: the whole of it as arrays that are memory-mapped, and additions as records of a log."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import struct
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
from pyroaring import BitMap

from retrieval_jax import brief
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.files.arrays import file_sha256, load_npy
from retrieval_jax.index.attribute.table import BLOCK, Block, Table, bitmap

FORMAT = 1
REMEDY = "restore it from a backup, or build the index again"
HEAD = struct.Struct("<QIIIQII")


class _Values(TypedDict):
    """values.json: the fields, and the values in the order of their numbers."""

    format: int
    kinds: dict[str, bool]
    rows: documents.Count
    names: list[str]
    field_of: list[documents.Count]
    parent: list[int]
    sha256: dict[str, documents.Sha256]
    ids_sha256: NotRequired[documents.Sha256]


def write(table: Table, folder: pathlib.Path, ids_sha256: str = "") -> None:
    """Writes a table without dead rows into an existing folder; `values.json`, written last, describes the rest.

    Args:
      table: the table.
      folder: an empty folder; the caller puts it in its place when all is written.
      ids_sha256: digest of the listings' ids (`embeddings.Ids.sha256`); "" where they have none.
    """
    entries = sum(len(block.values) for _, block in table.segments)
    dtype = np.uint16 if len(table.names) <= 1 << 16 else np.uint32
    with_chance = any(block.probability is not None for _, block in table.segments)
    _write_parts(folder / "entries.npy", dtype, (entries,), (block.values for _, block in table.segments))
    counts = (np.diff(block.indptr) for _, block in table.segments)
    _write_parts(folder / "counts.npy", np.uint32, (table.rows,), counts)
    if with_chance:
        known = (np.ones(len(b.values)) if b.probability is None else b.probability for _, b in table.segments)
        _write_parts(folder / "probability.npy", np.float16, (entries,), known)
    numbers = [column.array for column in table.columns]
    atomic.write_npy(folder / "numbers.npy", np.hstack(numbers) if numbers else np.zeros((table.rows, 0), np.float32))
    offsets = [0]
    with (folder / "postings.bin").open("wb") as stream:
        for rows in (*map(table.posting, range(len(table.names))), *table.present):
            offsets.append(offsets[-1] + stream.write(rows.serialize()))
    atomic.write_npy(folder / "offsets.npy", np.array(offsets, np.int64))
    atomic.write_npy(folder / "sizes.npy", table.sizes)
    info = {
        "format": FORMAT,
        "kinds": table.kinds,
        "rows": table.rows,
        "names": table.names,
        "field_of": table.field_of.tolist(),
        "parent": table.parent.tolist(),
        "sha256": {file.name: file_sha256(file) for file in sorted(folder.iterdir())},
    }
    if ids_sha256:
        info["ids_sha256"] = ids_sha256
    atomic.write_text(folder / "values.json", json.dumps(info))


def _write_parts(file: pathlib.Path, dtype, shape: tuple[int, ...], parts) -> None:
    """Writes an array from its parts, one of them in memory at a time."""
    with file.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(np.ascontiguousarray(part, dtype).tobytes())


def read(folder: pathlib.Path, ids_sha256: str = "") -> Table:
    """Returns the table that `write` wrote, with values of rows memory-mapped and postings read when they are needed.

    Args:
      folder: where it was written.
      ids_sha256: digest of the ids of the gallery that it is for, see `write`; "" for no ids, and no check.

    Raises:
      InputError: a missing or damaged file, which the message names; or a table of other ids.
    """
    info = documents.read(folder / "values.json", _Values, remedy=REMEDY)
    if info["format"] != FORMAT:
        raise InputError(f"{folder} has format {info['format']}, this version reads {FORMAT}: build the index again")
    if ids_sha256 and info.get("ids_sha256", ids_sha256) != ids_sha256:
        raise InputError(
            f"{folder} has the attributes of listings with other ids than this gallery's, or in another order: save "
            "them again from this gallery"
        )
    for name, digest in info["sha256"].items():
        if pathlib.PurePath(name).name != name:
            raise InputError(f"{folder / 'values.json'} names a file elsewhere, {name!r}: {REMEDY}")
        if not (folder / name).exists() or file_sha256(folder / name) != digest:
            raise InputError(f"{folder / name} is missing, or has changed since it was written: {REMEDY}")
    out = Table(info["kinds"])
    fields, values, rows = len(out.fields), len(info["names"]), info["rows"]
    counts = load_npy(folder / "counts.npy", mmap=False, dtypes=("uint32",), ndim=1)
    entries = load_npy(folder / "entries.npy", mmap=True, dtypes=("uint16", "uint32"), ndim=1)
    numbers = load_npy(folder / "numbers.npy", mmap=False, dtypes=("float32",), ndim=2)
    offsets = load_npy(folder / "offsets.npy", mmap=False, dtypes=("int64",), ndim=1)
    sizes = load_npy(folder / "sizes.npy", mmap=False, dtypes=("int64",), ndim=1)
    chance = None
    if "probability.npy" in info["sha256"]:
        chance = load_npy(folder / "probability.npy", mmap=True, dtypes=("float16",), ndim=1)
    size = (folder / "postings.bin").stat().st_size
    data = np.memmap(folder / "postings.bin", np.uint8, "r") if size else np.zeros(0, np.uint8)
    right = (
        len(info["field_of"]) == len(info["parent"]) == len(sizes) == values
        and len(counts) == rows
        and numbers.shape == (rows, len(out.numbers))
        and counts.sum(dtype=np.int64) == len(entries)
        and (chance is None or len(chance) == len(entries))
        and len(offsets) == values + fields + 1
        and offsets[-1] == size
        and (np.diff(offsets) >= 0).all()
        and max(info["field_of"], default=-1) < fields
        and all(-1 <= parent < number for number, parent in enumerate(info["parent"]))
    )
    if not right or len(set(zip(info["field_of"], info["names"], strict=True))) != values:
        raise InputError(f"the files of {folder} do not match each other: {REMEDY}")
    out.learn(list(zip(info["field_of"], info["names"], info["parent"], strict=True)))
    ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    for first in range(0, rows, BLOCK):
        last = min(rows, first + BLOCK)
        begin, end = int(ends[first]), int(ends[last])
        some = None if chance is None else chance[begin:end]
        indptr = ends[first : last + 1] - begin
        out.segments.append((first, Block(indptr, entries[begin:end], some, np.zeros((last - first, 0), np.float32))))
    for number, column in enumerate(out.columns):
        column.append(numbers[:, number : number + 1])
    out.rows, out.alive = rows, bitmap(np.arange(rows))
    out.stored(data, offsets, sizes)
    out.present = [
        BitMap.deserialize(data[a:b].tobytes()) for a, b in zip(offsets[values:-1], offsets[values + 1 :], strict=True)
    ]
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class Put:
    """Listings written together, as a record of a log.

    Attributes:
      first: number of the first row.
      ids: n ids.
      replaced: [n] int64, rows that these replace, -1 for none.
      learnt: values that are new, see `Table.learn`.
      block: their attributes.
      crc: checksum of the vectors' bytes.
    """

    first: int
    ids: list[str]
    replaced: np.ndarray
    learnt: Sequence[tuple[int, str, int]]
    block: Block
    crc: int

    __repr__ = brief.line

    def pack(self) -> list[bytes]:
        """Returns the payload of a record."""
        text = json.dumps({"ids": self.ids, "learnt": [list(one) for one in self.learnt]}).encode()
        block = self.block
        has_chance = block.probability is not None
        head = HEAD.pack(
            self.first, len(block), len(text), block.numbers.shape[1], len(block.values), self.crc, int(has_chance)
        )
        arrays = [self.replaced.astype("<i8"), np.diff(block.indptr).astype("<u4"), block.values.astype("<u4")]
        arrays += [block.probability.astype("<f2")] if has_chance else []
        return [head, text, *(part.tobytes() for part in (*arrays, block.numbers.astype("<f4")))]

    @classmethod
    def unpack(cls, payload: bytes, table: Table) -> Put:
        """Returns what `pack` packed for a table in the state of that time.

        Raises:
          ValueError, struct.error: anything else.
        """
        first, rows, length, numbers, entries, crc, has_chance = HEAD.unpack_from(payload)
        at = HEAD.size
        text = documents.parse(payload[at : at + length], _Text, name="a record", remedy=REMEDY)
        at += length
        if len(payload) != at + 12 * rows + entries * (6 if has_chance else 4) + 4 * rows * numbers:
            raise ValueError("length")

        def array(dtype: str, count: int) -> np.ndarray:
            nonlocal at
            found = np.frombuffer(payload, dtype, count, at)
            at += found.nbytes
            return found

        replaced, counts, values = array("<i8", rows), array("<u4", rows), array("<u4", entries)
        chance = array("<f2", entries) if has_chance else None
        known = len(table.names) + len(text["learnt"])
        indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        learnt = [tuple(one) for one in text["learnt"]]
        if (
            len(text["ids"]) != rows
            or numbers != len(table.numbers)
            or indptr[-1] != entries
            or (entries and values.max() >= known)
            or first != table.rows
            or (rows and not -1 <= replaced.min() <= replaced.max() < first)
            or any(
                not 0 <= field < len(table.fields) or not -1 <= parent < number or name in table.number_of[field]
                for number, (field, name, parent) in enumerate(learnt, len(table.names))
            )
            or (chance is not None and not ((chance > 0) & (chance <= 1)).all())
        ):
            raise ValueError("content")
        values = values.astype(np.uint16 if known <= 1 << 16 else np.uint32)
        block = Block(indptr, values, chance, array("<f4", rows * numbers).reshape(rows, numbers))
        return cls(first, text["ids"], replaced, learnt, block, crc)


class _Text(TypedDict):
    """The part of a record that is JSON."""

    ids: list[str]
    learnt: list[tuple[int, str, int]]
