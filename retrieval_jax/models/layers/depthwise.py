"""Depthwise convolution that is fast on CPUs too.

On a CPU, XLA's grouped convolution is tens of times slower than its arithmetic requires. There, the convolution of a
channel is a product with its Toeplitz matrix (input positions x output positions), and all channels are one batched
matrix product. The work grows with the square of the map, so large maps are first cut into bands of rows.
`benchmarks/depthwise.py` compares both forms.

Both forms have the same parameters, so checkpoints work on every backend.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Positions (rows x width) per Toeplitz product: small enough to waste little work, large enough for fast products.
BAND_POSITIONS = 96


def depthwise_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves each channel with its own kernel, with stride 1 and zero padding that keeps the size.

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
    """Computes `depthwise_conv` as XLA's grouped convolution, for accelerators."""
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
    """Computes `depthwise_conv` as products with Toeplitz matrices, for CPUs."""
    batch, height, width, channels = images.shape
    size = kernel.shape[0]
    bands = -(-height * width // BAND_POSITIONS)
    if bands == 1:
        rows_out, rows_in, above = height, height, 0
        inputs = images[:, None]
    else:  # bands overlap by the reach of the kernel; the last one is padded with rows of zeros
        rows_out = -(-height // bands)
        bands = -(-height // rows_out)
        above = size // 2
        rows_in = rows_out + 2 * above
        padded = jnp.pad(images, ((0, 0), (above, bands * rows_out - height + above), (0, 0), (0, 0)))
        inputs = jnp.stack([padded[:, i * rows_out : i * rows_out + rows_in] for i in range(bands)], axis=1)
    taps = jnp.asarray(_taps(rows_in, rows_out, width, size, above), images.dtype)
    # In this order the gradient of the kernel needs no transposed matrices: five times as fast.
    matrices = kernel.reshape(size * size, channels).T @ taps
    outputs = jnp.einsum(
        "npc,cpq->nqc",
        inputs.reshape(batch * bands, rows_in * width, channels),
        matrices.reshape(channels, rows_in * width, rows_out * width),
    )
    outputs = outputs.reshape(batch, bands * rows_out, width, channels)[:, :height]
    # The products are channels-first. Without the barrier XLA transposes them once per consumer.
    return jax.lax.optimization_barrier(outputs)
