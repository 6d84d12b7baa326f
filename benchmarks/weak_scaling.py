"""Reads from the compiled program what devices send each other in a training step, and estimates its cost on real ones.

    python benchmarks/weak_scaling.py [--devices 1 2 4 8] [--model=vit --variant=micro] [--size=64] [--rows=8]
    python benchmarks/weak_scaling.py --paper

The first form compiles the training step for 1, 2, 4 and 8 devices that are threads of this CPU, with the same number
of rows per device in every run, once with a replicated train state ("data") and once with a sharded one ("fsdp"). Per
device it prints FLOPs, the bytes that its collectives send (in a ring: an all-reduce of S bytes over n devices sends
2 S (n - 1) / n, an all-gather or a reduce-scatter half of that), memory, and the share of a step that the collectives
would take if nothing overlapped and a device computed and sent like an H100 (RATES). Threads of one CPU say nothing
about time, so nothing is timed. The body of a loop is counted once: leave scan and accumulate_steps off.

The second form prints the published networks on eight H100s and on 64 TPU v5e: FLOPs from their multiplications (three
times the forward pass), bytes from their parameters; nothing is compiled or run.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
LABELS, LABELS_A_PICTURE = 20_000, 8
# Peak bfloat16 FLOP/s, bytes of memory, memory bytes/s, bytes/s sent to other devices: from the makers' data sheets
# (H100 SXM: NVLink 450 GB/s each way; v5e: 1,600 Gbit/s between chips, both ways together). UTILISATION is assumed.
RATES = {"H100": (989e12, 80e9, 3.35e12, 450e9), "v5e": (197e12, 16e9, 819e9, 100e9)}
UTILISATION = 0.45
# model, variant, rows per device on eight of them, GMAC of a picture's forward pass at 224 px (from the papers; counted
# in configs/eproduct_*.py)
PAPER = (("convnext", "xlarge", 28, 60.9), ("vit", "large", 32, 61.6))
ITEM_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def collectives(text: str, devices: int) -> dict[str, float]:
    """Returns {kind: bytes that a device sends} in a compiled program, if all devices form a ring.

    Args:
      text: from `jax.stages.Compiled.as_text`.
      devices: number of devices that take part.
    """
    sent = dict.fromkeys(KINDS, 0.0)
    ring = (devices - 1) / devices
    factors = {
        "all-reduce": 2 * ring,
        "all-gather": ring,
        "reduce-scatter": ring * devices,
        "collective-permute": 1.0,
        "all-to-all": ring,
    }
    text = re.sub(r"/\*.*?\*/", "", text)  # "/*index=5*/" inside long tuples
    for result, kind in re.findall(r"= ([^=\n]*?) (" + "|".join(KINDS) + r")\(", text):
        size = sum(
            ITEM_BYTES[dtype] * math.prod(int(side) for side in shape.split(",") if side)
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", result)
        )
        sent[kind] += factors[kind] * size
    return sent


def step(model, variant, size, rows, dtype, devices=None, **sizes):
    """Returns (update, state, batch) of a training step with a head of LABELS, as shapes; nothing is computed."""
    sys.path.insert(0, str(ROOT))
    import jax
    import jax.numpy as jnp
    import numpy as np

    from retrieval_jax import tasks
    from retrieval_jax.data.info import DataInfo
    from retrieval_jax.settings import base
    from retrieval_jax.training import optim, sharding
    from retrieval_jax.training.update import make_update

    config = base.defaults().train
    config.model.update({"name": model, "variant": variant})
    config.model.kwargs = {}
    config.task_kwargs, config.dtype, config.warmup_epochs = {"loss": "softmax"}, dtype, 0.5
    info = DataInfo([str(i) for i in range(LABELS)], np.full(LABELS, 10), 1_000_000, (), (), "")
    task, mesh = tasks.get("multilabel").make(config, info), sharding.make_mesh(devices, **sizes)

    def init():
        params = task.init(jax.random.key(0), {"image": np.zeros((1, size, size, 3), np.uint8)})
        optimizer, _ = optim.make(config, params, 1000, 100.0)
        return {"params": params, "ema": params, "opt_state": optimizer.init(params), "step": jnp.int32(0)}

    abstract = jax.eval_shape(init)
    optimizer, _ = optim.make(config, abstract["params"], 1000, 100.0)
    by_state, by_batch = sharding.state_sharding(abstract, mesh), sharding.batch_sharding(mesh)
    update = make_update(task, optimizer, jax.random.key(1), 0.999, by_batch, by_state)
    count = rows * mesh.size
    shapes = {
        "image": ((count, size, size, 3), np.uint8),
        "label_ids": ((count, LABELS_A_PICTURE), np.int32),
        "label_ids_mask": ((count, LABELS_A_PICTURE), bool),
        "_mask": ((count,), bool),
    }
    batch = {name: jax.ShapeDtypeStruct(*shape, sharding=by_batch) for name, shape in shapes.items()}
    return update, sharding.placed(abstract, by_state), batch


def work(arguments, axis: str):
    """Compiles one step in this process and prints its costs."""
    sizes = {"fsdp": arguments.devices[0]} if axis == "fsdp" else {}
    update, state, batch = step(arguments.model, arguments.variant, arguments.size, arguments.rows, "float32", **sizes)
    from retrieval_jax.training import memory

    compiled = update.lower(state, batch, None).compile()
    print(
        json.dumps(
            {
                "flops": compiled.cost_analysis()["flops"],
                "sent": collectives(compiled.as_text(), arguments.devices[0]),
                "memory": sum(memory.step_bytes(compiled, state, batch).values()),
                "state": sum(memory.state_bytes(state).values()),
            }
        )
    )


def scaling(arguments):
    """Prints the table for fake devices."""
    print(
        f"{arguments.model} {arguments.variant}, {arguments.size} x {arguments.size} px, {arguments.rows} rows per "
        f"device, {LABELS:,} labels, float32; values per device\n\n"
        "| devices | mesh | GFLOP | all-reduce MB | all-gather MB | reduce-scatter MB | other MB | state MB "
        "| step memory MB | share of time in collectives on H100s |\n|---:|---|" + "---:|" * 8
    )
    flops_rate, _, _, send_rate = RATES["H100"]
    for devices in arguments.devices:
        for axis in ("data", "fsdp") if devices > 1 else ("data",):
            flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
            command = [
                sys.executable,
                __file__,
                "--work",
                axis,
                "--devices",
                str(devices),
                f"--model={arguments.model}",
                f"--variant={arguments.variant}",
                f"--size={arguments.size}",
                f"--rows={arguments.rows}",
            ]
            done = subprocess.run(
                command, env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{devices} devices failed:\n{done.stderr}")
            found = json.loads(done.stdout.splitlines()[-1])
            sent = found["sent"]
            seconds = sum(sent.values()) / send_rate
            share = seconds / (seconds + found["flops"] / (flops_rate * UTILISATION))
            other = sent["collective-permute"] + sent["all-to-all"]
            columns = [
                f"{found['flops'] / 1e9:.2f}",
                *(
                    f"{value / 1e6:.1f}"
                    for value in (
                        sent["all-reduce"],
                        sent["all-gather"],
                        sent["reduce-scatter"],
                        other,
                        found["state"],
                        found["memory"],
                    )
                ),
                f"{share:.0%}",
            ]
            print(f"| {devices} | {axis} | {' | '.join(columns)} |", flush=True)


def paper():
    """Prints the table for published networks on real devices."""
    import jax

    print(
        "| network | devices | rows per device | mesh | TFLOP per step | state GB | sent GB per step | optimiser "
        "memory traffic GB | compute ms | sending ms | optimiser ms | pictures per second, all devices |\n"
        "|---|---|---:|---|" + "---:|" * 8
    )
    for model, variant, rows, multiplications in PAPER:
        _, state, _ = step(model, variant, 224, rows, "bfloat16", jax.devices()[:1])
        params = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
        for kind, devices, share in (("H100", 8, rows), ("v5e", 64, rows / 8), ("v5e", 64, rows)):
            peak, _, memory_rate, send_rate = RATES[kind]
            ring = (devices - 1) / devices
            for fsdp in (1, devices):
                # parameters, average, two moments and gradients in float32; the first four are read and written
                held, traffic = 20 * params / fsdp, (4 * 8 + 4) * params / fsdp
                # replicated: an all-reduce of gradients; sharded: all-gather of parameters, reduce-scatter of gradients
                sent = 2 * ring * 4 * params
                work = 3 * 2e9 * multiplications * share
                times = work / (peak * UTILISATION), sent / send_rate, traffic / memory_rate
                speed = devices * share / (max(times[0], times[1]) + times[2])
                mesh = f"fsdp={fsdp}" if fsdp > 1 else f"data={devices}"
                print(
                    f"| {model} {variant}, {params / 1e6:.0f} M | {devices} x {kind} | {share:g} | {mesh} "
                    f"| {work / 1e12:.2f} | {held / 1e9:.2f} | {sent / 1e9:.2f} | {traffic / 1e9:.2f} "
                    f"| {times[0] * 1e3:.1f} | {times[1] * 1e3:.1f} | {times[2] * 1e3:.1f} | {speed:,.0f} |",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--model", default="vit")
    parser.add_argument("--variant", default="micro")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch per device")
    parser.add_argument("--paper", action="store_true", help="the published networks on real devices")
    parser.add_argument("--work", choices=("data", "fsdp"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments, arguments.work)
    elif arguments.paper:
        paper()
    else:
        scaling(arguments)


if __name__ == "__main__":
    main()
