"""Examples: what a task's batches are made of, column by column. The seam between tasks and the input pipeline.

A task turns a catalogue into `Examples`; pipeline, loop, embed and inference carry its columns without knowing any of
them by name. A column is one of

    Pictures    rows of a source of pictures, one or k per example; uint8 [B, H, W, 3] or [B, k, H, W, 3] in a batch
    Ragged      variable-length rows; [B, L] in a batch, padded with zeros, with the mask "<name>_mask" bool [B, L]
    RaggedRows  rows of a Ragged that examples share, one or k each; [B, L] or [B, k, L] in a batch, and a mask alike
    ndarray     [n, ...]; [B, ...] in a batch

Every batch also has "row" int32 [B], the example's number (-1: padding), and "_mask" bool [B], False for padding.
`Examples.beside` zips a second set of examples to the first, with an order and a batch size of its own: the columns of
"unlabelled" arrive as "unlabelled_image", "unlabelled_row" and so on, their mask as "unlabelled_mask".
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import brief
from retrieval_jax.errors import InputError

# Tokens of a batch of texts: few, because a network is compiled for each of them.
WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A column of pictures.

    Attributes:
      source: random access, `source[row]` is uint8 [h, w, 3] RGB of any size; with `read` and `decode` where it holds
        encoded pictures (see `data.pictures.sources`).
      rows: int [n] or [n, k], rows of the source; -1 gives a black picture that "<name>_mask" bool [B] or [B, k] marks
        False. None: example i has picture i, and there is no mask.
      transforms: (name, kwargs) pairs; None for those of the reader, config.train.transforms in training.
      image_size: (height, width) in pixels; None for the reader's, config.data.image_size in training.
    """

    source: Any
    rows: np.ndarray | None = None
    transforms: Sequence | None = None
    image_size: tuple[int, int] | None = None

    __repr__ = brief.line

    def __post_init__(self):
        if self.rows is not None:
            rows = np.asarray(self.rows)
            if rows.ndim not in (1, 2) or rows.dtype.kind not in "iu":
                raise InputError(f"rows of pictures are ints [n] or [n, k], not {rows.dtype} {list(rows.shape)}")
            if rows.size and (rows.max() >= len(self.source) or rows.min() < -1):
                raise InputError(
                    f"rows of pictures run from {rows.min()} to {rows.max()}; the source has {len(self.source)} "
                    "pictures: give -1 (no picture) or a row below that"
                )
            object.__setattr__(self, "rows", rows.astype(np.int64))

    def __len__(self) -> int:
        return len(self.source) if self.rows is None else len(self.rows)

    @property
    def per_example(self) -> int:
        """How many pictures an example has; 0 for one without an axis of its own."""
        return 0 if self.rows is None or self.rows.ndim == 1 else self.rows.shape[1]


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: labels, tokens, attributes.

    Attributes:
      indptr: int64 [n + 1]; row i is values[indptr[i]:indptr[i + 1]].
      values: [indptr[n]] of ints or floats.
      widths: columns that a batch may have, ascending: it gets the fewest that hold its rows. (), and where none holds
        them: `width` columns, the same for every batch.
    """

    indptr: np.ndarray
    values: np.ndarray
    widths: tuple[int, ...] = ()

    __repr__ = brief.line

    def __post_init__(self):
        indptr, values = np.asarray(self.indptr, np.int64), np.asarray(self.values)
        whole = indptr.ndim == 1 and len(indptr) and indptr[0] == 0 and indptr[-1] == len(values)
        if not whole or (np.diff(indptr) < 0).any():
            raise InputError(
                f"ragged rows: indptr has to rise from 0 to the number of values, {len(values)}, one more than rows"
            )
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "values", values)

    @classmethod
    def of(cls, rows: Iterable[Sequence], dtype: Any = np.int32) -> Ragged:
        """Returns the rows of an iterable of sequences."""
        rows = [np.asarray(row, dtype).reshape(-1) for row in rows]
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        return cls(indptr, np.concatenate([np.zeros(0, dtype), *rows]))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.values[self.indptr[row] : self.indptr[row + 1]]

    @functools.cached_property
    def width(self) -> int:
        """Length of the longest row, at least 1."""
        return max(1, int(np.diff(self.indptr).max(initial=0)))

    def take(self, rows: np.ndarray) -> Ragged:
        """Returns some rows, in the order given.

        Args:
          rows: int [m].
        """
        rows = np.asarray(rows, np.int64)
        lengths = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - self.indptr[rows], lengths)
        return Ragged(indptr, self.values[at], self.widths)

    def padded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows as a rectangle.

        Args:
          rows: int [b]; a negative row is empty.

        Returns:
          Values [b, columns], 0 where a row has ended, and a mask bool of that shape.
        """
        there, rows = rows >= 0, np.maximum(rows, 0)
        ends = np.where(there, self.indptr[rows + 1], self.indptr[rows])
        longest = int((ends - self.indptr[rows]).max(initial=0))
        columns = next((width for width in self.widths if width >= longest), self.width)
        at = self.indptr[rows, None] + np.arange(columns)
        mask = at < ends[:, None]
        if not len(self.values):
            return np.zeros(mask.shape, self.values.dtype), mask
        return np.where(mask, self.values[np.where(mask, at, 0)], self.values.dtype.type(0)), mask


