"""Compiles the published training steps for an H100, on any machine, and adds up what their kernels move.

    python benchmarks/gpu_compiled.py [--models vit_large ...] [--out=benchmarks/gpu_compiled.json]
    python benchmarks/gpu_compiled.py --models vit_large --top=25 --keep=/tmp/programs     # the costliest kernels

Needs no GPU, but jax with jax-cuda13-pjrt and jax-cuda13-plugin of one version, the one in the JSON for comparable
numbers. XLA compiles ahead of time for a described device; nothing is tuned on one, and nothing is timed. Per step:

    kernels       launches: fusions, products, convolutions, custom calls, copies
    gigabytes     operands and results of all kernels, 10^9 bytes: what they would move if no cache helped
    temporary     GiB of scratch memory, activations included, besides state and batch

A step takes at least as long as a device needs to move these bytes or to compute the products, whichever is longer.
Rows of other models in an existing JSON are kept. 40 to 120 s a step on two cores, about 4 GB of memory.
"""

import argparse
import collections
import gzip
import json
import math
import pathlib
import re
import sys
import time

import jax
import numpy as np
import published_steps
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from retrieval_jax.models.layers import attention

OUT = pathlib.Path(__file__).with_suffix(".json")
# An H100 SXM5 in the terms of XLA's GpuTargetConfigProto, from NVIDIA's "H100 Tensor Core GPU Architecture" and the
# limits of compute capability 9.0 in the "CUDA C++ Programming Guide".
DEVICE = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 48 << 10,
    "shared_memory_per_core": 228 << 10,
    "shared_memory_per_block_optin": 227 << 10,
    "threads_per_core_limit": 2048,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
    "registers_per_core_limit": 64 << 10,
    "registers_per_block_limit": 64 << 10,
    "memory_bandwidth": 3_352_320_000_000,
    "pcie_bandwidth": 32 << 30,
    "l2_cache_size": 50 << 20,
    "clock_rate_ghz": 1.98,
    "device_memory_size": 80 * 10**9,
    "device_address_bits": 64,
    "ecc_enabled": "true",
    "cuda_compute_capability": "{ major: 9 feature_extension: ACCELERATED_FEATURES }",
    "name": '"NVIDIA H100 80GB HBM3"',
    "device_vendor": '"NVIDIA Corporation"',
    "platform_version": '"Compute Capability 9.0a"',
    "driver_version": '"13.0.0"',
    "runtime_version": '"13.0.0"',
    "compile_time_toolkit_version": '"13.0.0"',
    "dnn_version": '"9.12.0"',
}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
BYTES |= {"f64": 8, "s64": 8, "u64": 8}
_SHAPE = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_NOT_KERNELS = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}


def target() -> str:
    """Returns the description of the device that XLA compiles for, as text of a GpuTargetConfigProto."""
    fields = "".join(f"  {name}: {value}\n" for name, value in DEVICE.items())
    major, minor, patch = DEVICE["dnn_version"].strip('"').split(".")
    return (
        f'gpu_device_info {{\n{fields}}}\nplatform_name: "CUDA"\ndevice_description_str: {DEVICE["name"]}\n'
        f"dnn_version_info {{ major: {major} minor: {minor} patch: {patch} }}\n"
    )


def compiled(name: str, **fields):
    """Compiles the training step of a published network for an H100.

    Args:
      name: key of `published_steps.MODELS`.
      **fields: fields of the backbone's `Model` to override.
    """
    topology = topologies.get_topology_desc("h100", "cuda", target_config=target(), topology="1x1x1")
    sharding = NamedSharding(Mesh(np.array(topology.devices[:1]), ("one",)), PartitionSpec())
    # As on the device, for this process only. jax asks for cuDNN's version before it takes its attention.
    jax.default_backend, attention.has_flash = (lambda: "gpu"), (lambda: True)
    major, minor, patch = map(int, DEVICE["dnn_version"].strip('"').split("."))
    fused_attention_stablehlo.check_cudnn_version = lambda: 10000 * major + 100 * minor + patch
    ours = published_steps.our_step(name, **fields)
    state, number = jax.eval_shape(ours.init), jax.ShapeDtypeStruct((), np.int32)
    step = jax.jit(ours.update, donate_argnums=0, in_shardings=(sharding,) * 3, out_shardings=sharding)
    data = {key: jax.ShapeDtypeStruct(value.shape, value.dtype) for key, value in ours.data.items()}
    return step.lower(state, data, number).compile()


