"""A test-only task: token ids beside a picture, both in one space."""

import jax
import jax.numpy as jnp
import linear

from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.losses import contrastive
from retrieval_jax.tasks import Predict, Task

OPTIONS = {}
TOKENS = 64


def tokens(split):
    """Returns the token ids of a split's titles: words hashed by their letters."""
    return Ragged.of([sum(map(ord, word)) % TOKENS for word in title.split()] for title in split.titles)


def columns(config, split, workdir):
    """Returns {name: function that makes the column}, for predict functions."""
    del config, workdir
    return {"image": lambda: Pictures(split.images), "tokens": lambda: tokens(split)}


def examples(config, catalog, workdir):
    del config, workdir
    split = catalog.split("train")
    return Examples({"image": Pictures(split.images), "tokens": tokens(split)}, split.ids), info_lib.of_split(split)


def make(config, info):
    del config, info

    def init(rng, batch):
        words_rng, image_rng = jax.random.split(rng)
        assert batch["tokens"].shape == batch["tokens_mask"].shape
        return {
            "w": linear.init_weights(image_rng, batch["image"].shape),
            "words": jax.random.normal(words_rng, (TOKENS, linear.DIM)),
        }

    def text(params, batch):
        vectors = jnp.where(batch["tokens_mask"][..., None], params["words"][batch["tokens"]], 0.0).sum(1)
        return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del rng, step, ema, constants, train
        where = batch["_mask"]
        pictures = linear.embed(params["w"], batch["image"])
        # Goes round the devices: two gathers at a time can starve each other on a CPU with more devices than cores.
        loss = contrastive.softmax(text(params, batch), pictures, scale=5.0, symmetric=False, where=where)
        return linear.mean(loss, where), {}

    def embed_image(params, batch):
        return {"embedding": linear.embed(params["w"], batch["image"])}

    def embed_text(params, batch):
        return {"embedding": text(params, batch)}

    return Task(
        init,
        loss_fn,
        {"embed_image": Predict(embed_image), "embed_text": Predict(embed_text, ("tokens",))},
        "words",
        couples_rows="task='words'",
    )
