"""Attention biases by relative position: expands a table of offsets to a matrix, and resamples it to other windows.

Source: tables per window: Liu et al., "Swin Transformer", arXiv 2103.14030; with a class token and the resampling by
geometric positions: Bao et al., "BEiT", arXiv 2106.08254.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# A table with a class token ends with three more rows: class to patch, patch to class, class to class.
CLASS_ROWS = 3


def rows(window: tuple[int, int]) -> int:
    """Returns the number of offsets between two positions of a window of (rows, columns)."""
    return (2 * window[0] - 1) * (2 * window[1] - 1)


def _toeplitz(table: jax.Array, axis: int) -> jax.Array:
    """Expands an axis of 2 n - 1 offsets to two axes of n positions: [i, j] = table[i - j + n - 1]."""
    before, distances, after = table.shape[:axis], table.shape[axis], table.shape[axis + 1 :]
    n = (distances + 1) // 2
    # Repeat the reversed table, padded by one, and cut it into rows of 2 n - 1: each row starts one offset later. A
    # gather would work too, but on a GPU its gradient is slow and sums in no fixed order.
    flipped = jnp.flip(table, axis)
    flipped = jnp.concatenate([flipped, jax.lax.slice_in_dim(flipped, 0, 1, axis=axis)], axis)
    repeated = jnp.broadcast_to(jnp.expand_dims(flipped, axis), (*before, n, 2 * n, *after))
    repeated = repeated.reshape(*before, 2 * n * n, *after)
    shifted = jax.lax.slice_in_dim(repeated, 0, n * distances, axis=axis).reshape(*before, n, distances, *after)
    return jax.lax.slice_in_dim(shifted, n - 1, distances, axis=axis + 1)


def matrix(table: jax.Array, window: tuple[int, int], size: tuple[int, int] | None = None) -> jax.Array:
    """Expands a table of offsets to the bias of every pair of positions.

    Args:
      table: [rows(window) or rows(window) + CLASS_ROWS, heads]; offsets vary fastest along columns.
      window: (rows, columns) of the table's window.
      size: (rows, columns) of the positions, at most `window`; None for `window`.

    Returns:
      [heads, N, N] with N = rows * columns of `size`, plus one, the first, for a class token.
    """
    (height, width), heads = size or window, table.shape[1]
    near = table[: rows(window)].T.reshape(heads, 2 * window[0] - 1, 2 * window[1] - 1)
    near = near[:, window[0] - height : window[0] + height - 1, window[1] - width : window[1] + width - 1]
    bias = _toeplitz(_toeplitz(near, 1), 3).transpose(0, 1, 3, 2, 4).reshape(heads, height * width, height * width)
    if len(table) == rows(window):
        return bias
    to_patch, to_class, itself = (table[i - CLASS_ROWS][:, None, None] for i in range(CLASS_ROWS))
    first = jnp.concatenate([itself, jnp.broadcast_to(to_patch, (heads, 1, height * width))], 2)
    column = jnp.broadcast_to(to_class, (heads, height * width, 1))
    return jnp.concatenate([first, jnp.concatenate([column, bias], 2)], 1)


@functools.cache
def _weights(old: int, new: int) -> np.ndarray:
    """Returns [2 new - 1, 2 old - 1], interpolation weights of each new offset over the old ones.

    The old offsets are placed in a geometric progression that spans the new window, dense at the centre, where biases
    change most; values between them are interpolated linearly.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (ratio ** (old - 1) - 1) / (ratio - 1) > new - 1:
            high = ratio
        else:
            low = ratio
    away = np.cumsum(ratio ** np.arange(old - 1))
    positions = np.concatenate([-away[::-1], [0.0], away])
    targets = np.arange(1 - new, new)
    return np.stack([np.interp(targets, positions, one) for one in np.eye(2 * old - 1)], 1).astype(np.float32)


def resample(table, old: tuple[int, int], new: tuple[int, int]):
    """Resamples a table to another window; the rows of a class token are kept.

    Args:
      table: [rows(old) or rows(old) + CLASS_ROWS, heads], NumPy or JAX.
      old: (rows, columns) of the table's window.
      new: (rows, columns) of the other window.

    Returns:
      [rows(new) or rows(new) + CLASS_ROWS, heads], of the same array type.
    """
    if tuple(old) == tuple(new):
        return table
    near = table[: rows(old)].reshape(2 * old[0] - 1, 2 * old[1] - 1, -1)
    vertical, horizontal = (_weights(old[i], new[i]) for i in range(2))
    if isinstance(table, np.ndarray):
        near = np.einsum("yp,xq,pqh->yxh", vertical, horizontal, near, optimize=True)
        return np.concatenate([near.reshape(rows(new), -1), table[rows(old) :]]).astype(table.dtype)
    near = jnp.einsum("yp,xq,pqh->yxh", vertical, horizontal, near, precision="highest")
    return jnp.concatenate([near.reshape(rows(new), -1), table[rows(old) :]])


def source_window(num_rows: int, new: tuple[int, int]) -> tuple[int, int]:
    """Returns the window of a file's table: `new` if the number of rows agrees, otherwise a square one.

    Args:
      num_rows: rows of the file's table, without those of a class token.
      new: (rows, columns) of the window to resample to.

    Raises:
      ValueError: no square window has that many rows.
    """
    side = (round(max(num_rows, 1) ** 0.5) + 1) // 2
    if rows(new) == num_rows:
        return tuple(new)
    if rows((side, side)) != num_rows:
        raise ValueError(f"a table of {num_rows} offsets does not match a square window")
    return side, side
