"""Mesh and batches, on one process with several devices and on two processes."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from retrieval_jax import sharding
from retrieval_jax.errors import InputError


def test_mesh_has_one_auto_axis_over_all_devices():
    mesh = sharding.make_mesh()
    assert mesh.axis_names == ("data",) and mesh.size == jax.device_count() and mesh.axis_types == (AxisType.Auto,)


def test_batch_keeps_values_and_types():
    mesh = sharding.make_mesh(jax.devices()[:1])
    batch = {"image": np.zeros((4, 2, 2, 3), np.uint8), "_mask": np.ones(4, bool)}
    out = sharding.shard_batch(batch, mesh)
    assert out["image"].dtype == np.uint8 and out["_mask"].shape == (4,)
    assert out["image"].sharding.is_equivalent_to(sharding.batch_sharding(mesh), 4)


def test_bad_variable_is_refused(monkeypatch):
    monkeypatch.setenv(sharding.VARIABLE, "yes")
    with pytest.raises(InputError, match="rank"):
        sharding.initialize()
    monkeypatch.delenv(sharding.VARIABLE)
    sharding.initialize()


CHILD = """
import jax, numpy as np
from retrieval_jax import sharding
from retrieval_jax.errors import InputError
sharding.initialize()
mesh = sharding.make_mesh()
p, count = jax.process_index(), jax.process_count()
rows = np.arange(8, dtype=np.float32)
batch = sharding.shard_batch({"x": rows[p * 8 // count:(p + 1) * 8 // count]}, mesh)
gram = jax.jit(lambda x: x[:, None] @ x[None], out_shardings=sharding.replicated(mesh))(batch["x"])
assert np.array_equal(np.asarray(gram), np.outer(rows, rows))
try:
    sharding.shard_batch({"x": rows[:3]}, mesh)
except InputError as error:
    print(count, mesh.size, batch["x"].shape, "multiple of 4" in str(error))
"""


@pytest.mark.parametrize("count", [1, 2])
def test_four_devices_in_one_or_two_processes(count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(4 // count), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        if count > 1:
            env[sharding.VARIABLE] = f"127.0.0.1:{port},{count},{rank}"
        children.append(subprocess.Popen([sys.executable, "-c", CHILD], env=env, text=True, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE))
    for child in children:
        out, err = child.communicate(timeout=120)
        assert out.endswith(f"{count} 4 (8,) True\n"), err
