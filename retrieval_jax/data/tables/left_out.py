"""Lists of listings that the user leaves out of a catalogue: counted, but not as bad rows."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import polars as pl

from retrieval_jax import output
from retrieval_jax.data.tables import table_files, values
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError, short

REASON = "left out by config.data.leave_out"


@dataclasses.dataclass(frozen=True)
class Listed:
    """One line of the list.

    Attributes:
      where: file and line, for messages.
      split: of the listing.
      id: of the listing.
      reason: why it is left out, as the list says.
    """

    where: str
    split: str
    id: str
    reason: str

    def unknown(self) -> InputError:
        """Returns the error to raise if there is no such listing: the list belongs to another catalogue."""
        return InputError(
            f"{self.where}: there is no listing {short(self.id)!r} in the split {short(self.split)!r}; "
            "recreate the list, or remove the row"
        )


def read(file: str) -> list[Listed]:
    """Reads a list.

    Args:
      file: CSV, or another format that `table_files` reads, with the columns split, id, reason; it may be empty.

    Raises:
      InputError: the file does not exist, or a row cannot be read.
    """
    path = pathlib.Path(file)
    try:
        rows = table_files.read(
            "leave_out", path.parent, [path.name], {n: n for n in ("split", "id", "reason")}, may_be_empty=True
        )
    except InputError as error:
        raise InputError(f"config.data.leave_out = {file!r}: {error}") from None
    for _, sentence in rows.bad.values():
        raise InputError(f"config.data.leave_out = {file!r}: {sentence}")
    rows.frame = rows.frame.with_columns(
        pl.col(pl.String).map_batches(lambda column: pl.Series(map(output.from_cell, column), dtype=pl.String))
    )
    rows.frame = rows.frame.with_columns(id=values.cells(rows.frame["id"]), split=values.cells(rows.frame["split"]))
    return [
        Listed(f"config.data.leave_out: {file}, row {line}", *listed)
        for line, listed in zip(rows.line.tolist(), rows.frame.select("split", "id", "reason").iter_rows(), strict=True)
    ]


def mark(tables: dict[str, Rows], listed: Sequence[Listed]) -> None:
    """Marks the rows of listings to leave out.

    Args:
      tables: rows of every split, by name.
      listed: see `read`.

    Raises:
      InputError: a listing does not exist.
    """
    # for a duplicate id, the first row: the one that would be kept
    places = {
        name: dict(zip(rows.frame["id"].reverse(), range(len(rows))[::-1], strict=True))
        for name, rows in tables.items()
        if listed
    }
    for one in listed:
        row = places.get(one.split, {}).get(one.id)
        if row is None:
            raise one.unknown()
        tables[one.split].mark(row, REASON, one.reason or f"{one.where} names it")
