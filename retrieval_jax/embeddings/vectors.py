"""Vectors that are read by rows: shards on disk as one array, and rows that are computed when they are read.

Both have len, .shape and .dtype like an array, are indexed by a slice or an array of rows, and always give float32
copies. Only the rows being read are in memory. What is read is finite: anything else raises an InputError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retrieval_jax import arguments, brief

# Rows per call of the function behind `Computed`: bounds its temporary arrays, however much is read.
CHUNK_ROWS = 2048


def spread(count: int, most: int) -> np.ndarray:
    """Returns evenly spaced rows of `count`, at most `most` of them, int64."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, most)).astype(np.int64))


class Shards:
    """Several [n, dim] arrays read as one: len, .shape, slices and arrays of rows; always gives float32 copies."""

    dtype = np.dtype(np.float32)

    def __repr__(self) -> str:
        return f"Shards({brief.size(self)})"

    def __init__(self, arrays: Sequence[np.ndarray], dim: int, ids: Sequence[str] | None = None):
        self.arrays, self.ids = list(arrays), ids
        self.starts = np.cumsum([0] + [len(array) for array in self.arrays])
        self.shape = (int(self.starts[-1]), dim)

    def named(self, ids: Sequence[str]) -> Shards:
        """Returns the same vectors with ids for messages."""
        return Shards(self.arrays, self.shape[1], ids)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            parts = [
                array[max(0, start - first) : max(0, stop - first)]
                for array, first in zip(self.arrays, self.starts[:-1], strict=True)
                if first < stop
            ]
            with np.errstate(over="ignore"):  # what is too large becomes infinite, which is reported
                out = np.concatenate([np.zeros((0, self.shape[1]), np.float32), *parts], dtype=np.float32)
            arguments.finite(out, "the embeddings read", self.ids, start)
            return out
        rows = flat_rows(key, len(self))
        flat = rows.reshape(-1)
        out = np.empty((len(flat), self.shape[1]), np.float32)
        which = np.searchsorted(self.starts, flat, side="right") - 1
        for number in np.unique(which):
            here = which == number
            out[here] = self.arrays[number][flat[here] - self.starts[number]]
        arguments.finite(out, "the embeddings read", self.ids, flat)
        return out.reshape(*rows.shape, self.shape[1])

    def __array__(self, dtype=None, copy=None):
        return self[:] if dtype is None else self[:].astype(dtype)


class Computed:
    """Rows that are computed whenever they are read: for a result that would not fit in memory.

    Args:
      read: function of a slice of step 1 or of an array [n] of rows; returns their vectors [n, dim], each row the same
        whatever else is read with it.
      shape: rows and dim.
      ids: of all rows, for messages.
    """

    dtype = np.dtype(np.float32)

    def __repr__(self) -> str:
        return f"Computed({brief.size(self)})"

    def __init__(
        self,
        read: Callable[[slice | np.ndarray], np.ndarray],
        shape: tuple[int, int],
        ids: Sequence[str] | None = None,
    ):
        self.read, self.shape, self.ids = read, shape, ids

    def named(self, ids: Sequence[str]) -> Computed:
        """Returns the same vectors with ids for messages."""
        return Computed(self.read, self.shape, ids)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            out = np.empty((max(0, stop - start), self.shape[1]), np.float32)
            for first in range(0, len(out), CHUNK_ROWS):
                last = min(first + CHUNK_ROWS, len(out))
                out[first:last] = self.read(slice(start + first, start + last))
            arguments.finite(out, "the vectors computed", self.ids, start)
            return out
        rows = flat_rows(key, len(self))
        flat = rows.reshape(-1)
        out = np.empty((len(flat), self.shape[1]), np.float32)
        for first in range(0, len(flat), CHUNK_ROWS):
            some = flat[first : first + CHUNK_ROWS]
            out[first : first + len(some)] = self.read(some)
        arguments.finite(out, "the vectors computed", self.ids, flat)
        return out.reshape(*rows.shape, self.shape[1])

    def __array__(self, dtype=None, copy=None):
        return self[:] if dtype is None else self[:].astype(dtype)


def flat_rows(key, count: int) -> np.ndarray:
    """Returns the row numbers of an index (a number, an array of numbers or a mask), all of them non-negative.

    Raises:
      IndexError: a row that does not exist.
    """
    rows = np.asarray(key)
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    if rows.size == 0:
        return rows.astype(np.int64)
    if ((rows < -count) | (rows >= count)).any():
        raise IndexError(f"row {rows.max()} of {count}")
    return rows % max(1, count)
