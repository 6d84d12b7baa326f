"""Times the two forms of the depthwise 7x7 convolution, forward and backward, side by side in one process.

    python benchmarks/depthwise.py [--rounds=7]

Shapes are those of a ConvNeXt-Atto on 80 x 64 pictures, batch 128, and of one stage of a ConvNeXt-T on 224 x 224.
Prints a Markdown table: medians, with the fastest and slowest round in brackets. Rounds alternate between the forms.
"""

import argparse
import functools
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax.models.layers import depthwise  # noqa: E402

SHAPES = ((128, 20, 16, 40), (128, 10, 8, 80), (128, 5, 4, 160), (8, 56, 56, 96))
FORMS = {"grouped": depthwise.grouped, "toeplitz": depthwise.toeplitz}


def forward_and_backward(form, images, kernel, cotangent):
    """Returns the output and the gradients of both arguments."""
    values, pull = jax.vjp(form, images, kernel)
    return values, pull(cotangent)


def milliseconds(run, arrays) -> float:
    """Returns the time of one call, averaged over a quarter of a second."""
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < 0.25:
        jax.block_until_ready(run(*arrays))
        calls += 1
    return 1e3 * (time.perf_counter() - start) / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores, "
        f"{arguments.dtype}, {arguments.rounds} rounds; ms per forward and backward pass\n"
    )
    print("| batch x height x width x channels | grouped | toeplitz | grouped / toeplitz | largest difference |")
    print("|---|---:|---:|---:|---:|")
    for shape in SHAPES:
        arrays = [jnp.asarray(rng.normal(size=size), arguments.dtype) for size in (shape, (7, 7, shape[-1]), shape)]
        runs = {name: jax.jit(functools.partial(forward_and_backward, form)) for name, form in FORMS.items()}
        results = [jax.tree.leaves(run(*arrays)) for run in runs.values()]  # also compiles
        difference = max(float(jnp.abs(a - b).max() / jnp.abs(a).max()) for a, b in zip(*results, strict=True))
        times = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                times[name].append(milliseconds(run, arrays))
        cells = [f"{statistics.median(ms):.1f} ({min(ms):.1f} to {max(ms):.1f})" for ms in times.values()]
        ratio = statistics.median(a / b for a, b in zip(times["grouped"], times["toeplitz"], strict=True))
        print(f"| {' x '.join(map(str, shape))} | {' | '.join(cells)} | {ratio:.2f} | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
