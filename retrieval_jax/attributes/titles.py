r"""Titles to tokens by one of two rules: 1, that of the eProduct 2022 runner-up, and 2, the default, for any script.

Rule 1: lower-case; replace every character that is neither a word character (Python's Unicode `\w`) nor one of
``| . - / '`` by a blank; replace "w/" by a blank; split at white space. Source: public code of "Large-Scale Product
Retrieval with Weakly Supervised Representation Learning", arXiv 2208.00955. Combining marks are not word characters, so
it cuts Hindi, Bengali, Thai, vocalised Arabic and decomposed accents at every mark, and entities of HTML become words.

On ASCII titles without entities and tags rule 2 equals rule 1. Beyond that it resolves entities
("&amp;", also escaped twice) and drops tags of HTML; removes invisible characters inside words (soft hyphens, joiners,
marks of direction, variation selectors); composes (NFC) and folds case by Unicode's full case folding, so that
"STRASSE" is "straße", "ΣΟΦΟΣ" is "σοφος", and "ﬁ" is "fi", with the dot of the Turkish "İ" dropped ("ı" stays another
letter than "i"); takes typographic apostrophes and hyphens for the ASCII ones; and keeps combining marks.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

# {number of a rule (config.mine.rule): its name}. The name is part of the vocabulary's hash: a rule never changes; a
# title that should get other tokens needs another rule.
RULES = {1: "titles-1", 2: "titles-2"}
DEFAULT = 2

# English function words, with contractions and the halves that an apostrophe leaves.
STOP_WORDS = frozenset(
    """
    a about above after again against ain all am an and any are aren aren't as at be because been before being
    below between both but by can couldn couldn't d did didn didn't do does doesn doesn't doing don don't down
    during each few for from further had hadn hadn't has hasn hasn't have haven haven't having he her here hers
    herself him himself his how i if in into is isn isn't it it's its itself just ll m ma me mightn mightn't more
    most mustn mustn't my myself needn needn't no nor not now o of off on once only or other our ours ourselves
    out over own re s same shan shan't she she's should should've shouldn shouldn't so some such t than that
    that'll the their theirs them themselves then there these they this those through to too under until up ve
    very was wasn wasn't we were weren weren't what when where which while who whom why will with won won't wouldn
    wouldn't y you you'd you'll you're you've your yours yourself yourselves
    """.split()
)

# What the rule leaves of a lone dash, dot or "w/"; never an attribute.
LEFTOVERS = frozenset({"-", "w", "."})

DROPPED = STOP_WORDS | LEFTOVERS  # every other token may become an attribute

_NOT_KEPT = re.compile(r"[^\w|.\-/']")
# The same for the bytes of an ASCII title; newlines are kept because they separate titles. _NOT_KEPT has already
# handled titles with other bytes.
_CLEANED = bytes(
    code if code > 127 or code == 10 else ord(_NOT_KEPT.sub(" ", chr(code).lower())) for code in range(256)
)


_ENTITY = re.compile(
    r"&(?:#[0-9]{1,7}(?![0-9]);?|#[xX][0-9a-fA-F]{1,6}(?![0-9a-fA-F]);?|[A-Za-z][A-Za-z0-9]{1,31};|[A-Za-z]{2,6}(?![A-Za-z0-9]))"
)
_TAG = re.compile(
    r"</?(?:a|b|i|u|em|strong|br|p|div|span|font|sup|sub|small|big|li|ul|ol|h[1-6]|img|hr|center)(?:\s[^<>]*)?/?>", re.I
)
_LAST_MARK = 0x20000  # beyond it there are variation selectors only, which are invisible
_MOST_ESCAPES = 3  # times that an entity is escaped again
# Inside words, and not a part of them: soft hyphen, joiners, marks of direction, variation selectors.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]"
)
_ASCII_SIGNS = str.maketrans("\u2018\u2019\u02bc\uff07\u2010\u2011", "''''--")


@functools.cache
def _not_kept() -> tuple[re.Pattern, re.Pattern]:
    """Returns what rule 2 replaces by blanks, and combining marks that follow no letter."""
    codes = [code for code in range(_LAST_MARK) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    firsts = [code for code, before in zip(codes, [-2, *codes], strict=False) if code != before + 1]
    lasts = [code for code, after in zip(codes, [*codes[1:], -2], strict=True) if code != after - 1]
    marks = "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(firsts, lasts, strict=True))
    return re.compile(rf"[^\w|.\-/'{marks}]"), re.compile(rf"(?<![\w{marks}])[{marks}]+")


def unescape(title: str) -> str:
    """Returns a title with the entities of HTML resolved and its tags replaced by blanks.

    Args:
      title: any text; "&name" without a semicolon is an entity only as a whole word, and only if HTML knows it so.
    """
    for _ in range(_MOST_ESCAPES):
        if "&" not in title:
            break
        resolved = _ENTITY.sub(lambda match: html.unescape(match[0]), title)
        if resolved == title:
            break
        title = resolved
    return _TAG.sub(" ", title) if "<" in title else title


def folded(text: str) -> str:
    """Returns a text composed and without case, as rule 2 compares words."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold().replace("i\u0307", "i"))


