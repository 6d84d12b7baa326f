"""Finds spelling variants of one word (plurals, hyphens, typing errors); merges them only with evidence."""

import re

import numpy as np
import polars as pl

from retrieval_jax.attributes.statistics import Statistics

_ES = re.compile(r"(?:s|x|z|ch|sh|o)es$")
# Words of letters only: with digits it is a size or a model, where one character makes it something else.
_LETTERS = r"^\p{L}+$"


def find(
    statistics: Statistics,
    *,
    least: int = 2,
    most_divergence: float = 0.6,
    least_likeness: float = 0.3,
    typo_length: int = 6,
    typo_ratio: float = 20.0,
) -> pl.DataFrame:
    """Finds words to merge into a more frequent variant.

    Candidates are a plural and its singular, a word with and without a hyphen, and a long word and another that
    differs by one edit (a letter missing, added or changed, or two exchanged; neither the first nor the last letter)
    and is at least `typo_ratio` times as frequent. The evidence is that the rarer word is used like the other:

    - divergence, in nats: KL divergence of the rarer word's category shares from the other's, less its small-sample
      bias: "short" occurs among kurtas, "shorts" does not;
    - likeness, in nats: how much likelier the rarer word's neighbours are beside the other word than beside any word,
      as a geometric mean: "tempered glass", "3d glasses".

    A plural needs a small divergence or, without categories, similar neighbours. A typing error needs every measure
    that is available, and at least one. A hyphen rarely changes the meaning, so only a large divergence rules it out.

    Args:
      statistics: with pairs or by_category or both.
      least: words seen less often are skipped: the threshold drops them anyway, and they have no evidence.
      most_divergence: nats, for plurals; twice as much for typing errors, which are rare, four times for hyphens.
      least_likeness: nats.
      typo_length: letters in the longer of the two words of a typing error, at least.
      typo_ratio: how many times as frequent the right word must be.

    Returns:
      polars frame (token, target, kind, occurrences, target_occurrences, divergence, likeness) sorted by token; kind
      is "plural", "hyphen" or "typing error", and a measure is null if unavailable. No target is itself merged.
    """
    counts = {
        token: number
        for token, number in statistics.tokens.filter(pl.col("occurrences") >= least)
        .select("token", "occurrences")
        .iter_rows()
    }
    candidates: dict[str, tuple[tuple, str, str]] = {}

    def add(one: str, other: str, kind: str) -> None:
        rare, often = sorted((one, other), key=lambda word: (counts[word], -len(word), word))
        better = (counts[often], often)
        if rare not in candidates or better > candidates[rare][0]:
            candidates[rare] = (better, often, kind)

    for token in counts:
        for singular in _singulars(token):
            if singular in counts:
                add(token, singular, "plural")
        parts = token.split("-")
        bare = "".join(parts)
        if len(parts) == 2 and bare in counts and bare.isalpha() and min(map(len, parts)) > 0 and len(bare) >= 5:
            add(token, bare, "hyphen")
    for typo, word in _typing_errors(statistics.tokens, least, typo_length, typo_ratio):
        if typo not in candidates:
            add(typo, word, "typing error")

    pairs = [(rare, often) for rare, (_, often, _) in candidates.items()]
    divergence = _divergences(statistics, pairs)
    likeness = _likenesses(statistics, pairs)
    rows = []
    for rare, (_, often, kind) in candidates.items():
        far, like = divergence.get((rare, often)), likeness.get((rare, often))
        near = far is not None and far <= most_divergence * {"plural": 1, "typing error": 2, "hyphen": 4}[kind]
        alike = like is not None and like >= least_likeness
        fits = {
            "plural": near or (far is None and alike),
            "hyphen": near or far is None,
            "typing error": (near or far is None) and (alike or like is None) and (near or alike),
        }[kind]
        if fits:
            rows.append((rare, often, kind, counts[rare], counts[often], far, like))
    return _followed(rows)


def _followed(rows: list[tuple]) -> pl.DataFrame:
    """Shortens a -> b -> c to a -> c; targets are more frequent, or as frequent and shorter, so there is no cycle."""
    targets = {row[0]: row[1] for row in rows}
    out = []
    for rare, often, *rest in rows:
        while often in targets:
            often = targets[often]
        out.append((rare, often, *rest))
    schema = {
        "token": pl.String,
        "target": pl.String,
        "kind": pl.String,
        "occurrences": pl.Int64,
        "target_occurrences": pl.Int64,
        "divergence": pl.Float64,
        "likeness": pl.Float64,
    }
    return pl.DataFrame(out, schema=schema, orient="row").sort("token")


def _singulars(word: str) -> list[str]:
    """Returns the words whose plural this may be."""
    if (
        len(word) < 4
        or not word.endswith("s")
        or word.endswith(("ss", "us", "is"))
        or not re.fullmatch(r"[^\W\d_]+(?:-[^\W\d_]+)*", word)
    ):
        return []
    found = [word[:-1]]
    if word.endswith("ies") and len(word) > 4:
        found.append(word[:-3] + "y")
    if _ES.search(word):
        found.append(word[:-2])
    return found


