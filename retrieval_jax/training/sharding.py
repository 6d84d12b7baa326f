"""Devices and processes: the mesh, and how batches and the train state are sharded over it.

The mesh has two axes. Rows of a batch are sharded over both; parameters, their moving average and the optimiser state
are sharded along "fsdp" (ZeRO 3: Rajbhandari et al., arXiv 1910.02054) and replicated along "data". There is no tensor
parallelism: it sends activations twice per block, which pays off if a device cannot hold the gathered layers or gets
less than one picture. The widest layer here (fc1 of a ConvNeXt-XL, 2048 x 8192) has 67 MB, a head of 20,000 labels
164 MB, and batches have dozens of pictures per device.
"""

import os
import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from retrieval_jax.errors import InputError
from retrieval_jax.training import allocation, optim

VARIABLE = "RETRIEVAL_JAX_DISTRIBUTED"
HEARTBEAT = "RETRIEVAL_JAX_HEARTBEAT_SECONDS"  # a process silent for that long is considered dead

# (regex over the parameter's path, spec); the first match applies. A spec has for each dimension the mesh axis that it
# is sharded along, or None; () replicates. LARGEST shards the largest divisible dimension.
LARGEST = "largest"
RULES = (
    (r"(^|/)(\w*bias|\w*scale|p|positions|query|class_token|registers|mask_token)$", ()),  # one value per channel
    (r"(^|/)dw_kernel$", ()),  # ConvNeXt's 7 x 7 per channel
    (r"(^|/)relative_bias(_\w+)?($|/)", ()),  # Swin's and BEiT's tables of offsets
    (r"(^|/)stem/", ()),
    (r"", LARGEST),  # qkv, proj, fc1, fc2 and down along their wider side; heads and the title tower along labels
)
_SMALL = 2**16  # elements; gathering a smaller array takes longer than it saves


