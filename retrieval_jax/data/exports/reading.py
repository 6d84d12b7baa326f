"""Reads a table of any shop: finds its encoding, delimiter, quoting and header, and reports what it found.

A table is CSV, TSV or text with another delimiter, JSON Lines, or Parquet. Title lines above the header, Excel's
"sep=;", blank lines, repeated headers and rows of another width are dealt with and counted.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import difflib
import pathlib
import re
from collections.abc import Iterator, Sequence

from retrieval_jax.data.exports import encodings, words
from retrieval_jax.data.tables import table_files, text_rows
from retrieval_jax.errors import InputError, short

_SAMPLE = 2**18  # characters that delimiter, quoting and header are found from
_SAMPLE_ROWS = 400
_MOST_ROWS = 5_000_000
_TITLE_LINES = 30  # most lines above the header
_FIELD = 16 * 2**20
_TEXT = (".csv", ".tsv", ".txt", ".tab", ".asc", "")
_DELIMITERS = ",;\t|"
_QUOTING = ("doubled", "backslash", "none")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_FIELD_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_VALUE = re.compile(
    r"\s*(?:[-+]?[\d\s.,]*\d[\d.,]*\s*%?|\w+://\S+|\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|html?))\s*", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Form:
    """How a table is written.

    Attributes:
      encoding: as Python names it; "" where the file is not text.
      delimiter: between fields; "" where the file is not delimited text.
      quoting: "doubled" (a quote inside quotes is doubled), "backslash" (it follows one) or "none".
      header: the record that names the columns, from 0; -1 where none does.
    """

    encoding: str = ""
    delimiter: str = ""
    quoting: str = "doubled"
    header: int = 0

    def __str__(self) -> str:
        if not self.delimiter:
            return ""
        quotes = {"doubled": "", "backslash": ", quotes after backslashes", "none": ", quotes mean nothing"}[
            self.quoting
        ]
        head = {-1: ", no header", 0: ""}.get(self.header, f", {self.header} lines above the header")
        return f"{self.encoding}, fields between {_NAMES[self.delimiter]}{quotes}{head}"


@dataclasses.dataclass
class Sheet:
    """The rows of a table.

    Attributes:
      path: of the file.
      form: how it is written.
      columns: {name: n texts}, in the order of the file.
      lines: [n] the line of every row in the file, from 1; in Parquet the row.
      set_aside: [(line, reason, detail)] of lines that are not rows.
      blank: number of lines without any value.
      whole: whether the file was read to its end.
    """

    path: pathlib.Path
    form: Form
    columns: dict[str, list[str]]
    lines: list[int]
    set_aside: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    blank: int = 0
    whole: bool = True

    def __len__(self) -> int:
        return len(self.lines)


def read(path, form: Form | None = None, columns: Sequence[str] | None = None, most: int = 0) -> Sheet:
    """Reads a table.

    Args:
      path: of the file.
      form: how it is written; None finds out.
      columns: names of the columns to keep; None for all.
      most: rows to read at most; 0 for all.

    Returns:
      The `Sheet`.

    Raises:
      InputError: the file cannot be read as a table.
    """
    path = pathlib.Path(path)
    form = form or sniff(path)
    sheet = Sheet(path, form, {}, [])
    records = _records(path, form, sheet.set_aside)
    names = None
    for number, (line, record) in enumerate(records):
        if names is None:
            if number < form.header:
                continue
            names = column_names(record if form.header >= 0 else [""] * len(record))
            kept = [place for place, name in enumerate(names) if columns is None or name in columns]
            sheet.columns = {names[place]: [] for place in kept}
            header = record
            if form.header >= 0:
                continue
        if not any(map(str.strip, record)):
            sheet.blank += 1
            continue
        if most and len(sheet) >= most:
            sheet.whole = False
            break
        while len(record) > len(names) and not record[-1].strip():
            record.pop()
        if len(record) > len(names):
            sheet.set_aside.append(
                (line, "wrong number of fields", f"the row has {len(record)} fields, the header {len(names)}")
            )
            continue
        if form.header >= 0 and record == header[: len(record)] and len(record) > 1:
            sheet.set_aside.append((line, "repeated header", "it repeats the header"))
            continue
        record += [""] * (len(names) - len(record))  # spreadsheets leave empty fields at a row's end away
        for place in kept:
            sheet.columns[names[place]].append(record[place])
        sheet.lines.append(line)
        if len(sheet) > _MOST_ROWS:
            raise InputError(
                f"{path} has more than {_MOST_ROWS:,} rows, too many for one table in memory; cut it into files for "
                "train, val, query and gallery, and give them as config.data.kwargs.files=dict(...)"
            )
    if names is None or not len(sheet):
        raise InputError(f"{path}: there are no rows below the header; export the table again")
    return sheet


def column_names(header: Sequence[str]) -> list[str]:
    """Returns names that are distinct: "Image", "Image (2)"; "column 3" for a column without a name."""
    seen, names = collections.Counter(), []
    for place, name in enumerate(header, 1):
        name = " ".join(name.replace("\ufeff", "").split()) or f"column {place}"
        name = short(name.encode("utf-8", "backslashreplace").decode())
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def sniff(path: pathlib.Path, encoding: str = "", delimiter: str = "") -> Form:
    """Returns how a table is written.

    Args:
      path: of the file.
      encoding: of its text where it is known; "" finds out.
      delimiter: between fields where it is known; "" finds out.

    Raises:
      InputError: it is not a table, or not one that can be read here; the message says how to save it as one.
    """
    _check(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return Form("utf-8", "", "none", 0)
    if path.suffix.lower() == ".parquet":
        return Form("", "", "none", 0)
    encoding = encoding or encodings.find(path)
    try:
        with open(path, encoding=encoding, errors="replace", newline="") as file:
            text = file.read(_SAMPLE)
            if len(text) == _SAMPLE:
                text = text[: text.rfind("\n") + 1] or text
    except LookupError:
        raise InputError(
            f"the encoding {encoding!r} is unknown to Python; give one such as 'utf-8', 'cp1252' or 'utf-16-le'"
        ) from None
    except UnicodeError as error:
        raise InputError(f"{path}: its text does not have the encoding {encoding} ({error})") from None
    text = text.removeprefix("\ufeff")
    if declared := re.match(r"\"?sep=(.)\"?\r?\n", text):
        delimiter = delimiter or declared[1]
        text = text[declared.end() :]
    found = {one: _quoted(text, one) for one in delimiter or _DELIMITERS}
    delimiter = max(found, key=lambda one: found[one][0])  # the first of equals
    score, quoting = found[delimiter]
    if score <= 0:  # a single column, such as a list of pictures
        delimiter, quoting = delimiter or ",", _QUOTING[0]
    form = Form(encoding, delimiter, quoting)
    return dataclasses.replace(form, header=_header(list(_parse(text.splitlines(keepends=True), form))))


def _check(path: pathlib.Path) -> None:
    """Raises InputError for what is not a table, with what to do instead."""
    if path.is_dir():
        tables = sorted(f.name for f in path.iterdir() if f.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet"))
        found = f"; it holds {', '.join(tables[:5])}" if tables else ""
        raise InputError(f"{path} is a folder: give the table itself{found}")
    if not path.is_file():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        tables = [
            name for name in beside if name.lower().endswith((*filter(None, _TEXT), ".jsonl", ".ndjson", ".parquet"))
        ]
        near = difflib.get_close_matches(path.name, tables, n=2) or sorted(tables)[:5]
        raise InputError(
            f"{path}: there is no such file"
            + (f"; {path.parent} has {', '.join(near)}" if near else "; correct the path")
        )
    suffix = path.suffix.lower()
    if suffix in (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"):
        raise InputError(
            f"{path} is a spreadsheet: open it and save it as CSV (Excel: Save As, 'CSV UTF-8'; LibreOffice: Save As, "
            "'Text CSV', UTF-8), then give that file"
        )
    if suffix in (".json", ".xml", ".yml", ".yaml"):
        raise InputError(
            f"{path} is not a table: export the products as CSV, or write one JSON object per line (.jsonl)"
        )
    if suffix not in (*_TEXT, ".jsonl", ".ndjson", ".parquet"):
        raise InputError(f"{path}: tables end in .csv, .tsv, .txt, .jsonl or .parquet, not in {suffix!r}")
    if suffix in _TEXT:
        with open(path, "rb") as file:
            head = file.read(64)
        for magic, what in text_rows.NO_TABLES.items():
            if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic) and (
                magic != b"<" or head.lstrip()[:2].lower() in (b"<!", b"<?", b"<h")
            ):
                raise InputError(f"{path}: it is {what}")


def _records(path: pathlib.Path, form: Form, set_aside: list[tuple[int, str, str]]) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, values) of every record, the header among them; adds lines that are not records to `set_aside`."""
    if form.delimiter:
        with open(path, encoding=form.encoding, errors="replace", newline="") as file:
            yield from _parse(_without_declaration(text_rows.bounded(file, path)), form, path)
        return
    names = table_files.header(path.parent, path.name, form.encoding or "utf-8")
    yield 1, list(names)
    if path.suffix.lower() != ".parquet":
        for line, record, problem in text_rows.json_records(path, path.name, "utf-8"):
            if record is None:
                set_aside.append((line, "not a JSON object", f"the line is not a JSON object ({problem})"))
            else:
                yield line, [text_rows.flat(record.get(name), "|") for name in names]
        return
    wanted = {name: name for name in names}
    rows = table_files.read("table", path.parent, [path.name], wanted, lists=dict.fromkeys(names, "|"))
    columns = [rows.frame[name].to_list() for name in names]
    for line, record in zip(rows.line.tolist(), zip(*columns, strict=True), strict=True):
        yield line, [value or "" for value in record]


