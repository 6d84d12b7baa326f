"""The smallest training that tests share: config, network, labels and a batch; the helpers of work directories."""

import json

import ml_collections
import numpy as np

from retrieval_jax.data.info import DataInfo
from retrieval_jax.settings import base

TINY = ((1, 1), (8, 12))  # blocks and channels of a ConvNeXt for tests: two stages, for little compilation

INFO = DataInfo(
    ["black", "dress", "red", "shoe", "wool"],
    np.array([50, 40, 30, 20, 1]),
    90,
    (["clothes"], ["dresses", "shoes", "tops"]),
    (np.array([90]), np.array([40, 30, 20])),
    "abc",
)


def tiny_config() -> ml_collections.ConfigDict:
    """Returns a whole config: the smallest catalogue, pictures and network (TINY, in VARIANTS as "tiny test")."""
    config = base.defaults()
    config.data.kwargs = ml_collections.ConfigDict(
        {"seed": 0, "num_train": 60, "num_val": 10, "num_query": 8, "num_gallery": 20, "image_size": 16}
    )
    config.data.image_size = (16, 16)
    config.mine.threshold = 3
    config.search.steps = (("whitening", {}), ("reranking", {}))  # "chosen" would embed several times as many pictures
    config.train.model = ml_collections.ConfigDict(
        {
            "name": "convnext",
            "variant": "tiny test",
            "projection": 0,
            "kwargs": {"patch_size": 2, "layer_scale": 0.1, "drop_path": 0.2, "pool_stages": (0, 1)},
        }
    )
    # Every number that a training step depends on, so that the golden numbers do not follow the defaults.
    config.train.task_kwargs = ml_collections.ConfigDict(
        {
            "loss": "sigmoid",
            "title_weight": 1.0,
            "category_weight": 0.5,
            "positive_weight_power": 0.0,
            "positive_weight_limit": 100.0,
            "poly_epsilon": 0.5,
            "label_smoothing": 0.0,
            "head_init_scale": 0.1,
        }
    )
    config.train.update(
        {
            "learning_rate": 2e-3,
            "final_learning_rate": 1e-6,
            "warmup_epochs": 0.5,
            "weight_decay": 0.05,
            "b2": 0.999,
            "clip_norm": 1.0,
            "ema_decay": 0.99,
            "dtype": "float32",
        }
    )
    config.train.update(
        {
            "batch_size": 16,
            "epochs": 3.2,
            "checkpoint_every_steps": 4,
            "log_every_steps": 1,  # 12 steps
            "eval_every_epochs": 0.0,
        }
    )
    return config


def embedding_config(embed=None, search=None) -> ml_collections.ConfigDict:
    """The config of a run whose catalogue and network tests replace, and that starts with embed.

    Args:
      embed, search: {setting: value} of these blocks that differ; without `search` there is no such block.
    """
    config = {
        "name": "tiny",
        "data": {"source": "synthetic", "kwargs": {}, "image_size": (4, 4), "cache_bytes": 2**20},
        "mine": {},
        "train": {"task": "tiny", "seed": 1, "model": {"kwargs": {}}},
        "embed": {
            "models": ("trained",),
            "predict_fn": "embed_image",
            "batch_size": 8,
            "transforms": (("resize", {}),),
            "dtype": "float32",
            **(embed or {}),
        },
    }
    if search is not None:
        config["search"] = {"k": 5, "steps": (), "index": "exact", "index_kwargs": {}, "members": (), **search}
    return ml_collections.ConfigDict(config)


def tiny_batch(size=8) -> dict:
    """Returns a batch of noise with labels of INFO: some pictures with none, one of unknown category, one padded."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, 16, 16, 3), dtype=np.uint8),
        "row": np.arange(size, dtype=np.int32),
        "label_ids": np.stack([rng.permutation(5)[:3] for _ in range(size)]).astype(np.int32),
        "label_ids_mask": np.arange(3) < rng.integers(0, 4, (size, 1)),
        "category": np.where(np.arange(size) == 2, -1, rng.integers(0, 3, size)).astype(np.int32),
        "_mask": np.arange(size) < size - 1,
    }


def logged(folder) -> list[dict]:
    """Returns the lines of metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("time", "images_per_second", "input_wait_share", "memory_gib")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]
