"""Times forms of the depthwise 7x7 convolution side by side in one process.

    python benchmarks/depthwise.py [--rounds=7]                     on a CPU: XLA's own against Toeplitz products
    python benchmarks/depthwise.py --accelerator [--out=FILE]       on a GPU: what XLA has for it, part by part

On a CPU the shapes are those of a ConvNeXt-Atto on 80 x 64 pictures, batch 128, and of one stage of a ConvNeXt-T on
224 x 224; a time is of the forward and backward pass. On a GPU they are the four stages of the published ConvNeXt-XL
step, 28 pictures of 224 px in bfloat16; forward pass, gradient of the map and gradient of the kernel are timed apart,
many calls between two waits for the device. Prints a Markdown table: medians, with the fastest and slowest round in
brackets. Rounds alternate between the forms. --out gets every time in milliseconds, written after each shape.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from retrieval_jax.models.layers import depthwise  # noqa: E402

SHAPES = ((128, 20, 16, 40), (128, 10, 8, 80), (128, 5, 4, 160), (8, 56, 56, 96))
XL_SHAPES = ((28, 56, 56, 256), (28, 28, 28, 512), (28, 14, 14, 1024), (28, 7, 7, 2048))
FORMS = {"grouped": depthwise.grouped, "toeplitz": depthwise.toeplitz}


def channels_first(images, kernel):
    """Computes `depthwise.grouped` with maps [B, C, H, W] inside, transposed before and after."""
    maps = jax.lax.conv_general_dilated(
        images.transpose(0, 3, 1, 2),
        kernel.astype(images.dtype)[:, :, None, :],
        (1, 1),
        "SAME",
        feature_group_count=images.shape[-1],
        dimension_numbers=("NCHW", "HWIO", "NCHW"),
    )
    return maps.transpose(0, 2, 3, 1)


def in_float32(images, kernel):
    """Computes `depthwise.grouped` in float32."""
    return depthwise.grouped(images.astype(jnp.float32), kernel.astype(jnp.float32)).astype(images.dtype)


def shifted(images, kernel):
    """Computes `depthwise.grouped` as a sum of shifted maps times taps, which XLA fuses into one kernel."""
    size, (_, height, width, _) = len(kernel), images.shape
    reach = size // 2
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    taps = [
        padded[:, i : i + height, j : j + width].astype(jnp.float32) * kernel[i, j].astype(jnp.float32)
        for i in range(size)
        for j in range(size)
    ]
    return sum(taps).astype(images.dtype)


GPU_FORMS = {
    "NHWC": depthwise.grouped,
    "NCHW": channels_first,
    "float32": in_float32,
    "shifted products": shifted,
}


def forward_and_backward(form, images, kernel, cotangent):
    """Returns the output and the gradients of both arguments."""
    values, pull = jax.vjp(form, images, kernel)
    return values, pull(cotangent)


PARTS = {
    "forward": lambda form, images, kernel, cotangent: form(images, kernel),
    "gradient of the map": lambda form, images, kernel, cotangent: jax.vjp(lambda x: form(x, kernel), images)[1](
        cotangent
    ),
    "gradient of the kernel": lambda form, images, kernel, cotangent: jax.vjp(lambda k: form(images, k), kernel)[1](
        cotangent
    ),
}


def milliseconds(run, arrays, calls: int = 1) -> float:
    """Returns the time of one call, averaged over a quarter of a second, with `calls` calls between two waits."""
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < 0.25:
        for _ in range(calls):
            out = run(*arrays)
        jax.block_until_ready(out)
        done += calls
    return 1e3 * (time.perf_counter() - start) / done


def in_turn(runs: dict, arrays, rounds: int, calls: int = 1) -> dict[str, list[float]]:
    """Returns the milliseconds of each form in each round; `runs` are compiled."""
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(milliseconds(run, arrays, calls))
    return times


def draw(shape, dtype) -> list[jax.Array]:
    """Returns a map, a kernel and a cotangent."""
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = (shape, (7, 7, shape[-1]), shape)
    return [jax.random.normal(key, size, dtype) for key, size in zip(keys, sizes, strict=True)]


def cell(ms: list[float]) -> str:
    return f"{statistics.median(ms):.3g} ({min(ms):.3g} to {max(ms):.3g})"


def on_cpu(given) -> None:
    print("| batch x height x width x channels | grouped | toeplitz | grouped / toeplitz | largest difference |")
    print("|---|---:|---:|---:|---:|")
    for shape in SHAPES:
        arrays = draw(shape, given.dtype or "float32")
        runs = {name: jax.jit(functools.partial(forward_and_backward, form)) for name, form in FORMS.items()}
        results = [jax.tree.leaves(run(*arrays)) for run in runs.values()]  # also compiles
        difference = max(float(jnp.abs(a - b).max() / jnp.abs(a).max()) for a, b in zip(*results, strict=True))
        times = in_turn(runs, arrays, given.rounds)
        ratio = statistics.median(a / b for a, b in zip(times["grouped"], times["toeplitz"], strict=True))
        cells = " | ".join(cell(ms) for ms in times.values())
        print(f"| {' x '.join(map(str, shape))} | {cells} | {ratio:.2f} | {difference:.0e} |", flush=True)


def on_accelerator(given) -> None:
    print(f"| batch x height x width x channels | part | {' | '.join(GPU_FORMS)} |")
    print("|---|---|" + "---:|" * len(GPU_FORMS))
    found = []
    for shape in [(2, 7, 7, 8)] if given.small else XL_SHAPES:
        arrays = draw(shape, given.dtype or "bfloat16")
        for part, compute in PARTS.items():
            runs, failed = {}, {}
            for name, form in GPU_FORMS.items():
                run = jax.jit(functools.partial(compute, form))
                try:
                    jax.block_until_ready(run(*arrays))
                    runs[name] = run
                except Exception as error:  # one form that a backend cannot do must not cost the others
                    failed[name] = str(error).splitlines()[0][:200]
            times = in_turn(runs, arrays, given.rounds, 20)
            found.append({"shape": shape, "part": part, "milliseconds": times, "failed": failed})
            cells = " | ".join(cell(times[name]) if name in times else "failed" for name in GPU_FORMS)
            print(f"| {' x '.join(map(str, shape))} | {part} | {cells} |", flush=True)
            if given.out:
                given.out.write_text(json.dumps(found) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", help="float32 on a CPU and bfloat16 on an accelerator by default")
    parser.add_argument("--accelerator", action="store_true", help="the shapes and forms for a GPU")
    parser.add_argument("--small", action="store_true", help="one tiny shape, as a smoke test")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file, with --accelerator")
    given = parser.parse_args()
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores, "
        f"{given.rounds} rounds; ms\n"
    )
    (on_accelerator if given.accelerator else on_cpu)(given)


if __name__ == "__main__":
    main()
