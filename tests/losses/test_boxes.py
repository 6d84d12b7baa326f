"""Losses of boxes against naive versions."""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.losses import boxes


def test_giou_is_iou_less_the_empty_share_of_the_hull():
    one, other = (0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75)
    inner, union, hull = 0.0625, 0.4375, 0.5625
    found = boxes.giou(jnp.array([one, one, one]), jnp.array([other, one, (0.5, 0.5, 1.0, 1.0)]))
    np.testing.assert_allclose(found, [inner / union - (hull - union) / hull, 1.0, -0.5], rtol=1e-5)
    gradient = jax.grad(lambda box: boxes.giou(box, jnp.array((0.5, 0.5, 1.0, 1.0))))(jnp.array(one))
    assert (np.abs(gradient) > 0).any() and np.isfinite(gradient).all()  # also where they do not touch


def test_focal_equals_its_definition():
    rng = np.random.default_rng(0)
    logits, present = rng.normal(size=(2, 6)).astype(np.float32), rng.random((2, 6)) < 0.4
    p = 1 / (1 + np.exp(-logits))
    each = np.where(present, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p))
    np.testing.assert_allclose(boxes.focal(jnp.asarray(logits), jnp.asarray(present)), each.sum(1), rtol=1e-4)
