"""One spelling per thing: numbers with units, possessives, punctuation at the edges of words, colours.

Each function looks at a single title or token, so no counts are needed and a title gets the same words wherever it is
counted. The order: `rewrite` (characters of a title that the title rule would lose), the title rule
(`titles.tokenize`), `split_token` on each token, and `join` for a number followed by a unit.

Sources of the tables: units of the SI with its prefixes, of IEC 80000-13 (bytes), and inch-pound units with the
abbreviations of NIST Special Publication 811, plus the plurals and misspellings that shops write. Spellings are British
forms that Merriam-Webster lists as variants of American ones, possessives without their apostrophe, and four colour
abbreviations common in shops.
Left out because it would be guessing: conversion between units (1 tb is not 1000 gb), translation of colours, and
ambiguous abbreviations ("org" is orange or organic).
"""

import functools
import re
import unicodedata
from collections.abc import Sequence

# Part of the vocabulary's hash when normalising is on; raise it whenever a title could get different words.
RULE = "normalised-1"

# {canonical unit: other ways to write it}
UNITS = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres cms",
    "m": "meter meters metre metres mtr mtrs",
    "km": "kilometer kilometers kilometre kilometres",
    "um": "µm μm micron microns",
    "inch": "inches in",
    "ft": "feet foot",
    "yd": "yard yards yds",
    "mg": "milligram milligrams",
    "g": "gram grams gr gm gms",
    "kg": "kilogram kilograms kgs kilo kilos",
    "oz": "ounce ounces",
    "lb": "lbs pound pounds",
    "ct": "carat carats",
    "ml": "milliliter milliliters millilitre millilitres mls",
    "cl": "centiliter centilitre",
    "l": "liter liters litre litres ltr",
    "gal": "gallon gallons",
    "kb": "kilobyte kilobytes",
    "mb": "megabyte megabytes",
    "gb": "gigabyte gigabytes gbyte gig",
    "tb": "terabyte terabytes tbyte",
    "kbps": "kbit/s",
    "mbps": "mbit/s mb/s",
    "gbps": "gbit/s gb/s",
    "hz": "hertz",
    "khz": "kilohertz",
    "mhz": "megahertz",
    "ghz": "gigahertz",
    "w": "watt watts",
    "kw": "kilowatt kilowatts",
    "mw": "milliwatt milliwatts",
    "va": "voltampere",
    "kva": "",
    "wh": "watt-hour watt-hours",
    "v": "volt volts",
    "mah": "",
    "ah": "",
    "mp": "megapixel megapixels mpix mpx",
    "px": "pixel pixels",
    "dpi": "",
    "rpm": "",
    "ppm": "",
    "db": "decibel decibels",
    "lm": "lumen lumens",
    "nm": "nanometer nanometers nanometre nanometres",
    "year": "years yr yrs",
    "month": "months",
    "hour": "hours hr hrs",
    "min": "minute minutes mins",
    "pcs": "pc pieces piece",
    "pack": "packs pk",
    "port": "ports",
    "mic": "",
}

SPELLINGS = {
    "grey": "gray", "greys": "gray", "grays": "gray", "colour": "color", "colours": "colors", "coloured": "colored",
    "multicolour": "multicolor", "multicoloured": "multicolor", "multicolored": "multicolor",
    "multi-colour": "multicolor", "multi-coloured": "multicolor", "multi-color": "multicolor",
    "multi-colored": "multicolor", "jewellery": "jewelry", "aluminium": "aluminum", "fibre": "fiber",
    "fibres": "fibers", "mens": "men", "womens": "women", "childrens": "children", "womans": "woman", "mans": "man",
    "centre": "center", "tyre": "tire", "tyres": "tires", "pyjama": "pajama", "pyjamas": "pajamas",
    "moustache": "mustache", "armour": "armor", "moulded": "molded", "mould": "mold", "catalogue": "catalog",
    "theatre": "theater", "favourite": "favorite", "travelling": "traveling", "woollen": "woolen",
    "blk": "black", "wht": "white", "grn": "green", "brn": "brown",
}  # fmt: skip

UNIT = {name: unit for unit, others in UNITS.items() for name in (unit, *others.split())}
_NUMBER = re.compile(
    r"[0-9]+(?:\.[0-9]+)?(?:x[0-9]+(?:\.[0-9]+)?){0,2}|(?:[0-9]+-)?[0-9]+(?:\.[0-9]+)?/[0-9]+", re.ASCII
)
_QUANTITY = re.compile(rf"({_NUMBER.pattern})(-?)([a-zµμ][a-zµμ/\-]*)", re.ASCII)
# After these words a number is a clothing size, and a letter after it a width: "size 8 m" is not eight metres.
SIZE_WORDS = frozenset({"size", "sizes", "sz", "us", "uk", "eu", "eur", "width"})

