"""Reads click logs: User Behavior Insights (NDJSON), other JSON Lines, CSV, TSV and Parquet.

A record is an event (a listing was shown, clicked or judged wrong) or a query. In User Behavior Insights, a record
without "action_name" is a query, and "query_id" joins events to it. In a flat table every row is an event of the action
in its column "action" (a click where there is no such column), with the query's text beside it.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import gzip
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from retrieval_jax import brief, output, pairs
from retrieval_jax.data.tables import table_files
from retrieval_jax.errors import InputError, short

CLICKS = ("click", "item_click", "product_click", "add_to_cart", "purchase")
IMPRESSIONS = ("impression", "view", "product_impression")
WRONG = ("wrong",)  # the search page's button: no result of this query
LONGEST_LINE = 1 << 20  # bytes; a longer one is set aside
LISTED = 1_000  # records of each reason that are kept with their sentences
_TIMES = 631_152_000.0, 4_102_444_800.0  # seconds: 1990 to 2100

# Our name of a flat column -> the names that it may have in a file, in order of preference.
COLUMNS = {
    "query": ("query", "user_query", "text", "search_term"),
    "product": ("product", "object_id", "product_id", "item_id", "item", "sku"),
    "action": ("action", "action_name", "event"),
    "query_id": ("query_id", "search_id"),
    "session": ("session", "session_id", "client_id", "user_id"),
    "time": ("time", "timestamp"),
    "position": ("position", "ordinal", "rank"),
}


class Event(NamedTuple):
    """A record of a log.

    Attributes:
      kind: "query", "impression", "click" or "wrong".
      query_id: "" where the log has none.
      session: "" where it is unknown.
      text: of the query, as typed; "" where the record has none.
      product: id of the listing; "" for a query.
      time: seconds since 1970; NaN where it is unknown or cannot be read.
      position: on the page as the log has it; -1 where it is unknown.
      log: number of the application, or file, that counts positions in one way.
      file, line: where the record is.
    """

    kind: str
    query_id: str
    session: str
    text: str
    product: str
    time: float
    position: int
    log: int
    file: int
    line: int


@dataclasses.dataclass
class Log:
    """What was read from the files of a log.

    Attributes:
      files: their names.
      events: the records that can be used so far.
      read: number of records: lines, or rows of a table.
      reasons: {reason: number of records that were set aside}.
      set_aside: dicts with file, row, id, reason and sentence, at most `LISTED` of a reason.
      notes: {what was noticed: number of records}, of records that are kept.
    """

    files: list[str]
    events: list[Event] = dataclasses.field(default_factory=list)
    read: int = 0
    reasons: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    set_aside: list[dict] = dataclasses.field(default_factory=list)
    notes: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    __repr__ = brief.line

    def leave(self, file: int, line: int, reason: str, sentence: str, name: str = "") -> None:
        """Sets a record aside."""
        self.reasons[reason] += 1
        if self.reasons[reason] <= LISTED:
            self.set_aside.append(
                {
                    "file": self.files[file],
                    "row": line,
                    "id": name,
                    "reason": reason,
                    "sentence": output.visible(f"{self.files[file]}, row {line}: {sentence}"),
                }
            )


def read(
    files: Sequence[Any],
    columns: Mapping[str, str] | None = None,
    clicks: Sequence[str] = CLICKS,
    encoding: str = "utf-8",
) -> Log:
    """Reads the records of a log.

    Args:
      files: paths of .ndjson, .jsonl (both may be .gz), .csv, .tsv or .parquet files.
      columns: names in flat files, by those of `COLUMNS`; the usual ones are found without.
      clicks: actions that count as clicks.
      encoding: of CSV and JSON.

    Returns:
      The `Log`; its events are not checked against each other yet.

    Raises:
      InputError: no files, one that is missing or of another kind, or without a column of queries or of products.
    """
    if not files:
        raise InputError("a click log has at least one file: give its path")
    pairs.check_arguments("columns", columns or {}, tuple(COLUMNS), "import_clicks", "column")
    log, logs = Log([str(file) for file in files]), {}
    for number, file in enumerate(map(pathlib.Path, files)):
        suffixes = [suffix.lower() for suffix in file.suffixes]
        kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
        if not file.is_file():
            raise InputError(f"{file}: there is no such file")
        if kind in (".ndjson", ".jsonl", ".json"):
            _json(log, number, file, columns or {}, clicks, encoding, logs)
        elif suffixes[-1:] == [".gz"]:
            raise InputError(f"{file}: of compressed logs only .ndjson.gz and .jsonl.gz are read; unpack it")
        else:
            _table(log, number, file, columns or {}, clicks, encoding, logs)
    return log


def seconds(value: Any) -> float:
    """Returns a time in seconds since 1970: ISO 8601, or a number of seconds or milliseconds; NaN for anything else."""
    if isinstance(value, bool) or value in (None, ""):
        return math.nan
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        try:
            moment = datetime.datetime.fromisoformat(str(value).strip())
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=datetime.UTC)
            found = moment.timestamp()
        except (ValueError, OverflowError):
            return math.nan
    if abs(found) > 1e11:  # 1973 in milliseconds, the year 5138 in seconds
        found /= 1000
    return found if _TIMES[0] <= found <= _TIMES[1] else math.nan


def _position(value: Any) -> int:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return -1
    return int(found) if 0 <= found < 1e6 and found == int(found) else -1


def _event(log: Log, number: int, line: int, raw: Mapping[str, Any], clicks: Sequence[str], logs: dict) -> None:
    """Adds one record to a log, or sets it aside.

    Args:
      log: what was read so far.
      number, line: where the record is.
      raw: query, product, action (None: a query), query_id, session, time, position and application, as they are.
      clicks: actions that count as clicks.
      logs: numbers of the applications.
    """
    action = raw.get("action")
    if action is None:
        kind = "query"
    elif _text(action) in clicks:
        kind = "click"
    elif _text(action) in IMPRESSIONS:
        kind = "impression"
    elif _text(action) in WRONG:
        kind = "wrong"
    else:
        log.leave(number, line, "another action", f"the action {short(_text(action))!r} is not one that is counted")
        return
    product, text, query_id = (_text(raw.get(name)) for name in ("product", "query", "query_id"))
    if kind != "query" and not product:
        log.leave(number, line, "no product", f"the {kind} names no product; log its id")
        return
    if not query_id and not text:
        log.leave(number, line, "no query", f"the {kind} has neither a query nor a query_id; log one of them")
        return
    time = seconds(raw.get("time"))
    if math.isnan(time) and raw.get("time") not in (None, ""):
        log.notes["times that cannot be read"] += 1
    application = logs.setdefault((number, _text(raw.get("application"))), len(logs))
    position = _position(raw.get("position"))
    session = _text(raw.get("session"))
    log.events.append(Event(kind, query_id, session, text, product, time, position, application, number, line))


def _text(value: Any) -> str:
    """Returns a value as text, "" for what is neither text nor a number."""
    if isinstance(value, str):
        return value.strip().encode("utf-8", "replace").decode()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return ""
    try:
        return str(int(value)) if value == int(value) else str(value)
    except (OverflowError, ValueError):  # infinite, or too many digits
        return ""


# ----------------------------------------------------------------------------------------------------------- JSON Lines


def _json(log, number, file, columns, clicks, encoding, logs) -> None:
    for line, data, problem in _lines(file):
        log.read += 1
        if problem:
            log.leave(number, line, *problem)
            continue
        try:
            record = json.loads(data.decode("utf-8-sig" if encoding == "utf-8" else encoding))
        except UnicodeDecodeError:
            log.leave(number, line, "not UTF-8 text", f"the line is not text in {encoding}; save the log as UTF-8")
            continue
        except LookupError:
            raise InputError(f"encoding={encoding!r} is not one that Python knows; give one such as 'utf-8'") from None
        except (ValueError, RecursionError) as error:
            log.leave(number, line, "not JSON", f"the line is not JSON ({short(str(error))}); correct it")
            continue
        if not isinstance(record, dict):
            log.leave(number, line, "not an object", "the line is not a JSON object; write one record per line")
        elif record.keys() <= {"index", "create"} and isinstance(next(iter(record.values()), None), dict):
            log.leave(number, line, "bulk action", "the line tells a bulk request where the next one goes")
        else:
            _event(log, number, line, _raw(record, columns), clicks, logs)


def _lines(file: pathlib.Path) -> Iterator[tuple[int, bytes, tuple[str, str] | None]]:
    """Yields (number, bytes, (reason, sentence) or None) of the lines that are not blank."""
    zipped = file.suffix.lower() == ".gz"
    with gzip.open(file) if zipped else open(file, "rb") as stream:
        number = 0
        try:
            while data := stream.readline(LONGEST_LINE + 1):
                number += 1
                if len(data) > LONGEST_LINE:
                    while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                        pass
                    yield number, b"", ("line too long", f"the line has more than {LONGEST_LINE >> 20} MiB; look at it")
                elif data.strip():
                    yield number, data, None
        except (EOFError, OSError) as error:
            if not zipped:
                raise
            raise InputError(f"{file}: it is not whole, or not gzip ({error}); copy it again") from error


def _raw(record: dict, columns: Mapping[str, str]) -> dict[str, Any]:
    """Returns the values of a record, nested as in User Behavior Insights or flat."""
    flat = {ours: _first(record, _names(ours, columns)) for ours in COLUMNS}
    flat["application"] = record.get("application")
    details = record.get("event_attributes")
    nested = isinstance(details, dict)
    if not nested and not ("user_query" in record or "query_attributes" in record):
        if flat["action"] is None:
            flat["action"] = "click"  # a flat log of clicks alone
        return flat
    details = details if nested else {}
    thing, place = details.get("object"), details.get("position")
    if isinstance(thing, dict):
        flat["product"] = thing.get("object_id")
    if isinstance(place, dict):
        flat["position"] = place.get("ordinal")
    flat["query"] = record.get("user_query")  # "query" is what was sent to the engine
    flat["session"] = _first(record, ("session_id",)) or details.get("session_id") or record.get("client_id")
    if _text(record.get("message_type")) == "QUERY":
        flat["action"], flat["query"] = None, flat["query"] or record.get("message")
    return flat


def _names(ours: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    return (columns[ours],) if ours in columns else COLUMNS[ours]


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) not in (None, "")), None)


# --------------------------------------------------------------------------------------------------------------- tables


def _table(log, number, file, columns, clicks, encoding, logs) -> None:
    header = table_files.header(file.parent, file.name, encoding)
    found = {ours: next((name for name in _names(ours, columns) if name in header), None) for ours in COLUMNS}
    for ours, theirs in columns.items():
        table_files.check_columns(str(file), header, {ours: theirs}, {ours: theirs}, "--columns")
    for ours in ("query", "product"):
        if found[ours] is None:
            table_files.check_columns(str(file), header, {ours: COLUMNS[ours][0]}, {}, f"--columns {ours}=NAME")
    wanted = {ours: theirs for ours, theirs in found.items() if theirs is not None}
    rows = table_files.read("clicks", file.parent, [file.name], wanted, encoding=encoding, may_be_empty=True)
    log.read += len(rows)
    for row, values in enumerate(rows.frame.iter_rows(named=True)):
        line = int(rows.line[row])
        if row in rows.bad:
            reason, sentence = rows.bad[row]
            log.leave(number, line, reason, sentence.partition(": ")[2] or sentence)
        else:
            action = {} if "action" in values and values["action"] else {"action": "click"}
            _event(log, number, line, values | action, clicks, logs)
