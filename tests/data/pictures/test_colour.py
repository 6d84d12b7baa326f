"""Colours of a region: they equal those of the cropped picture, and what is outside of the box does not count."""

import numpy as np
import pytest

from retrieval_jax.data.pictures import colour, colour_and_edges
from retrieval_jax.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 20, 16, 3), dtype=np.uint8)


def test_it_is_the_histogram_of_colour_and_edges_of_the_box():
    boxes = np.array([[0.1, 0.25, 0.6, 0.75], [np.nan] * 4, [0, 0, 1, 1]])
    found = colour.embed(IMAGES, boxes)
    parts = [IMAGES[0, 2:12, 4:12], IMAGES[1], IMAGES[2]]
    for vector, part in zip(found, parts, strict=True):
        expected = np.sqrt(colour_and_edges.colours(part))
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=1e-5)
    np.testing.assert_array_equal(colour.embed(IMAGES)[1:], found[1:])
    assert found.shape == (3, colour.DIM)


def test_the_background_does_not_count():
    images = np.zeros((2, 12, 12, 3), np.uint8)
    images[0], images[1] = (250, 20, 20), (20, 250, 20)
    images[:, 3:9, 3:9] = (20, 20, 250)
    boxes = np.tile([0.25, 0.25, 0.75, 0.75], (2, 1))
    assert np.isclose((colour.embed(images, boxes)[0] * colour.embed(images, boxes)[1]).sum(), 1)
    assert (colour.embed(images)[0] * colour.embed(images)[1]).sum() < 0.7


def test_a_cropped_source_shows_the_box_with_a_margin():
    source = colour.Cropped(IMAGES, np.array([[0.2, 0.25, 0.6, 0.75], [np.nan] * 4, [0.99, 0.99, 1, 1]]), margin=0.5)
    assert len(source) == 3
    np.testing.assert_array_equal(source[0], IMAGES[0, 0:16])
    np.testing.assert_array_equal(source[1], IMAGES[1])
    assert source[2].shape == (1, 1, 3)


def test_other_arrays_are_refused():
    with pytest.raises(InputError, match="uint8"):
        colour.embed(IMAGES.astype(float))
    with pytest.raises(InputError, match="boxes"):
        colour.embed(IMAGES, np.zeros((2, 4)))
