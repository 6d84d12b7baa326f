"""Embeddings on disk: shards of .npy, UTF-8 ids and offsets, provenance as JSON; memory-mapped, nothing pickled.

folder/embeddings.json   rows, dim, dtype, the shards with their sha256, and `meta` (space, checkpoint, config, ...)
folder/00000.npy ...     [rows of the shard, dim] float32 or float16
folder/ids.npy           all ids, joined, as UTF-8 bytes; folder/id_offsets.npy: where each one starts
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from retrieval_jax.errors import InputError
from retrieval_jax.vectors import Computed, Shards

FORMAT = 1
KEPT_BYTES = 512 << 20  # results up to this size are computed once and kept, larger ones each time they are read


class Ids(Sequence):
    """Ids as one array of UTF-8 bytes: a million of them cost no Python objects, and may stay on disk.

    Indexing with an int gives a `str`, with a slice or an array of rows a list of `str`.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray):
        self.data, self.offsets = data, offsets
        self._sha256 = ""

    @classmethod
    def of(cls, ids: Iterable[str]) -> Ids:
        """Returns `ids` as `Ids` (unchanged if it is one already)."""
        if isinstance(ids, cls):
            return ids
        encoded = [str(item).encode() for item in ids]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, key):
        if isinstance(key, slice):
            return [self[row] for row in range(*key.indices(len(self)))]
        if isinstance(key, np.ndarray) and key.ndim:
            return [self[int(row)] for row in key]
        row = int(key)
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        data, offsets = self.data.tobytes(), self.offsets.tolist()
        for start, stop in itertools.pairwise(offsets):
            yield data[start:stop].decode()

    def __eq__(self, other) -> bool:
        if not isinstance(other, Ids):
            if not isinstance(other, (Sequence, np.ndarray)) or len(self) != len(other):
                return False
            other = Ids.of(other)
        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.data, other.data)

    __hash__ = None

    def __repr__(self) -> str:
        return f"Ids({len(self)}: {', '.join(self[:3])}{', ...' if len(self) > 3 else ''})"

    def sha256(self) -> str:
        """Returns a fingerprint of the ids and their order."""
        if not self._sha256:
            digest = hashlib.sha256(np.ascontiguousarray(self.offsets, np.int64).tobytes())
            digest.update(np.ascontiguousarray(self.data).tobytes())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def save(self, folder: pathlib.Path, name: str = "") -> None:
        """Writes {name}ids.npy and {name}id_offsets.npy.

        Args:
          folder: that exists.
          name: put before the files' names, where a folder holds the ids of several things.
        """
        np.save(folder / f"{name}ids.npy", self.data, allow_pickle=False)
        np.save(folder / f"{name}id_offsets.npy", self.offsets, allow_pickle=False)

    @classmethod
    def load(cls, folder: pathlib.Path, name: str = "") -> Ids:
        """Returns the ids that `save` wrote, decoded only when asked for.

        Args:
          folder: see `save`.
          name: see `save`.

        Raises:
          InputError: a file is missing, cut, or does not fit the other.
        """
        offsets = load_npy(folder / f"{name}id_offsets.npy", mmap=False)
        data_file = folder / f"{name}ids.npy"
        data = load_npy(data_file, mmap=False)
        if (
            offsets.ndim != 1
            or not len(offsets)
            or offsets.dtype != np.int64
            or data.dtype != np.uint8
            or offsets[0] != 0
            or offsets[-1] != len(data)
            or (np.diff(offsets) < 0).any()
        ):
            raise InputError(
                f"{data_file} does not fit its offsets: make the folder again with the command that made it"
            )
        return cls(data, offsets)


