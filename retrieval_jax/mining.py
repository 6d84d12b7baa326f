"""The part of mine that decides about words, where a switch of config.mine is on."""

import functools

import cv2
import numpy as np
import polars as pl
import tqdm

from retrieval_jax.attributes import choosing, overrules, statistics, telling, words
from retrieval_jax.data import histogram
from retrieval_jax.errors import InputError

SWITCHES = ("normalise", "segment", "variants", "phrases", "uninformative", "rare", "categories")
THUMBNAIL = (8, 10)  # width, height of the small picture beside the histogram


def any_on(mine) -> bool:
    """Returns whether a switch of config.mine is on, or overrules, statistics or kinds are asked for."""
    return any(
        (mine.get(name) or {}).get("on") if hasattr(mine.get(name), "get") else mine.get(name)
        for name in (*SWITCHES, "overrules", "statistics", "kinds"))


def decide(config, train, splits, titles):
    """Counts titles and decides which words become attributes.

    Args:
        config: has the block mine.
        train: the train split, whose pictures are looked at.
        splits: {name: split} of train and val.
        titles: {name: titles} of those that have some.

    Returns:
        (`choosing.Decisions`, the `Statistics`, the frame of `telling.of_pictures` or None).

    Raises:
        InputError: a setting that cannot be, or an overrule that does not fit.
    """
    mine = config["mine"]
    settings = {name: dict(value) if hasattr(value, "items") else value for name, value in mine.items()}
    _check(settings)
    person = overrules.load(mine["overrules"]) if mine.get("overrules") else overrules.Overrules()
    pairs, by_category = choosing.needs(settings)
    tokenize = functools.partial(words.of_titles, rules=choosing.base_rules(settings))
    categories = None
    if by_category:
        categories = [splits[name].categories[:, -1].tolist() if splits[name].categories is not None
                      and splits[name].categories.shape[1] else [-1] * len(titles[name]) for name in titles]
    counted = statistics.count(list(titles.values()), categories=categories, pairs=pairs, tokenize=tokenize)
    pictures = None
    number = int((settings.get("uninformative") or {}).get("pictures", 0)) if settings["uninformative"]["on"] else 0
    if number:
        merges, _ = choosing.merged_words(counted, settings, person)
        pictures = _pictures(train, number, tokenize, merges, counted, int(settings["threshold"]))
    return choosing.decide(counted, settings, person, pictures), counted, pictures


def _pictures(train, number, tokenize, merges, counted, threshold):
    """Measures how well words can be told from colours and a thumbnail of up to `number` listings of train."""
    rows = np.unique(np.linspace(0, len(train) - 1, min(number, len(train))).astype(int)).tolist()
    vectors = np.empty((len(rows), histogram.DIM + 3 * THUMBNAIL[0] * THUMBNAIL[1]), np.float32)
    for place, row in enumerate(tqdm.tqdm(rows, desc="mine: pictures", unit="picture", mininterval=1)):
        picture = train.images[row]
        small = cv2.resize(picture, THUMBNAIL, interpolation=cv2.INTER_AREA)
        vectors[place] = np.concatenate([histogram.embed(picture[None])[0], small.ravel() / 255.0])
    found = tokenize([train.titles[row] for row in rows]).with_columns(pl.col("token").replace(merges))
    tokens = choosing.merged(counted, merges).tokens
    return telling.of_pictures(vectors, found, tokens.filter(pl.col("occurrences") > threshold)["token"].to_list())


def _check(settings):
    for name in ("variants", "phrases", "uninformative", "rare", "categories"):
        settings[name] = dict(settings.get(name) or {"on": False})
        for key, value in settings[name].items():
            if key != "on" and not (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0):
                raise InputError(f"config.mine.{name}.{key} is {value!r}; give a number from 0")
