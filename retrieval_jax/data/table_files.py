"""CSV, JSONL and Parquet files as columns of text, with the number of every row as a person sees it."""

from __future__ import annotations

import csv
import difflib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax.data.row_checks import Rows
from retrieval_jax.errors import InputError

_CHUNK = 100_000  # rows that stand in memory as Python strings
_FIELD = 16 * 2**20  # longest CSV field: lists of relevant ids outgrow the csv module's own 128 KiB
_LISTS = "gallery_ids"  # the one column that may hold lists

# One row as a reader yields it: its number, its values in the order of the columns, and (reason, detail) or None.
_Row = tuple[int, list[str], tuple[str, str] | None]


def read(
    name: str, root: Any, paths: list[str], wanted: dict[str, str], optional: dict[str, str] | None = None
) -> Rows:
    """Reads columns of one or more files as the rows of one split.

    Args:
        name: of the split.
        root: folder that the paths are relative to.
        paths: files ending in .csv, .tsv, .jsonl, .ndjson or .parquet, one after the other.
        wanted: our name of a column -> its name in the files; "id" has to be there.
        optional: likewise, columns that are taken only where every file has them.

    Returns:
        The `Rows`, every column as text ("" where empty).

    Raises:
        InputError: unreadable file, missing column (with the columns found and near names), no rows.
    """
    present = {path: _columns(root, path) for path in paths}
    extra = {
        ours: theirs for ours, theirs in (optional or {}).items() if all(theirs in found for found in present.values())
    }
    columns = wanted | extra
    frames, file_of, lines, bad = [], [], [], []
    for number, path in enumerate(paths):
        _check_columns(path, present[path], wanted)
        before = sum(map(len, lines))
        for frame, line, marks in _chunks(root, path, columns):
            frames.append(frame)
            start = before
            before += len(line)
            lines.append(line)
            file_of.append(np.full(len(line), number, np.int32))
            bad += [(start + row, reason, detail) for row, reason, detail in marks]
    if not frames or not sum(map(len, lines)):
        raise InputError(f"{', '.join(paths)}: there are no rows; give at least one or leave the file out")
    rows = Rows(name, pl.concat(frames), paths, np.concatenate(file_of), np.concatenate(lines))
    for row, reason, detail in bad:
        rows.mark(row, reason, detail)
    return rows


def _columns(root: Any, path: str) -> list[str]:
    """Returns the names of a file's columns."""
    full = pathlib.Path(root) / path
    if not full.is_file():
        near = difflib.get_close_matches(
            full.name, [f.name for f in full.parent.glob("*")] if full.parent.is_dir() else []
        )
        raise InputError(f"{full}: there is no such file{_near(near)}; correct config.data.kwargs or add the file")
    kind = full.suffix.lower()
    if kind in (".csv", ".tsv"):
        with _open_csv(full) as file:
            header = next(_csv_reader(file, kind), None)
        if not header:
            raise InputError(f"{path}: the file is empty; its first line has to name the columns")
        repeated = {column for column in header if header.count(column) > 1}
        if repeated:
            raise InputError(f"{path}: the header names {', '.join(sorted(repeated))} twice; name every column once")
        return header
    if kind in (".jsonl", ".ndjson"):
        found = {}
        for _, record, _ in _json_records(full):
            found |= dict.fromkeys(record or ())
        return list(found)
    if kind == ".parquet":
        try:
            return list(pl.read_parquet_schema(full))
        except Exception as error:  # polars has many error types; all mean that the file is no Parquet
            raise InputError(f"{path}: not a readable Parquet file ({error})") from None
    raise InputError(f"{path}: files end in .csv, .tsv, .jsonl, .ndjson or .parquet, not in {kind!r}")


def _check_columns(path: str, found: list[str], wanted: dict[str, str]) -> None:
    for ours, theirs in wanted.items():
        if theirs not in found:
            near = difflib.get_close_matches(theirs, found, cutoff=0.4) or [
                c for c in found if c.lower() == theirs.lower()
            ]
            raise InputError(
                f"{path}: missing column {theirs!r} (our {ours}); the file has {', '.join(found) or 'none'}"
                f"{_near(near)}; rename the column or map it in config.data.kwargs.columns"
            )


def _near(names: list[str]) -> str:
    return f"; did you mean {' or '.join(repr(name) for name in names)}?" if names else ""


