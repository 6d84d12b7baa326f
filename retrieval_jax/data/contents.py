"""Fingerprints of examples: which ones still have the same content when a split is embedded again.

Each column contributes a fingerprint per row: for pictures that of `pictures.noted` (a digest of their bytes, and a
stamp that avoids reading files nobody touched), for any other column a 128-bit BLAKE2 digest of the row's values. Text
is compared by its tokens, which is what the network reads.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.data.pictures import sources
from retrieval_jax.data.pictures.noted import THUMBNAIL, Noted


class Contents:
    """The columns that a predict function reads, with fingerprints of their rows.

    Args:
      columns: {name: Pictures, Ragged or ndarray}, equally long.
      cache_bytes: decoded pictures to keep in memory, per source of pictures.
      seen: a dict, empty at first, that several `Contents` share: models that read the same pictures then decode and
        fingerprint them once.

    Attributes:
      columns: the columns to read from: their pictures are fingerprinted while they are read.
    """

    def __init__(self, columns: Mapping, cache_bytes: int = 0, seen: dict | None = None):
        self.columns, self._noted, seen = {}, {}, {} if seen is None else seen
        for name, column in sorted(columns.items()):
            if isinstance(column, Pictures):
                if id(column.source) not in seen:
                    noted = Noted(column.source)
                    seen[id(column.source)] = noted, sources.kept(noted, cache_bytes)
                self._noted[name], source = seen[id(column.source)]
                column = dataclasses.replace(column, source=source)
            self.columns[name] = column

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def notes(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns fingerprints and thumbnails of rows; pictures that were not read yet are read.

        Args:
          rows: int [n].

        Returns:
          "fingerprints" uint64 [n, F] over all columns; with pictures also "thumbnails" uint8 [n, 192 k], k pictures
          per example. Zeros for a picture that an example lacks.
        """
        fingerprints, thumbnails = [], []
        for name, column in self.columns.items():
            if name not in self._noted:
                fingerprints.append(_digests(column, rows))
                continue
            pictures, there = _pictures(column, rows)
            found, small = self._noted[name].notes(pictures[there])
            for parts, values in ((fingerprints, found), (thumbnails, small)):
                flat = np.zeros((len(pictures), values.shape[1]), values.dtype)
                flat[there] = values
                parts.append(flat.reshape(len(rows), -1))
        out = {"fingerprints": np.concatenate(fingerprints, axis=1)}
        return {**out, "thumbnails": np.concatenate(thumbnails, axis=1)} if thumbnails else out

    def unchanged(self, rows: np.ndarray, notes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns which rows have the same content as in earlier notes.

        Args:
          rows: int [n].
          notes: the earlier `notes` of these rows.

        Returns:
          bool [n].
        """
        widths = np.sum([self._widths(name) for name in self.columns], axis=0)
        noted = [notes[part].shape[1] if part in notes else 0 for part in ("fingerprints", "thumbnails")]
        if noted != widths.tolist():  # other columns, or more or fewer pictures per example
            return np.zeros(len(rows), bool)
        same, at, small_at = np.ones(len(rows), bool), 0, 0
        for name, column in self.columns.items():
            width, small_width = self._widths(name)
            old = notes["fingerprints"][:, at : at + width]
            at += width
            if name not in self._noted:
                same &= (_digests(column, rows) == old).all(axis=1)
                continue
            small = notes["thumbnails"][:, small_at : small_at + small_width]
            small_at += small_width
            pictures, there = _pictures(column, rows)
            old, small = old.reshape(len(pictures), -1), small.reshape(len(pictures), -1)
            ok = ~old.any(axis=1)  # no picture, now and then
            ok[there] = self._noted[name].unchanged(pictures[there], old[there], small[there])
            same &= ok.reshape(len(rows), -1).all(axis=1)
        return same

    def _widths(self, name: str) -> tuple[int, int]:
        """Returns the widths of a column's part of fingerprints and thumbnails."""
        if name not in self._noted:
            return 2, 0
        pictures = max(1, self.columns[name].per_example)
        return 3 * pictures, THUMBNAIL * pictures


def _pictures(column: Pictures, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the source behind some examples, flat, and a mask of those that are pictures at all."""
    pictures = (np.asarray(rows) if column.rows is None else column.rows[rows]).reshape(-1)
    return pictures, pictures >= 0


def _digests(column: Ragged | np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns a digest of the values of each row, uint64 [n, 2]."""
    out = b"".join(_digest(np.asarray(column[int(row)])) for row in rows)
    return np.frombuffer(out, np.uint64).reshape(len(rows), 2)


def _digest(values: np.ndarray) -> bytes:
    digest = hashlib.blake2b(f"{values.dtype} {values.shape} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.digest()
