"""Times the parts of the published steps on one accelerator: ceilings, attention, products, the update, kernel names.

    python benchmarks/gpu_parts.py ceilings | attention | products | update [--small]
    python benchmarks/gpu_parts.py kernels --trace=/tmp/trace     # of published_steps.py --profile

    ceilings     the device's memory bandwidth, by a copy, and its bfloat16 FLOP/s, by a product of 8192 x 8192
    attention    every form on the shapes of ViT-L, BEiT-L and Swin-L, forward and backward, in milliseconds, and how
                 far its values and gradients are from the plain form's in float32
    products     the products of a block of each network: forward, and both gradients
    update       clipping, AdamW and moving average of a network's parameters, alone
    kernels      milliseconds per step of each kernel name, longest first

Prints one line of JSON per measurement, as soon as it is known. Many calls run between two waits for the device.
"""

import argparse
import collections
import functools
import json
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

# Tokens [B, N, heads, d], and whether there is a bias: of one attention of each network.
ATTENTION = {
    "vit_large": ((32, 197, 16, 64), False),
    "beit_large": ((8, 577, 16, 64), True),
    "swin_large stage 0": ((14, 144, 64 * 6, 32), True),
    "swin_large stage 2": ((14, 144, 4 * 24, 32), True),
}
# Rows, inputs and outputs of products.
PRODUCTS = {
    "vit_large qkv": (6304, 1024, 3072),
    "vit_large fc1": (6304, 1024, 4096),
    "vit_large fc2": (6304, 4096, 1024),
    "beit_large fc1": (4616, 1024, 4096),
    "swin_large stage 0 fc1": (129024, 192, 768),
    "swin_large stage 2 fc1": (8064, 768, 3072),
    "convnext_xlarge stage 0 fc1": (87808, 256, 1024),
    "convnext_xlarge stage 2 fc1": (5488, 1024, 4096),
    "convnext_xlarge stage 2 fc2": (5488, 4096, 1024),
    "convnext_xlarge stage 3 fc1": (1372, 2048, 8192),
}


def report(**values) -> None:
    print(json.dumps(values), flush=True)


def milliseconds(run, *arrays, calls: int = 20, rounds: int = 3) -> float:
    """Returns the least time of a call over rounds of many calls; compiles first."""
    import jax

    jax.block_until_ready(run(*arrays))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            out = run(*arrays)
        jax.block_until_ready(out)
        times.append(1e3 * (time.perf_counter() - start) / calls)
    return min(times)


