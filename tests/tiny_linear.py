"""A tiny linear task and a catalogue of noise, for tests of what happens around a network."""

import jax
import numpy as np

from retrieval_jax import tasks
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.info import DataInfo
from retrieval_jax.scoring.ranking import Truth

RESIZE = (("resize", {}),)
KW = {"transform": RESIZE, "image_size": (4, 4), "batch_size": 8}
INFO = DataInfo(["black", "dress", "red"], np.array([5, 4, 3]), 9, (["shoes", "tops"],), (np.array([4, 5]),), "abc")


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)


def make_task(config=None, data_info=INFO):
    def embedding(params, batch):
        return {"embedding": batch["image"].reshape(len(batch["image"]), -1) / 255.0 @ params["w"]}

    def attributes(params, batch):
        return {"probabilities": jax.nn.sigmoid(embedding(params, batch)["embedding"][:, : len(data_info.label_names)])}

    def init(rng, batch):
        return {"w": jax.random.normal(rng, (batch["image"][0].size, 6))}

    predict_fns = {"embed_image": tasks.Predict(embedding), "attributes": tasks.Predict(attributes)}
    return tasks.Task(init, None, predict_fns, "tiny")


def make_catalog(num_query=21, num_gallery=60):
    gallery = pictures(num_gallery)
    noise = np.random.default_rng(1).integers(0, 9, (num_query, 4, 4, 3))
    queries = np.clip(gallery[:num_query] + noise, 0, 255).astype(np.uint8)
    splits = {
        name: Split(name, [f"{name}{i}" for i in range(len(images))], None, None, images)
        for name, images in (("query", queries), ("gallery", gallery), ("val", pictures(5, 2)))
    }
    truth = Truth(splits["query"].ids, splits["gallery"].ids, np.arange(num_query + 1), np.arange(num_query))
    return Catalog("tiny", truth=truth, **splits)
