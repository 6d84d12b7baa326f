"""Times a complete training step of the published backbones on one GPU: ours in JAX, timm's under torch.compile.

    python benchmarks/published_steps.py [--rounds=3] [--torch-python=/path/to/python with torch and timm]
    python benchmarks/published_steps.py --models convnext_xlarge --profile=/tmp/trace    # traces of our steps as well
    python benchmarks/published_steps.py --small                                          # smoke test, seconds on a CPU

A step does the same work on both sides: bytes to normalised pictures, forward, softmax cross-entropy and Poly-1 over
22,295 labels, backward, clipping, AdamW, moving average of all parameters; bf16 compute (timm: autocast, channels_last,
torch.compile), float32 parameters, drop path as published, the published batch size per device, and a single batch that
stays on the device. Every network of every system has a process of its own. They all compile side by side; then one at
a time runs its steps, first ours, then both systems in turn, while what still compiles is stopped. Every timing is
written to --out at once, a process past its limit is ended and recorded as failed, and nothing starts after the
deadline. The device must hold all processes: about 140 GB for all four networks; with less, give --models a few at a
time.

Model FLOPs are three times those of the products and convolutions of the forward pass of our float32 network without
drop path, including the head. Divided by the time of a step and --peak they give the share of the chip's peak, with the
same FLOPs for both systems.
"""

import argparse
import dataclasses
import datetime
import gzip
import json
import pathlib
import signal
import statistics
import sys
import time
from collections.abc import Callable

import timed_children

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

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


def timed(step, wait, small: bool) -> dict:
    """Times step() after a warm-up; wait() blocks until the device is done and returns the last loss."""
    warm_up, steps = (1, 2) if small else (WARM_UP, STEPS)
    for _ in range(warm_up):
        step()
    first = wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    last = wait()
    return {"seconds_a_step": (time.perf_counter() - start) / steps, "first_loss": first, "last_loss": last}


@dataclasses.dataclass
class Ours:
    """Our training step of a published network.

    Attributes:
      init: () -> state.
      update: (state, batch, number of the step) -> (state, loss); not jitted.
      data: the batch, NumPy arrays.
      forward: (parameters, pictures) -> logits of the float32 network without drop path, whose operations are counted.
      pictures: shape of the pictures.
    """

    init: Callable
    update: Callable
    data: dict
    forward: Callable
    pictures: tuple[int, ...]


def our_step(name: str, small: bool = False, **fields) -> Ours:
    """Returns our training step.

    Args:
      name: key of MODELS.
      small: whether to shrink the network and the batch.
      **fields: fields of the backbone's `Model` to override.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from retrieval_jax import models
    from retrieval_jax.losses import multilabel
    from retrieval_jax.models import embedder, heads, pixels
    from retrieval_jax.models.timm import checkpoints
    from retrieval_jax.training import optim

    architecture, arguments, side, batch, labels, drop_path = sizes(name, small)
    # As `models.pretrained.model`, whose imports a bare GPU machine lacks.
    module = models.get(name.partition("_")[0])
    backbone = module.from_timm(**{**module.TIMM[architecture], **arguments}).clone(**fields)
    about = checkpoints.metadata(architecture, checkpoints.default_tag(architecture))

    def network_of(**kwargs):
        return embedder.Embedder(backbone.clone(**kwargs), {"titles": heads.Head(labels, 0.001)})

    network, plain = network_of(drop_path=drop_path, dtype=jnp.bfloat16), network_of()

    def loss_fn(params, data, rng):
        images = pixels.normalize(data["image"], jnp.bfloat16, mean=about["mean"], std=about["std"])
        logits = network.apply({"params": params}, images, train=True, rngs={"dropout": rng})["logits"]["titles"]
        return multilabel.softmax_poly1(logits, data["label_ids"], data["label_mask"], epsilon=EPSILON).mean()

    def make_optimizer(params):
        decay = jax.tree.map(bool, optim.by_rule(params, optim.DECAY_RULES))
        return optax.chain(
            optax.clip_by_global_norm(CLIP), optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=decay)
        )

    def init():
        params = network.init({"params": jax.random.key(0)}, jnp.zeros((1, side, side, 3)))["params"]
        return {"params": params, "ema": jax.tree.map(jnp.copy, params), "opt": make_optimizer(params).init(params)}

    optimizer = make_optimizer(jax.eval_shape(init)["params"])

    def update(state, data, number):
        rng = jax.random.fold_in(jax.random.key(1), number)
        loss, gradients = jax.value_and_grad(loss_fn)(state["params"], data, rng)
        updates, opt = optimizer.update(gradients, state["opt"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], updates)
        ema = jax.tree.map(lambda old, new: EMA * old + (1 - EMA) * new, state["ema"], params)
        return {"params": params, "ema": ema, "opt": opt}, loss

    def forward(params, images):
        return plain.apply({"params": params}, images)["logits"]

    return Ours(init, update, make_batch(side, batch, labels), forward, (batch, side, side, 3))


def prepare_ours(name: str, given) -> Callable[[], dict]:
    """Compiles our training step; the result times it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from retrieval_jax.training import flops

    fields = {"attention_kernel": given.attention} if given.attention and not name.startswith("convnext") else {}
    ours = our_step(name, given.small, **fields)
    shapes = jax.eval_shape(ours.init)
    data = jax.tree.map(jnp.asarray, ours.data)
    init = jax.jit(ours.init).lower().compile()
    update = jax.jit(ours.update, donate_argnums=0).lower(shapes, data, np.int32(0)).compile()
    model_flops = 3 * flops.of(ours.forward, shapes["params"], jax.ShapeDtypeStruct(ours.pictures, jnp.float32))
    if given.programs:
        folder = pathlib.Path(given.programs)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt.gz").write_bytes(gzip.compress(update.as_text().encode()))
    state, loss, number, traced = None, None, 0, False

    def step():
        nonlocal state, loss, number
        state, loss = update(state, data, np.int32(number))
        number += 1

    def run() -> dict:
        nonlocal state, traced
        state = init() if state is None else state
        result = timed(step, lambda: float(loss), given.small)
        if given.profile and not traced:
            traced = True
            with jax.profiler.trace(f"{given.profile}/{name}"):
                for _ in range(2):
                    step()
                float(loss)
        memory = jax.devices()[0].memory_stats() or {}
        return {
            **result,
            "version": f"jax {jax.__version__}",
            "device": jax.devices()[0].device_kind,
            "peak_bytes": memory.get("peak_bytes_in_use"),
            "model_flops": model_flops,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])),
        }

    return run


