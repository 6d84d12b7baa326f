"""Learns to recognise a picture in another crop of it among the other pictures of the batch: no titles, no categories.

The keys come from the moving average of the network, as in MoCo v3: a projector on both sides, a predictor on the
learning side alone. Every view but the own meets the teacher's views, batch["image"] and batch["image_view1"]; further
views, such as small crops, only the learning side sees. After training the backbone's embedding is kept.
"""

import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive
from retrieval_jax.models import heads
from retrieval_jax.tasks import Predict, Task, parts

OPTIONS = {"temperature": 0.07, "hidden_dims": 512}
examples = parts.listings

_TEACHERS_VIEWS = ("image", "image_view1")


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block; of `task_kwargs`, temperature (fixed) and hidden_dims (width of projector and predictor)
        apply.
      info: not read: pictures are all it learns from.

    Returns:
      The Task.

    Raises:
      InputError: unknown argument.

    Source: Chen et al., "An Empirical Study of Training Self-Supervised Vision Transformers" (MoCo v3), arXiv
    2104.02057, with layer norms in place of batch norms; small crops: Caron et al. (SwAV), arXiv 2006.09882.
    """
    del info
    options = parts.options(config, OPTIONS)
    dims, temperature = options["hidden_dims"], options["temperature"]
    predictor = heads.Mlp(dims, dims)
    network = parts.network(config, {"projector": heads.Mlp(dims, dims)})

    def init(rng, batch):
        params = network.init(rng, batch)
        key = jax.random.fold_in(rng, 1)
        params["head_predictor"] = predictor.init({"params": key}, jnp.zeros((1, dims)))["params"]
        return params

    def visual(params):
        return {name: value for name, value in params.items() if name != "head_predictor"}

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del step, constants
        views = sorted(name for name in batch if name == "image" or name.startswith("image_view"))
        if "image_view1" not in views:
            raise InputError(
                "batches hold one view of a picture, the task self_supervised needs two: set config.train.views"
            )
        where = batch["_mask"]
        keys = {
            name: jax.lax.stop_gradient(network.apply(visual(ema), batch[name])["logits"]["projector"])
            for name in _TEACHERS_VIEWS
        }
        total, count = 0.0, 0
        for number, name in enumerate(views):
            out = network.apply(
                visual(params), batch[name], train=train, rngs={"dropout": jax.random.fold_in(rng, number)}
            )
            queries = predictor.apply({"params": params["head_predictor"]}, out["logits"]["projector"])
            for other in _TEACHERS_VIEWS:
                if other != name:
                    total += contrastive.softmax(
                        queries, keys[other], scale=1.0 / temperature, symmetric=False, where=where
                    ).sum()
                    count += 1
        loss = total / count / jnp.maximum(where.sum(), 1)
        # 1 where the teacher's embeddings spread over all directions, 0 where they have collapsed into one
        unit = keys["image"] / jnp.maximum(jnp.linalg.norm(keys["image"], axis=-1, keepdims=True), 1e-6)
        spread = jnp.sqrt((unit.var(axis=0, where=where[:, None]) * dims).mean())
        return loss, {"contrastive_loss": loss, "embedding_spread": spread}

    def embed_image(params, batch):
        return network.embed_image(visual(params), batch)

    return Task(
        init,
        loss_fn,
        {"embed_image": Predict(embed_image)},
        network.space,
        warm_start=network.warm_start,
        couples_rows="task='self_supervised'",
    )
