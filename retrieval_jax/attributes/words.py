"""From titles to words: a title rule (titles.py), then the rules of a vocabulary applied to its tokens.

`Rules` are the decisions of mining. They are saved in vocabulary.json and part of its hash, so that later titles get
the same attributes. The work is done once per distinct token or pair of a chunk, not once per title.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_jax.attributes import normalising, segmenting
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.errors import InputError

if TYPE_CHECKING:
    import polars as pl


@dataclasses.dataclass(frozen=True, eq=False)
class Rules:
    """How tokens become attributes; the defaults are the title rule alone.

    Attributes:
      normalise: unify numbers, units, possessives and spellings (normalising.py).
      segment: cut Chinese and Japanese runs, leave out function words of six languages (segmenting.py).
      merges: {word: the word it counts as}; a target is never itself merged.
      phrases: {(first, second): attribute} of adjacent words, after merging; the parts stay beside the phrase.
      rule: 1 or 2, the title rule that makes tokens (titles.py).
    """

    normalise: bool = False
    segment: bool = False
    merges: dict[str, str] = dataclasses.field(default_factory=dict)
    phrases: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    rule: int = title_rule.DEFAULT

    def __post_init__(self):
        if self.rule not in title_rule.RULES or isinstance(self.rule, bool):
            raise InputError(f"config.mine.rule is {self.rule!r}; give {' or '.join(map(str, title_rule.RULES))}")

    @property
    def beyond_tokens(self) -> bool:
        """Whether anything happens to the tokens of the title rule."""
        return bool(self.normalise or self.segment or self.merges or self.phrases)

    @property
    def counted_by(self) -> str:
        """Names and versions of the rules that titles are counted by, which need no counts themselves."""
        return " ".join(
            [
                title_rule.RULES[self.rule],
                *([normalising.RULE] if self.normalise else []),
                *([segmenting.RULE] if self.segment else []),
            ]
        )

    def as_json(self) -> dict:
        """Returns what to save and hash beside the title rule: plain lists in a fixed order, with versions."""
        return {
            "normalise": normalising.RULE if self.normalise else "",
            "segment": segmenting.RULE if self.segment else "",
            "merges": [list(pair) for pair in sorted(self.merges.items())],
            "phrases": [[*pair, name] for pair, name in sorted(self.phrases.items())],
        }

    @classmethod
    def from_json(cls, content: dict, rule: int) -> Rules:
        """Reads the output of `as_json`; raises ValueError if it is malformed or this version has other rules."""
        rules = cls(
            rule=rule,
            normalise=content["normalise"] == normalising.RULE,
            segment=content["segment"] == segmenting.RULE,
            merges={str(word): str(target) for word, target in content["merges"]},
            phrases={(str(first), str(second)): str(name) for first, second, name in content["phrases"]},
        )
        if rules.as_json() != content:
            raise ValueError("its rules belong to another version")
        return rules


def of_title(title: str, rules: Rules) -> list[str]:
    """Returns the words of one title, stop words included; the reference for `of_titles`.

    Args:
      title: any text.
      rules: rules of the vocabulary.

    Returns:
      The words in order, each phrase after its second word.
    """
    if rules.normalise:
        title = normalising.rewrite(title if rules.rule == 1 else title_rule.unescape(title))
    words = title_rule.tokenize(title, rules.rule)
    if rules.segment:
        words = [part for word in words for part in segmenting.segment(word)]
    if rules.normalise:
        words = normalising.join([part for word in words for part in normalising.split_token(word)])
    words = [rules.merges.get(word, word) for word in words]
    out = words[:1]
    for pair in zip(words, words[1:], strict=False):
        out += [pair[1], rules.phrases[pair]] if pair in rules.phrases else [pair[1]]
    return out


def of_titles(titles: Sequence[str], rules: Rules) -> pl.DataFrame:
    """Returns the words of many titles; equivalent to calling `of_title` on each.

    Args:
      titles: n texts.
      rules: rules of the vocabulary.

    Returns:
      polars frame (title uint32, token): the index in `titles`, ascending, and its words in order; phrases follow at
      the end, in the same order.
    """
    import polars as pl

    if rules.normalise:  # entities first: "5&Prime;" is five inches
        plain = titles if rules.rule == 1 else [title_rule.unescape(title) for title in titles]
        titles = normalising.rewrite_many(plain)
    rows = title_rule.tokenize_many(titles, rules.rule)
    if rules.normalise or rules.segment:
        rows = _split(rows, rules)
    if rules.normalise:
        rows = _joined(rows)
    if rules.merges:
        rows = rows.with_columns(pl.col("token").replace(rules.merges))
    if rules.phrases:
        firsts, seconds = (sorted({pair[side] for pair in rules.phrases}) for side in (0, 1))
        pairs = adjacent(rows).filter(pl.col("first").is_in(firsts) & pl.col("second").is_in(seconds))
        rows = pl.concat([rows, pairs.join(_phrases(rules), on=("first", "second")).select("title", "token")])
    return rows


def adjacent(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the frame (title, first, second) of adjacent words.

    Args:
      rows: frame (title, token) in the order of the titles.
    """
    import polars as pl

    pairs = rows.select(
        "title",
        pl.col("token").alias("first"),
        pl.col("token").shift(-1).alias("second"),
        (pl.col("title") == pl.col("title").shift(-1)).alias("same"),
    )
    return pairs.filter(pl.col("same")).drop("same")


