"""Learns pseudo-attributes mined from titles, categories, or both, with one head each on a shared embedding.

The heads are the weak supervision; after training only the embedding is kept. `title_weight` and `category_weight`
weigh the two losses; a weight of 0 leaves the head out.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import models
from retrieval_jax.errors import InputError
from retrieval_jax.losses import multilabel as losses
from retrieval_jax.models import embedder, heads
from retrieval_jax.tasks import Task

_DEFAULTS = dict(
    loss="sigmoid",  # or "softmax", the published choice
    title_weight=1.0,
    category_weight=0.0,
    positive_weight_power=0.5,  # present labels weigh (N / n) ** power; 1 is the plain inverse share, 0 no weight
    positive_weight_limit=100.0,
    poly_epsilon=0.5,
    label_smoothing=0.0,  # of the category head
    head_init_scale=0.1,
)


def make(config, data_info) -> Task:
    """Builds the task.

    Args:
      config: the train block: `model` {name, variant, projection, kwargs}, `dtype`, `task_kwargs` (see _DEFAULTS).
      data_info: `data.catalog.DataInfo`.

    Returns:
      The Task.

    Raises:
      InputError: unknown argument or loss, or a head that the data has no labels for.
    """
    given = dict(config.task_kwargs)
    unknown = sorted(set(given) - set(_DEFAULTS))
    if unknown:
        raise InputError(f"config.train.task_kwargs has unknown {', '.join(unknown)}; "
                         f"there are: {', '.join(sorted(_DEFAULTS))}")
    options = {**_DEFAULTS, **given}
    if options["loss"] not in ("sigmoid", "softmax"):
        raise InputError(f"config.train.task_kwargs.loss is {options['loss']!r}; there are: sigmoid, softmax")
    use_titles, use_category = options["title_weight"] > 0, options["category_weight"] > 0
    if not use_titles and not use_category:
        raise InputError("config.train.task_kwargs.title_weight and category_weight are both 0: nothing to learn")
    if use_titles and not len(data_info.label_names):
        raise InputError("no labels were mined: lower config.mine.threshold, or set config.train.task = 'category'")
    if use_category and not data_info.category_names:
        raise InputError("the catalogue has no categories: set config.train.task_kwargs.category_weight = 0")

    module_heads = {}
    positive_weights = None
    if use_titles:
        bias = heads.softmax_prior(data_info.label_counts)
        if options["loss"] == "sigmoid":
            bias = heads.sigmoid_prior(data_info.label_counts, data_info.num_listings)
            if options["positive_weight_power"] > 0:
                ratio = data_info.num_listings / np.maximum(data_info.label_counts, 1)
                weights = np.minimum(ratio ** options["positive_weight_power"], options["positive_weight_limit"])
                positive_weights = weights.astype(np.float32)
        module_heads["titles"] = heads.Head(len(data_info.label_names), options["head_init_scale"],
                                           tuple(bias.tolist()))
    if use_category:
        bias = heads.softmax_prior(data_info.category_counts[-1])
        module_heads["category"] = heads.Head(len(data_info.category_names[-1]), options["head_init_scale"],
                                              tuple(bias.tolist()))

    dtype = jnp.dtype(config.dtype)
    model = config.model
    backbone = _backbone(model.name, variant=model.variant, dtype=dtype, **dict(model.kwargs))
    module = embedder.Embedder(backbone, module_heads, model.projection)

    def init(rng, batch):
        return module.init({"params": rng}, embedder.normalize(batch["image"][:1], dtype))["params"]

    def apply(params, batch, **kwargs):
        return module.apply({"params": params}, embedder.normalize(batch["image"], dtype), **kwargs)

    def loss_fn(params, batch, *, rng, step, ema, train):
        del step, ema
        logits = apply(params, batch, train=train, rngs={"dropout": rng})["logits"]
        where = batch["_mask"]
        count = jnp.maximum(where.sum(), 1)
        total, values = 0.0, {}
        if use_titles:
            targets = logits["titles"], batch["label_ids"], batch["label_mask"]
            if options["loss"] == "sigmoid":
                per_picture = losses.sigmoid_cross_entropy(*targets, positive_weights=positive_weights, where=where)
            else:
                per_picture = losses.softmax_poly1(*targets, epsilon=options["poly_epsilon"], where=where)
            values["title_loss"] = per_picture.sum() / count
            total += options["title_weight"] * values["title_loss"]
        if use_category:
            per_picture = losses.softmax_cross_entropy(
                logits["category"], batch["category"], label_smoothing=options["label_smoothing"], where=where)
            known = jnp.maximum((where & (batch["category"] >= 0)).sum(), 1)
            values["category_loss"] = per_picture.sum() / known
            hits = (logits["category"].argmax(-1) == batch["category"]) & where
            values["category_accuracy"] = hits.sum() / known
            total += options["category_weight"] * values["category_loss"]
        return total, values

    def embed_image(params, batch):
        return {"embedding": apply(params, batch)["embedding"]}

    def attributes(params, batch):
        logits = apply(params, batch)["logits"]["titles"]
        return {"probabilities": jax.nn.sigmoid(logits) if options["loss"] == "sigmoid" else jax.nn.softmax(logits)}

    predict_fns = {"embed_image": embed_image}
    if use_titles:
        predict_fns["attributes"] = attributes
    return Task(init, loss_fn, predict_fns, space=f"{config.task}:{model.name}-{model.variant}")


def _backbone(name: str, **kwargs):
    """Builds a backbone; raises InputError, listing what it takes, for an unknown argument."""
    backbone = models.get(name).Model
    known = {field.name for field in dataclasses.fields(backbone)} - {"parent", "name"}
    unknown = sorted(set(kwargs) - known)
    if unknown:
        raise InputError(f"config.train.model.kwargs has unknown {', '.join(unknown)}; {name} has: "
                         f"{', '.join(sorted(known - {'variant', 'dtype'}))}")
    return backbone(**kwargs)
