"""What the values of a column look like: shares of addresses, numbers, codes, words."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

from retrieval_jax.data.exports import references
from retrieval_jax.data.tables import values

_NUMBER = re.compile(
    r"[-+]?[0-9][0-9\s.,\xa0']*(?:\s*(?:[A-Z]{3}|[€$£¥₽₴%]|руб\.?|zł|kč|kg|g|cm|mm))?|(?:[A-Z]{3}|[€$£¥₽₴])\s*[0-9][0-9.,\s]*",
    re.I,
)
_BARCODE = re.compile(r"[0-9]{8}|[0-9]{11,14}")
_BOOLEAN = frozenset(
    [
        "0",
        "1",
        "true",
        "false",
        "yes",
        "no",
        "y",
        "n",
        "ja",
        "nein",
        "oui",
        "non",
        "sí",
        "si",
        "да",
        "нет",
        "on",
        "off",
        "visible",
        "active",
        "draft",
        "enabled",
        "disabled",
    ]
)
_HEX = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f-]{27}", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d.*|\d{1,2}[./]\d{1,2}[./]\d{2,4}.*")


@functools.lru_cache(2**17)
def clean(value: str, placeholders: bool = False) -> str:
    """Returns a cell as it was meant, see `values.cell`; "" where it is null, or where a spreadsheet has rounded it.

    Args:
      value: the whole cell.
      placeholders: whether words such as "Does not apply" say that there is no value: in keys.
    """
    text = values.cell(value)
    return "" if values.is_null(text, placeholders=placeholders) or values.is_rounded(text) else text


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the values of a column look like. All but `filled` are shares of the values that are not empty.

    Attributes:
      filled: share of the rows with a value.
      distinct: distinct values over values.
      count: values that are not empty.
      values: the most common distinct values, at most 5.
      length: mean length in characters.
      words: mean number of words.
      addresses: values that hold an address.
      pictures: values that name a file with a picture's extension, by address or path.
      numbers: values that are numbers or amounts.
      decimals: values that are numbers with decimals.
      rounded: values that a spreadsheet has rounded.
      barcodes: values of 8 or 11 to 14 digits.
      booleans: values such as 0, yes, true.
      html: values with tags.
      letters: values with a letter.
      hierarchies: values such as "a > b" or "a/b/c".
      hexes: values that are long hexadecimal ids.
      dates: values that are dates.
    """

    filled: float
    distinct: float
    count: int
    values: tuple[str, ...]
    length: float
    words: float
    addresses: float
    pictures: float
    numbers: float
    decimals: float
    rounded: float
    barcodes: float
    booleans: float
    html: float
    letters: float
    hierarchies: float
    hexes: float
    dates: float


def of(column: Sequence[str]) -> Facts:
    """Returns what the values of a column look like.

    Args:
      column: n texts.
    """
    texts = [text for value in column if not values.is_null(text := value.strip())]
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    total = max(1, len(texts))

    def share(test) -> float:
        return sum(n for text, n in counts.items() if test(text)) / total

    return Facts(
        filled=len(texts) / max(1, len(column)),
        distinct=len(counts) / total,
        count=len(texts),
        values=tuple(sorted(counts, key=lambda text: -counts[text])[:5]),
        length=sum(len(text) * n for text, n in counts.items()) / total,
        words=sum(len(text.split()) * n for text, n in counts.items()) / total,
        addresses=share(lambda text: "://" in text[:200] or text.startswith("//")),
        pictures=share(_names_a_picture),
        numbers=share(lambda text: bool(_NUMBER.fullmatch(text))),
        decimals=share(
            lambda text: bool(re.fullmatch(r"[^\d]*\d[\d\s]*[.,]\d{1,4}[^\d]*", text)) and not text.endswith(".0")
        ),
        rounded=share(values.is_rounded),
        barcodes=share(lambda text: bool(_BARCODE.fullmatch(clean(text)))),
        booleans=share(lambda text: text.casefold() in _BOOLEAN),
        html=share(lambda text: bool(re.search(r"<[a-zA-Z/][^>]*>", text))),
        letters=share(lambda text: bool(re.search(r"[^\W\d_]", text))),
        hierarchies=share(lambda text: bool(re.search(r"\S\s*(?:>|»|/|\|)\s*\S", text)) and "://" not in text),
        hexes=share(lambda text: bool(_HEX.match(text))),
        dates=share(lambda text: bool(_DATE.fullmatch(text))),
    )


def _names_a_picture(text: str) -> bool:
    if "<" in text and "<img" not in text.lower():
        return False
    found = references.split(text[:2000])
    return bool(found) and sum(map(references.looks_like_a_picture, found)) >= 0.5 * len(found)
