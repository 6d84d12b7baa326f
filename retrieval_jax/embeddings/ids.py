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

    Indexing with an int gives a `str`, with a slice or an array of rows a list of `str`; `take` gives `Ids`.

    Queries may be about a listing ("this shirt, but in denim"): `about` has its id. Other queries are about the listing
    that has their own id, if there is one. Neither is ever a result of the query (`left_out`).
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray, about: Ids | None = None):
        self.data, self.offsets, self._about = data, offsets, about
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

    @property
    def about(self) -> Ids:
        """Ids of the listings that the queries are about, one per query; the ids themselves where none were given."""
        return self if self._about is None else self._about

    def left_out(self) -> Iterator[tuple[str, ...]]:
        """Yields for every query the ids that are neither results nor right answers: what it is about, and its own."""
        if self._about is None:
            yield from ((own,) for own in self)
        else:
            yield from ((own,) if own == about else (about, own) for own, about in zip(self, self._about, strict=True))

    def with_about(self, about: Iterable[str]) -> Ids:
        """Returns the ids with the ids of the listings that they are about.

        Args:
          about: one id per row; "" for a query that is about no other listing.

        Raises:
          InputError: not one per row, or see `of`.
        """
        named = Ids.of(about)
        if len(named) != len(self):
            raise InputError(f"{len(self)} queries are about {len(named)} listings: give one per query, '' for none")
        plain = Ids(self.data, self.offsets)
        if not np.diff(named.offsets).all():
            named = Ids.of([name or own for name, own in zip(named, plain, strict=True)])
        named = Ids(named.data, named.offsets)
        return plain if named == plain else Ids(self.data, self.offsets, named)

    def take(self, rows: np.ndarray) -> Ids:
        """Returns the ids of some rows, in the order given, with what they are about.

        Args:
          rows: int [m].
        """
        rows = np.asarray(rows, np.int64)
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        data = self.data[np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths) + np.arange(offsets[-1])]
        return Ids(data, offsets, None if self._about is None else self._about.take(rows))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, key):
        if isinstance(key, slice):
            return [self[row] for row in range(*key.indices(len(self)))]
        if isinstance(key, np.ndarray) and key.ndim:
            rows = np.asarray(key, np.int64)
            if len(rows) and not -len(self) <= rows.min() <= rows.max() < len(self):
                raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)} ids")
            return list(self.take(np.where(rows < 0, rows + len(self), rows)))
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
            other = Ids.of(other).with_about(self.about)  # plain texts do not say what they are about
        same = np.array_equal(self.offsets, other.offsets) and np.array_equal(self.data, other.data)
        if self._about is None or other._about is None:
            return same and self._about is other._about
        return same and self._about == other._about

    __hash__ = None

    def __repr__(self) -> str:
        shown = ", ".join(repr(short(item, 40)) for item in self[:3])
        return f"Ids({len(self):,}: {shown}{', ...' if len(self) > 3 else ''})"

    def sha256(self) -> str:
        """Returns a fingerprint of the ids, their order and what they are about."""
        if not self._sha256:
            digest = hashlib.sha256(np.ascontiguousarray(self.offsets, np.int64).tobytes())
            digest.update(np.ascontiguousarray(self.data).tobytes())
            if self._about is not None:
                digest.update(self._about.sha256().encode())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def save(self, folder: pathlib.Path, name: str = "") -> None:
        """Writes {name}ids.npy and {name}id_offsets.npy, whose second row is of the ids that they are about, if others.

        Args:
          folder: an existing folder.
          name: prefix of the file names, where a folder holds several sets of ids.
        """
        data, offsets = self.data, self.offsets
        if self._about is not None:
            offsets = np.stack([offsets, self._about.offsets + len(data)])
            data = np.concatenate([data, self._about.data])
        atomic.write_npy(folder / f"{name}ids.npy", data)
        atomic.write_npy(folder / f"{name}id_offsets.npy", offsets)

    @classmethod
    def load(cls, folder: pathlib.Path, name: str = "") -> Ids:
        """Returns the ids that `save` wrote; they are decoded only when they are read.

        Args:
          folder: see `save`.
          name: see `save`.

        Raises:
          InputError: a file is missing, truncated, or does not match the other.
        """
        offsets = load_npy(folder / f"{name}id_offsets.npy", mmap=False, dtypes=("int64",))
        data_file = folder / f"{name}ids.npy"
        data = load_npy(data_file, mmap=False, dtypes=("uint8",), ndim=1)
        rows, starts = np.atleast_2d(offsets), 0
        known = offsets.ndim in (1, 2) and len(rows) in (1, 2) and rows.shape[1] > 0
        if known:  # the second row continues where the first one ends
            starts = np.concatenate([[0], rows[:-1, -1]])
        if not known or (rows[:, 0] != starts).any() or rows[-1, -1] != len(data) or (np.diff(rows) < 0).any():
            raise InputError(
                f"{data_file} does not match its offsets: make the folder again with the command that made it"
            )
        if not _is_text(data, rows.reshape(-1)):
            raise InputError(f"{data_file} is not UTF-8: make the folder again with the command that made it")
        about = cls(data[rows[0, -1] :], rows[1] - rows[0, -1]) if len(rows) == 2 else None
        return cls(data[: rows[0, -1]], rows[0], about)


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
