"""Weak supervision: heads for titles and categories on the shared embedding, with a choice of losses.

The moving average of the network can act as a teacher: it gives `distill_share` of the target on labelled pictures, and
the whole target on `batch["unlabelled_image"]`. Both grow from 0 over the run, because an early teacher knows nothing.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import pairs
from retrieval_jax.errors import InputError
from retrieval_jax.losses import blocked, distillation
from retrieval_jax.losses import multilabel as losses
from retrieval_jax.models import heads
from retrieval_jax.tasks.parts.options import CATEGORY_LOSSES, TITLE_LOSSES

# Arguments of losses that are separate options, or that the task fills in.
_NOT_IN_KWARGS = {"where", "weights", "positive_weights", "epsilon"}


def _loss_kwargs(name, function, kwargs, option, reserved=()):
    """Returns the extra arguments of a loss as a dict; raises InputError, listing the valid ones, for unknown ones."""
    parameters = inspect.signature(function).parameters.values()
    taken = _NOT_IN_KWARGS | set(reserved)
    known = sorted(one.name for one in parameters if one.kind == one.KEYWORD_ONLY and one.name not in taken)
    pairs.check_arguments(name, kwargs, known, f"config.train.task_kwargs.{option}", "loss")
    return dict(kwargs)


@dataclasses.dataclass(frozen=True)
class Supervision:
    """The heads of titles and categories, and what they make the network learn.

    Attributes:
      heads: {"titles", "category": module}, those that are used.
      loss: (network, params, batch, out, *, rng, step, ema, train) -> (loss, {name: scalar}); `out` is the network's
        output for batch["image"].
      probabilities: [B, V] logits of the titles' head -> probabilities.
      couples_rows: the setting that makes a loss compare the rows of a batch with each other, or "".
    """

    heads: dict
    loss: Callable
    probabilities: Callable
    couples_rows: str = ""


def supervision(config, info, chosen: dict[str, Any]) -> Supervision:
    """Builds the heads and their losses.

    Args:
      config: the train block.
      info: `data.info.DataInfo`.
      chosen: of `options`; a weight of 0 leaves a head out.

    Raises:
      InputError: unknown argument of a loss, or a head that the data has no labels for.
    """
    use_titles, use_category = chosen["title_weight"] > 0, chosen["category_weight"] > 0
    if use_titles and not len(info.label_names):
        raise InputError("no labels were mined: lower config.mine.threshold, or set config.train.task = 'category'")
    if use_category and not info.category_names:
        raise InputError("the catalogue has no categories: set config.train.task_kwargs.category_weight = 0")
    module_heads, parts = {}, {}
    if use_titles:
        module_heads["titles"], parts["title"] = _titles(info, chosen)
    if use_category:
        head, parts["category"] = _category(info, chosen)
        if head is not None:
            module_heads["category"] = head
    weights = {"title": chosen["title_weight"], "category": chosen["category_weight"]}
    distills = chosen["distill_share"] > 0 or chosen["unlabelled_weight"] > 0
    if distills and not module_heads:
        raise InputError(
            "config.train.task_kwargs.distill_share and unlabelled_weight need a head that predicts: set "
            "title_weight, or a category_loss other than supcon"
        )
    num_steps = _num_steps(config, info)

    def loss(network, params, batch, out, *, rng, step, ema, train):
        where, total, values = batch["_mask"], 0.0, {}
        progress = distillation.teacher_progress(step, num_steps)
        share = chosen["distill_share"] * progress
        teacher = None
        if chosen["distill_share"] > 0 and train:
            # The teacher sees the same view as the student: Beyer et al., "A good teacher is patient and consistent"
            teacher = network.apply(ema, batch["image"])["logits"]
        for name, part in parts.items():
            value, further = part.labels(params, out, batch, where)
            values |= further
            if teacher is not None and part.teacher is not None:
                taught = part.teacher(out["logits"], teacher, where).sum() / _count(batch, "_mask")
                values[f"{name}_teacher_loss"] = taught
                value = (1.0 - share) * value + share * taught
            total += weights[name] * value
        if chosen["unlabelled_weight"] > 0 and train:
            value = unlabelled(network, params, batch, rng, ema)
            values["unlabelled_loss"] = value
            total += chosen["unlabelled_weight"] * progress * value
        return total, values

    def unlabelled(network, params, batch, rng, ema):
        if "unlabelled_image" not in batch:
            raise InputError(
                "config.train.task_kwargs.unlabelled_weight is set, but batches hold no unlabelled "
                "pictures: set config.train.unlabelled.split and batch_size"
            )
        images = batch["unlabelled_image"]
        where = batch["unlabelled_mask"]
        teacher = network.apply(ema, images)["logits"]
        ours = network.apply(params, images, train=True, rngs={"dropout": jax.random.fold_in(rng, 1)})["logits"]
        return sum(
            weights[name] * part.teacher(ours, teacher, where).sum() / _count(batch, "unlabelled_mask")
            for name, part in parts.items()
            if part.teacher is not None
        )

    chance = jax.nn.softmax if chosen["loss"] == "softmax" else jax.nn.sigmoid
    couples = use_category and chosen["category_loss"] in ("supcon", "proxy_anchor")
    return Supervision(module_heads, loss, chance, f"category_loss={chosen['category_loss']!r}" if couples else "")


def _num_steps(config, info) -> int:
    """Returns about how many steps the run has; mined labels were counted over val too, categories were not."""
    if config.epochs is None or config.batch_size is None:  # a network that only predicts: train knows both
        return 1
    rows = info.category_counts[0].sum() if info.category_names else info.num_listings
    return max(1, round(float(config.epochs * rows / config.batch_size)))


@dataclasses.dataclass(frozen=True)
class _Part:
    """One head's losses: of parameters, outputs and labels; and of a teacher's logits [B] (None: nothing to teach)."""

    labels: Callable
    teacher: Callable | None


def _count(batch, mask: str):
    """Returns how many rows count, in the whole batch where this is a part of one: what a mean over rows divides by."""
    return jnp.maximum(batch.get("_whole", batch)[mask].sum(), 1)


def mixed(loss, batch, *names):
    """Returns the [B] losses of a batch whose pictures may be mixed from two: each picture's labels by their share.

    Args:
      loss: function of the batch's columns `names`, returns [B].
      batch: holds, if mixed, `mix` [B], the share of the own picture, and the partner's labels as "mix_" + name.
      *names: of the columns.
    """
    own = loss(*(batch[name] for name in names))
    if "mix" not in batch:
        return own
    return batch["mix"] * own + (1.0 - batch["mix"]) * loss(*(batch[f"mix_{name}"] for name in names))


def _head(num_labels, bias, chosen):
    bias = tuple(bias.tolist())
    if chosen["head"] == "cosine":
        return heads.Cosine(num_labels, chosen["temperature"], bias)
    return heads.Head(num_labels, chosen["head_init_scale"], bias)


def _titles(info, chosen):
    function = getattr(losses, TITLE_LOSSES[chosen["loss"]])
    kwargs = _loss_kwargs(chosen["loss"], function, chosen["loss_kwargs"], "loss_kwargs")
    counts, is_softmax = info.label_counts, chosen["loss"] == "softmax"
    bias = heads.softmax_prior(counts) if is_softmax else heads.sigmoid_prior(counts, info.num_listings)
    positive_weights = None
    if not is_softmax and chosen["positive_weight_power"] > 0:
        ratio = info.num_listings / np.maximum(counts, 1)
        positive_weights = np.minimum(ratio ** chosen["positive_weight_power"], chosen["positive_weight_limit"]).astype(
            np.float32
        )
    if chosen["class_balanced_beta"] > 0:
        balanced = losses.class_balanced_weights(counts, chosen["class_balanced_beta"])
        positive_weights = balanced if positive_weights is None else positive_weights * balanced
    kwargs["positive_weights"] = positive_weights
    if is_softmax:
        kwargs["epsilon"] = chosen["poly_epsilon"]
    teach = distillation.softmax if is_softmax else distillation.sigmoid
    head, block = _head(len(info.label_names), bias, chosen), chosen["label_block"]
    if block < 0:
        raise InputError(f"config.train.task_kwargs.label_block is {block}: give a number of labels, 0 for all at once")
    if block and (chosen["distill_share"] > 0 or chosen["unlabelled_weight"] > 0):
        raise InputError(
            "config.train.task_kwargs.label_block cuts up the logits that distill_share and "
            "unlabelled_weight compare whole: set it to 0"
        )

    def labels(params, out, batch, where):
        logits = out["logits"]["titles"]
        if block:  # the whole ones are not used then, so XLA leaves them out
            logits = blocked.Logits(
                *head.apply({"params": params["heads_titles"]}, out["pooled"], method="factors"), block
            )
        per_picture = mixed(
            lambda ids, mask: function(logits, ids, mask, where=where, **kwargs), batch, "label_ids", "label_ids_mask"
        )
        value = per_picture.sum() / _count(batch, "_mask")
        return value, {"title_loss": value}

    def teacher(logits, teacher_logits, where):
        return teach(logits["titles"], teacher_logits["titles"], where=where)

    return head, _Part(labels, teacher)


def _category(info, chosen):
    """Returns (head or None, _Part)."""
    name, counts = chosen["category_loss"], info.category_counts[-1]
    function = CATEGORY_LOSSES[name]
    known_kwargs = inspect.signature(function).parameters
    kwargs = _loss_kwargs(name, function, chosen["category_kwargs"], "category_kwargs", ("label_smoothing",))
    if "label_smoothing" in known_kwargs:
        kwargs["label_smoothing"] = chosen["label_smoothing"]
    elif chosen["label_smoothing"]:
        raise InputError(
            f"config.train.task_kwargs.label_smoothing does not apply to category_loss={name!r}: set it to 0"
        )
    if name == "supcon":
        kwargs.setdefault("temperature", chosen["temperature"])
        head = None
    elif name == "softmax":
        head = _head(len(counts), heads.softmax_prior(counts), chosen)
    else:  # these bring their own scale and margin
        head = heads.Cosine(len(counts), temperature=None)
    balanced = None
    if chosen["class_balanced_beta"] > 0:
        balanced = jnp.asarray(losses.class_balanced_weights(counts, chosen["class_balanced_beta"]))
    scale = kwargs.get("scale", known_kwargs["scale"].default) if "scale" in known_kwargs else 1.0

    def labels(params, out, batch, where):
        del params
        scores = out["embedding"] if head is None else out["logits"]["category"]

        def of_category(category):
            weights = None if balanced is None else balanced[category]
            return function(scores, category, where=where, weights=weights, **kwargs)

        per_picture = mixed(of_category, batch, "category")
        whole = batch.get("_whole", batch)
        known = jnp.where(whole["_mask"], mixed(lambda category: category >= 0, whole, "category"), 0)
        known = jnp.maximum(known.sum(), 1)
        values = {"category_loss": per_picture.sum() / known}
        if head is not None:
            best = scores.argmax(-1)
            hits = jnp.where(where, mixed(lambda category: best == category, batch, "category"), 0)
            values["category_accuracy"] = hits.sum() / known
        return values["category_loss"], values

    def teacher(logits, teacher_logits, where):
        return distillation.softmax(scale * logits["category"], scale * teacher_logits["category"], where=where)

    return head, _Part(labels, None if head is None else teacher)
