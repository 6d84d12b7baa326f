"""The options of tasks: their defaults and choices."""

from typing import Any

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

# All options of all tasks, as they stand in configs/common.py with a comment each.
OPTIONS = dict(
    loss="sigmoid",
    loss_kwargs={},
    title_weight=1.0,
    category_loss="softmax",
    category_kwargs={},
    category_weight=0.0,
    category_labels="categories",  # read by the loop, which fills batch["category"]
    head="linear",
    head_init_scale=0.1,
    temperature=0.07,
    label_block=0,
    positive_weight_power=0.5,
    positive_weight_limit=100.0,
    class_balanced_beta=0.0,
    poly_epsilon=0.5,
    label_smoothing=0.0,
    distill_share=0.0,
    unlabelled_weight=0.0,
    contrastive_loss="softmax",
    contrastive_weight=1.0,
    hidden_dims=512,
)


def options(config) -> dict[str, Any]:
    """Returns all options: those of `config.task_kwargs`, and the defaults of those it lacks.

    Raises:
      InputError: an unknown option, or a value that is none of an option's choices.
    """
    given = dict(config.task_kwargs)
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise InputError(
            f"config.train.task_kwargs has unknown {', '.join(unknown)}; there are: {', '.join(sorted(OPTIONS))}"
        )
    out = {**OPTIONS, **given}
    for name, choices in (
        ("loss", TITLE_LOSSES),
        ("category_loss", CATEGORY_LOSSES),
        ("head", ("linear", "cosine")),
        ("contrastive_loss", ("softmax", "sigmoid")),
        ("category_labels", ("categories", "clusters")),
    ):
        if out[name] not in choices:
            raise InputError(f"config.train.task_kwargs.{name} is {out[name]!r}; there are: {', '.join(choices)}")
    return out
