"""The triplet loss against loops in float64."""

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.losses import triplet

RNG = np.random.default_rng(0)
QUERIES, POSITIVES = RNG.normal(0, 1, (2, 5, 4))
NEGATIVES = RNG.normal(0, 1, (5, 3, 4))
ALLOWED = RNG.random((5, 3)) < 0.7


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def naive(negatives, margin, allowed):
    out = np.zeros(5)
    for i in range(5):
        near = unit(QUERIES[i]) @ unit(POSITIVES[i])
        excess = [margin + unit(QUERIES[i]) @ unit(one) - near for one in negatives[i]]
        over = [value for value, there in zip(excess, allowed[i], strict=True) if there and value > 0]
        out[i] = np.mean(over) if over else 0.0
    return out


@pytest.mark.parametrize("margin", [0.1, 0.5, 2.0])
def test_it_is_the_mean_excess_of_the_negatives_that_violate_the_margin(margin):
    found = triplet.cosine(QUERIES, POSITIVES, NEGATIVES, margin=margin, allowed=ALLOWED)
    np.testing.assert_allclose(found, naive(NEGATIVES, margin, ALLOWED), rtol=1e-5, atol=1e-6)
    shared = triplet.cosine(QUERIES, POSITIVES, NEGATIVES[0], margin=margin)
    every = np.broadcast_to(NEGATIVES[0], (5, 3, 4))
    np.testing.assert_allclose(shared, naive(every, margin, np.ones((5, 3), bool)), rtol=1e-5, atol=1e-6)


def test_rows_are_weighed_and_left_out():
    where, weights = np.array([1, 1, 0, 1, 1], bool), np.arange(5.0)
    found = triplet.cosine(QUERIES, POSITIVES, NEGATIVES, where=where, weights=weights)
    expected = naive(NEGATIVES, 0.3, np.ones((5, 3), bool)) * weights * where
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="positives"):
        triplet.cosine(QUERIES, POSITIVES[:3], NEGATIVES)
    with pytest.raises(InputError, match="allowed"):
        triplet.cosine(QUERIES, POSITIVES, NEGATIVES, allowed=ALLOWED[:, :2])
