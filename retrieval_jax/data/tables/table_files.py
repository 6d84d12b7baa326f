"""CSV, JSONL and Parquet files as columns of text, with the number of every row as a person sees it."""

from __future__ import annotations

import codecs
import csv
import difflib
import json
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError, short

_CHUNK = 100_000  # rows that stand in memory as Python strings
_MOST_COLUMNS = 10_000  # of a JSONL file
_FIELD = 16 * 2**20  # longest CSV field: lists of relevant ids outgrow the csv module's own 128 KiB
_LISTS = "gallery_ids"  # the one column that may hold lists
_INVISIBLE = " \t\r\n\xa0\u200b\ufeff"  # around a column's name: no part of it
_EXACT = 2**53  # from here on a float skips whole numbers
# A mark at the file's beginning says for certain how its text is encoded; UTF-32's begins like UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_NO_TABLES = {
    b"\x1f\x8b": "compressed (gzip); unpack it",
    b"BZh": "compressed (bzip2); unpack it",
    b"\xfd7zXZ": "compressed (xz); unpack it",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"PAR1": "Parquet; let its name end in .parquet",
    b"%PDF": "a PDF; export the table as CSV",
    b"<": "an HTML or XML page, perhaps an error page; fetch the file again",
}

# One row as a reader yields it: its number, its values in the order of the columns, and (reason, detail) or None.
_Row = tuple[int, list[str], tuple[str, str] | None]


def read(
    name: str,
    root: Any,
    paths: list[str],
    wanted: dict[str, str],
    optional: dict[str, str] | None = None,
    encoding: str = "utf-8",
    may_be_empty: bool = False,
) -> Rows:
    """Reads columns of one or more files as the rows of one split.

    Args:
      name: of the split.
      root: folder that the paths are relative to.
      paths: files ending in .csv, .tsv, .jsonl, .ndjson or .parquet, one after the other.
      wanted: our name of a column -> its name in the files; "id" has to be there.
      optional: likewise, columns that are taken only where every file has them.
      encoding: Python's name of the text's, of CSV and JSONL; a byte-order mark at a file's beginning goes before it.
      may_be_empty: whether there may be no rows.

    Returns:
      The `Rows`, every column as text ("" where empty).

    Raises:
      InputError: unreadable file, missing column (with the columns found and near names), no rows.
    """
    present = {path: _columns(root, path, encoding) for path in paths}
    extra = {
        ours: theirs for ours, theirs in (optional or {}).items() if all(theirs in found for found in present.values())
    }
    columns = wanted | extra
    frames, file_of, lines, bad = [], [], [], []
    for number, path in enumerate(paths):
        _check_columns(path, present[path], wanted, columns)
        before = sum(map(len, lines))
        for frame, line, marks in _chunks(root, path, columns, encoding):
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


def _columns(root: Any, path: str, encoding: str) -> list[str]:
    """Returns the names of a file's columns, those of a CSV as often as it has them."""
    full = pathlib.Path(root) / path
    if not full.is_file():
        near = difflib.get_close_matches(
            full.name, [f.name for f in full.parent.glob("*") if f.is_file()] if full.parent.is_dir() else []
        )
        raise InputError(f"{full}: there is no such file{_near(near)}; correct config.data.kwargs or add the file")
    kind = full.suffix.lower()
    if kind in (".csv", ".tsv"):
        return [short(name) for name in _csv_header(full, path, encoding)[1]]
    if kind in (".jsonl", ".ndjson"):
        found, wrong = {}, ""
        for line, record, problem in _json_records(full, path, encoding):
            found |= dict.fromkeys(record or ())
            wrong = wrong or problem and f"{path}, row {line}: no line is a JSON object ({problem}); write one a row"
            if len(found) > _MOST_COLUMNS:
                raise InputError(
                    f"{path}, row {line}: more than {_MOST_COLUMNS:,} names so far; write one listing a "
                    "line, every one with the same names"
                )
        if wrong and not found:
            raise InputError(wrong)
        return [short(name.encode("utf-8", "backslashreplace").decode()) for name in found]
    if kind == ".parquet":
        try:
            return list(pl.read_parquet_schema(full))
        except (Exception, pl.exceptions.PanicException) as error:  # whatever polars raises, the file is no Parquet
            raise InputError(f"{path}: not a readable Parquet file ({error})") from None
    unpack = "; unpack it" if kind in (".gz", ".bz2", ".xz", ".zst", ".zip") else ""
    raise InputError(f"{path}: files end in .csv, .tsv, .jsonl, .ndjson or .parquet, not in {kind!r}{unpack}")


def _check_columns(path: str, found: list[str], wanted: dict[str, str], taken: dict[str, str]) -> None:
    if repeated := sorted({theirs for theirs in taken.values() if found.count(theirs) > 1}):
        raise InputError(f"{path}: the header names {', '.join(repeated)} twice; name every column once")
    for ours, theirs in wanted.items():
        if theirs not in found:
            near = [column for column in found if column.lower() == theirs.lower()]
            near = near or difflib.get_close_matches(theirs, found, cutoff=0.4)
            raise InputError(
                f"{path}: missing column {theirs!r} (our {ours}); the file has {short(', '.join(found), 500) or 'none'}"
                f"{_near(near)}; rename the column or map it in config.data.kwargs.columns"
            )


