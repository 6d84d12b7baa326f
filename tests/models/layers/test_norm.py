"""The layer norm of GPUs against flax's: values, gradients and parameters."""

import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.models.layers import norm

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("shape", [(4, 24), (2, 3, 5, 24)])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("bfloat16", 0.05)])
def test_equals_flax(shape, dtype, tolerance):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(2.0, 3.0, shape), dtype)
    params = {"scale": jnp.asarray(rng.normal(size=24)), "bias": jnp.asarray(rng.normal(size=24))}
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), params)
    cotangent = jnp.asarray(rng.normal(size=shape), dtype)

    def results(module):
        values, pull = jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x)
        return [values, *jax.tree.leaves(pull(cotangent))]

    ours, theirs = norm.FusedLayerNorm(1e-5, jnp.dtype(dtype)), nn.LayerNorm(1e-5, dtype=dtype)
    for mine, other in zip(*map(results, (ours, theirs)), strict=True):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        np.testing.assert_allclose(np.float32(mine), np.float32(other), atol=tolerance, rtol=tolerance)


def test_a_constant_row_has_finite_values_and_gradients():
    x = jnp.full((3, 8), 1e3)
    module = norm.FusedLayerNorm()
    params = module.init(jax.random.key(0), x)
    values, gradient = jax.value_and_grad(lambda x: module.apply(params, x).sum())(x)
    assert np.isfinite(values) and np.isfinite(gradient).all()


def test_parameters_and_names_are_the_same_on_every_backend(monkeypatch):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return norm.layer_norm("norm", 1e-6, jnp.bfloat16)(norm.layer_norm("first")(x))

    x, found = jnp.zeros((2, 8)), {}
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found[backend] = jax.eval_shape(Net().init, jax.random.key(0), x)
        assert jax.eval_shape(Net().apply, found["cpu"], x).dtype == jnp.bfloat16
    assert found["cpu"] == found["gpu"]


SHARDED = """
import re
import jax, jax.numpy as jnp
from retrieval_jax.models.layers import norm, positions
from retrieval_jax.training import sharding

mesh = sharding.make_mesh()
rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
arrays = jnp.ones(16), jnp.zeros(16), jnp.zeros((1, 6, 16)), jax.random.normal(jax.random.key(0), (8, 6, 16))

def loss(scale, bias, table, x):
    y = norm.normalise(positions.by_halves(x, table), scale, bias, 1e-6, jnp.dtype("float32"))
    return (y**2 * jnp.arange(16.0)).sum()

gradients = jax.grad(loss, (0, 1, 2, 3))
step = jax.jit(gradients, in_shardings=(whole, whole, whole, rows)).lower(*arrays).compile()
far = max(float(abs(a - b).max()) for a, b in zip(step(*arrays), gradients(*arrays)))
sent = re.findall(r"= f32\\[([\\d,]+)\\]\\S* (?:all-|collective-|reduce-scatter)", step.as_text())
print(far < 1e-3, max(eval(shape.replace(",", "*")) for shape in sent) < 8 * 6 * 16)
"""


def test_sharded_batches_send_sums_alone():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, "-c", SHARDED], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]