def places(names: Iterable[str] | Iterable[bytes]) -> np.ndarray:
    """Returns the place of each name among all of them sorted, [n] int64.

    Args:
      names: n ids; Python's order of str is that of their UTF-8.
    """
    names = list(names)
    out = np.empty(len(names), np.int64)
    out[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors with their ids and where they come from.

    Attributes:
      ids: n ids, one a row (any sequence of str; kept as `Ids`).
      vectors: [n, dim] float32 array, `Shards` of memory-mapped arrays, or `Computed` when read. A float16 array stays
        as it is, and gives float32 when read.
      meta: provenance: space (what may be compared with what), checkpoint, config, split, ...; of what was loaded also
        vectors_sha256, of the files' checksums, which stays with what is computed from it.

    Raises:
      InputError: not as many ids as vectors.
    """

    ids: Sequence[str]
    vectors: np.ndarray | Shards | Computed
    meta: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        vectors = self.vectors
        if isinstance(vectors, (list, tuple)) and len(vectors) and getattr(vectors[0], "ndim", 0) == 2:
            vectors = Shards(vectors, vectors[0].shape[1])
        elif not isinstance(vectors, (Shards, Computed)):
            vectors = np.asarray(vectors)
            if vectors.dtype == np.float16 and vectors.ndim == 2:
                vectors = Shards([vectors], vectors.shape[1])
            elif vectors.dtype != np.float32:
                vectors = vectors.astype(np.float32)
        if len(vectors.shape) != 2:
            raise InputError(f"embeddings are [rows, dim], got shape {vectors.shape}")
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "ids", Ids.of(self.ids))
        if len(self.ids) != len(vectors):
            raise InputError(f"embeddings have {len(self.ids)} ids but {len(vectors)} vectors: give one id a row")

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self.vectors.shape[1]

    def block(self, start: int, stop: int) -> np.ndarray:
        """Returns some rows, float32 [n, dim], n <= stop - start.

        Args:
          start: the first row.
          stop: the row after the last; may lie beyond the end.
        """
        return np.asarray(self.vectors[start:stop], np.float32)

    def map(self, function: Callable[[np.ndarray], np.ndarray], dim: int | None = None) -> Embeddings:
        """Returns the same rows with a function applied: computed now where they are few, else when they are read.

        What is not kept costs no memory and no disk, but the function runs at every reading: `save` the result where it
        is read often.

        Args:
          function: of [n, dim] float32; returns [n, new dim], each row from its own row alone.
          dim: the new dim; by default the old one.
        """
        old = self.vectors
        return computed(self.ids, lambda key: function(np.asarray(old[key], np.float32)), dim or self.dim, self.meta)

    def take(self, rows: np.ndarray) -> Embeddings:
        """Returns some rows, in the order given; read from where they are, not copied.

        Args:
          rows: [n] row numbers.
        """
        rows, old = np.asarray(rows, np.int64), self.vectors
        return computed(self.ids[rows], lambda key: old[rows[key]], self.dim, self.meta)

    def save(self, folder: str | os.PathLike, shard_rows: int = 65536, dtype: str = "float32") -> pathlib.Path:
        """Writes the folder whole or not at all: a temporary folder beside it, renamed at the end.

        Args:
          folder: where to; an older one there is replaced.
          shard_rows: rows a .npy file.
          dtype: "float32", or "float16" for half the bytes.

        Raises:
          InputError: another dtype, or a value that float16 cannot hold.
        """
        blocks = (self.block(start, start + shard_rows) for start in range(0, len(self), shard_rows))
        return write(folder, self.ids, blocks, self.meta, dim=self.dim, dtype=dtype)

    @classmethod
    def load(cls, folder: str | os.PathLike, *, verify: bool = False) -> Embeddings:
        """Returns the embeddings of a folder, memory-mapped: shapes and file sizes are checked, no vector is read.

        Args:
          folder: that `save` or `write` made.
          verify: also read every byte and compare the checksums (for files that were copied from elsewhere).

        Raises:
          InputError: a missing, cut or mismatched file, or one that is not what was written, named.
        """
        folder = pathlib.Path(folder)
        info = read_info(folder)
        arrays = []
        for shard in info["shards"]:
            file = folder / shard["file"]
            array = load_npy(file, mmap=True)
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
        if verify and ids.sha256() != info["ids_sha256"]:
            raise InputError(f"{folder / 'ids.npy'} has changed since it was written: run embed again")
        sums = hashlib.sha256("".join(shard["sha256"] for shard in info["shards"]).encode()).hexdigest()
        return cls(ids, vectors, {**info["meta"], "vectors_sha256": sums})


def computed(
    ids: Sequence[str], read: Callable[[slice | np.ndarray], np.ndarray], dim: int, meta: dict
) -> Embeddings:
    """Returns embeddings whose vectors `read` gives: read once and kept up to KEPT_BYTES, else whenever they are read.

    Args:
      ids: n ids.
      read: see `vectors.Computed`.
      dim: how many numbers a row has.
      meta: provenance.
    """
    vectors = Computed(read, (len(ids), dim))
    return Embeddings(ids, vectors[:] if 4 * len(ids) * dim <= KEPT_BYTES else vectors, meta)


def allocate(shape: tuple[int, int], max_bytes: int = 2 << 30) -> np.ndarray:
    """Returns an empty float32 array to fill: in memory, or, beyond max_bytes, a mapped unnamed file in TMPDIR."""
    if shape[0] * shape[1] * 4 <= max_bytes:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive after it is closed
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
    """Writes blocks of vectors as they come, one shard each: embeddings that do not fit in memory.

    Args:
      folder: where to; an older one there is replaced when the new one is complete.
      ids: one a row, in the order of the blocks.
      blocks: arrays [n, dim].
      meta: provenance, JSON-able.
      dim: the vectors' dimension.
      dtype: "float32" or "float16".

    Raises:
      InputError: ids and vectors differ in number, another dtype, or a value that float16 cannot hold.
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
            np.save(file, array, allow_pickle=False)
            shards.append({"file": file.name, "rows": len(array), "sha256": file_sha256(file)})
            rows += len(array)
        if rows != len(ids):
            raise InputError(f"{folder}: {len(ids)} ids but {rows} vectors: give one id a row")
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
        (new / "embeddings.json").write_text(json.dumps(info, indent=1))

    return replace_folder(folder, fill)


def check_dtype(dtype: str) -> None:
    """Raises InputError unless embeddings may be stored as `dtype`."""
    if dtype not in ("float32", "float16"):
        raise InputError(f"embeddings are stored as float32 or float16, not {dtype!r}: change embed.dtype")


def as_stored(block: np.ndarray, dtype: str, name: Callable[[int], str]) -> np.ndarray:
    """Returns vectors as they lie on disk.

    Args:
      block: [n, dim].
      dtype: "float32" or "float16".
      name: of a row number of the block, for the message.

    Raises:
      InputError: a value that float16 cannot hold, or a vector that becomes zero in it.
    """
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(block, dtype)
    lost = ~np.isfinite(array).all(1) & np.isfinite(block).all(1)
    if lost.any():
        raise InputError(f"{name(int(lost.argmax()))} holds a number beyond float16: set embed.dtype to float32")
    lost = ~array.any(1) & np.asarray(block).any(1)
    if dtype == "float16" and lost.any():
        raise InputError(f"{name(int(lost.argmax()))} is so short that it becomes zero in float16: set embed.dtype to "
                         "float32")
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
    file = pathlib.Path(folder) / "embeddings.json"
    if not file.exists():
        raise InputError(f"{file} not found: run embed first (python -m retrieval_jax.embed)")
    try:
        info = json.loads(file.read_text())
        if info["format"] != FORMAT:
            raise InputError(f"{file} has format {info['format']}, this version reads {FORMAT}: run embed again")
        for key, kind in (("rows", int), ("dim", int), ("dtype", str), ("shards", list), ("meta", dict)):
            if not isinstance(info[key], kind):
                raise TypeError(key)
        for shard in info["shards"]:
            if pathlib.Path(shard["file"]).name != shard["file"]:
                raise ValueError(shard["file"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is not the description of embeddings ({error!r}): run embed again") from error
    return info


def replace_folder(folder: str | os.PathLike, fill: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Calls fill(new empty folder) and renames the result to `folder`: readers see the old or the new one, never half.

    Args:
      folder: the final place; an older folder there is removed once the new one is complete.
      fill: writes the files.
    """
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new.chmod(0o777 & ~_umask())
        fill(new)
        old = None
        if folder.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, old)  # over an empty folder: allowed
        os.replace(new, folder)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_sha256(file: pathlib.Path) -> str:
    """Returns the checksum of a file's bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_npy(file: pathlib.Path, *, mmap: bool) -> np.ndarray:
    """Returns the array of a .npy file; nothing is unpickled.

    Args:
      file: the file.
      mmap: leave the numbers on disk until they are read.

    Raises:
      InputError: it is missing, cut, or another kind of file.
    """
    try:
        return np.load(file, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{file} not found: run the command that made {file.parent} again") from error
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{file} is cut or is no .npy file ({error}): run the command that made {file.parent} again"
        ) from error