def _typing_errors(tokens: pl.DataFrame, least: int, length: int, ratio: float) -> list[tuple[str, str]]:
    """Returns (typo, word) pairs one edit apart, found by deleting one letter from each word.

    Source: Garbe 2012, "1000x faster spelling correction" (SymSpell).
    """
    words = (
        tokens.filter(
            (pl.col("occurrences") >= least)
            & (pl.col("token").str.len_chars() >= length - 1)
            & pl.col("token").str.contains(_LETTERS)
        )
        .select("token", "occurrences")
        .sort("token")
    )
    # Only a word seen at least `ratio * least` times can be the right one.
    right = words.filter(pl.col("occurrences") >= ratio * least)
    if not len(right):
        return []
    sides = []
    for frame in (words, right):
        keys = [(row, key) for row, word in enumerate(frame["token"].to_list()) for key in _without_one(word)]
        sides.append(pl.DataFrame(keys, schema={"row": pl.UInt32, "key": pl.String}, orient="row"))
    both = sides[0].join(sides[1], on="key", suffix="_right").select("row", "row_right").unique()
    found = both.with_columns(
        words["token"].gather(both["row"]).alias("typo"),
        right["token"].gather(both["row_right"]).alias("word"),
        words["occurrences"].gather(both["row"]).alias("rare"),
        right["occurrences"].gather(both["row_right"]).alias("often"),
    )
    found = found.filter((pl.col("typo") != pl.col("word")) & (pl.col("often") >= ratio * pl.col("rare")))
    # The most frequent right word first: the caller keeps the first.
    found = found.sort(["often", "word", "typo"], descending=[True, False, False])
    return [
        pair
        for pair in found.select("typo", "word").iter_rows()
        if min(map(len, pair)) >= length - 1 and max(map(len, pair)) >= length and one_edit(*pair)
    ]


def _without_one(word: str) -> set[str]:
    return {word, *(word[:place] + word[place + 1 :] for place in range(1, len(word) - 1))}


def one_edit(one: str, other: str) -> bool:
    """Returns whether two words with the same first and last letter differ by one letter or one exchange."""
    if one[0] != other[0] or one[-1] != other[-1] or abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    if len(one) == len(other):
        changed = one[start + 1 :] == other[start + 1 :]
        exchanged = one[start : start + 2] == other[start : start + 2][::-1] and one[start + 2 :] == other[start + 2 :]
        return changed or exchanged
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return longer[start + 1 :] == shorter[start:]


def _divergences(statistics: Statistics, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Returns KL(category shares of the rarer word || of the other, smoothed), less its small-sample bias."""
    if statistics.by_category is None or not len(statistics.categories):
        return {}
    known = statistics.categories
    shares = dict(zip(known["category"].to_list(), (known["titles"] / known["titles"].sum()).to_list(), strict=True))
    wanted = sorted({word for pair in pairs for word in pair})
    table = _nested(statistics.by_category.filter(pl.col("token").is_in(wanted)), "token", "category")
    out = {}
    for rare, often in pairs:
        rare_in, often_in = table.get(rare), table.get(often)
        if not rare_in or not often_in:
            continue
        n, m = sum(rare_in.values()), sum(often_in.values())
        value = sum(
            count / n * np.log(count / n / ((often_in.get(category, 0) + 2 * shares[category]) / (m + 2)))
            for category, count in rare_in.items()
        )
        out[rare, often] = float(value - (len(rare_in) - 1) / (2 * n))
    return out


def _likenesses(statistics: Statistics, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Returns the mean of ln(p(neighbour | the other word) / p(neighbour)) over the neighbours of the rarer word."""
    if statistics.pairs is None or not len(statistics.pairs):
        return {}
    wanted = sorted({word for pair in pairs for word in pair})
    sides = [
        statistics.pairs.select(
            pl.col(word).alias("token"), (pl.lit(mark) + pl.col(other)).alias("neighbour"), "titles"
        )
        for word, other, mark in (("first", "second", ">"), ("second", "first", "<"))
    ]
    everything = pl.concat(sides)
    total = int(everything["titles"].sum())
    near = everything.filter(pl.col("token").is_in(wanted))
    base = (
        everything.join(near.select("neighbour").unique(), on="neighbour", how="semi")
        .group_by("neighbour")
        .agg(pl.col("titles").sum())
    )
    background = dict(base.iter_rows())
    table = _nested(near, "token", "neighbour")
    out = {}
    for rare, often in pairs:
        rare_near, often_near = table.get(rare, {}), table.get(often, {})
        ignored = {mark + word for mark in "<>" for word in (rare, often)}
        rare_near = {key: count for key, count in rare_near.items() if key not in ignored}
        n, m = sum(rare_near.values()), sum(often_near.values())
        if n:
            # Smoothed with the shares over all titles, weighted as ten neighbours.
            out[rare, often] = float(
                sum(
                    count
                    * np.log(
                        (often_near.get(key, 0) + 10 * background[key] / total) / (m + 10) / (background[key] / total)
                    )
                    for key, count in rare_near.items()
                )
                / n
            )
    return out


def _nested(frame: pl.DataFrame, outer: str, inner: str) -> dict[str, dict]:
    table: dict[str, dict] = {}
    for key, name, titles in frame.select(outer, inner, "titles").iter_rows():
        table.setdefault(key, {})[name] = titles
    return table
