"""Transforms: shapes, determinism, a naive colour reference, and helpful messages."""

import cv2
import numpy as np
import pytest
from PIL import Image

from retrieval_jax.data.pictures import transforms
from retrieval_jax.errors import InputError

FULL = (
    ("random_resized_crop", {}),
    ("flip", {}),
    ("color_jitter", {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05}),
    ("erasing", {"p": 1.0}),
)


def picture(height=80, width=60, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("size", [(80, 64), (33, 200), (1, 1)])
@pytest.mark.parametrize("native", [(80, 60), (7, 300), (1, 1)])
def test_result_has_the_requested_size_for_any_picture(size, native):
    apply = transforms.compose(FULL, size)
    for seed in range(20):
        out = apply(picture(*native), np.random.default_rng(seed))
        assert out.shape == (*size, 3) and out.dtype == np.uint8


def test_input_is_not_modified_and_the_result_depends_on_the_generator_only():
    image = picture(80, 64)
    before = image.copy()
    apply = transforms.compose((("resize", {}), *FULL[1:]), (80, 64))
    outs = [apply(image, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert np.array_equal(image, before)
    assert np.array_equal(outs[0], outs[1]) and not np.array_equal(outs[0], outs[2])


def test_resize_keeps_a_picture_of_that_size_and_averages_when_shrinking():
    image = picture(80, 64)
    assert np.array_equal(transforms.compose((("resize", {}),), (80, 64))(image), image)
    half = transforms.compose((("resize", {}),), (40, 32))(image)
    naive = image.reshape(40, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(half - naive).max() <= 0.5 + 1e-6


def test_crop_stays_within_the_requested_area_and_aspect():
    # Colours encode coordinates, so the crop can be read off the result.
    image = np.zeros((200, 200, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(200)[:, None], np.arange(200)[None]
    apply = transforms.compose((("random_resized_crop", {"scale": (0.3, 0.6)}),), (50, 50))
    areas, aspects = [], []
    for seed in range(300):
        out = apply(image, np.random.default_rng(seed)).astype(float)
        h, w = (np.ptp(out[..., 0]) + 1) / 0.98, (np.ptp(out[..., 1]) + 1) / 0.98
        areas.append(h * w / 200**2)
        aspects.append(w / h)
    assert 0.28 < min(areas) < 0.34 and 0.54 < max(areas) < 0.63
    assert 0.73 < min(aspects) < 0.79 and 1.26 < max(aspects) < 1.37


def naive_jitter(image, bright, con, sat, angle):
    grey = np.array([0.299, 0.587, 0.114])
    x = image.astype(float) * bright
    x = con * x + (1 - con) * (x @ grey).mean()
    x = sat * x + (1 - sat) * (x @ grey)[..., None]
    axis = np.ones(3) / np.sqrt(3)
    x = x * np.cos(angle) + np.cross(axis, x) * np.sin(angle) + axis * (x @ axis)[..., None] * (1 - np.cos(angle))
    return np.clip(np.round(x), 0, 255)


def test_color_jitter_equals_four_steps_in_sequence():
    image = picture()
    apply = transforms.color_jitter((80, 60), 0.3, 0.4, 0.5, 0.1)
    for seed in range(10):
        u = 2 * np.random.default_rng(seed).random(4) - 1
        naive = naive_jitter(image, 1 + 0.3 * u[0], 1 + 0.4 * u[1], 1 + 0.5 * u[2], 2 * np.pi * 0.1 * u[3])
        assert np.abs(apply(image, np.random.default_rng(seed)) - naive).max() <= 1


def test_color_jitter_without_strength_is_the_identity():
    image = picture()
    assert np.array_equal(transforms.color_jitter((80, 60))(image, np.random.default_rng(0)), image)


@pytest.mark.parametrize("fill", ["noise", "mean"])
def test_erasing_changes_one_rectangle(fill):
    image = np.full((60, 60, 3), 128, np.uint8)
    image[:, :30] = 100
    changed = [
        (transforms.erasing((60, 60), p=1.0, fill=fill)(image, np.random.default_rng(s)) != image).any(-1).mean()
        for s in range(100)
    ]
    assert 0.01 < min(changed) < 0.1 and 0.2 < max(changed) < 0.35
    assert np.array_equal(transforms.erasing((60, 60), p=0)(image, np.random.default_rng(0)), image)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(33, 20), (160, 140), (40, 90)])
def test_resize_with_the_kernels_of_pillow(interpolation, size):
    kernel = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    image = picture(80, 64)
    out = transforms.compose((("resize", {"interpolation": interpolation}),), size)(image)
    assert np.array_equal(out, Image.fromarray(image).resize(size[::-1], kernel)) and out.flags.writeable


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("native", [(80, 60), (60, 80), (300, 31), (32, 32), (5, 5)])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
def test_center_crop_covers_and_crops_the_centre(native, size, crop_pct):
    image = picture(*native)
    out = transforms.compose((("center_crop", {"crop_pct": crop_pct}),), size)(image)
    assert out.shape == (*size, 3) and out.flags.c_contiguous
    cover = [int(n / crop_pct) for n in size]
    factor = max(cover[0] / native[0], cover[1] / native[1])
    whole = int if size[0] == size[1] else round
    inner = [max(c, whole(n * factor + 1e-6)) for c, n in zip(cover, native, strict=True)]
    whole = np.asarray(Image.fromarray(image).resize(inner[::-1], Image.Resampling.BICUBIC))
    y, x = round((inner[0] - size[0]) / 2), round((inner[1] - size[1]) / 2)
    assert np.array_equal(out, whole[y : y + size[0], x : x + size[1]])


def test_a_squashed_picture_is_resized_to_the_size_before_the_crop():
    image = picture(80, 60)
    out = transforms.compose((("center_crop", {"crop_pct": 0.8, "squash": True}),), (32, 24))(image)
    whole = np.asarray(Image.fromarray(image).resize((30, 40), Image.Resampling.BICUBIC))
    assert np.array_equal(out, whole[4:36, 3:27])


def test_interpolation_does_not_change_the_crop():
    image = picture(80, 64)

    def crop(interpolation, seed):
        spec = (("random_resized_crop", {"interpolation": interpolation}),)
        return transforms.compose(spec, (32, 24))(image, np.random.default_rng(seed)).astype(int)

    for seed in range(5):
        for name in ("bilinear", "bicubic"):
            assert np.abs(crop(name, seed) - crop("area", seed)).mean() < 6
    drawn = [
        [name for name in ("bilinear", "bicubic") if np.array_equal(crop("random", seed), crop(name, seed))]
        for seed in range(60)
    ]
    assert all(len(names) == 1 for names in drawn) and 15 < drawn.count(["bicubic"]) < 45


@pytest.mark.parametrize(
    "spec, words",
    [
        ((("resise", {}),), ("resise", "did you mean resize", "color_jitter", "erasing")),
        (
            (("resize", {}), ("color_jitter", {"brightnes": 1})),
            ("brightnes", "did you mean brightness", "saturation"),
        ),
        ((("resize", {"p": 1}),), ("'resize' has no argument 'p'", "interpolation")),
        ((("resize", {"interpolation": "cubic"}),), ("no interpolation 'cubic'", "bicubic")),
        ((("resize", {"interpolation": "random"}),), ("no interpolation 'random'",)),
        ((("center_crop", {"crop_pct": 1.2}),), ("crop_pct",)),
        ((("flip", {}),), ("never set", "resize")),
        (("resize",), ("transforms holds 'resize': write (name, arguments), such as ('flip', {})",)),
        ((("random_resized_crop", {"scale": (0.5, 2)}),), ("scale", "largest")),
        ((("resize", {}), ("flip", {"p": 2})), ("flip", "from 0 to 1")),
        ((("resize", {}), ("erasing", {"fill": "black"})), ("noise", "black")),
    ],
)
def test_bad_specs_are_refused_with_the_known_names(spec, words):
    with pytest.raises(InputError) as error:
        transforms.compose(spec, (8, 8))
    for word in words:
        assert word in str(error.value)


def test_random_transforms_without_a_generator_are_refused():
    with pytest.raises(InputError, match="flip"):
        transforms.compose((("resize", {}), ("flip", {})), (8, 8))(picture())
