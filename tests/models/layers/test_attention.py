"""Attention against jax's own: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.models.layers.attention import attention


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("bfloat16", 0.03)])
def test_equals_jax(with_bias, dtype, tolerance):
    rng = np.random.default_rng(0)
    shapes = [(2, 5, 3, 4)] + [(2, 7, 3, 4)] * 2 + [(1, 3, 5, 7)] * with_bias
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]

    def results(function):
        values, pull = jax.vjp(function, *arrays)
        return [values, *pull(jnp.ones_like(values).at[0, 1].set(2.0))]

    ours, theirs = (jax.jit(results, static_argnums=0)(f) for f in (attention, jax.nn.dot_product_attention))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        np.testing.assert_allclose(np.float32(mine), np.float32(other), atol=tolerance)
