"""Learns pseudo-attributes mined from titles, categories, or both, with one head each on a shared embedding.

The heads are the weak supervision; after training only the embedding is kept. `title_weight` and `category_weight`
weigh the two losses; a weight of 0 leaves the head out. With `distill_share` and `unlabelled_weight` the moving average
of the network is its teacher (see `tasks.parts.supervision`).
"""

from retrieval_jax.errors import InputError
from retrieval_jax.tasks import Predict, Task, parts

OPTIONS = {**parts.TITLES, **parts.CATEGORY, **parts.HEADS, "category_weight": 0.0}
examples = parts.listings


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block: `model`, `dtype`, `epochs`, `batch_size`, `task_kwargs` (retrieval_jax.settings.tasks).
      info: `data.info.DataInfo`.

    Returns:
      The Task, with the predict functions of `predict_fns`.

    Raises:
      InputError: unknown option or loss, or a head that the data has no labels for.
    """
    return supervised(config, info, parts.options(config, OPTIONS))


def supervised(config, info, options) -> Task:
    """Builds the task for given options, a weight per head among them; for tasks that are a case of this one."""
    if options["title_weight"] <= 0 and options["category_weight"] <= 0:
        raise InputError("config.train.task_kwargs.title_weight and category_weight are both 0: nothing to learn")
    supervision = parts.supervision(config, info, options)
    network = parts.network(config, supervision.heads)

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del constants
        out = network.apply(params, batch["image"], train=train, rngs={"dropout": rng})
        return supervision.loss(network, params, batch, out, rng=rng, step=step, ema=ema, train=train)

    return Task(
        network.init,
        loss_fn,
        predict_fns(network, supervision),
        network.space,
        warm_start=network.warm_start,
        couples_rows=supervision.couples_rows,
        mixes=True,
    )


def predict_fns(network: parts.Network, supervision: parts.Supervision) -> dict[str, Predict]:
    """Returns "embed_image", and for the heads there are "attributes" (titles) and "category" (its logits)."""

    def attributes(params, batch):
        logits = network.apply(params, batch["image"])["logits"]["titles"]
        return {"probabilities": supervision.probabilities(logits)}

    def category(params, batch):
        return {"logits": network.apply(params, batch["image"])["logits"]["category"]}

    heads = {"titles": ("attributes", Predict(attributes)), "category": ("category", Predict(category))}
    return {"embed_image": Predict(network.embed_image), **dict(heads[name] for name in supervision.heads)}
