"""Embeddings on disk: .npy shards, UTF-8 ids and offsets, provenance as JSON; memory-mapped, nothing pickled.

folder/embeddings.json   rows, dim, dtype, the shards with their sha256, and `meta` (space, checkpoint, config, ...)
folder/00000.npy ...     [rows of the shard, dim] float32 or float16
folder/ids.npy           all ids concatenated as UTF-8 bytes; folder/id_offsets.npy: where each one starts
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NotRequired, TypedDict

import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings.ids import Ids
from retrieval_jax.embeddings.vectors import Computed, Shards
from retrieval_jax.errors import InputError, naming, short
from retrieval_jax.files import atomic, documents, versions
from retrieval_jax.files.arrays import file_sha256, load_npy

FORMAT = 1
KEPT_BYTES = 512 << 20  # results up to this size are computed once and kept, larger ones whenever they are read


class _Shard(TypedDict):
    """A shard in embeddings.json."""

    file: documents.FileName
    rows: documents.Count
    sha256: documents.Sha256
    fingerprints_sha256: NotRequired[documents.Sha256]
    thumbnails_sha256: NotRequired[documents.Sha256]


class _Meta(TypedDict):
    """The provenance in embeddings.json; further keys say more."""

    space: NotRequired[str | None]
    recipe: NotRequired[str | None]


class _Info(TypedDict):
    """embeddings.json."""

    format: int
    rows: documents.Count
    dim: documents.Count
    dtype: Literal["float32", "float16"]
    ids_sha256: documents.Sha256
    shards: list[_Shard]
    meta: _Meta


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors with their ids and their provenance; all of them are finite.

    Vectors in memory are checked at once, those on disk or computed on read whenever they are read.

    Attributes:
      ids: n ids, one per row (any sequence of str; kept as `Ids`).
      vectors: [n, dim] float32 array, `Shards` of memory-mapped arrays, or `Computed` when read. A float16 array stays
        as it is, and gives float32 when read.
      meta: provenance: space (only vectors of one space may be compared), checkpoint, config, split, ...; loaded
        embeddings also have vectors_sha256, a hash of the checksums of their files, which is passed on to whatever is
        computed from them.

    Raises:
      InputError: the numbers of ids and vectors differ, they are not vectors, or one is non-finite; the message has the
        count, and the first one's row and id.
    """

    ids: Sequence[str]
    vectors: np.ndarray | Shards | Computed
    meta: dict = dataclasses.field(default_factory=dict)

    __repr__ = brief.line

    def __post_init__(self):
        vectors, ids = self.vectors, Ids.of(self.ids)
        if isinstance(vectors, (list, tuple)) and len(vectors) and getattr(vectors[0], "ndim", 0) == 2:
            parts = [arguments.array(part, "vectors", "Embeddings", ("n", vectors[0].shape[1])) for part in vectors]
            vectors = Shards(parts, vectors[0].shape[1])
        elif not isinstance(vectors, (Shards, Computed)):
            vectors = arguments.array(vectors, "vectors", "Embeddings", ("rows", "dim"))
            if vectors.dtype == np.float16 or isinstance(self.vectors, np.memmap):
                vectors = Shards([vectors], vectors.shape[1])
        if len(vectors.shape) != 2:
            raise InputError(f"Embeddings: vectors has the shape {list(vectors.shape)}, expected [rows, dim]")
        if len(ids) != len(vectors):
            raise InputError(f"embeddings have {len(ids)} ids but {len(vectors)} vectors: give one id per row")
        if isinstance(vectors, np.ndarray):
            with np.errstate(over="ignore"):
                vectors = vectors.astype(np.float32, copy=False)
            arguments.finite(vectors, "Embeddings", ids)
        else:
            vectors = vectors.named(ids)  # checks what is read, with the id in the message
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "meta", arguments.mapping(self.meta, "meta", "Embeddings"))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return self.vectors.shape[1]

    def block(self, start: int, stop: int) -> np.ndarray:
        """Returns some rows, float32 [n, dim], n <= stop - start.

        Args:
          start: the first row.
          stop: the row after the last; may lie beyond the end.
        """
        return np.asarray(self.vectors[start:stop], np.float32)

    def map(self, function: Callable[[np.ndarray], np.ndarray], dim: int | None = None) -> Embeddings:
        """Returns the same rows with a function applied: now if they are few, else whenever they are read.

        A result that is not kept takes neither memory nor disk, but the function runs on every read: `save` the result
        if it is read often.

        Args:
          function: of [n, dim] float32; returns [n, new dim], each row computed from its own row alone.
          dim: the new dimension; by default the old one.
        """
        old = self.vectors
        return computed(self.ids, lambda key: function(np.asarray(old[key], np.float32)), dim or self.dim, self.meta)

    def take(self, rows: np.ndarray) -> Embeddings:
        """Returns some rows, in the order given, without copying them.

        Args:
          rows: [n] row numbers.
        """
        rows, old = arguments.rows(rows, "rows", "Embeddings.take", ("n",), len(self)), self.vectors
        return computed(self.ids.take(rows), lambda key: old[rows[key]], self.dim, self.meta)

    def save(self, folder: str | os.PathLike, shard_rows: int = 65536, dtype: str = "float32") -> pathlib.Path:
        """Writes the folder whole or not at all: a temporary folder beside it, renamed at the end.

        Args:
          folder: where to write; an older folder there is replaced.
          shard_rows: rows per .npy file.
          dtype: "float32", or "float16" for half the bytes.

        Raises:
          InputError: another dtype, a non-finite vector, or a value that float16 cannot hold.
        """
        shard_rows = arguments.integer(shard_rows, "shard_rows", "Embeddings.save")
        blocks = (self.block(start, start + shard_rows) for start in range(0, len(self), shard_rows))
        return write(folder, self.ids, blocks, self.meta, dim=self.dim, dtype=dtype)

    @classmethod
    def load(cls, folder: str | os.PathLike, *, verify: bool = False) -> Embeddings:
        """Returns the embeddings of a folder, memory-mapped.

        Shapes, sizes and the ids are checked; vectors are not read, and their checksums only compared with `verify`.

        Args:
          folder: a folder that `save` or `write` made.
          verify: also read the vectors and compare their checksums, about a second per gigabyte. `search` does so.

        Raises:
          InputError: a file that is missing, truncated, mismatched or has changed since it was written.
        """
        return versions.read(folder, "embeddings.json", lambda place: cls._load(place, verify))

    @classmethod
    def _load(cls, folder: pathlib.Path, verify: bool) -> Embeddings:
        info = read_info(folder)
        arrays = []
        for shard in info["shards"]:
            file = folder / shard["file"]
            array = load_npy(file, mmap=True, dtypes=(info["dtype"],), ndim=2, remedy="run embed again")
            if array.shape != (shard["rows"], info["dim"]) or str(array.dtype) != info["dtype"]:
                raise InputError(
                    f"{file} holds {array.dtype} {array.shape}, but embeddings.json says {info['dtype']} "
                    f"{(shard['rows'], info['dim'])}: run embed again"
                )
            if verify and file_sha256(file) != shard["sha256"]:
                raise InputError(f"{file} has changed since it was written: run embed again")
            arrays.append(array)
        vectors = Shards(arrays, info["dim"])
        ids = Ids.load(folder)
        if not len(ids) == len(vectors) == info["rows"]:
            raise InputError(
                f"{folder}: {len(ids)} ids, {len(vectors)} vectors, and embeddings.json says {info['rows']} "
                "rows: run embed again"
            )
        if ids.sha256() != info["ids_sha256"]:
            raise InputError(f"{folder / 'ids.npy'} has changed since it was written: run embed again")
        sums = hashlib.sha256("".join(shard["sha256"] for shard in info["shards"]).encode()).hexdigest()
        return cls(ids, vectors, {**info["meta"], "vectors_sha256": sums})


