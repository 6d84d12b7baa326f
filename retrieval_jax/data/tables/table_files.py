"""Reads CSV, JSONL and Parquet files as columns of text, with the number of every row as the user sees it."""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax.data import parquet
from retrieval_jax.data.tables import text_rows
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError, short

_CHUNK = 100_000  # rows held in memory as Python strings
_MOST_COLUMNS = 10_000


def read(
    name: str,
    root: Any,
    paths: list[str],
    wanted: dict[str, str],
    optional: dict[str, str] | None = None,
    encoding: str = "utf-8",
    may_be_empty: bool = False,
    lists: Mapping[str, str] | None = None,
    setting: str = "config.data.kwargs.columns",
) -> Rows:
    """Reads columns of one or more files as the rows of one split or table.

    Args:
      name: of the split or table.
      root: folder that the paths are relative to.
      paths: files ending in .csv, .tsv, .jsonl, .ndjson or .parquet, one after the other.
      wanted: our name of a column -> its name in the files.
      optional: likewise, columns that are taken only where every file has them.
      encoding: Python's name for the encoding of CSV and JSONL; a byte-order mark at a file's beginning overrides it.
      may_be_empty: whether there may be no rows.
      lists: our name of a column that may hold JSON or Parquet lists -> what their values are joined with.
      setting: the setting that maps the columns, for messages.

    Returns:
      The `Rows`, every column as text ("" where empty).

    Raises:
      InputError: unreadable file, missing column (with the columns found and near names), no rows.
    """
    present, lists = {path: header(root, path, encoding) for path in paths}, lists or {}
    extra = {
        ours: theirs for ours, theirs in (optional or {}).items() if all(theirs in found for found in present.values())
    }
    columns = wanted | extra
    frames, file_of, lines, bad = [], [], [], []
    for number, path in enumerate(paths):
        check_columns(path, present[path], wanted, columns, setting)
        before = sum(map(len, lines))
        for frame, line, marks in _chunks(root, path, columns, encoding, lists):
            frames.append(frame)
            start = before
            before += len(line)
            lines.append(line)
            file_of.append(np.full(len(line), number, np.int32))
            bad += [(start + row, reason, detail) for row, reason, detail in marks]
    if not may_be_empty and not sum(map(len, lines)):
        raise InputError(f"{', '.join(paths)}: there are no rows; give at least one or leave the file out")
    rows = Rows(name, pl.concat(frames), paths, np.concatenate(file_of), np.concatenate(lines))
    for row, reason, detail in bad:
        rows.mark(row, reason, detail)
    return rows


def header(root: Any, path: str, encoding: str) -> list[str]:
    """Returns the names of a file's columns; one that a CSV has twice is there twice."""
    full = pathlib.Path(root) / path
    if not full.is_file():
        near = difflib.get_close_matches(
            full.name, [f.name for f in full.parent.glob("*") if f.is_file()] if full.parent.is_dir() else []
        )
        raise InputError(f"{full}: there is no such file{_near(near)}; correct config.data.kwargs or add the file")
    kind = full.suffix.lower()
    if kind in (".csv", ".tsv"):
        return _few(path, [short(name) for name in text_rows.csv_header(full, path, encoding)[1]])
    if kind in (".jsonl", ".ndjson"):
        found, wrong = {}, ""
        for line, record, problem in text_rows.json_records(full, path, encoding):
            found |= dict.fromkeys(record or ())
            wrong = (
                wrong
                or problem
                and f"{path}, row {line}: no line is a JSON object ({problem}); write one object per line"
            )
            if len(found) > _MOST_COLUMNS:
                raise InputError(
                    f"{path}, row {line}: more than {_MOST_COLUMNS:,} names so far; write one listing per "
                    "line, all with the same names"
                )
        if wrong and not found:
            raise InputError(wrong)
        return [short(name.encode("utf-8", "backslashreplace").decode()) for name in found]
    if kind == ".parquet":
        return _few(path, parquet.names(full, path))
    unpack = "; unpack it" if kind in (".gz", ".bz2", ".xz", ".zst", ".zip") else ""
    raise InputError(f"{path}: files end in .csv, .tsv, .jsonl, .ndjson or .parquet, not in {kind!r}{unpack}")


def _few(path: str, names: list[str]) -> list[str]:
    """Returns the names of columns; raises InputError where there are so many that the file is not a table."""
    if len(names) > _MOST_COLUMNS:
        raise InputError(
            f"{path}: it has {len(names):,} columns, at most {_MOST_COLUMNS:,}; rows and columns may be swapped, or "
            "line breaks missing"
        )
    return names


