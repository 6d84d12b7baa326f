"""One form for queries that mean the same typing: what is counted together, and what must not be in two splits."""

from __future__ import annotations

import hashlib
import unicodedata

LONGEST_READ = 10_000  # characters that are looked at
LONGEST = 200  # characters of a normalised query; what is longer was pasted, not typed
PARTS = ("train", "val", "query")

_JOINERS = "\u200c\u200d"  # part of the spelling in Persian and in Indic scripts
_DROPPED = ("Cc", "Cs", "Co", "Cn")


def normalised(text: str) -> str:
    """Returns a query as it is counted: Unicode form NFKC, case-folded, blanks joined.

    Control characters, private and unassigned code points and halves of surrogate pairs become blanks; invisible
    formatting characters are dropped, except for the joiners that belong to a spelling.

    Args:
      text: as typed; what follows the first `LONGEST_READ` characters is not looked at.
    """
    text = text[:LONGEST_READ]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if not text.isprintable():
        text = "".join(map(_shown, text))
    return " ".join(text.casefold().split())


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return character if character in _JOINERS else ""
    return " " if category in _DROPPED else character


def part_of(text: str, val_share: float, query_share: float) -> str:
    """Returns the split of a query, "train", "val" or "query": a hash of its words, whatever their order.

    Args:
      text: normalised.
      val_share, query_share: shares of all queries, with a sum below 1.
    """
    words = " ".join(sorted(text.split()))
    place = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2.0**64
    return "query" if place < query_share else "val" if place < query_share + val_share else "train"
