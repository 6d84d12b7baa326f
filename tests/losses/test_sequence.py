"""Losses of partly unknown attributes against loops; sequences are tested with their grammar in tests/models."""

import jax.numpy as jnp
import numpy as np

from retrieval_jax.losses import multilabel, sequence

RNG = np.random.default_rng(0)


def test_cross_entropy_smooths_over_allowed_labels_alone():
    logits = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    targets, counted = np.array([[0, 2, 3], [1, 3, 0]]), np.array([[1, 1, 0], [1, 1, 1]], bool)
    allowed = RNG.random((2, 3, 4)) < 0.5
    np.put_along_axis(allowed, targets[..., None], True, axis=-1)
    step_weights = RNG.random((2, 3))
    expected = np.zeros(2)
    for row, number in np.argwhere(counted):
        own = allowed[row, number]
        log_p = logits[row, number] - np.log(np.exp(logits[row, number][own]).sum())
        value = 0.9 * log_p[targets[row, number]] + 0.1 * log_p[own].mean()
        expected[row] -= step_weights[row, number] * value
    found = sequence.cross_entropy(
        logits, targets, jnp.asarray(allowed), counted, step_weights=step_weights, label_smoothing=0.1
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    part = sequence.cross_entropy(logits, targets, jnp.asarray(allowed), counted, where=jnp.array([True, False]))
    assert part[1] == 0 and part[0] > 0


def test_sigmoids_of_known_labels_equal_the_multilabel_loss_where_all_are_known():
    logits, ids = RNG.normal(size=(3, 6)).astype(np.float32), np.array([[0, 4], [2, 3], [5, 1]])
    present = np.zeros((3, 6), bool)
    np.put_along_axis(present, ids, True, axis=1)
    for smoothing in (0.0, 0.2):
        expected = multilabel.sigmoid_cross_entropy(logits, ids, np.ones((3, 2), bool), label_smoothing=smoothing)
        found = sequence.sigmoid_of_known(logits, present, np.ones((3, 6), bool), label_smoothing=smoothing)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    known = np.tile(np.arange(6) < 3, (3, 1))
    part = sequence.sigmoid_of_known(logits, present, known)
    np.testing.assert_allclose(part, sequence.sigmoid_of_known(logits[:, :3], present[:, :3], known[:, :3]), rtol=1e-5)
