"""Titles to tokens: the rule by which the eProduct 2022 runner-up made pseudo-attributes.

Lower-case; every character that is neither a word character (Python's Unicode `\\w`) nor one of ``| . - / '`` becomes
a blank; "w/" becomes a blank; split at white space. Source: public code of "Large-Scale Product Retrieval with Weakly
Supervised Representation Learning", arXiv 2208.00955.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np
import polars as pl

# Travels into the vocabulary's hash: raise it whenever a title could get other tokens than before.
RULE = "titles-1"

# English function words, with the contractions and their halves that an apostrophe leaves behind.
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

# What the rule leaves of a lonely dash, dot or "w/", and no attribute of anything.
LEFTOVERS = frozenset({"-", "w", "."})

DROPPED = STOP_WORDS | LEFTOVERS  # every other token may become an attribute

_NOT_KEPT = re.compile(r"[^\w|.\-/']")


def tokenize(title: str) -> list[str]:
    """Splits one title into tokens, stop words still in: the reference that `tokenize_many` is equal to.

    Args:
        title: any text.

    Returns:
        The tokens in the order of the title.

    Source: see the module.
    """
    return _NOT_KEPT.sub(" ", title.lower()).replace("w/", " ").split()


def tokenize_many(titles: Sequence[str]) -> pl.Series:
    """Splits many titles into tokens, stop words still in; equal to `tokenize` on every one.

    Args:
        titles: n texts (valid Unicode, no lone surrogates).

    Returns:
        polars Series of n lists of strings.
    """
    # Python lower-cases, and its own table says what a word character is: the Unicode version of polars is another one,
    # and its `\w` also takes marks and joiners. "w/" goes first: no other step makes one or breaks one.
    lower = pl.Series("tokens", [title.lower() for title in titles], dtype=pl.String)
    ascii_only = bool((lower.str.len_bytes() == lower.str.len_chars()).all())
    letters = "a-z0-9_" if ascii_only else _word_ranges()
    return lower.str.replace_all("w/", " ", literal=True).str.extract_all(rf"[{letters}|.\-/']+")


@functools.cache
def _word_ranges() -> str:
    """Returns Python's word characters as the ranges of a regular expression class."""
    word = np.fromiter((chr(code).isalnum() for code in range(0x110000)), dtype=bool, count=0x110000)
    word[ord("_")] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[False], word, [False]]).astype(np.int8)))
    return "".join(rf"\x{{{first:X}}}-\x{{{end - 1:X}}}" for first, end in zip(edges[::2], edges[1::2], strict=True))