def initialize():
    """Joins the processes of a multi-process run; call it before anything else touches JAX.

    Does nothing unless the environment variable RETRIEVAL_JAX_DISTRIBUTED is set (launch/ sets it): "auto" on
    clusters that JAX recognises (Slurm, TPU pods, GKE), otherwise "host:port,number of processes,rank of this
    process". There is no fallback: processes that do not find each other must fail, or each would silently train its
    own copy of the run.

    Raises:
      InputError: the variable holds something else.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return
    heartbeat = int(os.environ.get(HEARTBEAT) or 60)
    if value == "auto":
        jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)
        return
    try:
        address, count, index = value.split(",")
        count, index = int(count), int(index)
    except ValueError:
        raise InputError(
            f"{VARIABLE}={value!r}: write 'auto' or 'host:port,number of processes,rank', "
            "for example '127.0.0.1:9876,2,0'"
        ) from None
    jax.distributed.initialize(
        coordinator_address=address, num_processes=count, process_id=index, heartbeat_timeout_seconds=heartbeat
    )


def make_mesh(devices=None, *, data=0, fsdp=1):
    """Returns the mesh of all devices, with the axes "data" and "fsdp".

    Args:
      devices: devices to use instead of all devices of all processes.
      data: devices along "data"; 0 for the number of devices over `fsdp`.
      fsdp: devices along "fsdp", which are neighbours.

    Raises:
      InputError: the sizes do not match the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if all(device.platform == "cpu" for device in devices):
        allocation.keep_memory()
    sizes = (data or max(1, len(devices) // max(fsdp, 1)), fsdp)
    if min(sizes) < 1 or sizes[0] * sizes[1] != len(devices):
        raise InputError(
            f"config.train.mesh has data={data} and fsdp={fsdp}, but there are {len(devices)} devices; "
            "set fsdp to a divisor of that, and data to 0 for the rest"
        )
    # Explicit axes, the default since jax 0.9, reject z @ z.T and top_k of sharded arrays.
    return jax.make_mesh(sizes, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches: rows over all devices, along all axes."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding with a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_places(mesh: Mesh, batch_size: int, parts: int = 1) -> np.ndarray:
    """Returns the rows of a global batch that this process must read.

    The global batch is padded at its end so that all devices have equally many rows. So any batch size works with any
    number of devices, and row i is the same example on all of them.

    Args:
      mesh: from `make_mesh`.
      batch_size: rows of the global batch.
      parts: number of parts that the batch is divided into (`optim.accumulated`), each sharded over all devices.

    Returns:
      int [b], ascending indices into the padded batch, as `shard_batch` expects; batch_size and above is padding.
    """
    padded = -(-batch_size // (mesh.size * parts)) * mesh.size * parts
    slices = batch_sharding(mesh).addressable_devices_indices_map((padded,)).values()
    return np.unique(np.concatenate([np.arange(padded)[index] for index in slices]))


def shard_batch(batch, mesh: Mesh):
    """Assembles the rows read by each process into global arrays, sharded over the devices.

    Args:
      batch: pytree of arrays [b, ...], this process's rows of the global batch, at `local_places`.
      mesh: from `make_mesh`.

    Returns:
      The same tree of `jax.Array`s [B, ...].

    Raises:
      InputError: the rows are not divisible by the devices.
    """
    sharding = batch_sharding(mesh)
    here = len(mesh.local_devices)
    for leaf in jax.tree.leaves(batch):
        if len(leaf) % here:
            raise InputError(
                f"a batch of {len(leaf)} rows cannot be divided over {here} devices; set batch_size to a "
                f"multiple of {mesh.size}"
            )
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


def spec(path: str, shape, mesh: Mesh, rules=()) -> PartitionSpec:
    """Returns how one parameter is sharded, from the first rule that matches its path.

    Args:
      path: such as "backbone/stem/kernel".
      shape: shape of the parameter.
      mesh: from `make_mesh`.
      rules: (regex, spec) pairs that take precedence over RULES.

    Raises:
      InputError: a spec has an unknown mesh axis or does not fit the shape.
    """
    chosen = next((value for pattern, value in (*rules, *RULES) if re.search(pattern, path)))
    if chosen == LARGEST:
        stacked = re.search(r"(^|_|/)blocks/", path) is not None  # scanned: each loop step needs one whole layer
        sides = [
            (side, axis) for axis, side in enumerate(shape) if side % mesh.shape["fsdp"] == 0 and (axis or not stacked)
        ]
        if not sides or np.prod(shape) < _SMALL:
            return PartitionSpec()
        cut = max(sides)[1]
        return PartitionSpec(*(None,) * cut, "fsdp")
    chosen = tuple(tuple(axes) if isinstance(axes, list) else axes for axes in chosen)
    for side, axes in zip(shape, chosen, strict=False):
        names = (axes,) if isinstance(axes, str) else axes or ()
        unknown = [name for name in names if name not in mesh.shape]
        if unknown or side % int(np.prod([mesh.shape[name] for name in names])):
            reason = (
                f"has an unknown axis {unknown[0]!r}; the axes are {', '.join(mesh.shape)}"
                if unknown
                else (
                    f"divides {side} by {' x '.join(str(mesh.shape[name]) for name in names)}, which leaves a remainder"
                )
            )
            raise InputError(f"config.train.sharding_rules: {chosen} for {path} {tuple(shape)} {reason}")
    if len(chosen) > len(shape):
        raise InputError(f"config.train.sharding_rules: {chosen} has more dimensions than {path} {tuple(shape)}")
    return PartitionSpec(*chosen)


def state_sharding(abstract, mesh: Mesh, rules=()):
    """Returns the sharding of every array of the train state: parameters, their average and the optimiser state.

    Args:
      abstract: {"params", "ema", "opt_state", "step"}, trees of arrays or shapes.
      mesh: from `make_mesh`.
      rules: (regex, spec) pairs that take precedence over RULES, see `spec`.

    Returns:
      A tree of shardings in place of the arrays.

    Raises:
      InputError: a rule has an invalid regex, matches no parameter or does not fit one.
    """
    optim.checked_rules("sharding_rules", rules, abstract["params"])
    shapes = {
        path: tuple(leaf.shape)
        for path, leaf in zip(
            jax.tree.leaves(optim.paths(abstract["params"])), jax.tree.leaves(abstract["params"]), strict=True
        )
    }
    specs = {path: spec(path, shape, mesh, rules) for path, shape in shapes.items()}

    def place(path, leaf):
        names = path.split("/")  # ".../mu/backbone/stem/kernel" is sharded like "backbone/stem/kernel"
        ends = ("/".join(names[start:]) for start in range(len(names)))
        own = next((end for end in ends if shapes.get(end) == tuple(leaf.shape)), None)
        return NamedSharding(mesh, specs.get(own, PartitionSpec()))

    return jax.tree.map(place, optim.paths(abstract), abstract)


def placed(abstract, shardings):
    """Adds shardings to a tree of shapes; returns a tree of `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract, shardings
    )


def gathered(params, shardings):
    """Gathers sharded parameters on every device, and reduces their gradients back to the shards.

    Without it the compiler may exchange activations instead of parameters. Scanned layers are left to the compiler: it
    gathers one per step of the loop, whereas this would gather all of them beforehand.

    Args:
      params: tree of arrays, inside a compiled function.
      shardings: the same tree of shardings, from `state_sharding`.

    Returns:
      The parameters.
    """

    def one(path, value, sharding):
        if not any(sharding.spec) or re.search(r"(^|_|/)blocks/", path):
            return value

        def gather(value):
            return jax.lax.with_sharding_constraint(value, replicated(sharding.mesh))

        whole = jax.custom_vjp(gather)
        whole.defvjp(
            lambda value: (gather(value), None),
            lambda _, gradient: (jax.lax.with_sharding_constraint(gradient, sharding),),
        )
        return whole(value)

    return jax.tree.map(one, optim.paths(params), params, shardings)


def put(params, mesh: Mesh):
    """Replicates parameters over the devices of a mesh; arrays that are on these devices already stay unchanged."""
    devices = set(mesh.devices.flat)

    def one(value):
        there = isinstance(value, jax.Array) and value.sharding.device_set == devices
        return value if there else jax.device_put(value, replicated(mesh))

    return jax.tree.map(one, params)