def computed(ids: Sequence[str], read: Callable[[slice | np.ndarray], np.ndarray], dim: int, meta: dict) -> Embeddings:
    """Returns embeddings whose vectors `read` computes: once and kept up to KEPT_BYTES, else whenever they are read.

    Args:
      ids: n ids.
      read: see `vectors.Computed`.
      dim: number of dimensions.
      meta: provenance.
    """
    vectors = Computed(read, (len(ids), dim), ids)
    return Embeddings(ids, vectors[:] if 4 * len(ids) * dim <= KEPT_BYTES else vectors, meta)


def allocate(shape: tuple[int, int], max_bytes: int = 2 << 30) -> np.ndarray:
    """Returns an empty float32 array to fill: in memory or, beyond max_bytes, a mapped unnamed file in TMPDIR."""
    if shape[0] * shape[1] * 4 <= max_bytes:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive after it is closed
        with naming(tempfile.gettempdir()):  # a full disk would end the process at the first write to the mapping
            os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * 4)
        return np.memmap(file, np.float32, "w+", shape=shape)


def write(
    folder: str | os.PathLike,
    ids: Iterable[str],
    blocks: Iterable[np.ndarray],
    meta: dict,
    *,
    dim: int,
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes blocks of vectors as they arrive, one shard each: for embeddings that do not fit in memory.

    Args:
      folder: where to write; an older folder there is replaced once the new one is complete.
      ids: one per row, in the order of the blocks.
      blocks: arrays [n, dim].
      meta: provenance, JSON-able.
      dim: dimension of the vectors.
      dtype: "float32" or "float16".

    Raises:
      InputError: the numbers of ids and vectors differ, another dtype, a non-finite vector, or a value that float16
        cannot hold.
    """
    check_dtype(dtype)
    folder, ids = pathlib.Path(folder), Ids.of(ids)

    def fill(new: pathlib.Path) -> None:
        shards, rows = [], 0
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != dim:
                raise InputError(f"{folder}: a block of shape {block.shape} where [rows, {dim}] was announced")
            array = as_stored(block, dtype, lambda row, first=rows: f"{folder}: row {first + row} ({ids[first + row]})")
            file = new / f"{len(shards):05d}.npy"
            atomic.write_npy(file, array)
            shards.append({"file": file.name, "rows": len(array), "sha256": file_sha256(file)})
            rows += len(array)
        if rows != len(ids):
            raise InputError(f"{folder}: {len(ids)} ids but {rows} vectors: give one id per row")
        ids.save(new)
        info = {
            "format": FORMAT,
            "rows": rows,
            "dim": int(dim),
            "dtype": dtype,
            "ids_sha256": ids.sha256(),
            "shards": shards,
            "meta": dict(meta),
        }
        atomic.write_text(new / "embeddings.json", json.dumps(info, indent=1))

    return versions.replace(folder, "embeddings.json", fill)


def check_dtype(dtype: str) -> None:
    """Raises InputError unless embeddings may be stored as `dtype`."""
    if not isinstance(dtype, str) or dtype not in ("float32", "float16"):
        raise InputError(f"embeddings are stored as float32 or float16, not {short(repr(dtype))}: change embed.dtype")


def as_stored(block: np.ndarray, dtype: str, name: Callable[[int], str]) -> np.ndarray:
    """Returns vectors in their storage format.

    Args:
      block: [n, dim].
      dtype: "float32" or "float16".
      name: names a row of the block by its number, for the message.

    Raises:
      InputError: a non-finite vector, a value that float16 cannot hold, or a vector that becomes zero in it.
    """
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(block, dtype)
    bad = ~np.isfinite(block).all(1)
    if bad.any():
        raise InputError(
            f"{name(int(bad.argmax()))}: {int(bad.sum()):,} of {len(bad):,} vectors from here on are non-finite (NaN "
            "or infinity): look at that listing and at the checkpoint; nothing was written"
        )
    lost = ~np.isfinite(array).all(1)
    if lost.any():
        raise InputError(
            f"{name(int(lost.argmax()))} holds a number beyond {dtype}: "
            + ("set embed.dtype to float32" if dtype == "float16" else "scale the vectors")
        )
    lost = ~array.any(1) & np.asarray(block).any(1)
    if dtype == "float16" and lost.any():
        raise InputError(
            f"{name(int(lost.argmax()))} is so short that it becomes zero in float16: set embed.dtype to float32"
        )
    return array


def read_info(folder: str | os.PathLike) -> dict:
    """Reads the description of embeddings, embeddings.json.

    Args:
      folder: of the embeddings.

    Returns:
      A dict: rows, dim, dtype, shards (file, rows, sha256), ids_sha256, meta.

    Raises:
      InputError: it is missing, of another format, or broken.
    """
    file = folder / "embeddings.json" if not isinstance(folder, str) else pathlib.Path(folder) / "embeddings.json"
    info = documents.read(file, _Info, remedy="run embed again", missing="run `retrieval-jax embed` first")
    if info["format"] != FORMAT:
        raise InputError(f"{file} has format {info['format']}, this version reads {FORMAT}: run embed again")
    return info
