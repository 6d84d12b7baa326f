"""The learned box: where it starts, its two cuts against plain loops, and gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.models import located, pixels

BOXES = np.array([[0.2, 0.3, 0.7, 0.9], [0.05, 0.1, 0.5, 0.45], [0.0, 0.0, 1.0, 1.0]], np.float32)


def test_an_untrained_branch_keeps_nine_tenths_of_the_picture():
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 16, 3), dtype=np.uint8)
    branch = located.Localiser(side=16, dims=4)
    raw, _ = branch.init_with_output({"params": jax.random.key(0)}, images)
    boxes = np.asarray(located.box(raw))
    np.testing.assert_allclose((boxes[:, 2:] - boxes[:, :2]).prod(1), 0.9, atol=1e-5)
    np.testing.assert_allclose(boxes[:, :2] + boxes[:, 2:], 1.0, atol=1e-6)
    np.testing.assert_allclose(located.area(jnp.asarray(boxes)), 0.9, atol=1e-5)


def test_the_box_follows_the_map():
    heat = np.full((1, 12, 10), -20.0, np.float32)
    heat[0, 3:7, 4:8] = 0
    top, left, bottom, right = np.asarray(located.box(jnp.asarray(heat)))[0]
    np.testing.assert_allclose([(top + bottom) / 2, (left + right) / 2], [5 / 12, 6 / 10], atol=1e-5)
    # Of a rectangle the box has the size, but for START and the cells of the map.
    np.testing.assert_allclose([bottom - top, right - left], [4 / 12, 4 / 10], atol=0.05)
    moved = np.asarray(located.box(jnp.asarray(np.roll(heat, (2, -1), (1, 2)))))[0]
    np.testing.assert_allclose(moved, [top + 2 / 12, left - 0.1, bottom + 2 / 12, right - 0.1], atol=1e-5)


def test_the_mask_equals_a_loop_over_pixels_and_becomes_a_step():
    made = np.asarray(located.mask(jnp.asarray(BOXES), 10, 8, 25.0))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for row, (top, left, bottom, right) in enumerate(BOXES):
        for i in range(10):
            for j in range(8):
                y, x = (i + 0.5) / 10, (j + 0.5) / 8
                down = sigmoid(25 * (y - top)) - sigmoid(25 * (y - bottom))
                across = sigmoid(25 * (x - left)) - sigmoid(25 * (x - right))
                assert np.isclose(made[row, i, j], down * across, atol=1e-5)
    hard = np.asarray(located.mask(jnp.asarray(BOXES[:1]), 10, 10, 1e4))[0]
    expected = np.zeros((10, 10))
    expected[2:7, 3:9] = 1
    np.testing.assert_allclose(hard, expected, atol=1e-6)


def test_outside_of_a_mask_is_the_mean_colour():
    images = jnp.full((1, 10, 10, 3), 200, jnp.uint8)
    cut = np.asarray(located.masked(images, jnp.asarray(BOXES[:1]), 1e4))[0]
    np.testing.assert_allclose(cut[0, 0], 255 * np.array(pixels.MEAN), rtol=1e-5)
    np.testing.assert_allclose(cut[4, 5], 200, rtol=1e-5)


def test_a_crop_equals_bilinear_reading_and_the_whole_picture_stays_as_it_is():
    images = np.random.default_rng(1).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)
    made = np.asarray(located.cropped(jnp.asarray(images), jnp.asarray(BOXES)))
    np.testing.assert_allclose(made[2], images[2], atol=1e-3)
    top, left, bottom, right = BOXES[0]
    for i, j in ((0, 0), (4, 3), (8, 6)):
        y = np.clip((top + (bottom - top) * (i + 0.5) / 9) * 9 - 0.5, 0, 8)
        x = np.clip((left + (right - left) * (j + 0.5) / 7) * 7 - 0.5, 0, 6)
        y0, x0 = int(y), int(x)
        y1, x1, fy, fx = min(y0 + 1, 8), min(x0 + 1, 6), y - y0, x - x0
        picture = images[0].astype(float)
        upper = picture[y0, x0] * (1 - fx) + picture[y0, x1] * fx
        lower = picture[y1, x0] * (1 - fx) + picture[y1, x1] * fx
        np.testing.assert_allclose(made[0, i, j], upper * (1 - fy) + lower * fy, atol=0.05)


@pytest.mark.parametrize("cut", located.CUTS)
def test_gradients_of_the_map_equal_finite_differences(cut):
    with jax.enable_x64(True):
        y, x = np.meshgrid(np.linspace(0, 3, 16), np.linspace(0, 3, 16), indexing="ij")
        images = jnp.asarray(127 + 90 * np.stack([np.sin(y + x), np.cos(2 * y), np.sin(x * y)], -1))[None]
        weights = jnp.asarray(np.random.default_rng(2).normal(size=(16, 16, 3)))
        rows, columns = np.meshgrid(np.arange(4) - 1.2, np.arange(4) - 1.9, indexing="ij")
        heat = jnp.asarray(-0.8 * rows**2 - 0.7 * columns**2)[None]

        def value(heat):
            boxes = located.box(heat)
            out = located.cropped(images, boxes) if cut == "crop" else located.masked(images, boxes, 12.0)
            return (out[0] * weights).sum()

        gradient, step = np.asarray(jax.jit(jax.grad(value))(heat))[0], 1e-6
        assert np.abs(gradient).max() > 1e-2
        for place in ((0, 0), (1, 2), (2, 1), (3, 3)):
            moved = np.zeros((1, 4, 4))
            moved[0, place[0], place[1]] = step
            found = (value(heat + moved) - value(heat - moved)) / (2 * step)
            np.testing.assert_allclose(gradient[place], found, rtol=2e-3, atol=2e-3)
