"""Ids as one array of UTF-8 bytes."""

from __future__ import annotations

import codecs
import hashlib
import itertools
import numbers
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from retrieval_jax.errors import InputError, short
from retrieval_jax.files import atomic
from retrieval_jax.files.arrays import load_npy


class Ids(Sequence):
    """Ids as one array of UTF-8 bytes: a million of them take no Python objects, and may stay on disk.

    Indexing with an int gives a `str`, with a slice or an array of rows a list of `str`.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray):
        self.data, self.offsets = data, offsets
        self._sha256 = ""

    @classmethod
    def of(cls, ids: Iterable[str]) -> Ids:
        """Returns `ids` as `Ids` (unchanged if they are already).

        Args:
          ids: texts, or integers, which become texts.

        Raises:
          InputError: they are not a list of ids: a single text, whose letters would be the ids, or bytes, None and
            floats, whose texts ("b'7'", "None", "7.0") match no other id.
        """
        if isinstance(ids, cls):
            return ids
        single = isinstance(ids, (str, bytes, bytearray, np.generic)) or (isinstance(ids, np.ndarray) and not ids.ndim)
        if single or not (hasattr(ids, "__iter__") or hasattr(ids, "__getitem__")):  # columns have the latter alone
            raise InputError(f"ids={short(repr(ids))}: expected a list of ids, one per row")
        encoded = []
        for row, item in enumerate(ids.tolist() if isinstance(ids, np.ndarray) else ids):
            if not isinstance(item, str) and (isinstance(item, bool) or not isinstance(item, numbers.Integral)):
                raise InputError(f"the id in row {row} is {short(repr(item))}: ids are texts, or integers")
            try:
                encoded.append(str(item).encode())
            except UnicodeEncodeError as error:
                raise InputError(f"the id in row {row}, {ascii(item)}, is not valid Unicode: rename it") from error
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
        shown = ", ".join(repr(short(item, 40)) for item in self[:3])
        return f"Ids({len(self):,}: {shown}{', ...' if len(self) > 3 else ''})"

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
          folder: an existing folder.
          name: prefix of the file names, where a folder holds several sets of ids.
        """
        atomic.write_npy(folder / f"{name}ids.npy", self.data)
        atomic.write_npy(folder / f"{name}id_offsets.npy", self.offsets)

    @classmethod
    def load(cls, folder: pathlib.Path, name: str = "") -> Ids:
        """Returns the ids that `save` wrote; they are decoded only when they are read.

        Args:
          folder: see `save`.
          name: see `save`.

        Raises:
          InputError: a file is missing, truncated, or does not match the other.
        """
        offsets = load_npy(folder / f"{name}id_offsets.npy", mmap=False, dtypes=("int64",), ndim=1)
        data_file = folder / f"{name}ids.npy"
        data = load_npy(data_file, mmap=False, dtypes=("uint8",), ndim=1)
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
            raise InputError(
                f"{data_file} does not match its offsets: make the folder again with the command that made it"
            )
        if not _is_text(data, offsets):
            raise InputError(f"{data_file} is not UTF-8: make the folder again with the command that made it")
        return cls(data, offsets)


def _is_text(data: np.ndarray, offsets: np.ndarray) -> bool:
    """Returns whether bytes are UTF-8 and no text begins inside of a character; reads 64 MiB at a time."""
    starts = offsets[offsets < len(data)]
    if (data[starts] & 0xC0 == 0x80).any():
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), 1 << 26):
            decoder.decode(data[start : start + (1 << 26)].tobytes())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def places(names: Iterable[str] | Iterable[bytes]) -> np.ndarray:
    """Returns the rank of each name in sorted order, [n] int64.

    Args:
      names: n ids; Python orders str as it orders their UTF-8 bytes.
    """
    names = list(names)
    out = np.empty(len(names), np.int64)
    out[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return out
