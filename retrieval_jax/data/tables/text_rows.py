"""Reads rows of CSV and JSON Lines files one by one, with the number of every row as the user sees it."""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from retrieval_jax.data.tables import tsv
from retrieval_jax.data.tables.values import EXACT
from retrieval_jax.errors import InputError, short

_FIELD = 16 * 2**20  # longest CSV field: lists of relevant ids exceed the csv module's own 128 KiB
LONGEST_LINE = 2 * _FIELD  # characters: parsed, a line may take twenty times its size
_INVISIBLE = " \t\r\n\xa0\u200b\ufeff"  # around a column's name: not part of it
# A byte-order mark settles the encoding; that of UTF-32 begins like that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
NO_TABLES = {
    b"\x1f\x8b": "compressed (gzip); unpack it",
    b"BZh": "compressed (bzip2); unpack it",
    b"\xfd7zXZ": "compressed (xz); unpack it",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"PAR1": "Parquet; rename it to end in .parquet",
    b"%PDF": "a PDF; export the table as CSV",
    b"<": "an HTML or XML page, perhaps an error page; download the file again",
}

# One row as a reader yields it: its number, its values in the order of the columns, and (reason, detail) or None.
Row = tuple[int, list[str], tuple[str, str] | None]


# ------------------------------------------------------------------------------------------------------- text files


@contextlib.contextmanager
def _open_text(full: pathlib.Path, path: str, encoding: str, newline: str | None) -> Iterator[Iterator[str]]:
    """Opens a text file and yields its lines; raises InputError if its first bytes are not text, or the encoding is
    unknown."""
    with _opened(full, path, encoding, newline) as file:
        yield bounded(file, path)


def bounded(file: Any, path: Any) -> Iterator[str]:
    """Yields the lines of a text file; raises InputError where one is too long to be held in memory.

    Args:
      file: open for reading.
      path: its name in messages.
    """
    for number, line in enumerate(iter(functools.partial(file.readline, LONGEST_LINE + 1), ""), 1):
        if len(line) > LONGEST_LINE:
            raise InputError(
                f"{path}, row {number}: a line of more than {LONGEST_LINE >> 20} Mi characters; end every row with a "
                "line break, or look for a double quote that is never closed"
            )
        yield line


def _opened(full: pathlib.Path, path: str, encoding: str, newline: str | None) -> Any:
    with open(full, "rb") as file:
        head = file.read(1024)
    for mark, found in _MARKS.items():
        if head.startswith(mark):
            return open(full, newline=newline, encoding=found, errors="surrogateescape")
    for magic, what in NO_TABLES.items():
        if head.lstrip().startswith(magic):
            raise InputError(f"{path}: it is {what}")
    if encoding == "utf-8" and head[:64].count(0) * 4 > len(head[:64]):
        raise InputError(
            f"{path}: it begins with NUL bytes, like UTF-16 without a byte-order mark; save it as "
            "UTF-8, or name its encoding, such as config.data.kwargs.encoding = 'utf-16-le'"
        )
    try:
        return open(full, newline=newline, encoding=encoding, errors="surrogateescape")
    except LookupError:
        raise InputError(
            f"config.data.kwargs.encoding is {encoding!r}, which Python does not know; give one "
            "such as 'utf-8', 'cp1252' or 'utf-16-le'"
        ) from None


def _not_text(path: str, error: UnicodeError) -> InputError:
    return InputError(f"{path}: its text does not have that encoding ({error}); correct config.data.kwargs.encoding")


# ------------------------------------------------------------------------------------------------------------ CSV


