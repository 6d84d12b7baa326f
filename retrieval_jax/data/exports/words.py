"""Words that tables of shops use, in many languages: what a header means, which values are kinds, sizes or promotions.

They are hints, weaker than what a column holds. words.toml lists them.
"""

from __future__ import annotations

import functools
import pathlib
import re
import tomllib
import unicodedata

_SHORT = 4  # letters: a shorter word counts only by itself, not inside a longer one ("id", "art")


@functools.cache
def headers() -> dict[str, frozenset[str]]:
    """Returns {role: words that headers use for it}, as `normal` writes them."""
    return {role: frozenset(map(normal, found)) for role, found in _file()["headers"].items()}


@functools.cache
def values(kind: str) -> frozenset[str]:
    """Returns the values of a kind: "variant", "promotion", "child", "product", "joining" or "total"."""
    return frozenset(_file()["values"][kind])


@functools.cache
def _file() -> dict:
    return tomllib.loads(pathlib.Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


@functools.lru_cache(100_000)
def normal(header: str) -> str:
    """Returns a header in lower case with blanks between words: "productImageUrl1" becomes "product image url"."""
    text = unicodedata.normalize("NFKC", header)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    text = re.sub(r"[^\w]+|[\d_]+", " ", unicodedata.normalize("NFC", text.casefold()))
    return " ".join(text.split())


@functools.lru_cache(100_000)
def roles(header: str) -> dict[str, float]:
    """Returns {role: how well a header fits it, from 0 to 1}; roles that it does not fit are left out.

    Args:
      header: as the table has it.
    """
    text = normal(header)
    found = {}
    for role, known in headers().items() if text else ():
        best = 1.0 if text in known else max((_inside(word, text) for word in known), default=0.0)
        if best:
            found[role] = best
    return found


def _inside(word: str, text: str) -> float:
    """Returns how well a header is described by a word inside it: more, the more of the header it covers."""
    if word not in text:
        return 0.0
    share = len(word) / len(text)
    blanks = re.search(r"[^\W\d_]", word) and word[0] < "\u0e00"  # scripts that put blanks between words
    if f" {word} " in f" {text} ":
        return 0.5 + 0.45 * share
    if not blanks:
        return 0.35 + 0.6 * share if len(word) > 1 else 0.0
    return 0.3 + 0.4 * share if len(word) > _SHORT or (len(word) == _SHORT and share >= 0.4) else 0.0


def known(header: str) -> bool:
    """Returns whether a whole header is one that shops use."""
    text = normal(header)
    return any(text in found for found in headers().values())
