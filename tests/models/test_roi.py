"""The box head: which cell learns which box, and what comes out of it."""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.models import roi


def test_cells_learn_the_smallest_box_around_them_and_the_nearest_its_own():
    centres = roi.cells(4, 4)
    np.testing.assert_allclose(np.asarray(centres)[[0, 1, 4]], [[0.125, 0.125], [0.125, 0.375], [0.375, 0.125]])
    nothing = (np.nan,) * 4
    small = (0.1, 0.1, 0.15, 0.15)  # contains no cell's centre
    boxes = jnp.array([[(0.0, 0.0, 1.0, 1.0), (0.5, 0.5, 1.0, 1.0), small], [nothing] * 3])
    own = np.asarray(roi.assign(centres, boxes)).reshape(2, 4, 4)
    expected = np.full((4, 4), -1)
    expected[1:3, 1:3] = 0  # the inner half of the picture
    expected[2:, 2:] = 1  # smaller
    expected[0, 0] = 2
    np.testing.assert_array_equal(own[0], expected)
    assert (own[1] == -1).all()


def test_the_head_gives_boxes_within_the_picture_best_first():
    maps = [jax.random.normal(jax.random.key(0), (2, 4, 3, 8)), jax.random.normal(jax.random.key(1), (2, 2, 2, 5))]
    head = roi.BoxHead(3, dims=8)
    params = head.init(jax.random.key(2), maps)
    out = head.apply(params, maps)
    assert out["objectness"].shape == (2, 12) and out["types"].shape == (2, 12, 3) and out["boxes"].shape == (2, 12, 4)
    assert (out["boxes"][..., 2:] > out["boxes"][..., :2]).all()
    found = roi.best(out, 100)
    assert found["boxes"].shape == (2, 36, 4) and (np.diff(found["scores"], axis=1) <= 0).all()
    assert (found["boxes"] >= 0).all() and (found["boxes"] <= 1).all()
    chance = jax.nn.sigmoid(out["objectness"])[..., None] * jax.nn.softmax(out["types"])
    assert np.isclose(found["scores"][0, 0], chance[0].max())
    gradient = jax.grad(lambda params: sum((leaf**2).sum() for leaf in head.apply(params, maps).values()))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
