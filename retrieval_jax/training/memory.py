"""What training takes of a device's memory: said before the first step, and refused where it will not fit."""

import math
import os
import pathlib

import jax

from retrieval_jax.errors import InputError

_STATE = {"params": "parameters", "ema": "their moving average", "opt_state": "optimiser state"}


def state_bytes(state) -> dict[str, int]:
    """Counts what the train state takes on one device, before it is made.

    Args:
      state: {"params", "ema", "opt_state"}, trees of arrays or of `jax.ShapeDtypeStruct`s with a sharding.

    Returns:
      {name in words: bytes}, and "gradients": each lies as its parameter does.
    """
    counts = {words: sum(map(_bytes, jax.tree.leaves(state[name]))) for name, words in _STATE.items()}
    return {**counts, "gradients": counts["parameters"]}


def step_bytes(compiled, state, batch) -> dict[str, int]:
    """Counts what a training step takes on one device.

    Args:
      compiled: the compiled update, whose own account of its memory is read.
      state, batch: what it was compiled for.

    Returns:
      That of `state_bytes`, "batch" and "activations" (with whatever else the program keeps for a while, such as
      parameters gathered from other devices); without the latter two where the backend gives no account.
    """
    counts, analysis = state_bytes(state), compiled.memory_analysis()
    if analysis is None:
        return counts
    counts["batch"] = sum(map(_bytes, jax.tree.leaves(batch)))
    counts["activations"] = max(0, analysis.temp_size_in_bytes - counts["gradients"])
    return counts


def limit(device) -> int:
    """Returns the bytes that a device can hold; a CPU device a share of the machine's or the container's."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = pathlib.Path("/sys/fs/cgroup/memory.max")
    if allowed.exists() and allowed.read_text().strip().isdigit():
        total = min(total, int(allowed.read_text()))
    return total // jax.local_device_count()


def check(counts: dict[str, int], most: int) -> str:
    """Says what a device will hold.

    Args:
      counts: {name in words: bytes} on one device.
      most: bytes that a device can hold.

    Returns:
      One sentence.

    Raises:
      InputError: it is too much; the sentence names the largest parts and what makes them smaller.
    """
    total, parts = sum(counts.values()), sorted(counts.items(), key=lambda item: -item[1])
    words = f"{_size(total)} of memory on each device: " + ", ".join(f"{name} {_size(size)}" for name, size in parts)
    if total <= most:
        return f"{words}; it has {_size(most)}"
    remedies = {
        "activations": "config.train.accumulate_steps, model.kwargs.remat=True, dtype='bfloat16' or a smaller "
        "batch_size",
        "batch": "a smaller config.train.batch_size",
    }
    remedy = remedies.get(parts[0][0], "a larger config.train.mesh.fsdp, more devices or a smaller model.variant")
    raise InputError(
        f"training would take {words}; it has only {_size(most)}. What does not fit is first of all "
        f"{parts[0][0]}: use {remedy}"
    )


def _bytes(leaf) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _size(count: int) -> str:
    unit, name = next(
        (unit, name)
        for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (1024, "KiB"))
        if (count >= unit or unit == 1024)
    )
    return f"{count / unit:.1f} {name}"