@dataclasses.dataclass(frozen=True)
class RaggedRows:
    """A column whose entries are rows of one table of texts: a product's tokens, wherever it is clicked.

    Attributes:
      source: the table.
      rows: int [n] or [n, k], rows of it; -1 gives an empty row.
    """

    source: Ragged
    rows: np.ndarray

    __repr__ = brief.line

    def __post_init__(self):
        rows = np.asarray(self.rows)
        if rows.ndim not in (1, 2) or rows.dtype.kind not in "iu":
            raise InputError(f"rows of a ragged table are ints [n] or [n, k], not {rows.dtype} {list(rows.shape)}")
        if rows.size and (rows.max() >= len(self.source) or rows.min() < -1):
            raise InputError(
                f"rows of a ragged table run from {rows.min()} to {rows.max()}; it has {len(self.source)}: give -1 "
                "(nothing) or a row below that"
            )
        object.__setattr__(self, "rows", rows.astype(np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def padded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns entries as a rectangle, see `Ragged.padded`.

        Args:
          rows: int [b]; a negative one is empty.

        Returns:
          Values and their mask, [b, width] or [b, k, width].
        """
        at = self.rows[np.maximum(rows, 0)]
        at = np.where(np.asarray(rows).reshape(-1, *(1,) * (at.ndim - 1)) >= 0, at, -1)
        values, mask = self.source.padded(at.reshape(-1))
        return values.reshape(*at.shape, -1), mask.reshape(*at.shape, -1)


@dataclasses.dataclass(frozen=True)
class Examples:
    """What a task learns from.

    Attributes:
      columns: {name: Pictures, Ragged, RaggedRows or ndarray}, one entry per example each.
      ids: n texts that name an example in messages.
      beside: {name: Examples} that are zipped to these, see the module; none of them has `beside` itself.
      batch_size: examples of a global batch; None for the reader's. Sets beside have one of their own.
    """

    columns: Mapping[str, Pictures | Ragged | RaggedRows | np.ndarray]
    ids: Sequence[str] = ()
    beside: Mapping[str, Examples] = dataclasses.field(default_factory=dict)
    batch_size: int | None = None

    __repr__ = brief.line

    def __post_init__(self):
        lengths = {name: len(column) for name, column in self.columns.items()}
        if not lengths:
            raise InputError("examples need at least one column")
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in lengths.items())
            raise InputError(f"the columns of examples have different numbers of rows: {listed}")
        if not len(self):
            raise InputError("there are no examples: the split to train on has no rows")
        if len(self.ids) not in (0, len(self)):
            raise InputError(
                f"examples have {len(self)} rows and {len(self.ids)} ids: give one id per example, or none"
            )
        columns = {name: _checked(name, column) for name, column in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        taken = {"row", "_mask", "_whole", "mix", "mask"}
        masked = Pictures | Ragged | RaggedRows
        taken |= {f"{name}_mask" for name, column in columns.items() if isinstance(column, masked)}
        for name in columns:
            if name in taken or name.startswith("mix_"):
                raise InputError(f"a column may not be named {name!r}: the pipeline fills it in")
        for name, other in self.beside.items():
            if other.beside or other.batch_size is None:
                raise InputError(f"the examples {name!r} beside others need a batch_size and have none beside them")
            clash = [column for column in self.columns if column == name or column.startswith(f"{name}_")]
            if clash:
                raise InputError(f"the column {clash[0]!r} has the name of a column of the examples {name!r} beside it")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def pictures(self) -> list[str]:
        """Returns the names of the columns of pictures, in order."""
        return [name for name, column in self.columns.items() if isinstance(column, Pictures)]


def _checked(name: str, column: Any) -> Pictures | Ragged | RaggedRows | np.ndarray:
    """Returns a column as the pipeline carries it; raises InputError for one that has no place in a batch."""
    if isinstance(column, Pictures | Ragged | RaggedRows):
        return column
    column = np.asarray(column)
    if column.dtype.kind not in "biuf":
        raise InputError(
            f"the column {name!r} holds {column.dtype} values: a batch takes numbers, Pictures or Ragged; turn text "
            "into token ids first"
        )
    return column
