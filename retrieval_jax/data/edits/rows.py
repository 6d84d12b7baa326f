"""Makes rows of a catalogue out of lists: for layouts that are not tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from retrieval_jax.data.tables.row_checks import Rows


@dataclasses.dataclass
class Gathered:
    """Rows of one split or table while they are read.

    Attributes:
      name: of the split or table.
      columns: our name of a column -> n texts.
      files: as the user knows them.
      places: (number of the file, row in it from 1) of every row.
      wrong: row -> (reason, detail), see `Rows.mark`.
    """

    name: str
    columns: dict[str, list[str]]
    files: list[str] = dataclasses.field(default_factory=list)
    places: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    wrong: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)

    def add(self, place: int, wrong: tuple[str, str] | None = None, **values: str) -> None:
        """Adds a row of the file that was named last.

        Args:
          place: its number in the file, from 1.
          wrong: (reason, detail) of a bad row.
          **values: one text per column.
        """
        if wrong:
            self.wrong[len(self.places)] = wrong
        self._append((len(self.files) - 1, place), values)

    def copy(self, other: Gathered, row: int, **values: str) -> None:
        """Adds a row that is made of a row of the same files.

        Args:
          other: rows of the same files.
          row: its number there, from 0.
          **values: one text per column.
        """
        self._append(other.places[row], values)

    def _append(self, place: tuple[int, int], values: dict[str, str]) -> None:
        self.places.append(place)
        for column, texts in self.columns.items():
            texts.append(values[column])

    def rows(self) -> Rows:
        """Returns the `Rows`, bad ones marked."""
        frame = pl.DataFrame({name: pl.Series(texts, dtype=pl.String) for name, texts in self.columns.items()})
        file_of, line = np.array(self.places, np.int64).reshape(-1, 2).T
        found = Rows(self.name, frame, self.files, file_of.astype(np.int32), line)
        for row, (reason, detail) in self.wrong.items():
            found.mark(row, reason, detail)
        return found


def empty(name: str, *columns: str) -> Gathered:
    """Returns no rows yet.

    Args:
      name: of the split or table.
      *columns: our names of its columns.
    """
    return Gathered(name, {column: [] for column in columns})
