"""A work directory with a checkpoint of random parameters, of the smallest training."""

import jax

import tiny
from retrieval_jax import tasks, workdir
from retrieval_jax.data import info as info_lib
from retrieval_jax.training import checkpoints


def save(folder, config=None):
    """Writes it into an empty folder and returns the folder; needs the fixture tiny_variant.

    Args:
      folder: where.
      config: its settings; by default those of `tiny`, whose network and labels they must have.
    """
    config = tiny.tiny_config() if config is None else config
    workdir.write_settings(config, folder)
    task = tasks.get("multilabel").make(config.train, tiny.INFO)
    params = jax.jit(task.init)(jax.random.key(0), tiny.tiny_batch())
    raw = jax.tree.map(lambda leaf: leaf + 0.01, params)
    store = checkpoints.Checkpoints(folder / "checkpoints")
    store.save(7, {"params": raw, "ema": params}, {"vocabulary_hash": "abc", "num_steps": 7})
    store.close()
    info_lib.save(folder / "checkpoints" / "data_info.json", tiny.INFO)
    return folder
