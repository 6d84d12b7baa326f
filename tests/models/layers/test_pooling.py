"""Pooling against NumPy, and the expectation of drop path."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.models.layers.pooling import ACTIVATIONS, KINDS, DropPath, Pool, activation

POSITIONS = np.random.default_rng(0).uniform(0.01, 1.0, (3, 4, 5, 8)).astype(np.float32)


def gem(exponent, positions=POSITIONS):
    return np.asarray(Pool("gem").apply({"params": {"p": jnp.float32(exponent)}}, positions))


def test_average():
    np.testing.assert_allclose(Pool("avg").apply({}, POSITIONS), POSITIONS.mean((1, 2)), rtol=1e-6)


def test_gem_goes_from_the_average_to_the_maximum():
    np.testing.assert_allclose(gem(1.0), POSITIONS.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(gem(3.0), (POSITIONS.astype(np.float64) ** 3).mean((1, 2)) ** (1 / 3), rtol=1e-5)
    np.testing.assert_allclose(gem(500.0), POSITIONS.max((1, 2)), rtol=0.01)
    assert Pool("gem").init(jax.random.key(0), POSITIONS)["params"]["p"] == 3.0


@jax.jit
def _gem_and_gradients(exponent, positions):
    def total(exponent, positions):
        return Pool("gem").apply({"params": {"p": exponent}}, positions).sum()

    return jax.value_and_grad(total, (0, 1))(exponent, positions)


@pytest.mark.parametrize("exponent", [3.0, 8.0, 60.0])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 1e3])
def test_gem_and_its_gradient_stay_finite(exponent, scale):
    value, gradients = _gem_and_gradients(jnp.float32(exponent), jnp.asarray(scale * POSITIONS))
    assert np.isfinite(value) and all(np.isfinite(gradient).all() for gradient in gradients)


def test_maximum_and_the_mean_of_average_and_maximum():
    np.testing.assert_allclose(Pool("max").apply({}, POSITIONS), POSITIONS.max((1, 2)))
    expected = (POSITIONS.mean((1, 2)) + POSITIONS.max((1, 2))) / 2
    np.testing.assert_allclose(Pool("avgmax").apply({}, POSITIONS), expected, rtol=1e-6)


def test_attention_pooling_equals_numpy():
    pool = Pool("map", num_heads=2, epsilon=1e-3, mlp_ratio=3.0, act="relu")
    params = jax.jit(pool.init)(jax.random.key(0), POSITIONS)["params"]
    # Make every tensor non-trivial: biases and norms start at 0 and 1.
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = POSITIONS.reshape(3, 20, 8).astype(np.float64)

    def dense(x, name):
        return x @ p[name]["kernel"] + p[name]["bias"]

    q = dense(p["query"][0, 0], "q").reshape(2, 4)
    k, v = np.moveaxis(dense(x, "kv").reshape(3, 20, 2, 2, 4), 2, 0)
    weights = np.exp(np.einsum("he,bnhe->bhn", q, k) / np.sqrt(4))
    weights /= weights.sum(-1, keepdims=True)
    pooled = dense(np.einsum("bhn,bnhe->bhe", weights, v).reshape(3, 8), "proj")
    y = (pooled - pooled.mean(-1, keepdims=True)) / np.sqrt(pooled.var(-1, keepdims=True) + 1e-3)
    y = dense(np.maximum(dense(y * p["norm"]["scale"] + p["norm"]["bias"], "fc1"), 0), "fc2")
    assert p["fc1"]["kernel"].shape == (8, 24)
    np.testing.assert_allclose(jax.jit(pool.apply)({"params": params}, POSITIONS), pooled + y, atol=1e-4)


def test_activations():
    x = np.linspace(-3, 3, 7)
    erf = np.vectorize(math.erf)
    expected = {
        "gelu": x * (1 + erf(x / np.sqrt(2))) / 2,
        "relu": np.maximum(x, 0),
        "silu": x / (1 + np.exp(-x)),
        "gelu_tanh": x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
        "quick_gelu": x / (1 + np.exp(-1.702 * x)),
    }
    assert expected.keys() == ACTIVATIONS.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(activation(name)(jnp.asarray(x)), values, atol=1e-6)
    with pytest.raises(InputError, match="'swish'.*available: gelu, "):
        activation("swish")


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_pooled_into_float32(kind):
    pool = Pool(kind, dtype=jnp.bfloat16)
    params = jax.jit(pool.init)(jax.random.key(0), POSITIONS)
    pooled = jax.jit(pool.apply)(params, POSITIONS.astype(jnp.bfloat16))
    assert pooled.dtype == jnp.float32 and pooled.shape == (3, 8)
    np.testing.assert_allclose(pooled, jax.jit(Pool(kind).apply)(params, POSITIONS), atol=0.05)


def test_unknown_pooling_lists_the_known_ones():
    with pytest.raises(InputError, match="'median'.*available: avg, gem, map"):
        Pool("median").init(jax.random.key(0), POSITIONS)


def test_drop_path_drops_whole_pictures_and_keeps_the_expectation():
    branch = jnp.ones((20_000, 1, 2))
    out = np.asarray(DropPath(0.3).apply({}, branch, True, rngs={"dropout": jax.random.key(0)}))
    assert np.array_equal(out[:, 0, 0], out[:, 0, 1])
    np.testing.assert_allclose(np.unique(out), [0.0, 1 / 0.7], rtol=1e-6)
    assert abs(out.mean() - 1.0) < 4 * np.sqrt(0.3 / 0.7 / len(out))  # four standard errors
    assert abs((out == 0).mean() - 0.3) < 0.015


@pytest.mark.parametrize("rate, train", [(0.3, False), (0.0, True)])
def test_inactive_drop_path_needs_no_random_numbers(rate, train):
    branch = jnp.arange(6.0).reshape(3, 2)
    assert np.array_equal(DropPath(rate).apply({}, branch, train), branch)


def test_attention_pooling_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(InputError, match="3 heads do not divide a width of 8"):
        Pool("map", num_heads=3).init(jax.random.key(0), POSITIONS)


def test_a_traced_rate_also_drops():
    branch = jnp.ones((400, 1))
    out = jax.jit(lambda rate: DropPath(rate).apply({}, branch, True, rngs={"dropout": jax.random.key(0)}))(0.3)
    np.testing.assert_allclose(out, DropPath(0.3).apply({}, branch, True, rngs={"dropout": jax.random.key(0)}))
