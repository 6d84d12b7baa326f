"""Edges and colours of a picture against plain loops over its pixels, and what two pictures have in common."""

import colorsys
import concurrent.futures
import math

import numpy as np
import pytest

from retrieval_jax.data.pictures import colour_and_edges
from retrieval_jax.errors import InputError

RNG = np.random.default_rng(0)


def _nearest(place, count, circular=False):
    """Returns [(bin, share)] of the two nearest of `count` bins, whose centres lie at 0, 1, ..."""
    lower = math.floor(place)
    found = [(lower, 1 - (place - lower)), (lower + 1, place - lower)]
    return [(one % count, share) if circular else (one, share) for one, share in found]


def test_edges_equal_a_loop_over_the_pixels():
    image = RNG.integers(0, 256, (13, 9, 3), dtype=np.uint8)
    (rows, columns), directions = colour_and_edges.CELLS, colour_and_edges.DIRECTIONS
    naive, values = np.zeros((rows, columns, directions)), image.astype(int)
    for y in range(13):
        for x in range(9):
            across = values[y, min(x + 1, 8)] - values[y, max(x - 1, 0)]
            down = values[min(y + 1, 12), x] - values[max(y - 1, 0), x]
            channel = int(np.argmax(across**2 + down**2))
            length = math.hypot(across[channel], down[channel])
            angle = math.atan2(down[channel], across[channel]) % math.pi
            for direction, a in _nearest(angle / math.pi * directions - 0.5, directions, circular=True):
                for row, b in _nearest((y + 0.5) * rows / 13 - 0.5, rows):
                    for column, c in _nearest((x + 0.5) * columns / 9 - 0.5, columns):
                        if 0 <= row < rows and 0 <= column < columns:
                            naive[row, column, direction] += a * b * c * length
    assert np.allclose(colour_and_edges.edges(image), naive.ravel(), atol=1e-9 * naive.max())


def test_colours_equal_a_loop_over_the_pixels():
    image = RNG.integers(0, 256, (11, 6, 3), dtype=np.uint8)
    bins = colour_and_edges.COLOURS
    blocks = np.zeros((4, 2, *bins))
    for y in range(11):
        for x in range(6):
            row = next(row for row in range(4) if y < (row + 1) * 11 // 4)
            hue, saturation, value = colorsys.rgb_to_hsv(*(image[y, x] / 255.0))
            hues = _nearest((round(hue * 256) % 256 + 0.5) / 256 * 8 - 0.5, 8, circular=True)
            levels = (min(max((level * 255 + 0.5) / 256 * 4 - 0.5, 0), 3) for level in (saturation, value))
            saturations, values = (_nearest(level, 5) for level in levels)
            for i, a in hues:
                for j, b in saturations:
                    for k, c in values:
                        if a * b * c > 0:
                            blocks[row, int(x >= 3), i, j, k] += a * b * c
    blocks = blocks.reshape(4, 2, -1)
    quarters = [blocks[a : a + 2, b].sum(0) for a in (0, 2) for b in (0, 1)]
    regions = np.stack([blocks.sum((0, 1)), *quarters, *blocks.sum(1)])
    naive = regions / regions.sum(1, keepdims=True)
    found = colour_and_edges.colours(image).reshape(naive.shape)
    assert np.allclose(found.sum(1), 1)
    assert np.abs(found - naive).max() < 0.02  # OpenCV rounds hue and saturation to 8 bits, half a level at most


def test_vectors_have_unit_length_and_the_weights_of_the_parts():
    images = RNG.integers(0, 256, (3, 80, 64, 3), dtype=np.uint8)
    vectors = colour_and_edges.embed(images)
    assert vectors.shape == (3, colour_and_edges.DIM) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    (length, weight), _ = colour_and_edges.PARTS.values()
    assert np.allclose((vectors[:, :length] ** 2).sum(1), weight, atol=1e-6)
    assert sum(part[1] for part in colour_and_edges.META["parts"]) == colour_and_edges.DIM


def test_shape_and_colour_both_count():
    def shape(kind, colour):
        image = np.full((80, 64, 3), 255, np.uint8)
        image[20:60, 28:36] = colour if kind == "upright" else 255
        image[36:44, 12:52] = image[36:44, 12:52] if kind == "upright" else colour
        return image

    red, dark_red, blue = (200, 20, 20), (190, 22, 22), (20, 20, 200)
    pictures = [shape("upright", red), shape("upright", dark_red), shape("upright", blue), shape("flat", red)]
    same, other_colour, other_shape = (
        colour_and_edges.embed(np.stack(pictures))[1:] @ colour_and_edges.embed(np.stack(pictures[:1]))[0]
    )
    assert same > 0.98 and same > other_colour + 0.02 and same > other_shape + 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (400, 1), (2, 3), (900, 40)])
def test_pictures_of_any_size(size):
    images = RNG.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    vectors = colour_and_edges.embed(images)
    assert np.isfinite(vectors).all() and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_plain_picture_has_colours_alone():
    [vector] = colour_and_edges.embed(np.full((1, 80, 64, 3), 255, np.uint8))
    length, _ = colour_and_edges.PARTS["edges"]
    assert not vector[:length].any() and np.isclose(np.linalg.norm(vector), 1)


def test_the_same_bits_alone_in_a_batch_and_from_many_threads():
    images = RNG.integers(0, 256, (24, 80, 64, 3), dtype=np.uint8)
    together = colour_and_edges.embed(images)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda row: colour_and_edges.embed(images[row : row + 1])[0], range(24)))
    assert np.array_equal(together, np.stack(alone))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 4), np.uint8),
        np.zeros((1, 0, 8, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(images):
    with pytest.raises(InputError, match="uint8 .n, H, W, 3., RGB.*decode them"):
        colour_and_edges.embed(images)


def test_no_pictures_have_no_vectors():
    assert colour_and_edges.embed(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, colour_and_edges.DIM)
