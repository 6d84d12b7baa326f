"""Attention against jax's own, and the arguments of cuDNN's form run through XLA's: values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.models.layers import attention as layer
from retrieval_jax.models.layers.attention import attention, flash


def results(function, arrays):
    """Returns the values of a function of attention and the gradients of all its arguments."""
    values, pull = jax.vjp(function, *arrays)
    return [values, *pull(jnp.ones_like(values).at[0, 1].set(2.0))]


def draw(dtype, tokens=5, keys=7, with_bias=True):
    rng = np.random.default_rng(0)
    shapes = [(2, tokens, 3, 4)] + [(2, keys, 3, 4)] * 2 + [(1, 3, tokens, keys)] * with_bias
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("bfloat16", 0.03)])
def test_equals_jax(with_bias, dtype, tolerance):
    arrays = draw(dtype, with_bias=with_bias)
    ours, theirs = (
        jax.jit(lambda *arrays, f=f: results(f, arrays))(*arrays) for f in (attention, jax.nn.dot_product_attention)
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        np.testing.assert_allclose(np.float32(mine), np.float32(other), atol=tolerance)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("tokens, keys", [(13, 13), (16, 16), (5, 7), (8, 3)])
def test_padding_and_masks_of_flash_attention_change_nothing(with_bias, tokens, keys):
    arrays = draw("float32", tokens, keys, with_bias)

    def padded(*arrays):
        return flash(*arrays, implementation="xla")

    ours, plain = (jax.jit(lambda *arrays, f=f: results(f, arrays))(*arrays) for f in (padded, attention))
    for mine, other in zip(ours, plain, strict=True):
        assert mine.shape == other.shape and np.isfinite(mine).all()
        np.testing.assert_allclose(mine, other, atol=2e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_masks_are_finite_in_half_precision(dtype):
    arrays = draw(dtype)
    bias = arrays[3] * 100
    ours = flash(*arrays[:3], bias, implementation="xla")
    plain = attention(*(array.astype("float32") for array in arrays[:3]), bias.astype("float32"))
    np.testing.assert_allclose(np.float32(ours), plain, atol=0.05)


@pytest.mark.parametrize("with_bias", [False, True])
def test_cudnn_gets_multiples_of_eight_and_half_precision(monkeypatch, with_bias):
    calls = []

    def record(query, key, value, bias=None, **kwargs):
        calls.append((query, key, bias, kwargs))
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    monkeypatch.setattr(layer, "has_flash", lambda: True)
    query = jnp.zeros((2, 197, 3, 64), jnp.bfloat16)
    bias = jnp.zeros((1, 3, 197, 197), jnp.float32) if with_bias else None
    assert attention(query, query, query, bias).shape == query.shape
    ((query, key, bias, kwargs),) = calls
    assert query.shape == key.shape == (2, 200, 3, 64) and kwargs.pop("implementation") == "cudnn"
    if with_bias:
        assert bias.shape == (1, 3, 200, 200) and bias.dtype == jnp.bfloat16 and not kwargs
        assert (bias[..., 197:] < -1e4).all() and (bias[..., :197] == 0).all()
    else:
        assert bias is None and {name: value.tolist() for name, value in kwargs.items()} == {
            "query_seq_lengths": [197, 197],
            "key_value_seq_lengths": [197, 197],
        }


@pytest.mark.parametrize(
    "backend, capability, dtype, dim, kernel, expected",
    [
        ("gpu", "9.0", "bfloat16", 64, "auto", True),
        ("gpu", "8.0", "float16", 128, "auto", True),
        ("gpu", "10.0", "bfloat16", 32, "auto", True),
        ("gpu", "7.5", "bfloat16", 64, "auto", False),  # no flash attention before Ampere
        ("gpu", "gfx942", "bfloat16", 64, "auto", False),  # AMD's
        ("gpu", "9.0", "float32", 64, "auto", False),
        ("gpu", "9.0", "bfloat16", 20, "auto", False),
        ("gpu", "9.0", "bfloat16", 256, "auto", False),
        ("gpu", "9.0", "bfloat16", 64, "xla", False),
        ("cpu", "", "bfloat16", 64, "auto", False),
        ("tpu", "", "bfloat16", 64, "auto", False),
        ("cpu", "", "bfloat16", 64, "cudnn", True),
    ],
)
def test_the_kernel_is_chosen_per_backend(monkeypatch, backend, capability, dtype, dim, kernel, expected):
    device = type("Device", (), {"compute_capability": capability})()
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert layer.uses_flash(dtype, dim, kernel) is expected
    if kernel == "auto":
        with layer.portable():
            assert not layer.uses_flash(dtype, dim, kernel)


def test_an_unknown_kernel_is_rejected():
    with pytest.raises(InputError, match="attention_kernel='cudn'.*cudnn"):
        layer.uses_flash("float32", 64, "cudn")


@pytest.mark.parametrize("run", [attention, functools.partial(flash, implementation="xla")])
def test_masked_keys_do_not_count(run):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, 5, 2, 4)), jnp.float32) for _ in range(3))
    lengths = np.array([5, 3])
    found = run(query, key, value, mask=jnp.arange(5) < lengths[:, None])
    for row, length in enumerate(lengths):
        own = slice(row, row + 1)
        expected = attention(query[own], key[own, :length], value[own, :length])
        np.testing.assert_allclose(found[own], expected, rtol=1e-5, atol=1e-5)
