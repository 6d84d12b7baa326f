"""Times the loop of train.py against its bare jitted step: the cost of data, logging and progress.

    python benchmarks/loop_overhead.py [--rounds=3] [--steps=60] [--batch-size=128] [--size=64] [--variant=atto]

A round trains a ConvNeXt on the embedded catalogue through `train.run`, then calls the same compiled step as many times
on the loop's last batch and state, on the same cores. Both are timed from the end of the warm-up to the end of the last
step. Rows of the table: pictures only fetched ("loop"), with augmentation on the host, with augmentation on the device
(which the bare step includes too), and with a checkpoint every 20 steps. On a CPU the host's work competes with the
step for the same cores; with an accelerator it does not.

Prints a Markdown table: milliseconds per step, and the loop's overhead over the bare step, median and range.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax  # noqa: E402

from retrieval_jax import mine, train  # noqa: E402
from retrieval_jax.settings import quickstart  # noqa: E402
from retrieval_jax.settings.arguments import parse  # noqa: E402

WARM_UP = 12  # the first log, after ten steps, also compiles
AUGMENTATION = (("random_resized_crop", {"scale": (0.6, 1.0)}), ("flip", {}), ("color_jitter", {"brightness": 0.2}))
ROWS = {
    "loop": {},
    "augmentation on the host": {"transforms": AUGMENTATION},
    "augmentation on the device": {"batch_transforms": AUGMENTATION},
    "checkpoint every 20 steps": {"checkpoint_every_steps": 20},
}


class Watched:
    """Wraps the update step: records when warm-up and last step end, and keeps the last batch and state."""

    def __init__(self, update, steps):
        self.update, self.steps, self.count, self.times = update, steps, 0, []

    def __call__(self, state, batch, constants):
        self.batch = batch
        self.state, values = self.update(state, batch, constants)
        self.count += 1
        if self.count in (WARM_UP, self.steps):
            jax.block_until_ready(self.state)
            self.times.append(time.perf_counter())
        return self.state, values

    def lower(self, *args):
        self.lowered = self.update.lower(*args)
        return self

    def compile(self):  # this one stays as it is: the loop traces it once more, to count its FLOPs
        self.compiled = Watched(self.lowered.compile(), self.steps)
        return self.compiled

    def __getattr__(self, name):
        return getattr(self.__dict__["update"], name)


def make_config(arguments, settings):
    """Returns the config of a run with the requested number of steps."""
    config = quickstart.experiment("loop_overhead", parse(""))
    config.data.kwargs.update(
        {
            "num_train": 2 * arguments.batch_size,
            "num_val": 8,
            "num_query": 8,
            "num_gallery": 8,
            "image_size": arguments.size,
        }
    )
    config.data.image_size = (arguments.size, arguments.size)
    config.mine.threshold = 3
    config.train.model.variant = arguments.variant
    config.train.update(
        {
            "batch_size": arguments.batch_size,
            "epochs": arguments.steps / 2,
            "eval_every_epochs": 0.0,
            "checkpoint_every_steps": 10**6,
            "transforms": (("resize", {}),),
        }
    )
    config.train.update(settings)
    return config


def measure(config, steps: int) -> tuple[float, float]:
    """Returns milliseconds per step in the loop, and per bare step."""
    make_update, watched = train.make_update, []

    def watch(*args, **kwargs):
        watched.append(Watched(make_update(*args, **kwargs), steps))
        return watched[-1]

    train.make_update = watch
    try:
        with tempfile.TemporaryDirectory() as folder:
            mine.run(config, pathlib.Path(folder))
            train.run(config, pathlib.Path(folder))
    finally:
        train.make_update = make_update
    step, count = watched[0].compiled, steps - WARM_UP
    in_loop = (step.times[1] - step.times[0]) / count
    state = step.state
    before = time.perf_counter()
    for _ in range(count):
        state, _ = step.update(state, step.batch, None)
    jax.block_until_ready(state)
    return 1e3 * in_loop, 1e3 * (time.perf_counter() - before) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--variant", default="atto")
    parser.add_argument("--row", choices=list(ROWS), action="append", help="only this row; may be given several times")
    arguments = parser.parse_args()
    lines = []
    for name in arguments.row or ROWS:
        config = make_config(arguments, ROWS[name])
        times = [measure(config, arguments.steps) for _ in range(arguments.rounds)]
        shares = [100 * (loop / bare - 1) for loop, bare in times]
        loop, bare = (statistics.median(column) for column in zip(*times, strict=True))
        lines.append(
            f"| {name} | {loop:.1f} | {bare:.1f} | {statistics.median(shares):+.1f} % "
            f"({min(shares):+.1f} to {max(shares):+.1f}) |"
        )
    print(
        f"\njax {jax.__version__}, {jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores, ConvNeXt "
        f"{arguments.variant}, {arguments.batch_size} pictures of {arguments.size} px, {arguments.steps} steps, "
        f"{arguments.rounds} rounds\n\n| | ms per step in the loop | ms per bare step | overhead |"
    )
    print("|---|---:|---:|---:|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
