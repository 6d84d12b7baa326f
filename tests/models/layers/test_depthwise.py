"""The two forms of the depthwise convolution against each other and against plain loops: values and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.models.layers import depthwise

SIZES = [(1, 1, 7), (1, 7, 3), (2, 3, 5), (5, 4, 7), (10, 8, 7), (13, 11, 5), (20, 16, 7), (29, 23, 3), (3, 200, 5)]


def make(height, width, size, batch=2, channels=3):
    rng = np.random.default_rng(height * 100 + width * 10 + size)
    shapes = (batch, height, width, channels), (size, size, channels), (batch, height, width, channels)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def values_and_gradients(function, *arrays):
    def run(images, kernel, cotangent):
        values, pull = jax.vjp(function, images, kernel)
        return values, *pull(cotangent)

    return jax.jit(run)(*arrays)


def naive(images, kernel):
    """Computes the convolution by four loops in float64."""
    images, kernel = np.asarray(images, np.float64), np.asarray(kernel, np.float64)
    _, height, width, _ = images.shape
    reach = len(kernel) // 2
    out = np.zeros_like(images)
    for y in range(height):
        for x in range(width):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        out[:, y, x] += images[:, y + dy, x + dx] * kernel[dy + reach, dx + reach]
    return out


@pytest.mark.parametrize("form", [depthwise.toeplitz, depthwise.grouped], ids=["toeplitz", "grouped"])
@pytest.mark.parametrize("height, width, size", [(1, 1, 7), (4, 6, 3), (7, 5, 7), (25, 9, 5)])
def test_each_form_equals_plain_loops(form, height, width, size):
    images, kernel, _ = make(height, width, size)
    np.testing.assert_allclose(jax.jit(form)(images, kernel), naive(images, kernel), atol=2e-5)


@pytest.mark.parametrize("height, width, size", SIZES)
def test_toeplitz_equals_grouped_in_values_and_both_gradients(height, width, size):
    arrays = make(height, width, size)
    both = (values_and_gradients(form, *arrays) for form in (depthwise.toeplitz, depthwise.grouped))
    for name, ours, theirs in zip(("values", "of images", "of kernel"), *both, strict=True):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1.0, scale), err_msg=name)


def test_sizes_cover_one_band_and_several():
    bands = {-(-height * width // depthwise.BAND_POSITIONS) for height, width, _ in SIZES}
    assert 1 in bands and max(bands) >= 4


@pytest.mark.parametrize("positions", [1, 40, 10**6])
def test_bands_do_not_change_the_result(monkeypatch, positions):
    arrays = make(11, 8, 5)
    expected = values_and_gradients(depthwise.grouped, *arrays)
    monkeypatch.setattr(depthwise, "BAND_POSITIONS", positions)
    for ours, theirs in zip(values_and_gradients(depthwise.toeplitz, *arrays), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("height, width", [(5, 4), (20, 16)])
def test_bfloat16_is_close_to_float32(height, width):
    images, kernel, cotangent = make(height, width, 7)
    half = [x.astype(jnp.bfloat16) for x in (images, kernel, cotangent)]
    # The same rounded inputs on both sides, so only the arithmetic differs.
    full = [x.astype(jnp.float32) for x in half]
    for ours, theirs in zip(
        values_and_gradients(depthwise.toeplitz, *half), values_and_gradients(depthwise.grouped, *full), strict=True
    ):
        assert ours.dtype == jnp.bfloat16
        assert float(jnp.abs(ours.astype(jnp.float32) - theirs).max()) <= 0.02 * float(jnp.abs(theirs).max())


def test_form_follows_the_backend_and_the_type_of_the_images(monkeypatch):
    images, kernel, _ = make(4, 3, 3)
    called = []
    for name in ("toeplitz", "grouped"):
        monkeypatch.setattr(depthwise, name, lambda images, kernel, name=name: called.append((name, kernel.dtype)))
    for backend in ("cpu", "gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        depthwise.depthwise_conv(images.astype(jnp.bfloat16), kernel)
    assert called == [(name, jnp.bfloat16) for name in ("toeplitz", "grouped", "grouped")]
