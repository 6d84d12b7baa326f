"""Augmentation on the device against the host's, draw for draw, and against what it has to leave alone."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.data.pictures import transforms
from retrieval_jax.training import device_transforms, mixing

ROWS, HEIGHT, WIDTH = 48, 10, 8


@functools.lru_cache
def pictures():
    return np.random.default_rng(0).integers(0, 256, (ROWS, HEIGHT, WIDTH, 3), dtype=np.uint8)


@functools.lru_cache
def augmented(name, seed=0, **kwargs):
    run = jax.jit(functools.partial(device_transforms.TRANSFORMS[name], **kwargs))
    return np.asarray(run(jnp.asarray(pictures(), jnp.float32), jax.random.key(seed)))


class Draws:
    """Hands the host's transform the numbers that the device has drawn."""

    def __init__(self, numbers):
        self.numbers = numbers

    def random(self, count):
        assert count == len(self.numbers)
        return self.numbers


def test_colours_are_the_hosts():
    kwargs = {"brightness": 0.4, "contrast": 0.5, "saturation": 0.6, "hue": 0.2}
    draws = np.asarray(jax.random.uniform(jax.random.key(0), (ROWS, 4)))
    host = transforms.color_jitter((HEIGHT, WIDTH), **kwargs)
    ours = augmented("color_jitter", **kwargs)
    for row in range(ROWS):
        assert np.abs(ours[row] - host(pictures()[row], Draws(draws[row]))).max() <= 1.0  # it rounds


def test_flip_turns_about_half_of_the_pictures_and_nothing_else():
    ours, own = augmented("flip"), pictures()
    turned = (ours == own[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (turned | (ours == own).all(axis=(1, 2, 3))).all() and 14 <= turned.sum() <= 34
    assert (augmented("flip", p=0.0) == own).all()


def test_the_whole_picture_as_crop_is_the_picture():
    assert np.abs(augmented("random_resized_crop", scale=(1.0, 1.0), ratio=(1.0, 1.0)) - pictures()).max() < 1e-3


def test_a_crop_is_resized_as_the_draws_say():
    """On a ramp a linear resize is exact away from the edges: the corner and the size of the cut can be read off."""
    down, across = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    ramp = jnp.asarray(np.stack([10.0 * down, 10.0 * across, 0 * down], axis=-1)[None].repeat(ROWS, 0), jnp.float32)
    low, high = 0.3, 0.9
    key = jax.random.key(3)
    out = np.asarray(jax.jit(functools.partial(device_transforms.random_resized_crop, scale=(low, high)))(ramp, key))
    draws = np.asarray(jax.random.uniform(key, (ROWS, 10, 4)), np.float64)
    for row in range(ROWS):
        tries = []
        for u, v, top, left in draws[row]:
            stretch = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * v)
            area = low + (high - low) * u
            tries.append((math.sqrt(area / stretch), math.sqrt(area * stretch), top, left))
        tall, wide, top, left = next(one for one in tries if max(one[:2]) <= 1)
        y = top * (1 - tall) * HEIGHT + tall * (down + 0.5) - 0.5
        x = left * (1 - wide) * WIDTH + wide * (across + 0.5) - 0.5
        inner = (y >= 0) & (y <= HEIGHT - 1) & (x >= 0) & (x <= WIDTH - 1)
        np.testing.assert_allclose(out[row, :, :, 0][inner], 10 * y[inner], atol=1e-2)
        np.testing.assert_allclose(out[row, :, :, 1][inner], 10 * x[inner], atol=1e-2)


def test_erasing_fills_one_rectangle_of_some_pictures():
    changed = (augmented("erasing", p=0.5) != pictures()).any(axis=-1)
    erased = changed.any(axis=(1, 2))
    assert 14 <= erased.sum() <= 34
    for mask in changed[erased]:  # noise may hit the old value by chance, hardly a whole row or column of it
        down, across = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask[down[0] : down[-1] + 1, across[0] : across[-1] + 1].mean() > 0.9
        assert mask.mean() <= 0.5
    assert (augmented("erasing", p=0.0) == pictures()).all()


def test_every_picture_of_a_batch_is_augmented_and_nothing_else_then_mixed():
    batch = {
        "image": pictures(),
        "image_view1": pictures(),
        "unlabelled_image": pictures()[:4],
        "category": np.arange(ROWS),
        "_mask": np.ones(ROWS, bool),
    }
    spec = (("flip", {"p": 0.5}), ("color_jitter", {"brightness": 0.3}), ("mixup", {"p": 1.0}))
    columns = ("image", "image_view1", "unlabelled_image")

    def apply(batch, key, spec):
        return mixing.apply(batch, key, spec, columns, beside=("unlabelled_image",))

    run = jax.jit(apply, static_argnums=2)
    alone = run(batch, jax.random.key(0), (("flip", ()),))
    assert "mix" not in alone and (alone["category"] == batch["category"]).all()
    assert all((alone[name] != batch[name]).any() for name in columns)
    assert (alone["image"] != alone["image_view1"]).any()  # each has its own draws
    out = apply(batch, jax.random.key(0), spec)
    assert out["mix"].shape == (ROWS,) and out["image"].min() >= 0 and out["image"].max() <= 255


def test_sets_of_pictures_are_augmented_one_by_one_and_missing_ones_stay_black():
    shown = np.arange(ROWS).reshape(-1, 4) % 5 > 0
    sets = pictures().reshape(-1, 4, HEIGHT, WIDTH, 3) * shown[..., None, None, None]
    spec = (("erasing", {"p": 1.0}), ("color_jitter", {"contrast": 0.5}))
    out = device_transforms.apply({"items": sets, "items_mask": shown}, jax.random.key(0), spec, ("items",))["items"]
    assert out.shape == sets.shape and not out[~shown].any() and (out[shown] != sets[shown]).any((1, 2, 3)).all()


@pytest.mark.parametrize("name", device_transforms.TRANSFORMS)
def test_the_key_decides(name):
    assert (augmented(name, 1) == augmented(name, 1)).all()
    if name != "color_jitter":  # which does nothing by default
        assert (augmented(name, 1) != augmented(name, 2)).any()