def _records(file: Any, full: pathlib.Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the last line, fields) of every record; raises csv.Error where the text is not CSV."""
    if full.suffix.lower() == ".tsv" and delimiter == "\t":
        yield from tsv.records(file)
        return
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD))
    reader = csv.reader(file, strict=True, delimiter=delimiter)
    for record in reader:
        yield reader.line_num, record


def csv_header(full: pathlib.Path, path: str, encoding: str) -> tuple[str, list[str], int]:
    """Returns the delimiter that splits the header into the most names, these names, and the header's last line.

    Raises:
      InputError: there is no header, or the file is not CSV.
    """
    found, problem = ("", [], 0), None
    for delimiter in "\t,;|" if full.suffix.lower() == ".tsv" else ",;\t|":
        try:
            with _open_text(full, path, encoding, "") as file:
                records = (
                    (line, record)
                    for line, record in _records(file, full, delimiter)
                    if any(name.strip(_INVISIBLE + ",;|") for name in record)
                )
                line, header = next(records, (0, []))
                if header[:1] and re.fullmatch(r"sep=.?", header[0]):  # Excel's declaration of the delimiter
                    line, header = next(records, (0, []))
        except csv.Error as error:
            problem = problem or _not_csv(path, 1, error)
            continue
        except UnicodeError as error:
            raise _not_text(path, error) from None
        header = [_name(name) for name in header]
        while header and not header[-1]:  # from trailing delimiters
            header.pop()
        if len(header) > len(found[1]):
            found = delimiter, header, line
    if not found[1]:
        raise problem or InputError(f"{path}: the file is empty; its first line must name the columns")
    return found


def _name(text: str) -> str:
    """Returns a column's name as it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode().strip(_INVISIBLE)


def _anything(record: list[str]) -> bool:
    return any(map(str.strip, record))


def _not_csv(path: str, line: int, error: csv.Error) -> InputError:
    remedy = "put a field that contains a double quote between double quotes, and double the quote"
    if "unexpected end" in str(error) or "field limit" in str(error):
        remedy = "a double quote that opens a field in this row may never be closed: " + remedy
    return InputError(f"{path}, row {line}: not CSV ({error}); {remedy}")


def csv_rows(full: pathlib.Path, path: str, columns: dict[str, str], encoding: str) -> Iterator[Row]:
    """Yields the rows of a CSV file; see `json_rows` for the arguments."""
    delimiter, header, begin = csv_header(full, path, encoding)
    places = [[short(name) for name in header].index(theirs) for theirs in columns.values()]
    line = 1
    with _open_text(full, path, encoding, "") as file:
        try:
            for last, record in _records(file, full, delimiter):
                # A quoted field may contain line breaks: a row's number is the line where it begins.
                # A blank line is not a row.
                if last > begin and record and (record[0].strip() or _anything(record)):
                    problem = None
                    if len(record) != len(header):
                        while len(record) > len(header) and not record[-1].strip():
                            record.pop()
                    if len(record) != len(header):
                        problem = (
                            "wrong number of fields",
                            f"the row has {len(record)} fields, the header {len(header)}; put fields that contain "
                            f"a {'tab' if delimiter == chr(9) else delimiter!r} between double quotes",
                        )
                        record += [""] * len(header)
                    elif last > line and _swallows(record, header, columns.get("image"), delimiter):
                        problem = (
                            "rows inside a field",
                            "a field of the row contains lines that look like rows: a "
                            "double quote that opens a field here may be closed only further down; double "
                            "the quotes inside fields",
                        )
                    elif header[0] in record[0] and [_name(value) for value in record] == header:
                        problem = "repeated header", "it repeats the header; remove the line"
                    values = [record[place] for place in places]
                    yield line, values, problem
                line = last + 1
        except csv.Error as error:
            raise _not_csv(path, line, error) from None
        except UnicodeError as error:
            raise _not_text(path, error) from None


def _swallows(record: list[str], header: list[str], image: str | None, delimiter: str) -> bool:
    """Returns whether lines inside a field look like rows, with as many fields and a file name as the picture: whole
    lines, or the first together with what precedes the field and the last together with what follows it."""
    place = header.index(image) if image in header else None

    def is_row(fields: list[str]) -> bool:
        return len(fields) == len(header) and (place is None or bool(re.search(r"\w\.\w{2,5}\s*$", fields[place])))

    for at, field in enumerate(record):
        lines = [line.split(delimiter) for line in field.splitlines()]
        if (
            any(map(is_row, lines[1:-1]))
            or place is not None
            and len(lines) > 1
            and at + len(lines[0]) == len(header) == len(lines[-1]) + len(record) - at - 1  # cheap, unlike the lists
            and (is_row(record[:at] + lines[0]) and is_row(lines[-1] + record[at + 1 :]))
        ):
            return True
    return False


