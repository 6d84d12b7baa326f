"""Options that several tasks share: their defaults and choices."""

from collections.abc import Iterable, Mapping
from typing import Any

from retrieval_jax import pairs
from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive, margins
from retrieval_jax.losses import multilabel as losses

TITLE_LOSSES = {
    "sigmoid": "sigmoid_cross_entropy",
    "focal": "sigmoid_focal",
    "asymmetric": "asymmetric",
    "softmax": "softmax_poly1",
}
CATEGORY_LOSSES = {
    "softmax": losses.softmax_cross_entropy,
    "cosface": margins.cosface,
    "arcface": margins.arcface,
    "proxy_nca": margins.proxy_nca,
    "proxy_anchor": margins.proxy_anchor,
    "supcon": contrastive.supcon,
}
_CHOICES = {
    "loss": TITLE_LOSSES,
    "category_loss": CATEGORY_LOSSES,
    "head": ("linear", "cosine"),
    "contrastive_loss": ("softmax", "sigmoid"),
    "category_labels": ("categories", "clusters"),
}

# Options come in blocks; a task joins those it reads to its OPTIONS. retrieval_jax.settings.tasks explains each option.
HEADS = {
    "head": "linear",
    "head_init_scale": 0.1,
    "temperature": 0.07,
    "class_balanced_beta": 0.0,
    "distill_share": 0.0,
    "unlabelled_weight": 0.0,
}
TITLES = {
    "loss": "sigmoid",
    "loss_kwargs": {},
    "title_weight": 1.0,
    "label_block": 0,
    "positive_weight_power": 0.5,
    "positive_weight_limit": 100.0,
    "poly_epsilon": 0.5,
}
CATEGORY = {
    "category_loss": "softmax",
    "category_kwargs": {},
    "category_labels": "categories",
    "label_smoothing": 0.0,
}


def options(config, known: Mapping[str, Any], choices: Mapping[str, Iterable[str]] | None = None) -> dict[str, Any]:
    """Returns all options of a task: those of `config.task_kwargs`, and the defaults of those it lacks.

    Args:
      config: the train block.
      known: the task's OPTIONS.
      choices: {option: what it may be}, where it is not what other tasks' option of that name may be.

    Raises:
      InputError: an unknown option, or a value that is not among an option's choices.
    """
    given, where = dict(config.task_kwargs), "config.train.task_kwargs"
    pairs.check_arguments(config.task, given, known, where, "task")
    out = {**known, **given}
    for name, allowed in {**_CHOICES, **(choices or {})}.items():
        if name in out and out[name] not in allowed:
            raise InputError(f"{where}.{name}: there is no {out[name]!r}{pairs.near(out[name], allowed)}")
    return out
