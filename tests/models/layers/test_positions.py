"""The gradient of positions by halves of the batch, against the plain sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.models.layers import positions


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8, 29])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_equals_the_plain_sum(monkeypatch, batch, devices):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    rng = np.random.default_rng(batch)
    tokens, cotangent = (jnp.asarray(rng.normal(size=(batch, 5, 4)), jnp.float32) for _ in range(2))
    table = jnp.asarray(rng.normal(size=(1, 5, 4)), jnp.float32)
    (ours, pull), (plain, pull_plain) = (
        jax.vjp(function, tokens, table) for function in (positions.by_halves, jnp.add)
    )
    np.testing.assert_array_equal(ours, plain)
    for mine, other in zip(pull(cotangent), pull_plain(cotangent), strict=True):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, atol=2e-5)


def test_half_precision_is_summed_in_float32():
    cotangent = jnp.full((512, 1, 1), 1.01, jnp.bfloat16)
    _, pull = jax.vjp(positions.by_halves, cotangent, cotangent[:1])
    assert pull(cotangent)[1].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(pull(cotangent)[1]).item(), 512 * float(cotangent[0, 0, 0]), rtol=0.01)


@pytest.mark.parametrize("backend, plain", [("cpu", True), ("tpu", True), ("gpu", False)])
def test_the_form_is_chosen_per_backend(monkeypatch, backend, plain):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    arrays = jnp.zeros((4, 3, 2)), jnp.zeros((1, 3, 2))
    text = str(jax.make_jaxpr(lambda *arrays: positions.add(*arrays))(*arrays))  # a new function: traces are cached
    assert ("custom_vjp" not in text) is plain