def ceilings(small: bool) -> None:
    import jax
    import jax.numpy as jnp

    size, side = (1 << 20, 256) if small else (1 << 32, 8192)
    array = jnp.zeros(size // 2, jnp.bfloat16)
    ms = milliseconds(jax.jit(lambda x: x + 1), array)
    report(part="copy", bytes=2 * size, milliseconds=ms, gigabytes_per_second=2e-6 * size / ms)
    del array
    one, other = (jax.random.normal(jax.random.key(seed), (side, side), jnp.bfloat16) for seed in range(2))
    ms = milliseconds(jax.jit(jnp.matmul), one, other)
    report(part="product", side=side, milliseconds=ms, tflops=2e-9 * side**3 / ms)


def attention(small: bool) -> None:
    import jax
    import jax.numpy as jnp

    from retrieval_jax.models.layers import attention as layer

    def heads_first(query, key, value, bias):
        query, key, value = (jnp.moveaxis(array, 2, 1) for array in (query, key, value))
        logits = jnp.einsum("bnth,bnsh->bnts", query * query.shape[-1] ** -0.5, key, preferred_element_type=jnp.float32)
        logits = logits if bias is None else logits + bias.astype(jnp.float32)
        shares = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        return jnp.moveaxis(jnp.einsum("bnts,bnsh->bnth", shares, value), 1, 2)

    forms = {
        "jax": lambda query, key, value, bias: jax.nn.dot_product_attention(query, key, value, bias),
        "heads first": heads_first,
        "cudnn padded": functools.partial(layer.flash, implementation="xla" if small else "cudnn"),
    }
    shapes = {"tiny": ((2, 13, 2, 8), True), "tiny, no bias": ((2, 13, 2, 8), False)} if small else ATTENTION

    def both(form, query, key, value, bias, cotangent):
        values, pull = jax.vjp(form, query, key, value, bias)
        return values, pull(cotangent)

    for name, (shape, with_bias) in shapes.items():
        keys = jax.random.split(jax.random.key(0), 5)
        query, key, value, cotangent = (jax.random.normal(keys[i], shape, jnp.bfloat16) for i in range(4))
        bias = jax.random.normal(keys[4], (1, shape[2], shape[1], shape[1])) if with_bias else None
        wide = [array.astype(jnp.float32) for array in (query, key, value)]
        with jax.default_matmul_precision("highest"):
            wanted = jax.jit(functools.partial(both, heads_first))(*wide, bias, cotangent.astype(jnp.float32))
        for form, function in forms.items():
            run = jax.jit(functools.partial(both, function))
            try:
                found = run(query, key, value, bias, cotangent)
                far = [
                    float(jnp.abs(a.astype(jnp.float32) - b).max() / jnp.abs(b).max())
                    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
                ]
                ms = milliseconds(run, query, key, value, bias, cotangent)
                report(part=name, form=form, shape=shape, milliseconds=ms, relative_differences=far)
            except Exception as error:  # a form that the device cannot do must not cost the others
                report(part=name, form=form, shape=shape, failed=str(error).splitlines()[0][:300])


def products(small: bool) -> None:
    import jax
    import jax.numpy as jnp

    parts = {
        "forward": lambda x, kernel, cotangent: x @ kernel,
        "gradient of the input": lambda x, kernel, cotangent: cotangent @ kernel.T,
        "gradient of the kernel": lambda x, kernel, cotangent: x.T @ cotangent,
    }
    for name, (rows, inputs, outputs) in ({"tiny": (32, 16, 24)} if small else PRODUCTS).items():
        shapes = (rows, inputs), (inputs, outputs), (rows, outputs)
        arrays = [jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i, shape in enumerate(shapes)]
        for part, function in parts.items():
            ms = milliseconds(jax.jit(function), *arrays)
            tflops = 2e-9 * rows * inputs * outputs / ms
            report(part=name, product=part, sizes=(rows, inputs, outputs), milliseconds=ms, tflops=tflops)


def update(small: bool) -> None:
    import jax
    import jax.numpy as jnp
    import optax
    import published_steps as steps

    shapes = [(2, 4)] if small else [(1024, 4096)] * 96  # 400 million parameters, about those of ConvNeXt-XL
    params = {str(i): jnp.zeros(shape) for i, shape in enumerate(shapes)}
    gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1e-3, jnp.bfloat16), params)
    optimizer = optax.chain(optax.clip_by_global_norm(steps.CLIP), optax.adamw(steps.LEARNING_RATE, weight_decay=1e-4))
    state = {"params": params, "ema": jax.tree.map(jnp.copy, params), "opt": optimizer.init(params)}

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, gradients):
        updates, opt = optimizer.update(gradients, state["opt"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], updates)
        ema = jax.tree.map(lambda old, new: steps.EMA * old + (1 - steps.EMA) * new, state["ema"], params)
        return {"params": params, "ema": ema, "opt": opt}

    del params
    state = jax.block_until_ready(step(state, gradients))
    start, calls = time.perf_counter(), 20
    for _ in range(calls):
        state = step(state, gradients)
    jax.block_until_ready(state)
    ms = 1e3 * (time.perf_counter() - start) / calls
    parameters = sum(leaf.size for leaf in jax.tree.leaves(gradients))
    moved = parameters * (2 * 2 + 16 + 16)  # gradients twice; parameters, moments and average read and written
    report(part="update", parameters=parameters, milliseconds=ms, gigabytes_per_second=1e-6 * moved / ms)


def kernels(trace: pathlib.Path, top: int = 40) -> None:
    from jax.profiler import ProfileData

    for file in sorted(trace.rglob("*.xplane.pb")):
        total, count = collections.Counter(), collections.Counter()
        for plane in ProfileData.from_file(str(file)).planes:
            if not plane.name.startswith("/device:GPU"):
                continue
            for line in plane.lines:
                if not line.name.startswith("Stream"):
                    continue
                for event in line.events:
                    name = re.sub(r"[._]\d+$", "", event.name)
                    total[name] += event.duration_ns
                    count[name] += 1
        rows = [(name, 1e-6 * nanoseconds, count[name]) for name, nanoseconds in total.most_common(top)]
        network = file.relative_to(trace).parts[0]
        report(part=network, milliseconds=1e-6 * sum(total.values()), kernels=sum(count.values()), longest=rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("ceilings", "attention", "products", "update", "kernels"))
    parser.add_argument("--small", action="store_true", help="tiny shapes, as a smoke test")
    parser.add_argument("--trace", type=pathlib.Path, help="folder of traces, for kernels")
    given = parser.parse_args()
    if given.part == "kernels":
        kernels(given.trace)
    else:
        {"ceilings": ceilings, "attention": attention, "products": products, "update": update}[given.part](given.small)


if __name__ == "__main__":
    main()
