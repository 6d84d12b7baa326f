"""Learns pseudo-attributes mined from titles, categories, or both, with one head each on a shared embedding.

The heads are the weak supervision; after training only the embedding is kept. `title_weight` and `category_weight`
weigh the two losses; a weight of 0 leaves the head out. `distill_share` and `unlabelled_weight` let the moving average
of the network teach it (see `tasks.parts`).
"""

from retrieval_jax.errors import InputError
from retrieval_jax.tasks import Task, parts


def make(config, data_info) -> Task:
    """Builds the task.

    Args:
      config: the train block: `model`, `dtype`, `epochs`, `batch_size`, `task_kwargs` (see configs/common.py).
      data_info: `data.info.DataInfo`.

    Returns:
      The Task.

    Raises:
      InputError: unknown argument or loss, or a head that the data has no labels for.
    """
    options = parts.options(config)
    if options["title_weight"] <= 0 and options["category_weight"] <= 0:
        raise InputError("config.train.task_kwargs.title_weight and category_weight are both 0: nothing to learn")
    supervision = parts.supervision(config, data_info, options)
    network = parts.network(config, supervision.heads)

    def loss_fn(params, batch, *, rng, step, ema, train):
        out = network.apply(params, batch["image"], train=train, rngs={"dropout": rng})
        return supervision.loss(network, params, batch, out, rng=rng, step=step, ema=ema, train=train)

    return Task(
        network.init,
        loss_fn,
        predict_fns(network, supervision),
        network.space,
        network.warm_start,
        supervision.compares,
    )


def predict_fns(network: parts.Network, supervision: parts.Supervision) -> dict:
    """Returns "embed_image" and, with a head of titles, "attributes"."""

    def attributes(params, batch):
        logits = network.apply(params, batch["image"])["logits"]["titles"]
        return {"probabilities": supervision.probabilities(logits)}

    named = {"embed_image": network.embed_image}
    return {**named, "attributes": attributes} if "titles" in supervision.heads else named
