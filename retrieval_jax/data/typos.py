"""Typing errors as people make them: a neighbouring key, a letter left out, typed twice, or two in the wrong order."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

import numpy as np

from retrieval_jax.errors import InputError

# Rows of keyboards, from the top; neighbours of a key are those beside it and, half a key apart, above and below.
KEYBOARDS = (
    ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"),
    ("ςερτυθιοπ", "ασδφγηξκλ", "ζχψωβνμ"),
    ("ضصثقفغعهخحجد", "شسيبلاتنمكط", "ئءؤرىةوزظ"),
    ("'קראטוןםפ", "שדגכעיחלךף", "זסבהנמצתץ"),
)
KINDS = ("neighbour", "dropped", "doubled", "swapped")
_LEAST_LETTERS = 3  # of a word that is misspelt; two where a script writes words without blanks
_DRAWS = 4  # numbers per text, whatever happens to it: which text changes does not change the others


@functools.cache
def neighbours() -> dict[str, str]:
    """Returns {small letter: those on the keys around it}, of the KEYBOARDS."""
    found: dict[str, str] = {}
    for rows in KEYBOARDS:
        for number, row in enumerate(rows):
            for place, key in enumerate(row):
                near = [row[at] for at in (place - 1, place + 1) if 0 <= at < len(row)]
                for other, shift in ((number - 1, (0, 1)), (number + 1, (-1, 0))):
                    if 0 <= other < len(rows):
                        near += [rows[other][place + s] for s in shift if 0 <= place + s < len(rows[other])]
                found[key] = "".join(one for one in near if one.isalpha())
    return found


def with_typos(texts: Sequence[str], rng: np.random.Generator, share: float) -> list[str]:
    """Returns texts of which a share has one typing error each, in one of its words.

    Words of fewer than three letters and those with digits (sizes, models) stay as they are, so a text of nothing else
    does too. A letter keeps the marks that belong to it. Scripts without a keyboard in KEYBOARDS have a dropped,
    doubled or swapped letter in place of a neighbouring key.

    Args:
      texts: n texts, of any script.
      rng: draws the same number of values for each text.
      share: of the texts that get an error, 0 to 1.

    Returns:
      n texts, in the same order.

    Raises:
      InputError: `share` is out of range.
    """
    if not 0 <= share <= 1:
        raise InputError(f"with_typos: share is {share}; give a number from 0 (none) to 1 (every text)")
    draws = rng.random((len(texts), 1 + _DRAWS))
    return [_misspelt(text, draw[1:]) if draw[0] < share else text for text, draw in zip(texts, draws, strict=True)]


def _misspelt(text: str, draw: np.ndarray) -> str:
    words = text.split(" ")
    cut = [_letters(word) for word in words]
    long = [number for number, letters in enumerate(cut) if _may_change(letters)]
    if not long:
        return text
    number = long[int(draw[0] * len(long))]
    letters = cut[number]
    kind, place = KINDS[int(draw[1] * len(KINDS))], int(draw[2] * len(letters))
    near = neighbours().get(letters[place].lower(), "")
    if kind == "neighbour" and not near:
        kind = KINDS[1 + int(draw[3] * (len(KINDS) - 1))]
    if kind == "swapped" and len(set(letters)) == 1:
        kind = "dropped"  # nothing to see otherwise
    if kind == "neighbour":
        other = near[int(draw[3] * len(near))]
        letters[place] = other.upper() if letters[place].isupper() else other
    elif kind == "dropped":
        del letters[place]
    elif kind == "doubled":
        letters.insert(place, letters[place])
    else:
        pairs = [at for at in range(len(letters) - 1) if letters[at] != letters[at + 1]]
        at = pairs[place % len(pairs)]
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    words[number] = "".join(letters)
    return " ".join(words)


def _letters(word: str) -> list[str]:
    """Returns the letters of a word, each with the marks and joiners that follow it."""
    out: list[str] = []
    for character in word:
        joined = unicodedata.category(character)[0] == "M" or character in "\u200c\u200d"
        if joined and out:
            out[-1] += character
        else:
            out.append(character)
    return out


def _may_change(letters: list[str]) -> bool:
    """Returns whether a word is long enough for an error and made of letters alone, hyphens and the like aside."""
    dense = any("\u3040" <= letter[0] <= "\u9fff" or "\uac00" <= letter[0] <= "\ud7af" for letter in letters)
    return (
        len(letters) >= (2 if dense else _LEAST_LETTERS)
        and sum(letter[0].isalpha() for letter in letters) >= len(letters) - 1
        and not any(letter[0].isnumeric() for letter in letters)
    )
