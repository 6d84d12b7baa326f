r"""What the cell of a table means: null words, numbers that a spreadsheet rounded, whole numbers stored as floats.

One reading for ids, products, categories and lists of ids, whatever kind of file they come from:

    null words       "NULL", "nan", "\N", "#N/A", "-": the cell is empty
    one meaning      " 12", "12.0", "'12", '="12"', "１２", "4.006381333931E12": repaired
    digits are lost  "4.00638E+12", "9007199254740993.0", "5-Mar": set aside with a sentence
    nearly equal     "0123" and "123", "A1" and "a1": named, not matched
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from retrieval_jax.errors import short

EXACT = 2**53  # from here on, floats skip integers

# How programs write that there is no value, in lower case. A cell is null if it is one of these as a whole.
NULL_WORDS = frozenset(
    r"""
    null (null) <null> [null] {null} \n \\n nil <nil> nan -nan <nan> <na> <n/a> n/a n.a. n.a undefined [undefined]
    1.#qnan -1.#ind 1.#ind -1.#qnan #n/a #na #ref! #value! #name? #div/0! #num! #null! #spill! #calc! #error!
    #getting_data #nv #bezug! #wert! #zahl! #leer! #valeur! #nom? #nombre! #¡ref! #¡valor! #¿nombre? #¡num! #¡div/0!
    #rif! #valore! #nome? #waarde! #verw! #naam? #н/д #ссылка! #знач! #имя? #число! #дел/0! #пусто!
    """.split()
) | {"[object object]", "#n/a n/a", "#n/a!"}
_CASED = frozenset({"NA", "NaT"})  # R's and pandas' own; "na" and "nat" may be values, and "NA" a title
_DASHES = r"^[-\u2010-\u2015\u2212_.?]+$"
# Null where a value names one thing of many: an id, a product, a category, a title. In other columns "none" may be a
# value (a pattern, a closure).
_NONE = frozenset({"none", "<none>", "(none)", "[none]"})
# Stand for a missing product or id: not one product, whoever has it.
_PLACEHOLDERS = frozenset(
    {"does not apply", "not applicable", "not available", "unknown", "true", "false", "[]", "{}", '""', "''"}
)

_WHOLE = re.compile(r"([-+]?[0-9]+)(?:\.0{1,2}|\.0{4,}|,0{1,2})")  # not "12.000", which is 12,000 in half of Europe
_SCIENTIFIC = re.compile(r"([0-9])[.,]([0-9]+)[eE]\+?([0-9]{1,2})")
_ROUNDED = r"^[-+]?[0-9](?:[.,][0-9]+)?[eE]\+[0-9]+$|^[-+]?[0-9][.,][0-9]+[eE]-?[0-9]+$|^[0-9]e[0-9]{2,3}$"
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATE = rf"^(?:[0-9]{{1,2}}-(?:{_MONTHS})(?:-[0-9]{{2}})?|(?:{_MONTHS})-[0-9]{{2}})$"
# What may have to be repaired; every other cell is its own meaning.
_ODD = r"[^\x21-\x7e]|^['=]|^[-+]?[0-9]+[.,]0+$|^[0-9][.,][0-9]+[eE]\+?[0-9]+$"


# -------------------------------------------------------------------------------------------------------- null words


def nulls(column: pl.Series, *, none: bool = True, placeholders: bool = False, na: bool = True) -> np.ndarray:
    """Returns which cells say that there is no value, bool [n]; see `is_null`."""
    texts = column.fill_null("").str.strip_chars()
    words = NULL_WORDS | (_NONE if none else set()) | (_PLACEHOLDERS if placeholders else set())
    found = texts.str.to_lowercase().is_in(sorted(words)) | texts.str.contains(_DASHES)
    found |= texts.is_in(sorted(_CASED if na else ()))
    return (found | (texts == "")).to_numpy()


def is_null(text: str, *, none: bool = True, placeholders: bool = False, na: bool = True) -> bool:
    """Returns whether a cell says that there is no value.

    Args:
      text: the whole cell.
      none: whether "none" says so too: in ids, products, categories and titles, not in attributes.
      na: whether "NA" and "NaT" say so too: not in titles, where they are words like others.
      placeholders: whether words such as "Does not apply" and "TRUE" say so too: in ids and products.
    """
    text = text.strip()
    words = NULL_WORDS | (_NONE if none else set()) | (_PLACEHOLDERS if placeholders else set())
    return not text or text.lower() in words or (na and text in _CASED) or re.search(_DASHES, text) is not None


# ----------------------------------------------------------------------------------------------------------- repairs


@functools.lru_cache(maxsize=2**16)
def cell(text: str) -> str:
    r"""Returns an id, product or category without what programs put around it, where only one value can be meant.

    Blanks and invisible characters at the ends, several blanks inside, a spreadsheet's marks of text ("'0012",
    '="0012"'), the ".0" of a whole number stored as a float, a whole number written out in scientific notation,
    decimal digits of other scripts.

    Args:
      text: the whole cell.
    """
    text = " ".join(_bare(text).split())
    if match := re.fullmatch(r'="([^"]*)"|\'([-+]?[0-9]+(?:[.,][0-9]+)?)', text):
        text = _bare(match[1] if match[1] is not None else match[2])
    if not text.isascii() and re.fullmatch(r"[-+]?\d+(?:[.,]\d+)?", text):
        text = "".join(str(unicodedata.decimal(one)) if one.isdecimal() else one for one in text)
    if match := _WHOLE.fullmatch(text):
        return match[1] if abs(int(match[1])) < EXACT else text
    if match := _SCIENTIFIC.fullmatch(text):
        first, digits, exponent = match[1], match[2], int(match[3])
        if 7 <= exponent <= 15 and len(digits) >= exponent and not digits[exponent:].strip("0"):
            return first + digits[:exponent]
    return text


def cells(column: pl.Series) -> pl.Series:
    """Returns a column after `cell`, "" where it has no text."""
    column = column.fill_null("")
    odd = column.filter(column.str.contains(_ODD)).unique()
    mended = {one: new for one in odd.to_list() if (new := cell(one)) != one}
    return column.replace(mended) if mended else column


def lists(column: pl.Series) -> pl.Series:
    """Returns a column of blank-separated ids, each after `cell`; "" where the whole cell is null."""
    column = column.fill_null("").set(pl.Series(nulls(column)), "")
    odd = column.filter(column.str.contains(r"[^\x20-\x7e]|(?:^|\s)['=]|[.,]0+(?:\s|$)|[eE]\+?[0-9]")).unique()
    mended = {one: new for one in odd.to_list() if (new := " ".join(map(cell, one.split()))) != one}
    return column.replace(mended) if mended else column


def _bare(text: str) -> str:
    """Returns a text without the blanks, joiners, marks of direction and byte-order marks at its ends."""
    start, end = 0, len(text)
    while start < end and _unseen(text[start]):
        start += 1
    while end > start and _unseen(text[end - 1]):
        end -= 1
    return text[start:end]


def _unseen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cf", "Zs", "Zl", "Zp")


# ------------------------------------------------------------------------------------------------- what cannot be used


def flaws(column: pl.Series) -> dict[int, tuple[str, str]]:
    """Finds numbers and codes of which a spreadsheet has lost digits or letters.

    Args:
      column: n ids or products, after `cells`.

    Returns:
      {row: (what it is, what to do)}, to go into a sentence after the value: ("rounded", "is a number rounded by ...").
    """
    texts, found = column.fill_null(""), {}
    for row in np.flatnonzero(texts.str.contains(_ROUNDED).to_numpy()):
        found[int(row)] = "rounded", "is a number rounded by a spreadsheet; export the column as text"
    for row in np.flatnonzero(texts.str.contains(r"^[-+]?[0-9]{16,}[.,]0{1,2}$").to_numpy()):
        remedy = "is a number that has lost its last digits as a float; export the column as text"
        found[int(row)] = "rounded", remedy
    for row in np.flatnonzero(texts.str.contains(_DATE).to_numpy()):
        remedy = "is a date that a spreadsheet made of another text; export the column as text"
        found[int(row)] = "date in place of the", remedy
    return found


def is_rounded(text: str) -> bool:
    """Returns whether a text is a number that a spreadsheet has rounded, such as "4.00638E+12"."""
    return re.search(_ROUNDED, text) is not None


# -------------------------------------------------------------------------------------------------------- near values


def loose(text: str) -> str:
    """Returns what two values share that differ in case, leading zeros, zeros of decimals, a spreadsheet's marks,
    separators of thousands, entities of HTML, Unicode form or invisible characters only."""
    text = html.unescape(text) if "&" in text else text
    text = re.sub(r"[\s\u200b-\u200f\u2060\ufeff\u00ad'’=\"]", "", unicodedata.normalize("NFKC", text).casefold())
    if re.fullmatch(r"[0-9]{1,3}(?:[.,][0-9]{3})+", text):
        text = re.sub(r"[.,]", "", text)
    if re.fullmatch(r"[0-9]+[.,][0-9]+", text):
        text = text.rstrip("0")
    return re.sub(r"[.,]0*$", "", text).lstrip("#+0")


def near(wanted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Returns {wanted value: another known value that was probably meant}, see `loose`.

    Args:
      wanted: values to look for; they may be known themselves.
      known: existing values.
    """
    keys = {one: loose(one) for one in wanted}
    sought = set(keys.values()) - {""}
    there: dict[str, list[str]] = {}
    for one in known if sought else ():
        if (key := loose(one)) in sought:
            there.setdefault(key, []).append(one)
    found = {one: next((other for other in there.get(key, ()) if other != one), None) for one, key in keys.items()}
    return {one: other for one, other in found.items() if other is not None}


def there_is(near: Mapping[str, str], value: str) -> str:
    """Returns the part of a sentence that says what may have been meant by an unknown value, "" if nothing is known."""
    if value in near:
        return f" (there is {short(near[value])!r})"
    return " (several ids are separated by blanks)" if re.search(r"[,;|\[\]]", value) else ""