def prepare_timm(name: str, given) -> Callable[[], dict]:
    """Compiles the same step of timm's model; the result times it."""
    import torch

    # A torchvision built for a different torch lacks its operators, but timm only needs its Python code.
    real, torch.library.register_fake = torch.library.register_fake, lambda *_, **__: lambda function: function
    import timm

    torch.library.register_fake = real
    architecture, arguments, side, batch, labels, drop_path = sizes(name, given.small)
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
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):  # on most CPUs many times slower
            x = ((pictures.float() - mean) / std).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
            logits = model(x)
        log_p = torch.nn.functional.log_softmax(logits.float(), dim=-1).gather(1, labels_of)
        return (-log_p.mean(-1) + EPSILON * (1 - log_p.exp().mean(-1))).mean()

    compiled = loss_fn if given.small else torch.compile(loss_fn)
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

    cuda = device == "cuda"
    step()  # compiles

    def run() -> dict:
        return {
            **timed(step, lambda: float(loss), given.small),
            "version": f"torch {torch.__version__}, timm {timm.__version__}",
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        }

    return run


def work(given) -> None:
    """Serves one network of one system: compiles, reports that it is ready, and times once per line of its input."""
    start = time.perf_counter()
    run = (prepare_ours if given.work == "ours" else prepare_timm)(given.models[0], given)
    print(json.dumps({"compile_seconds": time.perf_counter() - start}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(run()), flush=True)


def row(name: str, system: str, timings: list[dict], given) -> str:
    """Returns a row of the table, with medians and ranges over the rounds."""
    batch = sizes(name, given.small)[3]
    mine = [one for one in timings if one["model"] == name]
    found = [one for one in mine if one["system"] == system and "seconds_a_step" in one]
    if not found:
        why = next((one["failed"] for one in mine if one["system"] == system and "failed" in one), "not measured")
        return f"| {name} | {system} | failed: {why} | | | | |"
    speeds = [batch / one["seconds_a_step"] for one in found]
    seconds = {(one["round"], one["system"]): one["seconds_a_step"] for one in mine if "seconds_a_step" in one}
    ratios = [
        seconds[number, SYSTEMS[1]] / seconds[number, "ours"]
        for number in range(1, given.rounds + 1)
        if {(number, which) for which in SYSTEMS} <= set(seconds)
    ]
    flops = next((one["model_flops"] for one in mine if "model_flops" in one), None)
    median = statistics.median(one["seconds_a_step"] for one in found)
    share = f"{100 * flops / median / given.peak:.1f} %" if flops else ""
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
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and timm")
    parser.add_argument("--peak", type=float, default=PEAK, help="FLOP/s of the chip in bf16")
    parser.add_argument("--attention", default="", help="attention_kernel of ours: auto, xla or cudnn")
    parser.add_argument("--profile", default="", help="folder for traces of our steps")
    parser.add_argument("--programs", default="", help="folder for the optimised programs of our steps")
    parser.add_argument("--small", action="store_true", help="tiny networks, as a smoke test")
    parser.add_argument("--compile-limit", type=float, default=300, help="seconds that all of a system may compile")
    parser.add_argument("--limit", type=float, default=60, help="seconds that one timing may take")
    parser.add_argument("--deadline", type=float, default=3600, help="seconds after which nothing more is measured")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file, written again after every timing")
    parser.add_argument("--work", choices=SYSTEMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given)
        return
    timings, about = [], {"date": f"{datetime.date.today()}", "peak": given.peak, "small": given.small}

    def write(found: dict, child: timed_children.Child):
        timings.append({"model": child.name, "system": child.system, **found})
        print(json.dumps(timings[-1]), flush=True)
        if given.out:
            new = given.out.with_suffix(".new")
            new.write_text(json.dumps({**about, "timings": timings}, indent=1) + "\n")
            new.replace(given.out)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children end too
    children = [timed_children.Child(system, name, given) for system in given.systems for name in given.models]
    try:
        timed_children.measure(given, children, write)
    finally:
        for child in children:
            child.end("")
    print(
        "\n| network | system | pictures per second | ours / timm | peak memory, GiB | share of peak | last loss |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name in given.models:
        for system in given.systems:
            print(row(name, system, timings, given), flush=True)


if __name__ == "__main__":
    main()
