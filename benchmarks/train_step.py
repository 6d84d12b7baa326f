"""Times a complete training step of three networks on a CPU, or their forward pass: ours in JAX, timm's in PyTorch.

    python benchmarks/train_step.py [--model=vit_small] [--rounds=5] [--threads=2] [--torch-python=/path/to/python]
    python benchmarks/train_step.py --forward --model=efficientnet_lite0 --model=efficientnet_lite0_224

The other Python needs torch and timm. A step does the same work on both sides: bytes to normalised pictures, forward,
softmax cross-entropy and Poly-1 over 1,000 labels, backward, clipping, AdamW, moving average; float32, a single batch
that stays in memory: 128 pictures of 80 x 64 px for ConvNeXt-Atto, 16 of 224 x 224 px for ViT-S/16, 96 of 112 x 80 px
for EfficientNet-Lite0. timm's model runs in both memory layouts, in eager mode. With --forward only bytes to embeddings
are timed, without gradients. Every timing runs in its own process, pinned to the same cores; rounds alternate
between the systems. Then everything is repeated with huge pages for all of them.

Prints two Markdown tables per network: pictures per second and processor time per picture, median and range, and the
ratio of ours to theirs within a round. On a machine that others use too, trust the ratio of processor times.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

# ours (file in models/backbones/, variant, arguments), timm's name, pictures per batch, height, width
MODELS = {
    "convnext_atto": ("convnext", "atto", {}, "convnext_atto", 128, 80, 64),
    "vit_small": ("vit", "small", {"pooling": "token"}, "vit_small_patch16_224", 16, 224, 224),
    "efficientnet_lite0": ("efficientnet", "lite0", {}, "tf_efficientnet_lite0", 96, 112, 80),
    "efficientnet_lite0_224": ("efficientnet", "lite0", {}, "tf_efficientnet_lite0", 32, 224, 224),
}
LABELS, LABELS_A_PICTURE = 1000, 8
EPSILON, LEARNING_RATE, WEIGHT_DECAY, CLIP, EMA = 0.5, 1e-3, 0.05, 1.0, 0.99
SYSTEMS = ("ours", "timm", "timm channels_last")
# GLIBC_TUNABLES for all systems. Ours keeps its scratch memory in huge pages by itself (training/allocation.py), so
# "default" is without huge pages for PyTorch alone.
SETTINGS = {"default": "", "huge pages": "glibc.malloc.hugetlb=1"}


def batch(model: str) -> dict:
    """Returns the batch, which is the same for all systems."""
    import numpy as np

    rows, height, width = MODELS[model][-3:]
    rng = np.random.default_rng(0)
    ids = np.stack([rng.choice(LABELS, LABELS_A_PICTURE, replace=False) for _ in range(rows)])
    return {
        "image": rng.integers(0, 256, (rows, height, width, 3), dtype=np.uint8),
        "label_ids": ids.astype(np.int32),
        "label_ids_mask": np.ones(ids.shape, bool),
        "_mask": np.ones(rows, bool),
    }


def pictures_per_second(step, rows: int, seconds: float) -> dict:
    """Times step(), which trains on `rows` rows and returns the loss once computed, for about `seconds`."""
    losses = [step() for _ in range(3)]
    start, times, processor = time.perf_counter(), [], time.process_time()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        losses.append(step())
        times.append(time.perf_counter() - before)
    return {
        "pictures_per_second": rows / statistics.median(times),
        "cpu_ms": 1e3 * (time.process_time() - processor) / len(times) / rows,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def time_ours(model: str, seconds: float, forward: bool) -> dict:
    """Times our training step, or our forward pass."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    import jax
    import numpy as np

    from retrieval_jax import tasks
    from retrieval_jax.data.info import DataInfo
    from retrieval_jax.settings import base
    from retrieval_jax.training import optim, sharding
    from retrieval_jax.training.update import make_update

    name, variant, kwargs, _, rows, height, width = MODELS[model]
    config = base.defaults().train
    config.model.update({"name": name, "variant": variant, "projection": 0})
    config.model.kwargs = kwargs
    config.task_kwargs = {"loss": "softmax", "poly_epsilon": EPSILON}
    config.update({"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "clip_norm": CLIP, "ema_decay": EMA})
    config.warmup_epochs = 0.5
    info = DataInfo([str(i) for i in range(LABELS)], np.full(LABELS, 10), 10_000, (), (), "")
    task = tasks.get("multilabel").make(config, info)
    mesh = sharding.make_mesh()

    def init():
        params = task.init(jax.random.key(0), {"image": np.zeros((1, height, width, 3), np.uint8)})
        optimizer, _ = optim.make(config, params, 10_000, 100.0)
        return {"params": params, "ema": params, "opt_state": optimizer.init(params), "step": jax.numpy.int32(0)}

    state = jax.jit(init, out_shardings=sharding.replicated(mesh))()
    optimizer, _ = optim.make(config, state["params"], 10_000, 100.0)
    update = make_update(
        task, optimizer, jax.random.key(1), EMA, sharding.batch_sharding(mesh), sharding.replicated(mesh)
    )
    data = sharding.shard_batch(batch(model), mesh)

    embed = jax.jit(lambda params, batch: task.predict_fns["embed_image"].fn(params, batch)["embedding"])

    def step():
        nonlocal state
        if forward:
            return float(embed(state["params"], data)[0, 0])
        state, values = update(state, data, None)
        return float(values["loss"])

    return {"version": f"jax {jax.__version__}", **pictures_per_second(step, rows, seconds)}


def time_timm(name: str, seconds: float, forward: bool, threads: int, memory_format: str) -> dict:
    """Times the same step, or forward pass, of timm's model in PyTorch."""
    import torch

    # A torchvision built for a different torch lacks its operators, but timm only needs its Python code.
    real, torch.library.register_fake = torch.library.register_fake, lambda *_, **__: lambda function: function
    import timm

    torch.library.register_fake = real
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layout = getattr(torch, memory_format)
    model = timm.create_model(MODELS[name][3], num_classes=LABELS).to(memory_format=layout)
    model.train(not forward)
    params = list(model.parameters())
    average = [param.detach().clone() for param in params]
    decay = [param for param in params if param.ndim > 1]
    keep = [param for param in params if param.ndim <= 1]
    groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": keep, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, foreach=True)
    data = batch(name)
    images, ids = torch.from_numpy(data["image"]), torch.from_numpy(data["label_ids"]).long()
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))

    def step():
        x = (images.float() * (1 / (255 * std)) - mean / std).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        if forward:
            with torch.inference_mode():
                return float(model.forward_head(model.forward_features(x), pre_logits=True)[0, 0])
        log_p = torch.nn.functional.log_softmax(model(x), dim=-1).gather(1, ids)
        loss = (-log_p.mean(-1) + EPSILON * (1 - log_p.exp().mean(-1))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - EMA)
        return float(loss.detach())

    return {
        "version": f"torch {torch.__version__}, timm {timm.__version__}",
        **pictures_per_second(step, len(ids), seconds),
    }


