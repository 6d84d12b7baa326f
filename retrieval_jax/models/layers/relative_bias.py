"""Learned biases of attention by relative position: from the table of distances to the matrix, and to other windows.

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
    """Returns how many distances two positions of a window of (rows, columns) can have."""
    return (2 * window[0] - 1) * (2 * window[1] - 1)


def _toeplitz(table: jax.Array, axis: int) -> jax.Array:
    """Turns an axis of 2 n - 1 distances into two of n positions: [i, j] = table[i - j + n - 1]."""
    before, distances, after = table.shape[:axis], table.shape[axis], table.shape[axis + 1 :]
    n = (distances + 1) // 2
    # Repeat the reversed table, one longer, and cut it into rows of 2 n - 1: every row starts one distance later. A
    # gather would do as well, but its gradient adds in no fixed order on a GPU, and slowly.
    flipped = jnp.flip(table, axis)
    flipped = jnp.concatenate([flipped, jax.lax.slice_in_dim(flipped, 0, 1, axis=axis)], axis)
    repeated = jnp.broadcast_to(jnp.expand_dims(flipped, axis), (*before, n, 2 * n, *after))
    repeated = repeated.reshape(*before, 2 * n * n, *after)
    shifted = jax.lax.slice_in_dim(repeated, 0, n * distances, axis=axis).reshape(*before, n, distances, *after)
    return jax.lax.slice_in_dim(shifted, n - 1, distances, axis=axis + 1)


def matrix(table: jax.Array, window: tuple[int, int], size: tuple[int, int] | None = None) -> jax.Array:
    """Lays a table of distances out as the bias of every pair of positions.

    Args:
      table: [rows(window) or rows(window) + CLASS_ROWS, heads]; distances run over columns first.
      window: (rows, columns) that the table is made for.
      size: (rows, columns) of the positions, at most `window`; None for `window`.

    Returns:
      [heads, N, N], N = rows * columns of `size`, and 1 more, the first, with a class token.
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
    """Returns [2 new - 1, 2 old - 1]: every new distance as a mean of two old ones.

    The old distances are laid out as a geometric progression that reaches to the ends of the new window, dense at the
    centre, where biases change most; values between them are linear.
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
    """Resamples a table to another window; rows of a class token stay.

    Args:
      table: [rows(old) or rows(old) + CLASS_ROWS, heads], of NumPy or JAX.
      old: (rows, columns) of the window that the table is made for.
      new: the other one.

    Returns:
      [rows(new) or rows(new) + CLASS_ROWS, heads], of the same kind.
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
    """Returns the window that a table of a file is made for: `new` if the table has its rows, else a square one.

    Args:
      num_rows: rows of the file's table, without those of a class token.
      new: (rows, columns) of the window that the table is to be resampled to.

    Raises:
      ValueError: no square window has so many rows.
    """
    side = (round(max(num_rows, 1) ** 0.5) + 1) // 2
    if rows(new) == num_rows:
        return tuple(new)
    if rows((side, side)) != num_rows:
        raise ValueError(f"a table of {num_rows} distances is that of no square window")
    return side, side