def _near(names: list[str]) -> str:
    return f"; did you mean {' or '.join(repr(name) for name in names)}?" if names else ""


def _chunks(
    root: Any, path: str, columns: dict[str, str], encoding: str
) -> Iterator[tuple[pl.DataFrame, np.ndarray, list]]:
    """Yields (frame, line numbers, [(row in the frame, reason, detail)])."""
    full = pathlib.Path(root) / path
    if full.suffix.lower() == ".parquet":
        yield _parquet(full, path, columns)
        return
    reader = _csv_rows if full.suffix.lower() in (".csv", ".tsv") else _json_rows
    source = reader(full, path, columns, encoding)
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


# ------------------------------------------------------------------------------------------------------- text files


def _open_text(full: pathlib.Path, path: str, encoding: str, newline: str) -> Any:
    """Opens a text file; raises InputError where its first bytes or the encoding's name say that it is none."""
    with open(full, "rb") as file:
        head = file.read(1024)
    for mark, found in _MARKS.items():
        if head.startswith(mark):
            return open(full, newline=newline, encoding=found, errors="surrogateescape")
    for magic, what in _NO_TABLES.items():
        if head.lstrip().startswith(magic):
            raise InputError(f"{path}: it is {what}")
    if encoding == "utf-8" and head[:64].count(0) * 4 > len(head[:64]):
        raise InputError(
            f"{path}: it has NUL bytes where its text begins, like UTF-16 without its mark; save it as "
            "UTF-8, or name its encoding, such as config.data.kwargs.encoding = 'utf-16-le'"
        )
    try:
        return open(full, newline=newline, encoding=encoding, errors="surrogateescape")
    except LookupError:
        raise InputError(
            f"config.data.kwargs.encoding is {encoding!r}, which Python does not know; "
            "such as 'utf-8', 'cp1252' or 'utf-16-le'"
        ) from None


def _not_text(path: str, error: UnicodeError) -> InputError:
    return InputError(f"{path}: its text is not encoded as was said ({error}); correct config.data.kwargs.encoding")


# ------------------------------------------------------------------------------------------------------------ CSV


def _csv_reader(file: Any, delimiter: str) -> Any:
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD))
    return csv.reader(file, strict=True, delimiter=delimiter)


def _csv_header(full: pathlib.Path, path: str, encoding: str) -> tuple[str, list[str], int]:
    """Returns the delimiter that cuts the header into the most names, these names, and the header's last line.

    Raises:
      InputError: there is no header, or it is no CSV.
    """
    found, problem = ("", [], 0), None
    for delimiter in "\t,;|" if full.suffix.lower() == ".tsv" else ",;\t|":
        try:
            with _open_text(full, path, encoding, "") as file:
                reader = _csv_reader(file, delimiter)
                records = (record for record in reader if any(name.strip(_INVISIBLE + ",;|") for name in record))
                header = next(records, [])
                if header[:1] and re.fullmatch(r"sep=.?", header[0]):  # how Excel is told the delimiter
                    header = next(records, [])
        except csv.Error as error:
            problem = problem or _not_csv(path, 1, error)
            continue
        except UnicodeError as error:
            raise _not_text(path, error) from None
        header = [_name(name) for name in header]
        while header and not header[-1]:  # left by commas at the line's end
            header.pop()
        if len(header) > len(found[1]):
            found = delimiter, header, reader.line_num
    if not found[1]:
        raise problem or InputError(f"{path}: the file is empty; its first line has to name the columns")
    return found