def _split(rows: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Applies the rules for single tokens, once per distinct token; only tokens that change are touched."""
    import polars as pl

    changed = {}
    for token in rows["token"].unique().to_list():
        parts = segmenting.segment(token) if rules.segment else (token,)
        if rules.normalise:
            parts = sum((normalising.split_token(part) for part in parts), ())
        if parts != (token,):
            changed[token] = list(parts)
    if not changed:
        return rows
    table = pl.DataFrame(
        {"token": list(changed), "parts": list(changed.values())},
        schema={"token": pl.String, "parts": pl.List(pl.String)},
    )
    found = rows["token"].is_in(sorted(changed)).to_numpy()
    parts = rows.filter(found).select("token").join(table, on="token", how="left", maintain_order="left")["parts"]
    lengths = np.ones(len(rows), np.int64)
    lengths[found] = parts.list.len().to_numpy()
    places = np.repeat(np.arange(len(rows)), lengths)
    rows = rows[places]
    spread = np.flatnonzero(found[places])
    values = parts.explode().drop_nulls()
    return rows.with_columns(rows["token"].scatter(spread, values)) if len(spread) else rows


def _joined(rows: pl.DataFrame) -> pl.DataFrame:
    """Joins numbers with the units after them like `normalising.join`; units are not numbers, so joins never chain."""
    title, token = rows["title"].to_numpy(), rows["token"]
    units = np.flatnonzero(token.is_in(sorted(normalising.UNIT)).to_numpy()[1:] & (title[1:] == title[:-1])) + 1
    numbers, names = token.gather(units - 1).to_list(), token.gather(units).to_list()
    before = token.gather(np.maximum(units - 2, 0)).to_list()
    alone = (title[np.maximum(units - 2, 0)] != title[units]) | (units < 2)
    made = [
        normalising.joined(None if first else word, number, name)
        for first, word, number, name in zip(alone.tolist(), before, numbers, names, strict=True)
    ]
    fits = np.array([one is not None for one in made], bool)
    if not fits.any():
        return rows
    places = units[fits]
    rows = rows.with_columns(token.scatter(places - 1, [one for one in made if one is not None]))
    left = np.ones(len(rows), bool)
    left[places] = False
    return rows.filter(left)


def _phrases(rules: Rules) -> pl.DataFrame:
    import polars as pl

    pairs = sorted(rules.phrases.items())
    return pl.DataFrame(
        {
            "first": [first for (first, _), _ in pairs],
            "second": [second for (_, second), _ in pairs],
            "token": [name for _, name in pairs],
        },
        schema={"first": pl.String, "second": pl.String, "token": pl.String},
    )
