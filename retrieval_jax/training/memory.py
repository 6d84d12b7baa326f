"""Memory of training per device: reported before the first step, and refused if it would not fit."""

import math

import jax

from retrieval_jax.errors import InputError
from retrieval_jax.workdir import provenance

_STATE = {"params": "parameters", "ema": "their moving average", "opt_state": "optimiser state"}


def state_bytes(state) -> dict[str, int]:
    """Computes the memory of the train state on one device, before it is allocated.

    Args:
      state: {"params", "ema", "opt_state"}, trees of arrays or of `jax.ShapeDtypeStruct`s with a sharding.

    Returns:
      {name in words: bytes}, including "gradients", which are sharded like the parameters.
    """
    counts = {words: sum(map(_bytes, jax.tree.leaves(state[name]))) for name, words in _STATE.items()}
    return {**counts, "gradients": counts["parameters"]}


def step_bytes(compiled, state, batch) -> dict[str, int]:
    """Computes the memory of a training step on one device.

    Args:
      compiled: the compiled update, whose memory analysis is read.
      state, batch: arguments it was compiled for.

    Returns:
      The result of `state_bytes` plus "batch" and "activations" (including other temporary buffers, such as parameters
      gathered from other devices); without these two if the backend has no memory analysis.
    """
    counts, analysis = state_bytes(state), compiled.memory_analysis()
    if analysis is None:
        return counts
    counts["batch"] = sum(map(_bytes, jax.tree.leaves(batch)))
    counts["activations"] = max(0, analysis.temp_size_in_bytes - counts["gradients"])
    return counts


def limit(device) -> int:
    """Returns the memory of a device in bytes; for a CPU device a share of the machine's or the container's."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return provenance.memory_bytes() // jax.local_device_count()


def residual_bytes(loss, params, batch) -> int:
    """Estimates the activations of a training step on one device by tracing alone, which takes about a second.

    They are what the forward pass keeps for the backward pass. XLA's own figure was within 25 % of it for ConvNeXt and
    ViT on a CPU (2026-11-29), and 2.8 times as large for EfficientNet-Lite0, whose gradients XLA schedules so that many
    maps are alive at once: following the program's own order gives 1.1 times. Training checks XLA's figure once the
    step is compiled. Rematerialisation, which a CPU ignores, makes the estimate smaller.

    Args:
      loss: (params, batch) -> scalar.
      params, batch: trees of `jax.ShapeDtypeStruct`s, the batch with the rows of one device.
    """
    kept = jax.eval_shape(lambda params, batch: jax.vjp(lambda params: loss(params, batch), params)[1], params, batch)
    return max(0, tree_bytes(kept) - tree_bytes(params))


def forward_bytes(function, params, batch) -> int:
    """Estimates the memory of a forward pass on one device by tracing alone: twice the largest array in it.

    Args:
      function: (params, batch) -> tree of arrays.
      params, batch: trees of `jax.ShapeDtypeStruct`s.
    """
    return 2 * max(_outputs(jax.make_jaxpr(function)(params, batch).jaxpr), default=0)


def _outputs(jaxpr):
    """Yields the bytes of every array that is computed in a jaxpr, those inside loops and calls included."""
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _outputs(inner)
        yield sum(math.prod(out.aval.shape) * out.aval.dtype.itemsize for out in equation.outvars if _is_array(out))


def _is_array(variable) -> bool:
    aval = variable.aval
    return hasattr(aval, "shape") and hasattr(getattr(aval, "dtype", None), "itemsize")


def tree_bytes(tree) -> int:
    """Returns the bytes of a tree of arrays or shapes, wherever they lie."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check(counts: dict[str, int], most: int, hint: str = "") -> str:
    """Describes the memory use of a device.

    Args:
      counts: {name in words: bytes} on one device.
      most: memory of the device, bytes.
      hint: further remedy for the message.

    Returns:
      One sentence.

    Raises:
      InputError: it does not fit; the message lists the parts and how to reduce the largest.
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
        f"training would need {words}; it has only {_size(most)}. The largest part is {parts[0][0]}: use {remedy}"
        + (f"; {hint}" if hint else "")
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
