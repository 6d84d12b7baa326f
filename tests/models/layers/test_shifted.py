"""The sum of shifted products against plain loops and XLA's grouped convolution: values and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.models.layers import shifted

# height, width, kernel, stride: even and odd sides, maps smaller than the kernel, more rows than one loop sums
SIZES = [
    (1, 1, 3, 1),
    (1, 2, 5, 2),
    (4, 3, 5, 1),
    (7, 5, 5, 2),
    (8, 6, 3, 2),
    (7, 9, 3, 2),
    (3, 3, 3, 3),
    (61, 4, 3, 1),
]


def make(height, width, size, stride, batch=6, channels=3):
    rng = np.random.default_rng(height * 100 + width * 10 + size)
    rows, columns = -(-height // stride), -(-width // stride)
    shapes = (batch, height, width, channels), (size, size, channels), (batch, rows, columns, channels)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def values_and_gradients(function, stride, *arrays):
    def run(images, kernel, cotangent):
        values, pull = jax.vjp(lambda images, kernel: function(images, kernel, stride), images, kernel)
        return values, *pull(cotangent)

    return jax.jit(run)(*arrays)


def naive(images, kernel, stride):
    """Computes the convolution by four loops in float64, padded as TensorFlow documents it."""
    images, kernel = np.asarray(images, np.float64), np.asarray(kernel, np.float64)
    batch, height, width, channels = images.shape
    rows, columns, size = -(-height // stride), -(-width // stride), len(kernel)
    top = max((rows - 1) * stride + size - height, 0) // 2
    left = max((columns - 1) * stride + size - width, 0) // 2
    out = np.zeros((batch, rows, columns, channels))
    for y in range(rows):
        for x in range(columns):
            for dy in range(size):
                for dx in range(size):
                    row, column = y * stride + dy - top, x * stride + dx - left
                    if 0 <= row < height and 0 <= column < width:
                        out[:, y, x] += images[:, row, column] * kernel[dy, dx]
    return out


@pytest.mark.parametrize("form", [shifted.summed, shifted.grouped], ids=["summed", "grouped"])
@pytest.mark.parametrize("height, width, size, stride", [(4, 6, 3, 1), (7, 5, 5, 2), (8, 6, 5, 2), (8, 5, 3, 2)])
def test_each_form_equals_plain_loops(form, height, width, size, stride):
    images, kernel, _ = make(height, width, size, stride)
    found = jax.jit(form, static_argnums=2)(images, kernel, stride)
    np.testing.assert_allclose(found, naive(images, kernel, stride), atol=2e-5)


@pytest.mark.parametrize("height, width, size, stride", SIZES)
def test_the_sum_equals_grouped_in_values_and_both_gradients(height, width, size, stride):
    arrays = make(height, width, size, stride)
    both = (values_and_gradients(form, stride, *arrays) for form in (shifted.summed, shifted.grouped))
    for name, ours, theirs in zip(("values", "of images", "of kernel"), *both, strict=True):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1.0, scale), err_msg=name)


def test_bfloat16_keeps_its_type_in_values_and_gradients():
    arrays = [array.astype(jnp.bfloat16) for array in make(7, 5, 3, 2)]
    for array in values_and_gradients(shifted.summed, 2, *arrays):
        assert array.dtype == jnp.bfloat16 and bool(jnp.isfinite(array).all())