def _cleaned(title: str, rule: int) -> str:
    """Returns a title with blanks in place of all that separates tokens, except "w/"."""
    if rule == 1:
        return _NOT_KEPT.sub(" ", title.lower())
    not_kept, alone = _not_kept()
    return alone.sub("", not_kept.sub(" ", folded(_INVISIBLE.sub("", unescape(title))).translate(_ASCII_SIGNS)))


def tokenize(title: str, rule: int = DEFAULT) -> list[str]:
    """Splits one title into tokens, stop words included; the reference for `tokenize_many`.

    Args:
      title: any text; a lone surrogate is not a word character, so it becomes a blank.
      rule: 1 or 2, see the module.

    Returns:
      The tokens in the order of the title.

    Source: see the module.
    """
    return _cleaned(title, rule).replace("w/", " ").split()


def tokenize_many(titles: Sequence[str], rule: int = DEFAULT) -> pl.DataFrame:
    """Splits many titles into tokens, stop words included; equivalent to calling `tokenize` on each.

    Args:
      titles: n texts, fewer than 2^32.
      rule: 1 or 2.

    Returns:
      polars frame (title uint32, token string), one row per token in the order of the titles: title is the index in
      `titles`; titles without tokens have no row.
    """
    import polars as pl

    # Titles that are not plain ASCII are cleaned by Python: polars has another Unicode version, and its `\w` also
    # matches marks and joiners. Everything else works on the bytes of one long text.
    lines = [title if _plain(title, rule) else _cleaned(title, rule) for title in titles]
    text = "\n".join(lines)
    if text.count("\n") != len(lines) - 1:
        text = "\n".join(line.replace("\n", " ") for line in lines)
    bytes_ = text.encode("utf-8").translate(_CLEANED).replace(b"w/", b" ") + b"\n"
    letters = np.frombuffer(bytes_, np.uint8)
    inside = letters > 32
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = (edges[1::2], edges[::2]) if inside[0] else (edges[::2], edges[1::2])
    if inside[0]:
        starts = np.concatenate([[0], starts])
    if not len(starts):
        return pl.DataFrame(schema={"title": pl.UInt32, "token": pl.String})
    before = np.searchsorted(starts, np.flatnonzero(letters == 10))  # tokens before the end of each title
    title = np.repeat(np.arange(len(lines), dtype=np.uint32), np.diff(before, prepend=0))
    # Read as a CSV file with one token per line: the fastest public way from bytes to strings. No token contains a
    # quote or control character that the reader could misread.
    inside[ends] = True
    listed = letters.copy()
    listed[ends] = 10
    token = pl.read_csv(
        listed[inside].tobytes(),
        has_header=False,
        separator="\x01",
        quote_char=None,
        schema={"token": pl.String},
        low_memory=False,
    )["token"]
    return pl.DataFrame({"title": title, "token": token})


def _plain(title: str, rule: int) -> bool:
    """Returns whether a title is ASCII without anything that only rule 2 knows."""
    return title.isascii() and (rule == 1 or ("&" not in title and "<" not in title))
