"""Finds labels that teach nothing before training: a single class, the same words in every title, no labels at all."""

import logging

import numpy as np

from retrieval_jax.data.examples import Examples, Ragged
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError, short
from retrieval_jax.tasks.parts.options import TITLES

_log = logging.getLogger(__name__)

_SHOWN = 5  # words in a sentence
_SILENT = 0.5  # share of listings without a label that is worth a warning
_KWARGS = "config.train.task_kwargs"


def check(settings, examples: Examples, info: DataInfo) -> None:
    """Checks that the labels of training listings tell some of them from others.

    Args:
      settings: the train block.
      examples: of `listings`: "label_ids" where there are titles, "category" where there are categories.
      info: facts about them.

    Raises:
      InputError: a head of the task would learn nothing, or the task has nothing to compare; the message says what to
        change. Labels that only waste a part of the training are reported as a warning.
    """
    kwargs, task = settings.task_kwargs, settings.task
    titles = task in ("multilabel", "image_title") and kwargs.get("title_weight", TITLES["title_weight"]) > 0
    labels = examples.columns.get("label_ids")
    if (titles or task == "image_title") and labels is not None and len(info.label_names):
        loss = "softmax" if task == "image_title" else kwargs.get("loss", TITLES["loss"])
        _titles(labels, info.label_names, loss)
    if task == "category" or (task in ("multilabel", "image_title") and kwargs.get("category_weight", 0.0) > 0):
        if (categories := examples.columns.get("category")) is not None and info.category_names:
            _categories(categories, info.category_names[-1], task, kwargs)
    if task in ("image_title", "self_supervised"):
        _pairs(settings, len(examples))


def _titles(labels: Ragged, names: list[str], loss: str) -> None:
    lengths = np.diff(labels.indptr)
    labelled = int((lengths > 0).sum())
    if not labelled:
        raise InputError(
            f"none of the {len(lengths):,} training listings has a mined word, so titles teach nothing: lower "
            "config.mine.threshold, or learn categories (config.train.task = 'category')"
        )
    # The softmax compares the words of a title with the others; listings without words do not count.
    compared = lengths[lengths > 0] if loss == "softmax" else lengths
    if len(names) == 1 and loss == "softmax":
        raise InputError(
            f"one word was mined, {names[0]!r}: a softmax over one word is always right and teaches nothing; lower "
            f"config.mine.threshold, or set {_KWARGS}.loss = 'sigmoid'"
        )
    width = int(compared[0])
    if (compared == width).all() and (labels.values.reshape(-1, width) == labels.values[:width]).all():
        listed = ", ".join(names[one] for one in labels.values[: min(_SHOWN, width)])
        raise InputError(
            f"all {len(compared):,} titles with a mined word have the same ones ({short(listed)}), so they tell no "
            "listing from another: lower config.mine.threshold, or learn categories (config.train.task = 'category')"
        )
    counts = np.bincount(labels.values, minlength=len(names))
    everywhere = [names[one] for one in np.flatnonzero(counts == len(lengths))]
    if everywhere:
        _log.warning(
            "%s mined words are in every title and teach nothing: %s; drop them with config.mine.overrules "
            "(docs/mining.md)",
            f"{len(everywhere):,}",
            ", ".join(map(repr, everywhere[:_SHOWN])),
        )
    if labelled < (1 - _SILENT) * len(lengths):
        _log.warning(
            "%s of %s training listings have no mined word, so their titles teach nothing: lower config.mine.threshold",
            f"{len(lengths) - labelled:,}",
            f"{len(lengths):,}",
        )


def _categories(categories: np.ndarray, names: list[str], task: str, kwargs) -> None:
    what, without = "category", f"set {_KWARGS}.category_weight = 0"
    if task == "category":
        without = "learn titles (config.train.task = 'multilabel')"
    remedy = f"name a finer level as the last of config.data.kwargs.columns.categories, or {without}"
    if kwargs.get("category_labels") == "clusters":
        what, remedy = "pseudo-product", f"lower config.mine.clusters.max_difference, or {without}"
    counts = np.bincount(categories[categories >= 0], minlength=len(names))
    present = np.flatnonzero(counts)
    if not len(present):
        raise InputError(f"no training listing has a {what}, so the head of categories learns nothing: {remedy}")
    if len(present) == 1:
        raise InputError(
            f"all {counts.sum():,} training listings with a {what} have the same, {short(names[present[0]])!r}: the "
            f"head of categories would have one class and learn nothing; {remedy}"
        )
    if kwargs.get("category_loss") == "supcon" and counts.max() == 1:
        raise InputError(
            f"no two training listings share a {what}, and {_KWARGS}.category_loss = 'supcon' learns from pairs that "
            f"do: set category_loss = 'softmax', or {without}"
        )
    if counts.sum() < (1 - _SILENT) * len(categories):
        _log.warning(
            "%s of %s training listings have no %s and teach the head of categories nothing",
            f"{len(categories) - counts.sum():,}",
            f"{len(categories):,}",
            what,
        )


def _pairs(settings, num_rows: int) -> None:
    if min(num_rows, settings.batch_size or num_rows) < 2:
        what = "the number of training listings" if num_rows < 2 else "config.train.batch_size"
        raise InputError(
            f"config.train.task = {settings.task!r} compares the pictures of a batch with each other, but {what} "
            "is 1, so there is nothing to compare: give two or more"
        )