def _chunks(root: Any, path: str, columns: dict[str, str]) -> Iterator[tuple[pl.DataFrame, np.ndarray, list]]:
    """Yields (frame, line numbers, [(row in the frame, reason, detail)])."""
    full = pathlib.Path(root) / path
    if full.suffix.lower() == ".parquet":
        yield _parquet(full, path, columns)
        return
    source = _csv_rows(full, path, columns) if full.suffix.lower() in (".csv", ".tsv") else _json_rows(full, columns)
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
        except UnicodeEncodeError:  # bytes that are no UTF-8 were read as lone surrogates
            clean = [value.encode("utf-8", "replace").decode("utf-8") for value in column]
            marks += [
                (row, "not UTF-8 text", f"{columns[ours]} is not UTF-8 text ({new!r}); save the file as UTF-8")
                for row, (value, new) in enumerate(zip(column, clean, strict=True))
                if value != new
            ]
            by_column[ours] = clean
    return pl.DataFrame({ours: pl.Series(column, dtype=pl.String) for ours, column in by_column.items()})


# ------------------------------------------------------------------------------------------------------------ CSV


def _open_csv(full: pathlib.Path) -> Any:
    return open(full, newline="", encoding="utf-8-sig", errors="surrogateescape")


def _csv_reader(file: Any, kind: str) -> Any:
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD))
    return csv.reader(file, strict=True, delimiter="\t" if kind == ".tsv" else ",")


def _csv_rows(full: pathlib.Path, path: str, columns: dict[str, str]) -> Iterator[_Row]:
    with _open_csv(full) as file:
        reader = _csv_reader(file, full.suffix.lower())
        header = next(reader)
        places = [header.index(theirs) for theirs in columns.values()]
        line = reader.line_num + 1  # a quoted field may hold line breaks: a row's number is the line it begins at
        try:
            for record in reader:
                if len(record) == len(header):
                    yield line, [record[place] for place in places], None
                elif record:  # a blank line is no row
                    values = [record[place] if place < len(record) else "" for place in places]
                    yield (
                        line,
                        values,
                        (
                            "wrong number of fields",
                            f"the row has {len(record)} fields, the header "
                            f"{len(header)}; put fields that hold a comma between double quotes",
                        ),
                    )
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"{path}, row {line}: not CSV ({error}); a field with a double quote is written between "
                "double quotes, with the quote doubled"
            ) from None


# ---------------------------------------------------------------------------------------------------------- JSONL


def _json_records(full: pathlib.Path) -> Iterator[tuple[int, dict | None, str]]:
    with open(full, "rb") as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                try:
                    record = json.loads(text)
                    yield (
                        line,
                        record if isinstance(record, dict) else None,
                        "" if isinstance(record, dict) else "not an object",
                    )
                except (ValueError, RecursionError) as error:
                    yield line, None, str(error)


def _json_rows(full: pathlib.Path, columns: dict[str, str]) -> Iterator[_Row]:
    for line, record, problem in _json_records(full):
        if record is None:
            yield (
                line,
                [""] * len(columns),
                ("not a JSON object", f"the line is no JSON object ({problem}); correct it"),
            )
            continue
        values, wrong = [], None
        for ours, theirs in columns.items():
            text = _text(record.get(theirs), ours)
            if text is None:
                wrong = ("value is not text", f"{theirs} is neither text nor a number; correct it")
            values.append(text or "")
        yield line, values, wrong


def _text(value: Any, ours: str) -> str | None:
    """Returns a JSON value as text, or None where it is an object or a list."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (str, int, float)):
        return str(value)
    if ours == _LISTS and isinstance(value, list) and all(isinstance(item, (str, int)) for item in value):
        return " ".join(map(str, value))
    return None


# -------------------------------------------------------------------------------------------------------- Parquet


def _parquet(full: pathlib.Path, path: str, columns: dict[str, str]) -> tuple[pl.DataFrame, np.ndarray, list]:
    try:
        frame = pl.read_parquet(full, columns=list(columns.values()))
    except Exception as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from None
    texts = {}
    for ours, theirs in columns.items():
        column = frame[theirs]
        if ours == _LISTS and isinstance(column.dtype, pl.List):
            column = column.cast(pl.List(pl.String)).list.join(" ")
        elif column.dtype.is_float() and column.is_not_nan().all() and (column == column.round()).all():
            column = column.cast(pl.Int64)  # whole numbers with gaps are often stored as floats
        elif column.dtype.is_nested() or column.dtype == pl.Binary:
            raise InputError(f"{path}: column {theirs!r} holds {column.dtype}, not text or numbers; map another column")
        texts[ours] = column.cast(pl.String).fill_null("")
    return pl.DataFrame(texts), np.arange(1, len(frame) + 1), []
