"""Shows text from catalogues safely: on terminals, which obey escape sequences, in spreadsheets, which run formulas.

Whoever writes a title or an id must not thereby write to a user's terminal or into a user's spreadsheet. Every command
prints through `shown`; CSVs that people open are written with `cell` and read again with `from_cell`. For HTML there is
`html.escape`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from retrieval_jax.errors import RunFailed

# Control characters of both ranges, marks that turn the direction of the text after them, line separators, and lone
# surrogates, which no encoding writes.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE, _UNSAFE_IN_A_LINE = re.compile(f"[{_CONTROLS}]"), re.compile(f"[\t\n{_CONTROLS}]")
_UP = re.compile(r"(?:\x1b\[A)*")  # of tqdm, between returns to the line's start

# Where a cell begins, or seems to where another delimiter is taken for granted: a quote there, one or more, is kept
# apart from the quote that is added.
_FORMULA = re.compile(r"(^|[;\t\r\n] *)('*)(?=[=+\-@\t\r＝＋－＠])")
_DEFUSED = re.compile(r"(^|[;\t\r\n] *)'('*)(?=[=+\-@\t\r＝＋－＠])")


def visible(text: str, lines: bool = False) -> str:
    r"""Returns a text with its control characters written out, such as \x1b.

    Args:
      text: any text.
      lines: whether line breaks and tabs are left as they are.
    """
    return (_UNSAFE if lines else _UNSAFE_IN_A_LINE).sub(lambda found: ascii(found[0])[1:-1], text)


def cell(value: Any) -> Any:
    """Returns a cell of a CSV that no spreadsheet takes for a formula: text that looks like one gets a quote before it.

    Args:
      value: text; anything else is returned as it is.
    """
    return _FORMULA.sub(r"\1'\2", value) if isinstance(value, str) else value


def from_cell(text: str) -> str:
    """Returns the text that `cell` was given; also for text that never was a formula."""
    return _DEFUSED.sub(r"\1\2", text)


class _Shown:
    """A stream that writes out control characters; everything else is the stream's that it stands for."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        rest = text.lstrip("\r")
        up = _UP.match(rest)[0]
        middle = rest[len(up) :].rstrip("\r")
        begin, end = text[: len(text) - len(rest)], rest[len(up) + len(middle) :]
        with _writing():
            self._stream.write(f"{begin}{up}{visible(middle, lines=True)}{end}")
        return len(text)

    def flush(self) -> None:
        with _writing():
            self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


class _Unwritable(RunFailed):
    """The output cannot be written, and nobody has closed it."""


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:  # such as a full disk
        raise _Unwritable(f"the output could not be written ({error.strerror})") from None


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Prints safely what is printed inside: control characters are written out, and what the encoding of the output
    lacks as well.

    Raises:
      SystemExit: with status 141, as of a process that a closed pipe ends, if the output is closed (`... | head`); with
        status 1 if it cannot be written for another reason.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_opened, before)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(141)
    except _Unwritable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, _Unwritable):  # Python would write a traceback as it exits
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.stdout, sys.stderr = before


def _opened(stream: Any) -> Any:
    if stream is None:  # closed by the caller, as with >&-
        stream = open(os.devnull, "w", encoding="utf-8")
    if isinstance(stream, _Shown):
        return stream
    if hasattr(stream, "reconfigure"):
        with contextlib.suppress(io.UnsupportedOperation, ValueError):
            stream.reconfigure(errors="backslashreplace")
    return _Shown(stream)


def clean_record(record: logging.LogRecord) -> bool:
    """Writes out the control characters of a log record's message; a filter for a handler of `logging`."""
    record.msg, record.args = visible(record.getMessage(), lines=True), ()
    return True
