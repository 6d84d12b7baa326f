"""Cleans text before it is read, whatever somebody typed: nothing raises, and what is lost can be counted."""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Iterable

from retrieval_jax.errors import InputError, short

MOST_CHARACTERS = 8192  # of one text; what follows is cut
# Characters that show nothing and are not needed to write any script: soft hyphens, marks of direction, byte order
# marks and the like. Joiners (U+200C, U+200D), tags of flags and what shapes a letter stay.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ufdd0-\ufdef\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Returns a text as it is tokenised, whatever it holds.

    In this order: what follows the first `MOST_CHARACTERS` characters is cut; control characters (NUL and line breaks
    among them), lone surrogates and U+200B become blanks; invisible marks of direction and soft hyphens are removed;
    the rest is brought to Unicode's form NFC; runs of blanks become one, and those at either end are removed. Letters
    of any script, emoji and joiners stay.

    Args:
      text: as typed, or as a catalogue has it.

    Raises:
      InputError: it is not text.
    """
    if not isinstance(text, str):
        raise InputError(f"a text is a str, not {type(text).__name__} ({short(repr(text))}); use '' for a missing text")
    text = text[:MOST_CHARACTERS]
    if not text.isascii():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", _SURROGATE.sub(" ", text)))
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    return " ".join(text.split())


def examine(texts: Iterable[str]) -> dict[str, int]:
    """Counts the texts that `clean` changes so that something may be lost.

    Args:
      texts: before they are cleaned.

    Returns:
      {"empty": texts of which nothing is left, "cut": texts beyond `MOST_CHARACTERS`, "control characters": texts with
      any but line breaks and tabs, "lone surrogates": texts with any}, without those at 0.
    """
    counts = collections.Counter()
    for text in texts:
        counts["cut"] += len(text) > MOST_CHARACTERS
        head = text[:MOST_CHARACTERS]
        if not head.isprintable():
            counts["control characters"] += bool(_CONTROL.search(head.translate({9: 32, 10: 32, 13: 32})))
            counts["lone surrogates"] += bool(_SURROGATE.search(head))
        counts["empty"] += not clean(head)
    return {name: count for name, count in counts.items() if count}
