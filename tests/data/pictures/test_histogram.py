"""The colour histogram against a pixel-by-pixel count."""

import colorsys

import numpy as np

from retrieval_jax.data.pictures import histogram


def test_equals_a_pixel_by_pixel_count():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    counts, sure = np.zeros((4, 128)), True
    for y in range(7):
        for x in range(5):
            h, s, v = colorsys.rgb_to_hsv(*(image[y, x] / 255.0))
            shades = {min(int((s * 255 + rounding) // 64), 3) for rounding in (-1, 0, 1)}
            codes = {int(round(h * 180) % 180 * 8 // 180) * 16 + shade * 4 + int(v * 255 // 64) for shade in shades}
            sure = sure and len(codes) == 1
            counts[(y * 2 // 7) * 2 + x * 2 // 5, min(codes)] += 1
    naive = np.sqrt(counts / counts.sum(1, keepdims=True)).ravel() / 2
    [vector] = histogram.embed(image[None])
    assert vector.shape == (histogram.DIM,) and vector.dtype == np.float32
    assert (np.abs(vector - naive) > 1e-6).sum() <= (0 if sure else 4)


def test_vectors_have_unit_length_and_compare_colours():
    red, red2, blue = np.zeros((3, 80, 64, 3), np.uint8)
    red[..., 0], red2[..., 0], blue[..., 2] = 200, 205, 200
    vectors = histogram.embed(np.stack([red, red2, blue, np.zeros_like(red)]))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[1] > 0.99 and vectors[0] @ vectors[2] < 0.01
    assert np.isfinite(histogram.embed(np.zeros((1, 1, 1, 3), np.uint8))).all()
