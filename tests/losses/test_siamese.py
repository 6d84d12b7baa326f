"""The contrastive loss of a Siamese network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.losses import siamese


def test_it_equals_the_published_sum_pair_by_pair():
    rng = np.random.default_rng(0)
    query, positive, negative = (rng.normal(size=shape) for shape in ((4, 5), (4, 5), (4, 3, 5)))
    allowed = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    found = siamese.contrastive(*map(jnp.asarray, (query, positive, negative)), margin=1.2, allowed=allowed)
    for row in range(4):
        q, p = query[row] / np.linalg.norm(query[row]), positive[row] / np.linalg.norm(positive[row])
        expected = 0.5 * ((q - p) ** 2).sum()
        each = []
        for number in np.flatnonzero(allowed[row]):
            n = negative[row, number] / np.linalg.norm(negative[row, number])
            each.append(0.5 * max(0.0, 1.2 - np.linalg.norm(q - n)) ** 2)
        np.testing.assert_allclose(found[row], expected + (np.mean(each) if each else 0), rtol=1e-4)


def test_the_gradient_is_finite_where_a_negative_is_the_query():
    query = jnp.ones((2, 3))
    gradient = jax.grad(lambda q: siamese.contrastive(q, query, query[:, None]).sum())(query)
    assert jnp.isfinite(gradient).all()
    with pytest.raises(ValueError, match="siamese loss"):
        siamese.contrastive(query, query[:1], query[:, None])
