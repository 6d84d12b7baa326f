"""Times a complete training step of the published backbones on one GPU: ours in JAX, timm's under torch.compile.

    python benchmarks/published_steps.py [--rounds=3] [--torch-python=/path/to/python with torch and timm]
    python benchmarks/published_steps.py --models convnext_xlarge --profile=/tmp/trace    # traces of our steps as well
    python benchmarks/published_steps.py --small                                          # smoke test, seconds on a CPU

A step does the same work on both sides: bytes to normalised pictures, forward, softmax cross-entropy and Poly-1 over
22,295 labels, backward, clipping, AdamW, moving average of all parameters; bf16 compute (timm: autocast, channels_last,
torch.compile), float32 parameters, drop path as published, the published batch size per device, and a single batch that
stays on the device. Every timing runs in its own process; rounds alternate between the systems. Prints a Markdown table
and writes all timings with --out.

Model FLOPs are three times those of the forward pass, as XLA counts them for our float32 network without drop path,
including the head. Divided by the time of a step and --peak they give the share of the chip's peak, with the same FLOPs
for both systems.
"""

import argparse
import datetime
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

# name: (timm's architecture, side of the picture in pixels, batch of one device, drop path)
MODELS = {
    "convnext_xlarge": ("convnext_xlarge", 224, 28, 0.4),
    "swin_large": ("swin_large_patch4_window12_384", 384, 14, 0.5),
    "beit_large": ("beit_large_patch16_384", 384, 8, 0.4),
    "vit_large": ("vit_large_patch16_224", 224, 32, 0.4),
}
# Arguments of timm's constructor for --small, which runs the same code in seconds on a CPU.
SMALL = {
    "convnext_xlarge": dict(depths=(1, 1, 2, 1), dims=(16, 32, 64, 128)),
    "swin_large": dict(img_size=64, window_size=4, embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8)),
    "beit_large": dict(img_size=64, embed_dim=64, depth=2, num_heads=2),
    "vit_large": dict(img_size=64, embed_dim=64, depth=2, num_heads=2),
}
SMALL_SIDE, SMALL_BATCH, SMALL_LABELS = 64, 4, 100
SYSTEMS = ("ours", "timm + torch.compile")
LABELS, LABELS_A_PICTURE, EPSILON = 22_295, 9, 0.5
LEARNING_RATE, WEIGHT_DECAY, CLIP, EMA = 1e-4, 1e-4, 1.0, 0.999
PEAK = 790e12  # FLOP/s of bf16 matrix products on an H200, dense, as measured on such a machine
WARM_UP, STEPS = 5, 20


def sizes(name: str, small: bool) -> tuple[str, dict, int, int, int, float]:
    """Returns architecture, arguments of its constructor, side, batch, labels, drop path."""
    architecture, side, batch, drop_path = MODELS[name]
    if small:
        return architecture, SMALL[name], SMALL_SIDE, SMALL_BATCH, SMALL_LABELS, drop_path
    return architecture, {}, side, batch, LABELS, drop_path


def make_batch(side: int, batch: int, labels: int) -> dict:
    """Returns the batch, which is the same for both systems."""
    import numpy as np

    rng = np.random.default_rng(0)
    ids = np.stack([rng.choice(labels, LABELS_A_PICTURE, replace=False) for _ in range(batch)])
    return {
        "image": rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8),
        "label_ids": ids.astype(np.int32),
        "label_mask": np.ones(ids.shape, bool),
        "_mask": np.ones(batch, bool),
    }


def timed(step, wait) -> dict:
    """Times step() after a warm-up; wait() blocks until the device is done and returns the last loss."""
    for _ in range(WARM_UP):
        step()
    first = wait()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    last = wait()
    return {"seconds_a_step": (time.perf_counter() - start) / STEPS, "first_loss": first, "last_loss": last}


