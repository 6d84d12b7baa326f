"""Decides about words for `mine` when a switch of config.mine is on: counts, measures pictures, applies the rules."""

import functools

import cv2
import numpy as np
import polars as pl
import tqdm

from retrieval_jax.attributes import choosing, kinds, overrules, statistics, telling, words
from retrieval_jax.data.pictures import histogram
from retrieval_jax.errors import InputError

SWITCHES = ("normalise", "segment", *choosing.BLOCKS)
EXAMPLE_TITLES = 200_000  # titles searched for examples of words
THUMBNAIL = (8, 10)  # width, height of the thumbnail that joins the histogram


def switches(mine):
    """Returns the names of the switches of config.mine that are on, overrules, statistics and kinds included."""
    return [
        name
        for name in (*SWITCHES, "kinds", "overrules", "statistics")
        if ((mine.get(name) or {}).get("on") if hasattr(mine.get(name), "get") else mine.get(name))
    ]


def decide(config, train, splits, titles):
    """Counts titles and decides which words become attributes.

    Args:
      config: has the block mine.
      train: the train split; its pictures are measured.
      splits: {name: split} of train and val.
      titles: {name: titles} of the splits that have titles.

    Returns:
      (`choosing.Decisions`, the `Statistics` behind them).

    Raises:
      InputError: an invalid setting, or an overrule that does not match the titles.
    """
    settings = _settings(config["mine"])
    rules = choosing.base_rules(settings)
    person = overrules.load(settings["overrules"], rules.rule) if settings.get("overrules") else overrules.Overrules()
    pairs, by_category = choosing.needs(settings)
    tokenize = functools.partial(words.of_titles, rules=rules)
    if settings.get("statistics"):
        counted = _counted_elsewhere(settings, pairs)
    else:
        categories = [
            splits[name].categories[:, -1].tolist()
            if splits[name].categories is not None and splits[name].categories.shape[1]
            else [-1] * len(titles[name])
            for name in titles
        ]
        counted = statistics.count(
            list(titles.values()), categories=categories if by_category else None, pairs=pairs, tokenize=tokenize
        )
    pictures = None
    if settings["uninformative"]["on"] and settings["uninformative"].get("pictures"):
        merges, _ = choosing.merged_words(counted, settings, person)
        pictures = _pictures(
            train, int(settings["uninformative"]["pictures"]), tokenize, merges, counted, int(settings["threshold"])
        )
    return choosing.decide(counted, settings, person, pictures), counted


def shown(config, decisions, counted, titles):
    """Returns what a reader needs to judge the decisions: an example per word, and the guessed kinds.

    Args:
      config: has the block mine.
      decisions: from `decide`.
      counted: the `Statistics` from `decide`.
      titles: {name: titles}.

    Returns:
      ({word: the first row of train whose title has it}, table of kinds or None if config.mine.kinds is off).
    """
    mine = config["mine"]
    guessed = None
    if mine.get("kinds"):
        guessed = kinds.guess(choosing.merged(counted, decisions.rules.merges), decisions.tokens)
    return _examples(titles["train"], decisions, choosing.base_rules(_settings(mine))), guessed


def _examples(titles, decisions, base):
    """Returns {word: the first row whose title has it}, among the first titles of train."""
    left = set(decisions.table["word"].to_list())
    found = {}
    for start in range(0, min(len(titles), EXAMPLE_TITLES), statistics.CHUNK):
        chunk = [titles[row] for row in range(start, min(len(titles), start + statistics.CHUNK))]
        rows = words.of_titles(chunk, base)  # before merging, so an example of "tshirt" contains "tshirt"
        pairs = words.adjacent(rows.with_columns(pl.col("token").replace(decisions.rules.merges))).select(
            "title", (pl.col("first") + " " + pl.col("second")).alias("token")
        )
        first = (
            pl.concat([rows, pairs])
            .filter(pl.col("token").is_in(sorted(left)))
            .group_by("token")
            .agg(pl.col("title").min())
        )
        found |= {word: start + row for word, row in first.iter_rows()}
        left -= set(found)
    return found


def _counted_elsewhere(settings, pairs):
    """Reads the tables of config.mine.statistics and checks that they cover the switches."""
    folder = settings["statistics"]
    counted = statistics.load(folder, choosing.base_rules(settings).counted_by)
    if pairs and counted.pairs is None:
        raise InputError(
            f"config.mine.statistics: {folder} has no table of pairs, which variants, phrases, kinds and "
            "overrules need; count the titles again with --pairs"
        )
    for name in ("rare", "categories"):
        if settings[name]["on"] and counted.by_category is None:
            raise InputError(
                f"config.mine.statistics: {folder} has no table of categories, which config.mine.{name} "
                "needs; turn it off, or leave config.mine.statistics out"
            )
    return counted


def _pictures(train, number, tokenize, merges, counted, threshold):
    """Measures how well words are predicted from the colours and a thumbnail of up to `number` train listings."""
    rows = np.unique(np.linspace(0, len(train) - 1, min(number, len(train))).astype(int)).tolist()
    vectors = np.empty((len(rows), histogram.DIM + 3 * THUMBNAIL[0] * THUMBNAIL[1]), np.float32)
    for place, row in enumerate(tqdm.tqdm(rows, desc="mine: pictures", unit="picture", mininterval=1)):
        picture = train.images[row]
        small = cv2.resize(picture, THUMBNAIL, interpolation=cv2.INTER_AREA)
        vectors[place] = np.concatenate([histogram.embed(picture[None])[0], small.ravel() / 255.0])
    found = tokenize([train.titles[row] for row in rows]).with_columns(pl.col("token").replace(merges))
    tokens = choosing.merged(counted, merges).tokens
    return telling.of_pictures(vectors, found, tokens.filter(pl.col("occurrences") > threshold)["token"].to_list())


def _settings(mine):
    """Returns config.mine as plain dicts, with absent switches turned off."""
    settings = {name: dict(value) if hasattr(value, "items") else value for name, value in mine.items()}
    for name in choosing.BLOCKS:
        settings[name] = settings.get(name) or {"on": False}
        for key, value in settings[name].items():
            if key != "on" and not (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0):
                raise InputError(f"config.mine.{name}.{key} is {value!r}; give a number, 0 or more")
    return settings