def work(system: str, model: str, threads: int, seconds: float, forward: bool):
    """Runs one timing, in its own process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # XLA uses one thread per allowed core
    result = (
        time_ours(model, seconds, forward)
        if system == "ours"
        else time_timm(
            model, seconds, forward, threads, "channels_last" if "channels_last" in system else "contiguous_format"
        )
    )
    print(json.dumps(result))


def measure(system: str, model: str, tunables: str, arguments) -> dict:
    """Runs one timing in a new process."""
    env = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "GLIBC_TUNABLES": tunables}
    python = sys.executable if system == "ours" else arguments.torch_python
    command = [
        python,
        __file__,
        "--work",
        system,
        "--model",
        model,
        f"--threads={arguments.threads}",
        f"--seconds={arguments.seconds}",
        *(["--forward"] if arguments.forward else []),
    ]
    return in_process(command, env, system)


def in_process(command: list[str], env: dict, system: str) -> dict:
    """Returns what a timing in a new process printed last, as JSON."""
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{system} failed under {command[0]}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=15.0, help="of steps per timing")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and timm")
    parser.add_argument("--model", choices=list(MODELS), action="append", help="only this network")
    parser.add_argument("--setting", choices=list(SETTINGS), action="append", help="only this setting")
    parser.add_argument("--forward", action="store_true", help="time the forward pass alone")
    parser.add_argument("--work", choices=SYSTEMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.model[0], arguments.threads, arguments.seconds, arguments.forward)
        return
    for model in arguments.model or MODELS:
        rows, height, width = MODELS[model][-3:]
        print(
            f"\n{model}: {rows} pictures of {height} x {width}, {LABELS:,} labels, float32, {arguments.threads} "
            f"threads, {arguments.rounds} rounds of {arguments.seconds:g} s"
        )
        for setting in arguments.setting or SETTINGS:
            table(
                setting,
                [
                    {system: measure(system, model, SETTINGS[setting], arguments) for system in SYSTEMS}
                    for _ in range(arguments.rounds)
                ],
            )


def table(setting: str, rounds: list[dict]):
    """Prints the results of one setting."""
    print(f"\n{setting}\n\n| system | version | pictures per second | ours / this | ", end="")
    print("CPU ms per picture | this / ours | first loss | last loss |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for system in SYSTEMS:
        speeds = [timings[system]["pictures_per_second"] for timings in rounds]
        ours = [timings["ours"]["pictures_per_second"] for timings in rounds]
        ratios = [a / b for a, b in zip(ours, speeds, strict=True)]
        processor = [timings[system]["cpu_ms"] for timings in rounds]
        by_processor = [a / timings["ours"]["cpu_ms"] for a, timings in zip(processor, rounds, strict=True)]
        last = rounds[-1][system]
        print(
            f"| {system} | {last['version']} | {spread(speeds, 1)} | {spread(ratios, 2)} "
            f"| {spread(processor, 2)} | {spread(by_processor, 2)} "
            f"| {last['first_loss']:.3f} | {last['last_loss']:.3f} |",
            flush=True,
        )


def spread(values, digits) -> str:
    """Returns the median and the range of values as text."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