def lines(full: pathlib.Path, path: str, encoding: str) -> Iterator[tuple[int, str]]:
    """Yields (number, text) of the lines of a text file that are not blank; see `json_rows` for the arguments."""
    with _open_text(full, path, encoding, None) as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.encode("utf-8", "replace").decode("utf-8")
        except UnicodeError as error:
            raise _not_text(path, error) from None


# ---------------------------------------------------------------------------------------------------------- JSONL


def json_records(full: pathlib.Path, path: str, encoding: str) -> Iterator[tuple[int, dict | None, str]]:
    """Yields (line, object, problem) of a JSON Lines file; the object is None where there is a problem."""
    with _open_text(full, path, encoding, "\n") as file:
        try:
            for line, text in enumerate(file, 1):
                if line == 1 and text.lstrip().startswith("["):
                    raise InputError(f"{path}: it is a single JSON array; write one object per line")
                if text.strip():
                    try:
                        record = json.loads(text)
                        problem = "" if isinstance(record, dict) else "not an object"
                    except (ValueError, RecursionError) as error:
                        record, problem = None, str(error)
                    yield line, None if problem else record, problem
        except UnicodeError as error:
            raise _not_text(path, error) from None


def json_rows(
    full: pathlib.Path, path: str, columns: dict[str, str], encoding: str, lists: Mapping[str, str]
) -> Iterator[Row]:
    """Yields the rows of a JSON Lines file.

    Args:
      full: path of the file.
      path: its name in messages.
      columns: our name of a column -> its name in the file.
      encoding: of the text, where the file has no byte-order mark.
      lists: our name of a column that may hold lists -> what their values are joined with.

    Raises:
      InputError: the file cannot be read as such.
    """
    for line, record, problem in json_records(full, path, encoding):
        if record is None:
            wrong = "not a JSON object", f"the line is not a JSON object ({problem}); correct it"
            yield line, [""] * len(columns), wrong
            continue
        values, wrong = [], None
        for ours, theirs in columns.items():
            text = _text(record.get(theirs), lists.get(ours))
            if text is None:
                wrong = "value is not text", not_text(theirs, lists.get(ours))
            values.append(text or "")
        yield line, values, wrong


def not_text(column: str, separator: str | None) -> str:
    """Returns the sentence about a value that is not text."""
    more = f", nor a list of such values without {separator!r} in them" if separator else ""
    return f"{column} is neither text nor an exact number (floats of 2**53 or more are not exact){more}; correct it"


# Under these names, objects inside of a record hold what stands for them; the address or file of a picture first.
_STANDS_FOR = ("src", "url", "href", "image", "link", "path", "file", "filename", "name", "title", "label", "value")


def flat(value: Any, separator: str) -> str:
    """Returns any JSON value as text: lists joined, of an object what stands for it, such as a picture's "src".

    Args:
      value: as `json.loads` returns it.
      separator: between the values of a list.
    """
    if isinstance(value, list):
        return separator.join(filter(None, (flat(item, separator) for item in value)))
    if isinstance(value, dict):
        return next((flat(value[name], separator) for name in _STANDS_FOR if value.get(name)), "")
    return _text(value, None) or ""


def _text(value: Any, separator: str | None) -> str | None:
    """Returns a JSON value as text, a list joined with the separator; None where it is an object, a list without a
    separator or with it inside a value, or a number that has lost digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()  # as Parquet has it
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value)) if abs(value) < EXACT else None
        return "" if math.isnan(value) else str(value)
    if isinstance(value, (str, int, float)):
        return str(value)
    if separator and isinstance(value, list):
        items = [_text(item, None) for item in value]
        if None not in items and not any(separator in item.strip() for item in items):
            return separator.join(items)
    return None
