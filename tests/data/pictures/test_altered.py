"""Altered pictures: deterministic, of the same size, and closer to the queries' light and sharpness."""

import cv2
import numpy as np

from retrieval_jax.data.pictures.altered import Altered


def pictures(count, mean, blur=0.0, shape=(40, 30, 3)):
    rng = np.random.default_rng(count)
    out = [np.clip(rng.normal(mean, 30, shape), 0, 255).astype(np.float32) for _ in range(count)]
    return [(cv2.GaussianBlur(one, (0, 0), blur) if blur else one).astype(np.uint8) for one in out]


def edges(images):
    return np.mean([cv2.Laplacian(image.mean(2), cv2.CV_64F).std() for image in images])


def test_they_move_towards_the_queries():
    gallery, queries = pictures(40, 200), pictures(30, 90, blur=1.5)
    altered = Altered(gallery, np.arange(0, 40, 2), queries)
    found = [altered[row] for row in range(len(altered))]
    assert len(found) == 20 and all(one.dtype == np.uint8 and one.shape == (40, 30, 3) for one in found)
    assert 90 < np.mean(found) < 190 and edges(found) < 0.8 * edges(gallery)
    assert all(np.array_equal(altered[row], found[row]) for row in (3, 0, 19))  # whatever was read before
    again = Altered(gallery, np.array([6, 38]), queries)
    assert np.array_equal(again[0], found[3]) and np.array_equal(again[1], found[19])


def test_a_picture_of_one_pixel_and_equal_sides():
    one = [np.full((1, 1, 3), 7, np.uint8)] * 3
    assert Altered(one, np.arange(3), one)[2].shape == (1, 1, 3)
    gallery = pictures(30, 128)
    found = [Altered(gallery, np.arange(30), gallery)[row] for row in range(30)]
    assert abs(np.mean(found) - np.mean(gallery)) < 12
