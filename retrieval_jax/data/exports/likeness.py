"""Whether two titles are of one product: equal but for words of size and colour, or one the beginning of the other."""

from __future__ import annotations

import collections
import functools
import re
import unicodedata
from collections.abc import Sequence

from retrieval_jax.data.exports import words

_AGREE = 0.75  # share of the longer title's words
_RELATED = 0.3  # share of the shorter title's words
_COMMON = 0.3  # share of the titles: a word that more have tells no products apart
_FEW_TITLES = 10  # different titles: among fewer, a word that many have may tell products apart


@functools.lru_cache(200_000)
def telling(title: str) -> tuple[str, ...]:
    """Returns the words of a title that tell products apart: in lower case, without sizes and colours."""
    text = unicodedata.normalize("NFKC", title).casefold()
    found, variant = re.findall(r"[^\W_]+", text), words.values("variant")
    kept = tuple(
        word for word in found if word not in variant and not re.fullmatch(r"\d+(?:cm|mm|g|kg|ml|l)?|[a-z]", word)
    )
    return kept or tuple(found)


def numbers(title: str) -> list[str]:
    """Returns the numbers of a title: models, years and sizes."""
    return re.findall(r"\d+", unicodedata.normalize("NFKC", title))


def without_common(titles: Sequence[str]) -> list[str]:
    """Returns titles without the words that many different titles have, such as "gift for her" at all their ends.

    Args:
      titles: n texts; one that would have no telling word left stays as it is.
    """
    different = {plain(title) for title in titles if title}
    counted = collections.Counter(word for title in different for word in set(title.split()))
    common = {word for word, count in counted.items() if count > _COMMON * len(different)}
    if len(different) < _FEW_TITLES or not common:
        return list(titles)
    out = []
    for title in titles:
        rest = " ".join(word for word in plain(title).split() if word not in common)
        out.append(rest if set(telling(rest)) - words.values("variant") else title)
    return out


@functools.lru_cache(200_000)
def plain(title: str) -> str:
    """Returns a title in lower case with single blanks and without what is not a letter or digit."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", title).casefold()))


def agree(one: str, other: str) -> bool:
    """Returns whether two titles are those of one product, perhaps of different variants.

    Args:
      one, other: the titles; an empty one agrees with any.
    """
    first, second = plain(one), plain(other)
    if first == second or not first or not second:
        return True
    short, long = sorted((first, second), key=len)
    if long.startswith(short + " ") and len(short) >= 4 and (" " in short or len(long) <= 2 * len(short)):
        return True
    left, right = set(telling(one)), set(telling(other))
    return len(left & right) >= _AGREE * max(len(left), len(right))


def related(one: str, other: str) -> bool:
    """Returns whether two titles may be of one product: a weaker test than `agree`, for rows that share a key.

    Args:
      one, other: the titles; an empty one is related to any.
    """
    left, right = set(telling(one)), set(telling(other))
    if not left or not right or plain(one) == plain(other):
        return True
    blanks = any(" " in title.strip() for title in (one, other))  # otherwise the script may have none between words
    return not blanks or len(left & right) >= _RELATED * min(len(left), len(right))
