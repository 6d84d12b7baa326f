"""Depthwise convolution that is fast on a CPU too.

XLA's grouped convolution is tens of times slower on a CPU than the arithmetic asks for. There, the convolution of one
channel is written as a product with its Toeplitz matrix (input positions x output positions), and all channels are one
batched matrix product. The work of that grows with the square of the map, so large maps are cut into bands of rows
first. `benchmarks/depthwise.py` times both forms side by side.

Parameters are the same in both forms, so that a checkpoint moves between backends.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Positions (rows x width) of one Toeplitz product: small enough to waste little work, large enough for fast products.
BAND_POSITIONS = 96


def depthwise_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves every channel with its own kernel, stride 1, zero padding that keeps the size.

    Args:
      images: [B, H, W, C].
      kernel: [k, k, C], k odd.

    Returns:
      [B, H, W, C], in the type of `images`.
    """
    kernel = kernel.astype(images.dtype)
    if jax.default_backend() == "cpu":
        return toeplitz(images, kernel)
    return grouped(images, kernel)


def grouped(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """`depthwise_conv` as XLA's own grouped convolution: the form for accelerators."""
    return jax.lax.conv_general_dilated(
        images,
        kernel[:, :, None, :],
        (1, 1),
        "SAME",
        feature_group_count=images.shape[-1],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.cache
def _taps(rows_in: int, rows_out: int, width: int, size: int, above: int) -> np.ndarray:
    """Which kernel tap joins an input with an output position, one-hot: [k * k, rows_in * W * rows_out * W].

    Args:
      rows_in: rows of the input band, of which `above` stand above the first output row.
      rows_out: rows of the output band.
      width: W.
      size: k.
      above: see rows_in.
    """
    in_row, in_column = np.divmod(np.arange(rows_in * width), width)
    out_row, out_column = np.divmod(np.arange(rows_out * width), width)
    dy = (in_row[:, None] - above) - out_row[None, :] + size // 2
    dx = in_column[:, None] - out_column[None, :] + size // 2
    inside = (dy >= 0) & (dy < size) & (dx >= 0) & (dx < size)
    taps = np.zeros((size * size, inside.size), np.int8)
    taps[(dy * size + dx)[inside], np.flatnonzero(inside)] = 1
    return taps


def toeplitz(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """`depthwise_conv` as products with Toeplitz matrices: the form for CPUs."""
    batch, height, width, channels = images.shape
    size = kernel.shape[0]
    bands = -(-height * width // BAND_POSITIONS)
    if bands == 1:
        rows_out, rows_in, above = height, height, 0
        inputs = images[:, None]
    else:  # bands overlap by the reach of the kernel; rows of zeros fill the last one
        rows_out = -(-height // bands)
        bands = -(-height // rows_out)
        above = size // 2
        rows_in = rows_out + 2 * above
        padded = jnp.pad(images, ((0, 0), (above, bands * rows_out - height + above), (0, 0), (0, 0)))
        inputs = jnp.stack([padded[:, i * rows_out : i * rows_out + rows_in] for i in range(bands)], axis=1)
    taps = jnp.asarray(_taps(rows_in, rows_out, width, size, above), images.dtype)
    # In this order the gradient of the kernel is a product of untransposed matrices: five times as fast.
    matrices = kernel.reshape(size * size, channels).T @ taps
    outputs = jnp.einsum(
        "npc,cpq->nqc",
        inputs.reshape(batch * bands, rows_in * width, channels),
        matrices.reshape(channels, rows_in * width, rows_out * width),
    )
    outputs = outputs.reshape(batch, bands * rows_out, width, channels)[:, :height]
    # The products lie channels first. Without the barrier every reader would turn them round for itself.
    return jax.lax.optimization_barrier(outputs)
