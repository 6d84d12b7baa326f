"""A test-only task: a triplet loss over three columns of pictures, with unlabelled pictures beside."""

import jax.numpy as jnp
import linear
import numpy as np

from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Examples, Pictures
from retrieval_jax.tasks import Predict, Task

OPTIONS = {"margin": 0.2}


def examples(config, catalog, workdir):
    del workdir
    split, rng = catalog.split("train"), np.random.default_rng(config.train.seed)
    group = split.categories[:, -1]
    members = [np.flatnonzero(group == one) for one in group]
    others = [np.flatnonzero(group != one) for one in group]
    columns = {
        "photo": Pictures(split.images),
        "clicked": Pictures(split.images, np.array([rng.choice(rows) for rows in members]), image_size=(12, 12)),
        "unclicked": Pictures(
            split.images,
            np.array([rng.choice(rows) for rows in others]),
            transforms=(("resize", {}),),
            image_size=(12, 12),
        ),
    }
    gallery = catalog.split("gallery")
    beside = {"other": Examples({"image": Pictures(gallery.images)}, gallery.ids, batch_size=7)}
    return Examples(columns, split.ids, beside), info_lib.of_split(split)


def make(config, info):
    del info
    margin = {**OPTIONS, **config.task_kwargs}["margin"]

    def init(rng, batch):
        return {
            "photo": linear.init_weights(rng, batch["photo"].shape),
            "shop": linear.init_weights(rng, batch["clicked"].shape),
        }

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del rng, step, ema, constants, train
        photo = linear.embed(params["photo"], batch["photo"])
        near, far = (linear.embed(params["shop"], batch[name]) for name in ("clicked", "unclicked"))
        hinge = jnp.maximum(0.0, margin + (photo * far).sum(-1) - (photo * near).sum(-1))
        others = linear.embed(params["photo"], batch["other_image"])
        spread = others.var(axis=0, where=batch["other_mask"][:, None]).mean()
        where = batch["_mask"] & batch["clicked_mask"] & batch["unclicked_mask"]
        return linear.mean(hinge, where) - 0.01 * spread, {"spread": spread}

    def embed_image(params, batch):
        return {"embedding": linear.embed(params["photo"], batch["image"])}

    return Task(init, loss_fn, {"embed_image": Predict(embed_image)}, "triplet")
