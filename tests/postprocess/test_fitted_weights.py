"""Weights fitted on pairs: a part that says nothing gets nothing, and a better part gets more."""

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import fitted_weights

RNG = np.random.default_rng(0)


def pairs(*separations, count=4000):
    noise = RNG.normal(0, 0.2, (2, count, len(separations)))
    return np.array(separations) + noise[0], noise[1]


def test_parts_are_weighted_by_what_they_tell():
    weights = fitted_weights.fit(*pairs(0.3, 0.0, 0.1))
    assert np.isclose(weights.sum(), 1) and weights[0] > weights[2] > weights[1] and weights[1] < 0.1
    assert np.allclose(fitted_weights.fit(*pairs(0.2, 0.2)), 0.5, atol=0.05)


def test_they_rank_better_than_equal_ones_and_are_never_negative():
    same, other = pairs(0.3, 0.02)
    weights = fitted_weights.fit(same, other)
    right = [((same - other) @ one > 0).mean() for one in (weights, np.full(2, 0.5))]
    assert right[0] > right[1]
    assert (fitted_weights.fit(*pairs(0.3, -0.3)) >= 0).all()


def test_pairs_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="fitted_weights"):
        fitted_weights.fit(np.zeros((3, 2)), np.zeros((2, 2)))
    with pytest.raises(InputError, match="finite"):
        fitted_weights.fit(np.full((3, 2), np.nan), np.zeros((3, 2)))