def _name(text: str) -> str:
    """Returns a column's name as it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode().strip(_INVISIBLE)


def _anything(record: list[str]) -> bool:
    return any(map(str.strip, record))


def _not_csv(path: str, line: int, error: csv.Error) -> InputError:
    remedy = "a field with a double quote is written between double quotes, with the quote doubled"
    if "unexpected end" in str(error) or "field limit" in str(error):
        remedy = "a double quote that opens a field in this row is perhaps never closed: " + remedy
    return InputError(f"{path}, row {line}: not CSV ({error}); {remedy}")


def _csv_rows(full: pathlib.Path, path: str, columns: dict[str, str], encoding: str) -> Iterator[_Row]:
    delimiter, header, begin = _csv_header(full, path, encoding)
    places = [[short(name) for name in header].index(theirs) for theirs in columns.values()]
    line = 1
    with _open_text(full, path, encoding, "") as file:
        reader = _csv_reader(file, delimiter)
        try:
            for record in reader:
                # A quoted field may hold line breaks: a row's number is the line it begins at.
                # A blank line is no row.
                if reader.line_num > begin and record and (record[0].strip() or _anything(record)):
                    problem = None
                    if len(record) != len(header):
                        while len(record) > len(header) and not record[-1].strip():
                            record.pop()
                    if len(record) != len(header):
                        problem = (
                            "wrong number of fields",
                            f"the row has {len(record)} fields, the header {len(header)}; put fields that hold "
                            f"a {'tab' if delimiter == chr(9) else delimiter!r} between double quotes",
                        )
                        record += [""] * len(header)
                    elif reader.line_num > line and _swallows(record, header, columns.get("image"), delimiter):
                        problem = (
                            "rows inside a field",
                            "a field of the row holds lines that are rows themselves: a "
                            "double quote that opens a field here is perhaps closed only further down; double "
                            "the quotes inside fields",
                        )
                    elif header[0] in record[0] and [_name(value) for value in record] == header:
                        problem = "repeated header", "it is the header once more; remove the line"
                    values = [record[place] for place in places]
                    yield line, values, problem
                line = reader.line_num + 1
        except csv.Error as error:
            raise _not_csv(path, line, error) from None
        except UnicodeError as error:
            raise _not_text(path, error) from None


def _swallows(record: list[str], header: list[str], image: str | None, delimiter: str) -> bool:
    """Tells whether lines inside a field look like rows, as many fields, and a file's name as the picture: whole ones,
    or the first with what is before the field and the last with what is after it."""
    place = header.index(image) if image in header else None

    def is_row(fields: list[str]) -> bool:
        return len(fields) == len(header) and (place is None or bool(re.search(r"\w\.\w{2,5}\s*$", fields[place])))

    for at, field in enumerate(record):
        lines = [line.split(delimiter) for line in field.splitlines()]
        if (
            any(map(is_row, lines[1:-1]))
            or place is not None
            and len(lines) > 1
            and (is_row(record[:at] + lines[0]) and is_row(lines[-1] + record[at + 1 :]))
        ):
            return True
    return False


# ---------------------------------------------------------------------------------------------------------- JSONL


def _json_records(full: pathlib.Path, path: str, encoding: str) -> Iterator[tuple[int, dict | None, str]]:
    with _open_text(full, path, encoding, "\n") as file:
        try:
            for line, text in enumerate(file, 1):
                if line == 1 and text.lstrip().startswith("["):
                    raise InputError(f"{path}: it is one JSON array; write every listing as an object on its own line")
                if text.strip():
                    try:
                        record = json.loads(text)
                        problem = "" if isinstance(record, dict) else "not an object"
                    except (ValueError, RecursionError) as error:
                        record, problem = None, str(error)
                    yield line, None if problem else record, problem
        except UnicodeError as error:
            raise _not_text(path, error) from None


def _json_rows(full: pathlib.Path, path: str, columns: dict[str, str], encoding: str) -> Iterator[_Row]:
    for line, record, problem in _json_records(full, path, encoding):
        if record is None:
            wrong = "not a JSON object", f"the line is no JSON object ({problem}); correct it"
            yield line, [""] * len(columns), wrong
            continue
        values, wrong = [], None
        for ours, theirs in columns.items():
            text = _text(record.get(theirs), ours)
            if text is None:
                wrong = (
                    "value is not text",
                    f"{theirs} is neither text nor an exact number (from 2**53 on floats are none); correct it",
                )
            values.append(text or "")
        yield line, values, wrong


def _text(value: Any, ours: str) -> str | None:
    """Returns a JSON value as text, or None where it is an object, a list, or a number that has lost digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value)) if abs(value) < _EXACT else None
        return "" if math.isnan(value) else str(value)
    if isinstance(value, (str, int, float)):
        return str(value)
    if ours == _LISTS and isinstance(value, list) and all(isinstance(item, (str, int)) for item in value):
        return " ".join(map(str, value))
    return None


# -------------------------------------------------------------------------------------------------------- Parquet


def _parquet(full: pathlib.Path, path: str, columns: dict[str, str]) -> tuple[pl.DataFrame, np.ndarray, list]:
    try:
        frame = pl.read_parquet(full, columns=list(dict.fromkeys(columns.values())))  # one may serve twice
    except (Exception, pl.exceptions.PanicException) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from None
    texts = {}
    for ours, theirs in columns.items():
        column = frame[theirs]
        if ours == _LISTS and isinstance(column.dtype, pl.List):
            column = column.cast(pl.List(pl.String)).list.join(" ")
        elif column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
            raise InputError(f"{path}: column {theirs!r} holds {column.dtype}, not text or numbers; map another column")
        elif column.dtype.is_float():
            exact = 24 if column.dtype == pl.Float32 else 53
            column = _whole(column.cast(pl.Float64).fill_nan(None), exact, f"{path}: column {theirs!r}")
        texts[ours] = column.cast(pl.String).fill_null("")
    return pl.DataFrame(texts), np.arange(1, len(frame) + 1), []


def _whole(column: pl.Series, exact: int, where: str) -> pl.Series:
    """Returns floats as whole numbers where all are: columns with gaps are often stored as floats."""
    if not (column == column.round()).all() or column.is_infinite().any():
        return column
    if (column.abs() >= 2**exact).any():
        raise InputError(
            f"{where} holds numbers from 2**{exact} on as floats, which have lost their last digits; "
            "store ids as text or integers"
        )
    return column.cast(pl.Int64)