def check_columns(
    path: str,
    found: list[str],
    wanted: Mapping[str, str],
    taken: Mapping[str, str],
    setting: str = "config.data.kwargs.columns",
) -> None:
    """Raises InputError where a file lacks a wanted column, with near names, or has a column twice that is taken.

    Args:
      path: of the file.
      found: names of its columns.
      wanted: our name of a column -> its name in the file.
      taken: likewise, all that are read.
      setting: the setting that maps the columns, for messages.
    """
    if repeated := sorted({theirs for theirs in taken.values() if found.count(theirs) > 1}):
        raise InputError(f"{path}: the header names {', '.join(repeated)} twice; give every column its own name")
    for ours, theirs in wanted.items():
        if theirs not in found:
            near = [column for column in found if column.lower() == theirs.lower()]
            near = near or difflib.get_close_matches(theirs, found, cutoff=0.4)
            raise InputError(
                f"{path}: missing column {theirs!r} (our {ours}); the file has {short(', '.join(found), 500) or 'none'}"
                f"{_near(near)}; rename the column or map it in {setting}"
            )


def _near(names: list[str]) -> str:
    return f"; did you mean {' or '.join(repr(name) for name in names)}?" if names else ""


def _chunks(
    root: Any, path: str, columns: dict[str, str], encoding: str, lists: Mapping[str, str]
) -> Iterator[tuple[pl.DataFrame, np.ndarray, list]]:
    """Yields (frame, line numbers, [(row in the frame, reason, detail)])."""
    full = pathlib.Path(root) / path
    if full.suffix.lower() == ".parquet":
        yield _parquet(full, path, columns, lists)
        return
    if full.suffix.lower() in (".csv", ".tsv"):
        source = text_rows.csv_rows(full, path, columns, encoding)
    else:
        source = text_rows.json_rows(full, path, columns, encoding, lists)
    lines, values, marks = [], [], []
    for line, row, problem in source:
        if problem:
            marks.append((len(lines), *problem))
        lines.append(line)
        values.append(row)
        if len(lines) == _CHUNK:
            yield _frame(columns, values, marks), np.asarray(lines, np.int64), marks
            lines, values, marks = [], [], []
    yield _frame(columns, values, marks), np.asarray(lines, np.int64), marks


def _frame(columns: dict[str, str], values: list[list[str]], marks: list) -> pl.DataFrame:
    by_column = dict(zip(columns, zip(*values, strict=True) if values else [()] * len(columns), strict=True))
    for ours, column in by_column.items():
        try:
            "".join(column).encode("utf-8")
        except UnicodeEncodeError:  # bytes that are not UTF-8 were read as lone surrogates
            clean = [value.encode("utf-8", "replace").decode("utf-8") for value in column]
            marks += [
                (
                    row,
                    "not UTF-8 text",
                    f"{columns[ours]} is not UTF-8 text ({short(new)!r}); save the file as UTF-8, "
                    "or name its encoding, such as config.data.kwargs.encoding = 'cp1252'",
                )
                for row, (value, new) in enumerate(zip(column, clean, strict=True))
                if value != new
            ]
            by_column[ours] = clean
    return pl.DataFrame({ours: pl.Series(column, dtype=pl.String) for ours, column in by_column.items()})


# -------------------------------------------------------------------------------------------------------- Parquet


def _parquet(
    full: pathlib.Path, path: str, columns: dict[str, str], lists: Mapping[str, str]
) -> tuple[pl.DataFrame, np.ndarray, list]:
    frame = parquet.read(full, list(dict.fromkeys(columns.values())), path)  # one may be mapped twice
    texts, marks = {}, []
    for ours, theirs in columns.items():
        column = frame[theirs]
        if ours in lists and isinstance(column.dtype, pl.List):
            items = column.cast(pl.List(pl.String))
            inside = items.list.eval(pl.element().str.strip_chars().str.contains(lists[ours], literal=True)).list.any()
            marks += [
                (int(row), "value is not text", text_rows.not_text(theirs, lists[ours]))
                for row in np.flatnonzero(inside.fill_null(False).to_numpy())
            ]
            column = items.list.join(lists[ours])
        elif column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
            raise InputError(f"{path}: column {theirs!r} holds {column.dtype}, not text or numbers; map another column")
        elif column.dtype.is_float():
            exact = 24 if column.dtype == pl.Float32 else 53
            column = _whole(column.cast(pl.Float64).fill_nan(None), exact, f"{path}: column {theirs!r}")
        texts[ours] = column.cast(pl.String).fill_null("")
    return pl.DataFrame(texts), np.arange(1, len(frame) + 1), marks


def _whole(column: pl.Series, exact: int, where: str) -> pl.Series:
    """Returns floats as integers if all are whole: integer columns with gaps are often stored as floats."""
    if not (column == column.round()).all() or column.is_infinite().any():
        return column
    if (column.abs() >= 2**exact).any():
        raise InputError(
            f"{where} holds floats of 2**{exact} or more, which have lost their last digits; "
            "store ids as text or integers"
        )
    return column.cast(pl.Int64)
