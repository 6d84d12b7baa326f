"""Reads tab-separated files as they are written: with CSV's quotes (spreadsheets), or without any (feeds, databases).

A double quote at the beginning of a field opens a quoted field only if another one closes it right before a tab or the
end of a line, and what is between them has quotes in pairs only. Any other quote is a character: '"Slim Fit" jeans'.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

_MOST_LINES, _MOST_CHARACTERS = 1_000, 2**24  # in a quoted field; the quote of a longer one is a character


def records(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the last line, fields) of every record.

    Args:
      lines: the lines of a file with their line ends.
    """
    waiting, source, number = [], iter(lines), 0
    width = 0  # fields of the first record: what a line needs to look like one

    def line_at(place: int) -> str | None:
        while len(waiting) <= place:
            if (line := next(source, None)) is None:
                return None
            waiting.append(line)
        return waiting[place]

    while (line := line_at(0)) is not None:
        used, fields = 1, _bare(line).split("\t")
        if any(field.startswith('"') for field in fields):
            used, fields = _quoted(line_at, width)
        width = width or (len(fields) if any(map(str.strip, fields)) else 0)
        del waiting[:used]
        number += used
        yield number, fields


def _quoted(line_at, width: int) -> tuple[int, list[str]]:
    """Returns how many lines a record takes, and its fields."""
    text, place, used, fields = line_at(0), 0, 1, []
    while True:
        if text.startswith('"', place) and (closed := _closed(text, place, used, line_at, width)):
            field, place, text, used = closed
        else:
            end = text.find("\t", place)
            end = len(text) if end < 0 else end
            field, place = text[place:end], end
        if text.startswith("\t", place):
            fields.append(field)
            place += 1
        else:
            return used, [*fields, _bare(field)]


def _closed(text: str, start: int, used: int, line_at, width: int) -> tuple[str, int, str, int] | None:
    """Returns (field, place after it, text, lines used) of a quoted field that starts there, None if it is not one."""
    place = start + 1
    for more in itertools.count():
        while (at := text.find('"', place)) >= 0:
            if text.startswith('""', at):
                place = at + 2
            elif text[at + 1 : at + 2] in ("", "\t", "\r", "\n"):
                return text[start + 1 : at].replace('""', '"'), at + 1, text, used
            else:
                return None
        line = line_at(used) if more < _MOST_LINES and len(text) < _MOST_CHARACTERS else None
        # Where this line and the first have as many tabs as a record, they are records: the quote was a character.
        if line is None or (width > 1 and line.count("\t") == width - 1 == line_at(0).count("\t")):
            return None
        place, text, used = len(text), text + line, used + 1


def _bare(line: str) -> str:
    """Returns a line without its end."""
    return line.rstrip("\r\n")