def time_ours(name: str, small: bool, profile: str) -> dict:
    """Times our training step."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    import jax
    import jax.numpy as jnp
    import numpy as np

    from retrieval_jax.losses import multilabel
    from retrieval_jax.models import embedder, heads, pixels, pretrained
    from retrieval_jax.training import optim

    architecture, arguments, side, batch, labels, drop_path = sizes(name, small)
    make = functools.partial(pretrained.model, architecture, **arguments)
    mean, std = pretrained.info(architecture).mean, pretrained.info(architecture).std

    def module(**kwargs):
        return embedder.Embedder(make(**kwargs), {"titles": heads.Head(labels, 0.001)})

    network = module(drop_path=drop_path, dtype=jnp.bfloat16)

    def loss_fn(params, data, rng):
        images = pixels.normalize(data["image"], jnp.bfloat16, mean=mean, std=std)
        logits = network.apply({"params": params}, images, train=True, rngs={"dropout": rng})["logits"]["titles"]
        return multilabel.softmax_poly1(logits, data["label_ids"], data["label_mask"], epsilon=EPSILON).mean()

    def make_optimizer(params):
        import optax

        decay = jax.tree.map(bool, optim.by_rule(params, optim.DECAY_RULES))
        return optax.chain(
            optax.clip_by_global_norm(CLIP), optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=decay)
        )

    def init():
        params = network.init({"params": jax.random.key(0)}, jnp.zeros((1, side, side, 3)))["params"]
        return {"params": params, "ema": jax.tree.map(jnp.copy, params), "opt": make_optimizer(params).init(params)}

    optimizer = make_optimizer(jax.eval_shape(init)["params"])

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, data, number):
        rng = jax.random.fold_in(jax.random.key(1), number)
        loss, gradients = jax.value_and_grad(loss_fn)(state["params"], data, rng)
        updates, opt = optimizer.update(gradients, state["opt"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], updates)
        ema = jax.tree.map(lambda old, new: EMA * old + (1 - EMA) * new, state["ema"], params)
        return {"params": params, "ema": ema, "opt": opt}, loss

    plain = module()
    shapes = jax.eval_shape(lambda: plain.init({"params": jax.random.key(0)}, jnp.zeros((1, side, side, 3))))["params"]
    forward = jax.jit(lambda params, images: plain.apply({"params": params}, images)["logits"])
    cost = forward.lower(shapes, jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)).cost_analysis()
    state, data = jax.jit(init)(), jax.device_put(make_batch(side, batch, labels))
    loss, number = None, 0

    def step():
        nonlocal state, loss, number
        state, loss = update(state, data, np.int32(number))
        number += 1

    result = timed(step, lambda: float(loss))
    if profile:
        with jax.profiler.trace(profile):
            for _ in range(3):
                step()
            float(loss)
    memory = jax.devices()[0].memory_stats() or {}
    return {
        **result,
        "version": f"jax {jax.__version__}",
        "device": jax.devices()[0].device_kind,
        "peak_bytes": memory.get("peak_bytes_in_use"),
        "model_flops": 3 * cost["flops"],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
    }


def time_timm(name: str, small: bool) -> dict:
    """Times the same step of timm's model."""
    import torch

    # A torchvision built for a different torch lacks its operators, but timm only needs its Python code.
    real, torch.library.register_fake = torch.library.register_fake, lambda *_, **__: lambda function: function
    import timm

    torch.library.register_fake = real
    architecture, arguments, side, batch, labels, drop_path = sizes(name, small)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    model = timm.create_model(architecture, num_classes=labels, drop_path_rate=drop_path, **arguments)
    config = model.default_cfg
    model = model.to(device, memory_format=torch.channels_last).train()
    params = list(model.parameters())
    average = [param.detach().clone() for param in params]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=device == "cuda")
    data = make_batch(side, batch, labels)
    images = torch.from_numpy(data["image"]).to(device)
    ids = torch.from_numpy(data["label_ids"]).long().to(device)
    mean = 255 * torch.tensor(config["mean"], device=device)
    std = 255 * torch.tensor(config["std"], device=device)

    def loss_fn(pictures, labels_of):
        with torch.autocast(device, torch.bfloat16):
            x = ((pictures.float() - mean) / std).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
            logits = model(x)
        log_p = torch.nn.functional.log_softmax(logits.float(), dim=-1).gather(1, labels_of)
        return (-log_p.mean(-1) + EPSILON * (1 - log_p.exp().mean(-1))).mean()

    compiled = loss_fn if small else torch.compile(loss_fn)
    loss = None

    def step():
        nonlocal loss
        loss = compiled(images, ids)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - EMA)
        loss = loss.detach()

    result = timed(step, lambda: float(loss))
    cuda = device == "cuda"
    return {
        **result,
        "version": f"torch {torch.__version__}, timm {timm.__version__}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }


def measure(system: str, name: str, given) -> dict:
    """Runs one timing in a new process; a failure is recorded with its last line of output."""
    python = sys.executable if system == "ours" else given.torch_python
    command = [python, __file__, "--work", system, "--models", name]
    command += ["--small"] if given.small else []
    command += [f"--profile={given.profile}/{name}"] if given.profile and system == "ours" else []
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if done.returncode:
        print(f"{system}, {name}: failed under {python}\n{done.stderr[-3000:]}", file=sys.stderr)
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, system: str, rounds: list[dict], peak: float) -> str:
    """Returns a row of the table, with medians and ranges over the rounds."""
    batch = rounds[0]["batch"]
    found = [one[system] for one in rounds if "failed" not in one[system]]
    if not found:
        return f"| {name} | {system} | failed: {rounds[0][system]['failed']} | | | | |"
    speeds = [batch / one["seconds_a_step"] for one in found]
    both = [one for one in rounds if not any("failed" in one[which] for which in SYSTEMS)]
    ratios = [one[SYSTEMS[1]]["seconds_a_step"] / one["ours"]["seconds_a_step"] for one in both]
    flops = next((one["ours"]["model_flops"] for one in rounds if "failed" not in one["ours"]), None)
    share = f"{100 * flops / statistics.median(one['seconds_a_step'] for one in found) / peak:.1f} %" if flops else ""
    memory = f"{found[0]['peak_bytes'] / 2**30:.1f}" if found[0]["peak_bytes"] else ""
    ratio = (
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        if (ratios and system == "ours")
        else ""
    )
    return (
        f"| {name}, batch {batch} | {system}, {found[0]['version']} | {statistics.median(speeds):.1f} "
        f"({min(speeds):.1f} to {max(speeds):.1f}) | {ratio} | {memory} | {share} | {found[0]['last_loss']:.3f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and timm")
    parser.add_argument("--peak", type=float, default=PEAK, help="FLOP/s of the chip in bf16")
    parser.add_argument("--profile", default="", help="folder for traces of our steps")
    parser.add_argument("--small", action="store_true", help="tiny networks, as a smoke test")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of all timings")
    parser.add_argument("--work", choices=SYSTEMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        name = given.models[0]
        result = time_ours(name, given.small, given.profile) if given.work == "ours" else time_timm(name, given.small)
        print(json.dumps(result))
        return
    print(
        "| network | system | pictures per second | ours / timm | peak memory, GiB | share of peak | last loss |\n"
        "|---|---|---|---|---|---|---|",
        flush=True,
    )
    everything = {}
    for name in given.models:
        batch = sizes(name, given.small)[3]
        rounds = [
            {"batch": batch, **{system: measure(system, name, given) for system in SYSTEMS}}
            for _ in range(given.rounds)
        ]
        everything[name] = rounds
        for system in SYSTEMS:
            print(row(name, system, rounds, given.peak), flush=True)
        if given.out:
            given.out.write_text(
                json.dumps({"date": f"{datetime.date.today()}", "peak": given.peak, "models": everything}, indent=1)
                + "\n"
            )


if __name__ == "__main__":
    main()
