"""From counts to decisions: which words become attributes, which are merged, which are uninformative, and why.

`decide` is a pure function of summable tables, so the vocabulary does not depend on where titles were counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import polars as pl

from retrieval_jax import brief
from retrieval_jax.attributes import kinds, phrases, segmenting, telling, variants
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.attributes.overrules import Overrules
from retrieval_jax.attributes.statistics import Statistics
from retrieval_jax.attributes.words import Rules
from retrieval_jax.errors import InputError

NO_OVERRULES = Overrules()
BLOCKS = ("variants", "phrases", "uninformative", "rare", "categories")  # blocks of config.mine, each with an "on"
TABLE = {
    "word": pl.String,
    "decision": pl.String,
    "rule": pl.String,
    "target": pl.String,
    "why": pl.String,
    "occurrences": pl.Int64,
    "titles": pl.Int64,
}


@dataclasses.dataclass(frozen=True)
class Decisions:
    """The decisions of mining.

    Attributes:
      tokens: the attributes, sorted by code point.
      rules: how words of titles become attributes.
      table: frame (word, decision, rule, target, why, occurrences, titles), one row per merge, per phrase and per word
        that is kept or seen more than `threshold` times; decision is "kept", "dropped" or "merged", and rule is the
        switch that decided ("threshold" for the plain rule, "overrules" for the user's file).
      rarer: number of words below the threshold that have no row in the table.
    """

    tokens: list[str]
    rules: Rules
    table: pl.DataFrame
    rarer: int

    __repr__ = brief.line


def needs(settings: Mapping[str, Any]) -> tuple[bool, bool]:
    """Returns whether the settings need the table of pairs, and whether they need the tables of categories."""
    on = {name for name in BLOCKS if _on(settings, name)}
    return (
        bool(on & {"variants", "phrases"} or settings.get("kinds") or settings.get("overrules")),
        bool(on & {"variants", "uninformative", "rare", "categories"}),
    )


def base_rules(settings: Mapping[str, Any]) -> Rules:
    """Returns the rules that need no counts: those titles are counted by."""
    return Rules(
        rule=settings.get("rule", title_rule.DEFAULT),
        normalise=bool(settings.get("normalise")),
        segment=bool(settings.get("segment")),
    )


def merged_words(statistics: Statistics, settings: Mapping[str, Any], overrules: Overrules) -> tuple[dict, dict]:
    """Decides which words are merged into another.

    Args:
      statistics: counts of titles after `base_rules`.
      settings: the block config.mine.
      overrules: the user's decisions.

    Returns:
      ({word: target}, {word: (rule, why)}); chains of merges are already followed.
    """
    merges, why = {}, {}
    if _on(settings, "variants"):
        for word, target, kind, n, m, far, like in variants.find(statistics, **_numbers(settings, "variants")).rows():
            measured = [
                f"category divergence {far:.2f} nats" if far is not None else "",
                f"neighbours {like:+.2f} nats" if like is not None else "",
            ]
            merges[word] = target
            why[word] = (
                "variants",
                f"{kind} of {target}; seen {n:,} and {m:,} times; "
                + (", ".join(filter(None, measured)) or "spelling alone"),
            )
    stays = overrules.keep | overrules.split | overrules.drop
    for word, target in overrules.merge.items():
        merges[word] = target
        why[word] = ("overrules", overrules.rows[word])
    merges = {word: target for word, target in merges.items() if word in overrules.merge or word not in stays}
    # A target in the user's file stays unless the file merges it too, so a -> b of the file beats b -> a of the rule.
    for word in set(overrules.merge.values()) - set(overrules.merge):
        merges.pop(word, None)
    final = {}
    for word, target in merges.items():
        seen = {word}
        while target in merges and target not in seen:
            seen.add(target)
            target = merges[target]
        if target != word:
            final[word] = target
    return final, {word: why[word] for word in final}


def decide(
    statistics: Statistics,
    settings: Mapping[str, Any],
    overrules: Overrules = NO_OVERRULES,
    pictures: pl.DataFrame | None = None,
) -> Decisions:
    """Decides which words and phrases become attributes.

    Args:
      statistics: counts of titles after `base_rules`, with the tables that `needs` asks for.
      settings: the block config.mine.
      overrules: the user's decisions.
      pictures: frame of `telling.of_pictures` for words after merging, or None.

    Returns:
      The `Decisions`.

    Raises:
      InputError: an overrule names a word that no title contains, or a phrase by words that are merged away.
    """
    _check(overrules, statistics)
    threshold = int(settings["threshold"])
    base = base_rules(settings)
    merges, why_merged = merged_words(statistics, settings, overrules)
    plain_merges = {word: target for word, target in merges.items() if " " not in word}
    for name in sorted(word for word in {*overrules.keep, *overrules.drop, *overrules.split, *merges} if " " in word):
        merged_name = " ".join(plain_merges.get(word, word) for word in name.split(" "))
        if merged_name != name:
            raise InputError(
                f"{overrules.rows[name]}: {name!r} becomes {merged_name!r} when its words are merged; write "
                "that instead, or split the word"
            )
    counted = merged(statistics, plain_merges, segmenting.LEFT_OUT if base.segment else frozenset())
    # Most of millions of words are rarer than any rule keeps; those are only counted.
    least = threshold
    if _on(settings, "rare"):
        least = min(least, _numbers(settings, "rare").get("share", 0.4) * threshold)
    if _on(settings, "categories"):
        least = min(least, _numbers(settings, "categories").get("least_titles", 3) - 1)
    named = sorted(overrules.keep | overrules.drop)
    looked_at = counted.tokens.filter((pl.col("occurrences") > least) | pl.col("token").is_in(named))
    words = {row[0]: row[1:] for row in looked_at.rows()}

    names, phrase_why, inside = {}, {}, {}
    if _on(settings, "phrases"):
        found = phrases.find(counted, threshold=threshold, **_numbers(settings, "phrases"))
        for first, second, titles, score, *_ in found.rows():
            name = f"{first} {second}"
            if name in overrules.split | overrules.drop:
                continue
            names[first, second] = merges.get(name, name)
            phrase_why[name] = (titles, f"together in {titles:,} titles, association {score:.2f} of 1")
        inside = phrases.only_inside(
            found.filter(~(pl.col("first") + " " + pl.col("second")).is_in(sorted(overrules.split | overrules.drop)))
        )
    for name in sorted({word for word in overrules.keep | set(merges) if " " in word} - set(phrase_why)):
        pair = tuple(name.split(" "))
        titles = counted.pairs.filter((pl.col("first") == pair[0]) & (pl.col("second") == pair[1]))["titles"].sum()
        if not titles:
            raise InputError(
                f"{overrules.rows[name]}: no title contains {name!r} (both words, adjacent); correct or remove the line"
            )
        names[pair] = merges.get(name, name)
        phrase_why[name] = (titles, f"{overrules.rows[name]}; together in {titles:,} titles")

    category = {row[0]: row[1:] for row in telling.of_categories(counted, looked_at["token"]).rows()}
    seen_in_pictures = {row[0]: row[1:] for row in pictures.rows()} if pictures is not None else {}
    rows, kept = [], set()
    # A phrase of two uninformative words is uninformative as well: "free shipping".
    for pair in sorted(names):
        name = " ".join(pair)
        why = [
            _says_nothing(word, words.get(word, (0, 0))[1], settings, category.get(word), seen_in_pictures.get(word), 0)
            for word in pair
        ]
        if all(why) and name not in overrules.keep and name not in merges:
            titles, _ = phrase_why.pop(name)
            rows.append((name, "dropped", "uninformative", None, f"both words: {'; '.join(why)}", titles, titles))
            del names[pair]
            inside = {word: phrase for word, phrase in inside.items() if phrase != name}

    in_phrases: dict[str, int] = {}
    for pair in names:
        for word in pair:
            in_phrases[word] = in_phrases.get(word, 0) + phrase_why.get(" ".join(pair), (0, ""))[0]

    for word, (occurrences, titles) in words.items():
        decision, rule, why = _keep(word, occurrences, threshold, settings, category.get(word))
        if decision == "kept" and word in inside and word not in merges.values():
            decision, rule, why = "dropped", "phrases", f"hardly ever outside the phrase {inside[word]}"
        elif decision == "kept" and (
            nothing := _says_nothing(
                word, titles, settings, category.get(word), seen_in_pictures.get(word), in_phrases.get(word, 0)
            )
        ):
            decision, rule, why = "dropped", "uninformative", nothing
        if word in overrules.keep or word in overrules.drop:
            decision, rule, why = "kept" if word in overrules.keep else "dropped", "overrules", overrules.rows[word]
        if decision == "kept":
            kept.add(word)
        if decision == "kept" or occurrences > threshold:
            rows.append((word, decision, rule, None, why, occurrences, titles))
    for name, (titles, why) in phrase_why.items():
        target = merges.get(name)
        rule = "overrules" if target or name in overrules.keep else "phrases"
        rows.append((name, "merged" if target else "kept", rule, target, why, titles, titles))
        if not target:
            kept.add(name)
    shown = {row[0] for row in rows}  # words merged into a dropped one get a row too, or nothing would list them
    before = {row[0]: row[1:] for row in statistics.tokens.rows()}
    for word, target in plain_merges.items():
        if target in shown:
            rule, why = why_merged[word]
            rows.append((word, "merged", rule, target, why, *before.get(word, (0, 0))))
    plain_merges = {word: target for word, target in plain_merges.items() if target in kept or _part(target, names)}
    names = {pair: name for pair, name in names.items() if name in kept}
    rules = dataclasses.replace(base, merges=plain_merges, phrases=names)
    table = pl.DataFrame(rows, schema=TABLE, orient="row").sort("word", "decision")
    return Decisions(
        sorted(kept),
        rules,
        table,
        len(counted.tokens) - table.filter(~pl.col("word").str.contains(" ") & (pl.col("decision") != "merged")).height,
    )


def merged(statistics: Statistics, merges: dict[str, str], left_out: frozenset[str] = frozenset()) -> Statistics:
    """Counts merged words as their targets, in every table.

    Args:
      statistics: counts of the words.
      merges: {word: target}.
      left_out: words to leave out, such as stop words of other languages.

    Returns:
      The `Statistics`. A title with both a word and its target counts twice in the column "titles"; this is rare.
    """
    if not merges and not left_out:
        return statistics
    out = sorted(left_out)

    def mapped(table: pl.DataFrame | None, columns: tuple[str, ...]) -> pl.DataFrame | None:
        if table is None:
            return None
        table = table.filter(~pl.any_horizontal(pl.col(column).is_in(out) for column in columns))
        table = table.with_columns(pl.col(column).replace(merges) for column in columns)
        keys = [name for name in table.columns if name not in ("occurrences", "titles")]
        return table.group_by(keys).agg(pl.exclude(keys).sum()).sort(keys).select(table.columns)

    return dataclasses.replace(
        statistics,
        tokens=mapped(statistics.tokens, ("token",)),
        pairs=mapped(statistics.pairs, ("first", "second")),
        by_category=mapped(statistics.by_category, ("token",)),
    )


def _keep(word: str, occurrences: int, threshold: int, settings: Mapping, category: tuple | None) -> tuple:
    """Applies the thresholds; returns (decision, rule, why)."""
    if occurrences > threshold:
        return "kept", "threshold", f"seen {occurrences:,} times"
    if category is not None:
        _, _, in_category, share, p = category
        rare, inside = _numbers(settings, "rare"), _numbers(settings, "categories")
        if _on(settings, "rare") and occurrences > rare.get("share", 0.4) * threshold and p <= rare.get("most_p", 1e-4):
            return "kept", "rare", f"seen {occurrences:,} times, {in_category:,} of them in one category (p {p:.0e})"
        if (
            _on(settings, "categories")
            and in_category >= inside.get("least_titles", 3)
            and share >= inside.get("least_share", 0.05)
        ):
            return "kept", "categories", f"in {share:.0%} of the titles of one category ({in_category:,})"
    return "dropped", "threshold", f"seen {occurrences:,} times"


def _says_nothing(
    word: str, titles: int, settings: Mapping, category: tuple | None, picture: tuple | None, in_phrases: int
) -> str:
    """Returns why a word says nothing about a listing's picture, or "" if it may be informative."""
    if not _on(settings, "uninformative"):
        return ""
    numbers = _numbers(settings, "uninformative")
    most_auc, most_information = numbers.get("most_auc", 0.6), numbers.get("most_information", 0.5)
    information, _, _, _, p = category if category is not None else (None,) * 5
    _, auc, low, high = picture if picture is not None else (None,) * 4
    spread = "" if information is None else f", {information:.2f} of the categories' entropy"
    if in_phrases > titles / 2 or (information is not None and information > most_information):
        return ""
    if word in telling.JARGON and (low is None or low < most_auc):
        return f"a word of sellers and shippers{spread}" + (f", picture AUC {auc:.2f}" if auc is not None else "")
    if auc is not None:
        return f"not seen in pictures: AUC {auc:.2f} [{low:.2f}, {high:.2f}]{spread}" if high <= most_auc else ""
    if information is not None and picture is None and not numbers.get("pictures") and titles >= 30:
        return f"spread over the categories as everything is{spread}" if p > 0.05 and word not in kinds.SEEN else ""
    return ""


def _part(word: str, names: dict[tuple[str, str], str]) -> bool:
    return any(word in pair for pair in names)


def _check(overrules: Overrules, statistics: Statistics) -> None:
    """Raises InputError for an overrule about a word that no title contains."""
    known = set(statistics.tokens["token"].to_list())
    words = overrules.keep | overrules.drop | overrules.split | set(overrules.merge) | set(overrules.merge.values())
    rows = {**{target: overrules.rows[word] for word, target in overrules.merge.items()}, **overrules.rows}
    for word in sorted(words):
        if not all(part in known for part in word.split(" ")) or word.count(" ") > 1:
            raise InputError(
                f"{rows[word]}: no title contains {word!r} (write words as attributes/mined.html shows them, "
                "a phrase as two words); correct or remove the line"
            )
    for word in sorted({target for target in overrules.merge.values() if " " in target}):
        raise InputError(f"{rows[word]}: {word!r} is a phrase, but words can only be merged into words; give one word")


def _on(settings: Mapping[str, Any], name: str) -> bool:
    return bool((settings.get(name) or {}).get("on"))


def _numbers(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in dict(settings.get(name) or {}).items() if key != "on"}
