"""Signs that gradients pass through, and the quantisation loss."""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.losses import signs


def test_signs_pass_the_gradient_on_where_values_are_small():
    values = jnp.array([[-2.0, -1.5, -0.2, 0.0, 0.3, 1.4, 1.6, 3.0]])
    weights = jnp.arange(1.0, 9.0)
    np.testing.assert_array_equal(signs.through(values), [[-1, -1, -1, -1, 1, 1, 1, 1]])
    gradient = jax.grad(lambda value: (signs.through(value) * weights).sum())(values)
    np.testing.assert_array_equal(gradient, [[0, 2, 3, 4, 5, 6, 0, 0]])


def test_spread_and_quantisation_by_hand():
    vectors = np.random.default_rng(0).normal(size=(4, 6))
    spread = signs.spread(jnp.asarray(vectors))
    np.testing.assert_allclose(np.linalg.norm(spread, axis=1), 6**0.5, rtol=1e-5)
    where = np.array([True, False, True, True])
    want = [((abs(row) - 1) ** 2).mean() * keep for row, keep in zip(np.asarray(spread), where, strict=True)]
    np.testing.assert_allclose(signs.quantisation(spread, where=where), want, rtol=1e-5)
    assert not signs.quantisation(jnp.sign(spread)).any()
