"""Words of titles and typed queries, in any script, and the known word that a misspelt one stands for.

A text is put into Unicode form NFKD and case-folded, and accents of Latin letters are dropped: "Café" and "cafe" are
one word. A word is a run of letters, marks and digits; everything else separates. Scripts that are written without
blanks (Han, kana, Thai, Lao, Khmer, Burmese) give every pair of neighbouring characters, as in Lucene's CJK analyser.
Nothing is stemmed and no word is left out, since both need to know the language.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping

LONGEST = 20_000  # characters of a text that are read; the rest is ignored
LONGEST_WORD = 64  # characters of a word that count
LEAST = 4  # letters of a word that may be a misspelt one

_ASCII = re.compile(r"[a-z0-9]+")
_LATIN_MARK = re.compile("([a-z])[\u0300-\u036f]+")
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def split(text: str) -> list[str]:
    """Returns the words of a text, in order."""
    text = text[:LONGEST]
    if text.isascii():
        return [word[:LONGEST_WORD] for word in _ASCII.findall(text.casefold())]
    text = _LATIN_MARK.sub(r"\1", unicodedata.normalize("NFKD", text).casefold())
    words, run, kind = [], [], ""
    for character in (*text, " "):
        now = _kind(character)
        if now == "mark" and kind:
            now = kind
        if run and now != kind:
            words += _pairs("".join(run)) if kind == "unspaced" else ["".join(run)[:LONGEST_WORD]]
            run = []
        kind = now if now in ("word", "unspaced") else ""
        if kind:
            run.append(character)
    return words


@functools.lru_cache(1 << 16)
def _kind(character: str) -> str:
    category, code = unicodedata.category(character), ord(character)
    if category[0] == "M":
        return "mark"
    if category[0] not in "LN":
        return ""
    return "unspaced" if any(low <= code <= high for low, high in _UNSPACED) else "word"


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)] if len(run) > 1 else [run]


class Spelling:
    """Finds the known word that is one edit away from an unknown one: a letter more, less, changed, or two swapped.

    Args:
      counts: {known word: number of texts with it}; of several candidates the most frequent one wins, ties by word.

    Source: deletions of both sides meet, W. Garbe's SymSpell; the edit distance with swaps is Damerau's.
    """

    def __init__(self, counts: Mapping[str, int]):
        self._counts = counts
        self._near: dict[str, list[str]] = {}
        for word in counts:
            if len(word) >= LEAST:
                for less in _deletions(word):
                    self._near.setdefault(less, []).append(word)

    def known(self, word: str) -> str | None:
        """Returns the word itself if it is known, else the most frequent known one within one edit, else None."""
        if word in self._counts:
            return word
        if len(word) < LEAST or any(map(str.isdigit, word)):
            return None
        found = {other for less in _deletions(word) for other in self._near.get(less, ()) if _one_edit(word, other)}
        return min(found, key=lambda other: (-self._counts[other], other), default=None)


def _deletions(word: str) -> Iterable[str]:
    return {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}


def _one_edit(one: str, other: str) -> bool:
    """Returns whether two different words differ by one letter more, less or changed, or by two that are swapped."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    if len(one) != len(other):
        short, long = sorted((one, other), key=len)
        return len(long) - len(short) == 1 and short[start:] == long[start + 1 :]
    return one[start + 1 :] == other[start + 1 :] or (
        one[start : start + 2] == other[start : start + 2][::-1] and one[start + 2 :] == other[start + 2 :]
    )
