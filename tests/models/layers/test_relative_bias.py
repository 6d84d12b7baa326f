"""Tables of relative biases: expansion against plain loops, values and gradients; resampling against timm's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.models.layers import relative_bias


def naive(table, window, size):
    """Returns the bias of every pair of positions, one by one."""
    places = [(y, x) for y in range(size[0]) for x in range(size[1])]
    rows = [
        [(window[0] - 1 + y - v) * (2 * window[1] - 1) + window[1] - 1 + x - u for v, u in places] for y, x in places
    ]
    return np.moveaxis(table[np.asarray(rows)], -1, 0)


def make(window, class_token):
    rows = relative_bias.rows(window) + relative_bias.CLASS_ROWS * class_token
    return np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "window, size",
    [((4, 4), None), ((1, 1), None), ((2, 5), None), ((1, 3), (1, 2)), ((5, 4), (2, 3)), ((4, 4), (1, 4))],
)
@pytest.mark.parametrize("class_token", [False, True])
def test_matrix_equals_plain_loops_and_its_gradient_counts_pairs(window, size, class_token):
    table, cells = make(window, class_token), size or window

    @jax.jit
    def matrix(table):
        bias, pull = jax.vjp(lambda table: relative_bias.matrix(table, window, size), table)
        return bias, pull(jnp.ones_like(bias))[0]

    bias, counts = map(np.asarray, matrix(table))
    inner = bias[:, 1:, 1:] if class_token else bias
    np.testing.assert_array_equal(inner, naive(table, window, cells))
    if class_token:
        assert np.array_equal(bias[:, 0, 0], table[-1])
        assert (bias[:, 0, 1:] == table[-3][:, None]).all() and (bias[:, 1:, 0] == table[-2][:, None]).all()
    assert (counts == counts[:, :1]).all() and counts[:, 0].sum() == bias[0].size
    near = counts[: relative_bias.rows(window), 0].reshape(2 * window[0] - 1, 2 * window[1] - 1)
    for y, x in np.ndindex(near.shape):  # (h - |dy|) (w - |dx|) pairs have the offset (dy, dx)
        pairs = [max(0, cell - abs(place - side + 1)) for cell, place, side in zip(cells, (y, x), window, strict=True)]
        assert near[y, x] == np.prod(pairs)


# timm 1.0.31's resampling of the table i^2 / 10, i = 0, 1, ..., for windows of 2 x 2 and 3 x 3.
TIMM = {
    ((2, 2), (3, 3)): [
        0.0,
        0.0,
        0.1,
        0.4,
        0.4,
        0.0,
        0.0,
        0.1,
        0.4,
        0.4,
        0.9,
        0.9,
        1.6,
        2.5,
        2.5,
        3.6,
        3.6,
        4.9,
        6.4,
        6.4,
        3.6,
        3.6,
        4.9,
        6.4,
        6.4,
    ],
    ((3, 3), (2, 4)): [
        2.5,
        2.866666,
        3.6,
        4.9,
        6.4,
        7.533335,
        8.1,
        10.0,
        10.7,
        12.1,
        14.4,
        16.9,
        18.7,
        19.6,
        22.5,
        23.533333,
        25.6,
        28.9,
        32.4,
        34.866669,
        36.1,
    ],
}


@pytest.mark.parametrize("old, new", TIMM)
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_resampled_tables_equal_timm(old, new, kind):
    table = (np.arange(relative_bias.rows(old), dtype=np.float32) ** 2 / 10)[:, None]
    found = relative_bias.resample(kind(table), old, new)
    assert isinstance(found, type(kind(table))) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], TIMM[old, new], atol=1e-5)


@pytest.mark.parametrize("class_token", [False, True])
def test_resampling_keeps_the_centre_the_class_rows_and_constants(class_token):
    table = make((4, 3), class_token)
    assert relative_bias.resample(table, (4, 3), (4, 3)) is table
    found = relative_bias.resample(table, (4, 3), (6, 2))
    assert found.shape == (relative_bias.rows((6, 2)) + len(table) - relative_bias.rows((4, 3)), 3)
    middle, same = relative_bias.rows((6, 2)) // 2, relative_bias.rows((4, 3)) // 2
    np.testing.assert_allclose(found[middle], table[same], atol=1e-6)
    if class_token:
        np.testing.assert_array_equal(found[-3:], table[-3:])
    np.testing.assert_allclose(relative_bias.resample(np.ones_like(table), (4, 3), (6, 2)), 1, atol=1e-6)


def test_window_of_a_files_table():
    assert relative_bias.source_window(49, (7, 7)) == (4, 4)
    assert relative_bias.source_window(45, (3, 5)) == (3, 5)
    for rows in (0, 45, 48, 36):
        with pytest.raises(ValueError, match=f"{rows} offsets"):
            relative_bias.source_window(rows, (7, 7))