def parts(shape: str) -> list[int]:
    """Returns the bytes of the elements of a tuple's shape, or of an array's, as HLO writes it."""
    elements, depth = [""], 0
    for character in shape[1:-1] if shape.startswith("(") else shape:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            elements.append("")
        else:
            elements[-1] += character
    return [
        sum(
            BYTES[kind] * math.prod(int(side) for side in sides.split(",") if side)
            for kind, sides in _SHAPE.findall(element)
        )
        for element in elements
    ]


def kernels(text: str) -> list[tuple[int, str, str]]:
    """Returns (bytes of operands and results, kind, shape of the result and operation) of each kernel of a program.

    Args:
      text: an optimised HLO module, as `compiled.as_text()` returns it.
    """
    sizes, found, inside = {}, [], False
    for line in text.splitlines():
        if line.startswith("ENTRY "):
            inside = True
        elif line.startswith("}"):
            inside = False
        match = _INSTRUCTION.match(line) if inside else None
        if match is None:
            continue
        name, shape, operation, rest = match.groups()
        sizes[name] = parts(shape)
        if operation in _NOT_KERNELS:
            continue
        # An operand is a result, or with "#2" the third part of one.
        read = [
            sizes[one][int(part)] if part else sum(sizes[one])
            for one, part in re.findall(r"%([\w.\-]+)(?:#(\d+))?", rest.split("), ")[0])
            if one in sizes
        ]
        what = re.search(r'custom_call_target="([^"]+)"', rest) or re.search(r"kind=k(\w+)", rest)
        source = re.search(r'op_name="([^"]*)"', rest)
        source = re.sub(r"block\d+", "block", source[1])[-80:] if source else ""
        kind = operation if what is None else f"{operation} {what[1]}"
        found.append((sum(sizes[name]) + sum(read), kind, f"{shape[:90]} {source}"))
    return found


def summary(program) -> dict:
    """Returns kernels, gigabytes and temporary GiB of a compiled program."""
    found, memory = kernels(program.as_text()), program.memory_analysis()
    return {
        "kernels": len(found),
        "gigabytes": round(sum(size for size, *_ in found) / 1e9, 2),
        "temporary": round(memory.temp_size_in_bytes / 2**30, 2),
    }


def costliest(found: list[tuple[int, str, str]], top: int) -> str:
    """Returns the costliest kinds of kernels, and the costliest kernels of one kind, shape and source together."""
    lines = []
    for keys in ([kind for _, kind, _ in found], [f"{kind} | {what}" for _, kind, what in found]):
        total, count = collections.Counter(), collections.Counter(keys)
        for (size, *_), key in zip(found, keys, strict=True):
            total[key] += size
        lines += [f"{size / 1e9:8.2f} GB {count[key]:5d} x {key}" for key, size in total.most_common(top)]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=published_steps.MODELS, default=list(published_steps.MODELS))
    parser.add_argument("--fields", type=json.loads, default={}, help="JSON: fields of the backbones to override")
    parser.add_argument("--top", type=int, default=0, help="print this many of the costliest kernels")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the text of the programs")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file; rows of other models in it are kept")
    given = parser.parse_args()
    for name in given.models:
        start = time.perf_counter()
        program = compiled(name, **given.fields)
        found = summary(program)
        print(f"{name}: {json.dumps(found)}, compiled in {time.perf_counter() - start:.0f} s", flush=True)
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            (given.keep / f"{name}.txt.gz").write_bytes(gzip.compress(program.as_text().encode()))
        if given.top:
            print(costliest(kernels(program.as_text()), given.top), flush=True)
        if given.out:
            old = json.loads(given.out.read_text()) if given.out.exists() else {}
            steps = {**old.get("steps", {}), name: found} if old.get("jax") == jax.__version__ else {name: found}
            about = {"jax": jax.__version__, "device": DEVICE["name"].strip('"'), "steps": steps}
            given.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
