"""Linear layer and GELU against those of flax and jax: values and gradients."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.models.layers import linear


def values_and_gradients(function, *arguments):
    @jax.jit
    def run(*arguments):
        values, pull = jax.vjp(function, *arguments)
        return values, pull(jnp.cos(jnp.arange(values.size, dtype=values.dtype)).reshape(values.shape))

    return run(*arguments)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 3, 4, 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_equals_flax(shape, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    theirs, ours = (layer(4, dtype=dtype, bias_init=nn.initializers.normal()) for layer in (nn.Dense, linear.Dense))
    params = theirs.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x))
    a, b = (values_and_gradients(layer.apply, params, x) for layer in (ours, theirs))
    for mine, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        np.testing.assert_allclose(np.float32(mine), np.float32(other), atol=1e-6 if dtype == "float32" else 0.05)


def test_gelu_equals_the_definition():
    x = np.concatenate([np.linspace(-12, 12, 2001), [0.0, -1e4, 1e4]]).astype(np.float32)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(linear.gelu)))(x)
    share = np.array([math.erfc(-v * math.sqrt(0.5)) / 2 for v in x.astype(float)])
    density = np.exp(-0.5 * x.astype(float) ** 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(values, x * share, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(slopes, share + x * density, atol=1e-6)


def test_gelu_in_half_precision_is_rounded():
    x = jnp.linspace(-6, 6, 501).astype(jnp.bfloat16)
    ours, slopes = jax.vmap(jax.value_and_grad(linear.gelu))(x)
    full, full_slopes = jax.vmap(jax.value_and_grad(linear.gelu))(x.astype(jnp.float32))
    assert ours.dtype == slopes.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, full.astype(jnp.bfloat16))
    np.testing.assert_array_equal(slopes, full_slopes.astype(jnp.bfloat16))