# Rewrites of a title before the title rule: (pattern, replacement), each applied twice because adjacent matches share a
# character. Python's and polars' engines agree on these patterns: no lookaround, every character class written out.
_MARKS = {
    "&amp;": "&",
    "&quot;": '"',
    "&#34;": '"',
    "&#39;": "'",
    "&apos;": "'",
    "&nbsp;": " ",
    "™": " ",
    "®": " ",
    "©": " ",
    "½": " 1/2",
    "¼": " 1/4",
    "¾": " 3/4",
    "⅓": " 1/3",
    "⅔": " 2/3",
    "⅛": " 1/8",
    "⅜": " 3/8",
    "⅝": " 5/8",
    "⅞": " 7/8",
    "⁄": "/",
    "²": "2",
    "³": "3",
    "’": "'",
    "‘": "'",
    "″": '"',
    "”": '"',
    "“": '"',
    "′": "'",
    "‐": "-",
    "‑": "-",
    "–": "-",
}
_DECIMAL_UNITS = "|".join(sorted((unit for unit in UNITS if unit not in ("in", "year")), key=lambda u: (-len(u), u)))
_REWRITES = (
    ("pc\\(s\\)", "pcs"),
    ("[lL]@@[kK]", " "),
    ("([0-9])(?:\"|'')", "${1}inch "),
    ("([0-9]),([0-9]{3})([^0-9]|$)", "${1}${2}${3}"),
    (f"([0-9]),([0-9]{{1,2}})( ?(?i:{_DECIMAL_UNITS})(?:[^0-9A-Za-z]|$))", "${1}.${2}${3}"),
    ("([0-9]{2}) [xX×] ([0-9]{2})", "${1}x${2}"),
    ("([0-9]) +([0-9]{1,2}/(?:2|3|4|5|8|16|32|64))([^0-9/]|$)", "${1}-${2}${3}"),
)
_PYTHON_REWRITES = tuple(
    (re.compile(pattern), re.sub(r"\$\{(\d)\}", r"\\g<\1>", replacement)) for pattern, replacement in _REWRITES
)


def rewrite(title: str) -> str:
    """Keeps what the title rule would lose (inch marks, decimal commas, fractions) and unifies letters and signs.

    Args:
      title: any text.

    Returns:
      The title to tokenize.
    """
    for mark, text in _MARKS.items():
        title = title.replace(mark, text)
    title = unicodedata.normalize("NFKC", title)
    for pattern, replacement in _PYTHON_REWRITES:
        title = pattern.sub(replacement, pattern.sub(replacement, title))
    return title


def rewrite_many(titles: Sequence[str]) -> list[str]:
    """Rewrites many titles; equivalent to calling `rewrite` on each.

    Args:
      titles: n texts.

    Returns:
      n texts.
    """
    import polars as pl

    # Most titles are ASCII, which polars handles fast; other characters and lone surrogates are left to Python.
    plain = [row for row, title in enumerate(titles) if title.isascii()]
    texts = pl.Series([titles[row] for row in plain], dtype=pl.String)
    for mark, text in _MARKS.items():
        if mark.isascii():
            texts = texts.str.replace_all(mark, text, literal=True)
    for pattern, replacement in _REWRITES:
        for _ in range(2):
            texts = texts.str.replace_all(pattern, replacement)
    out = [title if title.isascii() else rewrite(title) for title in titles]
    for row, text in zip(plain, texts.to_list(), strict=True):
        out[row] = text
    return out


@functools.lru_cache(maxsize=2**20)
def split_token(token: str) -> tuple[str, ...]:
    """Normalises one token of the title rule; model numbers such as "rt-ac68u" or "24-105mm" stay whole.

    Args:
      token: token from `titles.tokenize`.

    Returns:
      Its words: usually one, no word for punctuation alone, two for "black/white".
    """
    decimal = token.startswith(".") and token[1:2].isdecimal()
    word = ("0" if decimal else "") + token[0 if decimal else None :].rstrip("|.-/'").lstrip("" if decimal else "|.-/'")
    if word.endswith("'s"):
        word = word[:-2]
    if word in UNIT and any(mark in word for mark in "/-"):
        return (word,)
    parts = re.split(r"[|/]", word)
    if len(parts) > 1 and all(len(part) > 2 and part.isalpha() for part in parts):
        return tuple(one for part in parts for one in split_token(part))
    if match := _QUANTITY.fullmatch(word):
        number, hyphen, name = match.groups()
        # "10-m" and "5-v" may be model names; "10m" and "5v" are not.
        if name in UNIT and not (hyphen and len(name) == 1) and not (name == "in" and hyphen):
            return (_short(number) + UNIT[name],)
    return (SPELLINGS.get(word, word),) if word else ()


def number_of(word: str) -> str | None:
    """Returns a number in its short form ("8.0" is "8"), or None if the word is not a number."""
    return _short(word) if _NUMBER.fullmatch(word) else None


def unit_of(word: str) -> str | None:
    """Returns the canonical unit that a word names, or None if it is not a unit."""
    return UNIT.get(word)


def joined(before: str | None, first: str, second: str) -> str | None:
    """Joins a number and the unit after it: "8", "gb" becomes "8gb".

    Args:
      before: word before the number, or None.
      first: possible number.
      second: possible unit.

    Returns:
      The quantity, or None if the two are not one: "in" is an inch only after a fraction or a decimal ("2 in 1"), and
      a single letter after a size is not a unit ("size 8 m").
    """
    number, unit = number_of(first), unit_of(second)
    if number is None or unit is None or (second == "in" and not re.search(r"[./]", first)):
        return None
    return None if len(second) == 1 and before in SIZE_WORDS else number + unit


def join(words: list[str]) -> list[str]:
    """Joins each number of a title with the unit after it; the reference for the frame version in words.py."""
    out, row = [], 0
    while row < len(words):
        pair = joined(words[row - 1] if row else None, words[row], words[row + 1]) if row + 1 < len(words) else None
        out.append(pair or words[row])
        row += 2 if pair else 1
    return out


def quantity(word: str) -> tuple[str, str] | None:
    """Returns (number, unit) of a word such as "8gb", or None if it is not a quantity."""
    match = _QUANTITY.fullmatch(word)
    return (match[1], UNIT[match[3]]) if match and match[3] in UNIT else None


def _short(number: str) -> str:
    """Drops trailing zeros: "8.00" becomes "8", "08.50" becomes "08.5" (leading zeros stay)."""
    return "x".join(part.rstrip("0").rstrip(".") if "." in part else part for part in number.split("x"))
