"""From titles to words: the plain rule, and behind it what a vocabulary's rules make of its tokens.

`Rules` are what mining decided. They travel inside vocabulary.json and are part of its hash, so that a title that comes
later gets the same attributes. The work is done once per distinct token or pair of a chunk, not once per title.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import polars as pl

from retrieval_jax.attributes import normalising, segmenting
from retrieval_jax.attributes import titles as title_rule


@dataclasses.dataclass(frozen=True, eq=False)
class Rules:
    """How tokens of the plain rule become attributes; nothing set is the plain rule itself.

    Attributes:
        normalise: numbers, units, possessives and spellings take one form (normalising.py).
        segment: Chinese and Japanese runs are cut, function words of six languages left out (segmenting.py).
        merges: {word: the word it counts as}; a target is never itself merged.
        phrases: {(first, second): attribute} of adjacent words, after merging; the parts stay beside the phrase.
    """

    normalise: bool = False
    segment: bool = False
    merges: dict[str, str] = dataclasses.field(default_factory=dict)
    phrases: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.normalise or self.segment or self.merges or self.phrases)

    def as_json(self) -> dict:
        """Returns what is saved and hashed: plain lists in a fixed order, with the versions of the rules in use."""
        return {
            "normalise": normalising.RULE if self.normalise else "",
            "segment": segmenting.RULE if self.segment else "",
            "merges": [list(pair) for pair in sorted(self.merges.items())],
            "phrases": [[*pair, name] for pair, name in sorted(self.phrases.items())],
        }

    @classmethod
    def from_json(cls, content: dict) -> Rules:
        """Reads `as_json`; raises ValueError where this version has other rules, or the parts have other shapes."""
        rules = cls(
            normalise=content["normalise"] == normalising.RULE,
            segment=content["segment"] == segmenting.RULE,
            merges={str(word): str(target) for word, target in content["merges"]},
            phrases={(str(first), str(second)): str(name) for first, second, name in content["phrases"]},
        )
        if rules.as_json() != content:
            raise ValueError("its rules are of another version")
        return rules


def of_title(title: str, rules: Rules) -> list[str]:
    """Finds the words of one title, stop words still in: the reference that `of_titles` is equal to.

    Args:
        title: any text.
        rules: of the vocabulary.

    Returns:
        The words in order, every phrase behind its second word.
    """
    words = title_rule.tokenize(normalising.rewrite(title) if rules.normalise else title)
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
    """Finds the words of many titles, in order; equal to `of_title` on every one.

    Args:
        titles: n texts.
        rules: of the vocabulary.

    Returns:
        polars frame (title uint32, token): the place in `titles`, ascending, and its words in order, phrases last.
    """
    rows = title_rule.tokenize_many(normalising.rewrite_many(titles) if rules.normalise else titles)
    if rules.normalise or rules.segment:
        rows = _split(rows, rules)
    if rules.normalise:
        rows = _joined(rows)
    if rules.merges:
        rows = rows.with_columns(pl.col("token").replace(rules.merges))
    if rules.phrases:
        pairs = adjacent(rows).join(_phrases(rules), on=("first", "second")).select("title", "token")
        rows = pl.concat([rows, pairs]).sort("title", maintain_order=True)
    return rows


def adjacent(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the frame (title, first, second) of words that stand beside each other in a title.

    Args:
        rows: frame (title, token) in the order of the titles.
    """
    pairs = rows.select("title", pl.col("token").alias("first"), pl.col("token").shift(-1).alias("second"),
                        (pl.col("title") == pl.col("title").shift(-1)).alias("same"))
    return pairs.filter(pl.col("same")).drop("same")


def _split(rows: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Applies what concerns one token alone, once per distinct token."""
    distinct = rows["token"].unique().to_list()
    parts = [segmenting.segment(token) if rules.segment else (token,) for token in distinct]
    if rules.normalise:
        parts = [sum((normalising.split_token(part) for part in several), ()) for several in parts]
    changed = [row for row, several in enumerate(parts) if several != (distinct[row],)]
    if not changed:
        return rows
    table = pl.DataFrame({"token": [distinct[row] for row in changed], "parts": [list(parts[row]) for row in changed]},
                         schema={"token": pl.String, "parts": pl.List(pl.String)})
    rows = rows.join(table, on="token", how="left", maintain_order="left")
    whole = pl.when(pl.col("parts").is_null()).then(pl.concat_list("token")).otherwise(pl.col("parts"))
    return rows.select("title", whole.alias("token")).explode("token").drop_nulls()


def _joined(rows: pl.DataFrame) -> pl.DataFrame:
    """Joins numbers with the units behind them, as `normalising.join` does: a unit is no number, so no three chain."""
    distinct = rows["token"].unique()
    short = [normalising.number_of(word) for word in distinct.to_list()]
    numbers = pl.DataFrame({"token": distinct, "number": pl.Series(short, dtype=pl.String)}).drop_nulls()
    following = pl.col("token").shift(-1)
    candidates = rows.select(
        "title", "token", following.alias("unit"), (pl.col("title") == pl.col("title").shift(-1)).alias("same"),
        pl.when(pl.col("title") == pl.col("title").shift(1)).then(pl.col("token").shift(1)).alias("before"))
    units = pl.DataFrame({"unit": list(normalising.UNIT), "name": list(normalising.UNIT.values())})
    candidates = candidates.join(numbers, on="token", how="left", maintain_order="left").join(
        units, on="unit", how="left", maintain_order="left")
    fits = (pl.col("same") & pl.col("number").is_not_null() & pl.col("name").is_not_null()
            & ((pl.col("unit") != "in") | pl.col("token").str.contains("[./]"))
            & ~((pl.col("unit").str.len_chars() == 1)
                & pl.col("before").is_in(sorted(normalising.SIZE_WORDS)).fill_null(False)))
    joined = candidates.select(
        "title", pl.when(fits).then(pl.col("number") + pl.col("name")).otherwise(pl.col("token")).alias("token"),
        fits.fill_null(False).shift(1, fill_value=False).alias("taken"))
    return joined.filter(~pl.col("taken")).drop("taken")


def _phrases(rules: Rules) -> pl.DataFrame:
    pairs = sorted(rules.phrases.items())
    return pl.DataFrame({"first": [first for (first, _), _ in pairs], "second": [second for (_, second), _ in pairs],
                         "token": [name for _, name in pairs]},
                        schema={"first": pl.String, "second": pl.String, "token": pl.String})
