"""Titles to tokens: the rule that the eProduct 2022 runner-up made pseudo-attributes with.

Lower-case; replace every character that is neither a word character (Python's Unicode `\\w`) nor one of ``| . - / '``
by a blank; replace "w/" by a blank; split at white space. Source: public code of "Large-Scale Product Retrieval with
Weakly Supervised Representation Learning", arXiv 2208.00955.
"""

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

# Part of the vocabulary's hash; raise it whenever a title could get different tokens.
RULE = "titles-1"

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


def tokenize(title: str) -> list[str]:
    """Splits one title into tokens, stop words included; the reference for `tokenize_many`.

    Args:
      title: any text; a lone surrogate is not a word character, so it becomes a blank.

    Returns:
      The tokens in the order of the title.

    Source: see the module.
    """
    return _NOT_KEPT.sub(" ", title.lower()).replace("w/", " ").split()


def tokenize_many(titles: Sequence[str]) -> pl.DataFrame:
    """Splits many titles into tokens, stop words included; equivalent to calling `tokenize` on each.

    Args:
      titles: n texts, fewer than 2^32.

    Returns:
      polars frame (title uint32, token string), one row per token in the order of the titles: title is the index in
      `titles`; titles without tokens have no row.
    """
    # Titles that are not ASCII are cleaned by Python: polars has another Unicode version, and its `\w` also matches
    # marks and joiners. Everything else works on the bytes of one long text.
    lines = [title if title.isascii() else _NOT_KEPT.sub(" ", title.lower()) for title in titles]
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
