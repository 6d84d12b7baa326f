"""Trains the test-only tasks in a process of its own: python run.py <folder> [slow] <task> ...

Each task gets <folder>/<task> as its work directory; prints the steps of each and the number of devices.
"""

import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import tiny  # noqa: E402
from retrieval_jax import tasks, train  # noqa: E402
from retrieval_jax.data import pipeline  # noqa: E402
from retrieval_jax.training import sharding  # noqa: E402

NAMES = ("triplet", "outfit", "words")
tasks.__path__.append(str(HERE))  # a task is a file in the folder of tasks


def make_config(name):
    """Returns a whole config of a test-only task: 12 steps of 16 rows, a checkpoint every 4."""
    config = tiny.tiny_config()
    config.train.task = name
    with config.unlocked():
        config.train.task_kwargs = {}
    return config


if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    if names[0] == "slow":  # to be killed on the way: time enough between two steps
        names.pop(0)
        real = pipeline.train_batches
        pipeline.train_batches = lambda *args, **kwargs: (time.sleep(0.3) or batch for batch in real(*args, **kwargs))
    for name in names:
        (pathlib.Path(folder) / name).mkdir(parents=True, exist_ok=True)
        steps = train.run(make_config(name), pathlib.Path(folder) / name)["steps"]
        print(name, steps, sharding.make_mesh().size, flush=True)