def _without_declaration(lines) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number == 0 and re.match(r"\ufeff?\"?sep=.\"?\r?\n", line):
            line = "\n"
        yield line.replace("\0", "")


def _parse(lines, form: Form, path: pathlib.Path | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, values) of every record that has a value or a delimiter, of delimited text."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD))
    options = {
        "doubled": {},
        "backslash": {"escapechar": "\\"},
        "none": {"quoting": csv.QUOTE_NONE},
    }[form.quoting]
    reader = csv.reader(lines, delimiter=form.delimiter, **options)
    line = 1
    try:
        for record in reader:
            if record and (len(record) > 1 or record[0].strip()):
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}, row {line}: not CSV ({error}); a double quote that opens a field in this row may never be closed"
        ) from None


def _quoted(text: str, delimiter: str) -> tuple[float, str]:
    """Returns how well a delimiter cuts text into columns, and the quoting with which it does.

    Quotes count unless the rows are of one width only without them: a comma inside quotes would be a further column.
    """
    share, width, chosen = *_consistency(text, delimiter, _QUOTING[0]), _QUOTING[0]
    for quoting in _QUOTING[1:]:
        other = _consistency(text, delimiter, quoting)
        if other[0] > share + 0.02:
            (share, width), chosen = other, quoting
    # A long row of titles above the header, totals below it and ragged ends must not hide a table.
    return share**2 * min(width - 1, 20), chosen


