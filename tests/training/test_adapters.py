"""Fitting adapters: a rotation is found, noise is shrunk without one half of a gallery winning, and too few rows."""

import numpy as np
import pytest

from retrieval_jax.embeddings import adapters
from retrieval_jax.errors import InputError
from retrieval_jax.training import adapters as fitting

RNG = np.random.default_rng(0)
OLD = RNG.normal(size=(400, 8)) + 1.0
TURN = np.linalg.qr(RNG.normal(size=(12, 12)))[0][:8]


def held_out_cosine(kind, new):
    weights, length, scale, facts = fitting.fit(OLD[:300], new[:300], kind=kind, steps=200)
    adapter = adapters.Adapter(kind, "old", "new", weights, length, scale)
    found = adapters.unit(adapter(OLD[300:]))
    return (found * adapters.unit(new[300:])).sum(axis=1).mean(), facts


def test_a_rotation_is_found():
    new = adapters.unit(OLD) @ TURN * 3.0
    cosine, facts = held_out_cosine("linear", new)
    assert cosine > 0.999 and facts["cosine"] > 0.999 and facts["fitted_on"] == 300


def test_both_ways_to_solve_the_regression_agree():
    old, new = OLD[:40].astype(np.float64), RNG.normal(size=(40, 5))
    wide = np.concatenate([old, np.zeros((40, 60))], axis=1)  # more columns than rows
    few, many = fitting.Ridge(old, new).weights(0.1), fitting.Ridge(wide, new).weights(0.1 * 68 / 8)
    inputs = old - old.mean(0)
    naive = np.linalg.solve(inputs.T @ inputs + 0.1 * (inputs**2).sum() / 8 * np.eye(8), inputs.T @ (new - new.mean(0)))
    np.testing.assert_allclose(few["kernel"], naive, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(few["kernel"], many["kernel"][:8], atol=1e-5)
    np.testing.assert_allclose(many["kernel"][8:], 0, atol=1e-6)
    found = fitting.Ridge(old, new).predict(old[:3], 0.1)
    np.testing.assert_allclose(found, adapters.expected(few, old[:3]), rtol=1e-4, atol=1e-6)


def test_a_perceptron_learns_what_a_linear_map_misses():
    new = np.abs(adapters.unit(OLD - 1.0) @ TURN)
    linear, residual = held_out_cosine("linear", new)[0], held_out_cosine("residual", new)[0]
    assert residual > linear + 0.002


def test_neither_half_of_a_mixed_gallery_wins():
    rng = np.random.default_rng(3)
    groups = rng.normal(size=(40, 12))[np.arange(400) // 2 % 40]
    old = groups[:, ::-1] + 0.05 * rng.normal(size=(400, 12))
    new = groups + 0.5 * rng.normal(size=(400, 12))  # what tells listings of a group apart cannot be known from the old
    weights, length, scale, facts = fitting.fit(old[:200], new[:200], seed=1)
    assert scale < 1 and abs(facts["share"] - 0.5) < 0.1
    assert abs(np.linalg.norm(weights["aside"]) - 1) < 1e-5

    def adapted_share(scale):
        """How often the nearest of listings that were not fitted on is adapted, where every second one is."""
        found = adapters.unit(adapters.Adapter("linear", "old", "new", weights, length, scale)(old[200:]))
        gallery = np.where(np.arange(200)[:, None] % 2, adapters.unit(new[200:]), found)
        scores = adapters.unit(new[200:]) @ gallery.T
        np.fill_diagonal(scores, -2.0)
        return (scores.argmax(axis=1) % 2 == 0).mean()

    assert abs(adapted_share(scale) - 0.5) < 0.15 < abs(adapted_share(1.0) - 0.5)


def test_too_few_listings_and_unknown_kinds_are_refused():
    with pytest.raises(InputError, match="fitted on 5 listings: give at least 20"):
        fitting.fit(OLD[:5], OLD[:5])
    with pytest.raises(InputError, match="linear"):
        fitting.fit(OLD, OLD, kind="linaer")
