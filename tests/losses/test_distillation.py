"""Distillation losses: against a dense loop, the mixed target, and no gradient into the teacher."""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.losses import distillation, multilabel

RNG = np.random.default_rng(0)
LOGITS, TEACHER = RNG.normal(0, 2, (2, 4, 6))
WHERE = np.array([True, False, True, True])


def naive_softmax(z, t):
    p, q = (np.exp(v) / np.exp(v).sum(-1, keepdims=True) for v in (z, t))
    return -(q * np.log(p)).sum(-1)


def naive_sigmoid(z, t):
    p, q = (1 / (1 + np.exp(-v)) for v in (z, t))
    return -(q * np.log(p) + (1 - q) * np.log(1 - p)).sum(-1)


def test_equal_the_dense_form_and_their_gradients_the_finite_differences():
    for ours, naive in ((distillation.softmax, naive_softmax), (distillation.sigmoid, naive_sigmoid)):
        expected = naive(LOGITS, TEACHER)
        np.testing.assert_allclose(ours(jnp.float32(LOGITS), jnp.float32(TEACHER)), expected, rtol=1e-5)
        weighted = ours(jnp.float32(LOGITS), jnp.float32(TEACHER), where=WHERE, weights=np.arange(4.0))
        np.testing.assert_allclose(weighted, WHERE * np.arange(4) * expected, rtol=1e-5)
        gradient, into_teacher = jax.grad(lambda z, t, ours=ours: ours(z, t).sum(), (0, 1))(
            jnp.float32(LOGITS), jnp.float32(TEACHER)
        )
        assert not into_teacher.any()
        for index in ((0, 0), (1, 5), (3, 2)):
            step = np.zeros_like(LOGITS)
            step[index] = 1e-5
            slope = (naive(LOGITS + step, TEACHER) - naive(LOGITS - step, TEACHER)).sum() / 2e-5
            np.testing.assert_allclose(gradient[index], slope, atol=1e-5)


def test_a_confident_teacher_equals_a_label():
    category = np.array([0, 5, 2, 2])
    sure = jnp.float32(100.0 * (np.arange(6) == category[:, None]))
    np.testing.assert_allclose(
        distillation.softmax(jnp.float32(LOGITS), sure),
        multilabel.softmax_cross_entropy(jnp.float32(LOGITS), category),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        distillation.sigmoid(jnp.float32(LOGITS), 2 * sure - 100),
        multilabel.sigmoid_cross_entropy(jnp.float32(LOGITS), category[:, None], np.ones((4, 1), bool)),
        rtol=1e-5,
    )


def test_teacher_progress_is_linear():
    np.testing.assert_allclose([distillation.teacher_progress(step, 8) for step in (0, 2, 8, 20)], [0, 0.25, 1, 1])
