"""Propensities of places: recovered where the log can show them, the power law where it cannot."""

import numpy as np
import pytest

from retrieval_jax.data.clicks import propensity
from retrieval_jax.errors import InputError


def simulated(pairs, places, looks, shows, seed=0):
    rng = np.random.default_rng(seed)
    attraction = rng.uniform(0.05, 0.8, pairs)
    pair = np.repeat(np.arange(pairs), places)
    position = np.tile(np.arange(1, places + 1), pairs)
    shown = rng.integers(shows, 2 * shows, len(pair))
    return pair, position, shown, rng.binomial(shown, looks[position - 1] * attraction[pair])


def test_the_places_of_a_simulated_log_are_recovered():
    looks = np.array([1.0, 0.7, 0.45, 0.4, 0.25, 0.15])
    found = propensity.estimate(*simulated(400, 6, looks, 40))
    assert found.method == "em" and found.looks[0] == 1
    np.testing.assert_allclose(found.of(np.arange(1, 7)), looks, atol=0.03)
    assert found.of(np.array([-1, 0, 99])).tolist() == [1, 1, found.looks[-1]]


def test_a_log_that_shows_every_listing_at_one_place_gives_the_power_law():
    pair, position, shown, clicked = simulated(200, 1, np.ones(1), 40)
    found = propensity.estimate(pair, pair % 8 + 1, shown, clicked)
    assert found.method == "power law" and found.informative == 0
    np.testing.assert_allclose(found.of(np.arange(1, 5)), [1, 1 / 2, 1 / 3, 1 / 4])
    assert found.looks.min() == propensity.LEAST  # no click counts more than ten times
    del position


def test_an_empty_log_and_impossible_counts():
    assert propensity.estimate(*np.zeros((4, 0))).method == "power law"
    with pytest.raises(InputError, match="at most as often as it is shown"):
        propensity.estimate(np.zeros(1), np.ones(1), np.ones(1), np.full(1, 2))
    with pytest.raises(InputError, match="different lengths"):
        propensity.estimate(np.zeros(1), np.ones(1), np.ones(1), np.ones(2))
