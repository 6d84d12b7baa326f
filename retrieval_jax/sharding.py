"""Devices and processes: the mesh, and how batches and parameters lie on it."""

import os

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from retrieval_jax.errors import InputError

VARIABLE = "RETRIEVAL_JAX_DISTRIBUTED"


def initialize():
    """Joins the processes of a multi-process run; call it before anything else touches JAX.

    Does nothing unless the environment variable RETRIEVAL_JAX_DISTRIBUTED is set (launch/ sets it): "auto" on
    clusters that JAX recognises (Slurm, TPU pods, GKE), otherwise "host:port,number of processes,rank of this
    process". There is no fallback: processes that do not find each other must fail, or each of them would train a
    silent copy of the run.

    Raises:
        InputError: the variable holds something else.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return
    if value == "auto":
        jax.distributed.initialize()
        return
    try:
        address, count, index = value.split(",")
        count, index = int(count), int(index)
    except ValueError:
        raise InputError(f"{VARIABLE}={value!r}: write 'auto' or 'host:port,number of processes,rank', "
                         "for example '127.0.0.1:9876,2,0'") from None
    jax.distributed.initialize(coordinator_address=address, num_processes=count, process_id=index)


def make_mesh(devices=None):
    """Returns the mesh of all devices along one axis, "data".

    Args:
        devices: to use instead of all devices of all processes.
    """
    devices = jax.devices() if devices is None else devices
    # Explicit axes, the default since jax 0.9, refuse z @ z.T and top_k of sharded arrays
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch spread over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch, mesh: Mesh):
    """Joins the rows that each process read into global arrays, spread over the devices.

    Args:
        batch: pytree of arrays [b, ...], this process's rows of the global batch: b = B / processes.
        mesh: of `make_mesh`.

    Returns:
        The same tree of `jax.Array`s [B, ...].

    Raises:
        InputError: the devices cannot share the rows equally.
    """
    sharding = batch_sharding(mesh)
    here = len(mesh.local_devices)
    for leaf in jax.tree.leaves(batch):
        if len(leaf) % here:
            raise InputError(f"a batch of {len(leaf)} rows cannot be shared by {here} devices: set batch_size to a "
                             f"multiple of {mesh.size}")
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)
