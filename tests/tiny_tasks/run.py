"""Trains the test-only tasks in a process of its own: python run.py <folder> [slow | whole] <task> ...

Each task gets <folder>/<task> as its work directory; prints the steps of each and the number of devices. `whole` also
embeds and searches: pictures for pictures, and for "words" the gallery's titles.
"""

import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import tiny  # noqa: E402
from retrieval_jax import embed, search, tasks, train  # noqa: E402
from retrieval_jax.data import pipeline  # noqa: E402
from retrieval_jax.training import sharding  # noqa: E402

NAMES = ("triplet", "quartet", "words")
tasks.__path__.append(str(HERE))  # a task is a file in the folder of tasks


def make_config(name):
    """Returns a whole config of a test-only task: 12 steps of 16 rows, a checkpoint every 4."""
    config = tiny.tiny_config()
    config.train.task = name
    with config.unlocked():
        config.train.task_kwargs = {}
    config.embed.models = ("trained",)
    config.search.steps = ()
    config.search.k = 5
    if name == "words":
        config.search.gallery_from.predict_fn = "embed_text"  # users' photos have no words
    return config


if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    whole = names[0] == "whole"
    if whole:
        names.pop(0)
    if names[0] == "slow":  # to be killed on the way: time enough between two steps
        names.pop(0)
        real = pipeline.train_batches
        pipeline.train_batches = lambda *args, **kwargs: (time.sleep(0.3) or batch for batch in real(*args, **kwargs))
    for name in names:
        config, workdir = make_config(name), pathlib.Path(folder) / name
        workdir.mkdir(parents=True, exist_ok=True)
        steps = train.run(config, workdir)["steps"]
        if whole:
            embed.run(config, workdir)
            search.run(config, workdir)
        print(name, steps, sharding.make_mesh().size, flush=True)
