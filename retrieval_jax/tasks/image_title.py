"""Learns to bring a picture and its title together in one space, apart from the other titles of the batch.

The title tower reads the mined labels of a title: the mean of learned vectors, then an MLP into the space of the
picture's embedding. The heads of titles and categories may learn beside it (`title_weight`, `category_weight`, 0 leaves
them out), so that the contrast is an addition to the multi-label loss.

With `code_weight`, the signs of a picture's embedding learn the same contrast (straight-through) with a quantisation
loss: they become a binary code of as many bits as the embedding has dimensions (`model.projection`), for the index
"binary" with method="signs".
"""

import functools

import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive, signs
from retrieval_jax.models import heads
from retrieval_jax.tasks import Predict, Task, multilabel, parts

OPTIONS = {
    **multilabel.OPTIONS,
    "contrastive_loss": "softmax",
    "contrastive_weight": 1.0,
    "hidden_dims": 512,
    "code_weight": 0.0,
}
examples = parts.listings

_QUANTISATION = 0.1  # weight of the quantisation loss beside the contrast of the codes
_FIRST_BIAS = -10.0  # of the sigmoid: SigLIP, arXiv 2303.15343, section 3.2


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block; of `task_kwargs`, contrastive_loss ("softmax" or "sigmoid"), contrastive_weight,
        temperature (its first value), hidden_dims and code_weight are this task's own. Embeddings are as wide as the
        backbone, or as `model.projection`.
      info: `data.info.DataInfo`.

    Returns:
      The Task; predict_fns "embed_image" and "embed_title" share a space.

    Raises:
      InputError: unknown argument or loss, or no labels were mined.
    """
    options = parts.options(config, OPTIONS)
    if not len(info.label_names):
        raise InputError(
            "no labels were mined, so titles are empty: lower config.mine.threshold, or set "
            "config.train.task = 'category'"
        )
    supervision = parts.supervision(config, info, options)
    network = parts.network(config, supervision.heads)
    loss = getattr(contrastive, options["contrastive_loss"])

    def tower(dims):
        return heads.TitleTower(len(info.label_names), options["hidden_dims"], dims)

    def init(rng, batch):
        params = network.init(rng, batch)
        dims = jax.eval_shape(network.apply, params, batch["image"][:1])["embedding"].shape[-1]
        labels = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
        params["title_tower"] = tower(dims).init({"params": jax.random.fold_in(rng, 1)}, *labels)["params"]
        params["head_contrast"] = {"log_scale": jnp.log(1.0 / jnp.float32(options["temperature"]))}
        if options["contrastive_loss"] == "sigmoid":
            params["head_contrast"]["bias"] = jnp.float32(_FIRST_BIAS)
        return params

    def visual(params):
        return {name: value for name, value in params.items() if name not in ("title_tower", "head_contrast")}

    def titles(params, label_ids, label_mask):
        tower_params = params["title_tower"]
        dims = tower_params["mlp"]["out"]["bias"].shape[-1]
        return tower(dims).apply({"params": tower_params}, label_ids, label_mask)

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del constants
        out = network.apply(visual(params), batch["image"], train=train, rngs={"dropout": rng})
        total, values = supervision.loss(
            network, visual(params), batch, out, rng=rng, step=step, ema=visual(ema), train=train
        )
        numbers = {"scale": contrastive.learned_scale(params["head_contrast"]["log_scale"])}
        if "bias" in params["head_contrast"]:
            numbers["bias"] = params["head_contrast"]["bias"]

        def of_titles(label_ids, label_mask, vectors=out["embedding"]):
            return loss(
                vectors,
                titles(params, label_ids, label_mask),
                **numbers,
                groups=contrastive.title_groups(label_ids, label_mask),
                where=batch["_mask"] & label_mask.any(axis=-1),
            )

        per_pair = parts.mixed(of_titles, batch, "label_ids", "label_ids_mask")
        has_title = (batch["_mask"] & batch["label_ids_mask"].any(axis=-1)).sum()
        values["contrastive_loss"] = per_pair.sum() / jnp.maximum(has_title, 1)
        values["contrastive_scale"] = numbers["scale"]
        total += options["contrastive_weight"] * values["contrastive_loss"]
        if options["code_weight"]:
            inputs = signs.spread(out["embedding"])
            of_codes = functools.partial(of_titles, vectors=signs.through(inputs))
            values["code_loss"] = parts.mixed(of_codes, batch, "label_ids", "label_ids_mask").sum()
            values["code_loss"] /= jnp.maximum(has_title, 1)
            values["quantisation"] = signs.quantisation(inputs, batch["_mask"]).sum()
            values["quantisation"] /= jnp.maximum(batch["_mask"].sum(), 1)
            total += options["code_weight"] * (values["code_loss"] + _QUANTISATION * values["quantisation"])
        return total, values

    def embed_title(params, batch):
        return {"embedding": titles(params, batch["label_ids"], batch["label_ids_mask"])}

    def of_pictures(predict):
        return Predict(lambda params, batch: predict(visual(params), batch), predict.reads)

    named = {name: of_pictures(one) for name, one in multilabel.predict_fns(network, supervision).items()}
    return Task(
        init,
        loss_fn,
        {**named, "embed_title": Predict(embed_title, ("label_ids",))},
        network.space,
        warm_start=network.warm_start,
        couples_rows="task='image_title'",
        mixes=True,
    )