def _consistency(text: str, delimiter: str, quoting: str) -> tuple[float, int]:
    """Returns the largest share of rows that have the same number of columns, and that number; (0, 1) where it is 1."""
    widths = collections.Counter()
    try:
        for number, (_, record) in enumerate(_parse(text.splitlines(keepends=True), Form("", delimiter, quoting))):
            inside = [line.count(delimiter) for field in record if field.count("\n") > 1 for line in field.split("\n")]
            rows = sum(count >= max(1, len(record) - 2) for count in inside)  # an open quote swallows the rows below
            widths[len(record)] += 1
            widths[0] += 2 * rows if rows > 1 else 0
            if number >= _SAMPLE_ROWS:
                break
    except InputError:
        return 0.0, 1
    several = [(count, width) for width, count in widths.items() if width > 1]
    count, width = max(several, default=(0, 1))
    return count / max(1, sum(widths.values())), width


def _header(records: Sequence[tuple[int, list[str]]]) -> int:
    """Returns which record names the columns, -1 where none does."""
    records = [record for _, record in records[:_SAMPLE_ROWS]]
    width = collections.Counter(sum(bool(v.strip()) for v in record) for record in records).most_common(1)[0][0]
    best, found = 0.0, -1
    for number, record in enumerate(records[: _TITLE_LINES + 1]):
        cells = [cell.strip() for cell in record if cell.strip()]
        if len(cells) < max(min(2, width), 0.5 * min(width, len(record))):
            continue
        hits = sum(words.known(cell) for cell in cells)
        values = sum(bool(_VALUE.fullmatch(cell)) or len(cell) > 80 for cell in cells)
        distinct = len(set(cells)) / len(cells)
        score = (
            2.0 * hits
            + len(cells) * (distinct - 1.0)
            + (1.0 if not values else -2.0 * values)
            + len(cells) / (width + 1)
        )
        # Of two lines of names, such as labels above field names, the lower one is nearer to the rows.
        if score > best + (0.2 * best if found >= 0 and number > found + 1 else 0.0) or (
            found == number - 1 and hits >= 3 and score >= 0.8 * best and found >= 0
        ):
            best, found = score, number
    below = [cell.strip() for cell in records[found + 1] if cell.strip()] if 0 <= found < len(records) - 1 else []
    fields = all(map(_FIELD_NAME.fullmatch, below)) and sum("_" in cell for cell in below) >= len(below) / 2
    if fields and len(below) > max(2, width // 2) and len(set(below)) == len(below):
        return found + 1  # names of fields below their labels
    return found
