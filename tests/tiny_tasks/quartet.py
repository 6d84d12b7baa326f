"""A test-only task: sets of four pictures, some missing, that have to fit a frozen network's view of the set."""

import jax
import jax.numpy as jnp
import linear
import numpy as np

from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Examples, Pictures
from retrieval_jax.tasks import Predict, Task

OPTIONS = {}


def examples(config, catalog, workdir):
    del workdir
    split, rng = catalog.split("train"), np.random.default_rng(config.train.seed)
    rows = rng.integers(0, len(split), (len(split), 4))
    rows[:, 1:][rng.random((len(split), 3)) < 0.4] = -1
    return Examples({"items": Pictures(split.images, rows)}, split.ids), info_lib.of_split(split)


def make(config, info):
    del config, info
    large = {"w": np.random.default_rng(0).normal(size=(16 * 16 * 3, linear.DIM)).astype(np.float32)}

    def init(rng, batch):
        return {"w": linear.init_weights(rng, batch["items"].shape)}

    def of_set(weights, batch):
        shown = batch["items_mask"][..., None]
        vectors = jnp.where(shown, linear.embed(weights, batch["items"]), 0.0)
        return vectors.sum(1) / jnp.maximum(shown.sum(1), 1)

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del step, ema
        wanted = of_set(constants["w"], batch)
        noise = 0.1 * jax.random.normal(rng, wanted.shape) if train else 0.0
        loss = linear.mean(jnp.square(of_set(params["w"], batch) + noise - wanted).sum(-1), batch["_mask"])
        return loss, {"missing": (~batch["items_mask"]).sum().astype(jnp.float32)}

    def embed_image(params, batch):
        return {"embedding": linear.embed(params["w"], batch["image"])}

    return Task(init, loss_fn, {"embed_image": Predict(embed_image)}, "quartet", constants=large)
