"""Trying steps on a few thousand rows: the same results as the search's own whitening, with shared directions."""

import dataclasses

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.index import exact
from retrieval_jax.postprocess import State, _trying, choosing, query_expansion, whitening

DIM = 20


def sides(queries=90, gallery=150, seed=0):
    rng = np.random.default_rng(seed)
    spread = np.linspace(2.0, 0.05, DIM)
    vectors = [rng.normal(size=(count, DIM)) * spread + 0.5 * rng.normal(size=DIM) for count in (queries, gallery)]
    return tuple(
        Embeddings([f"{prefix}{row}" for row in range(len(side))], side.astype(np.float32), {"space": "s"})
        for prefix, side in zip("qg", vectors, strict=True)
    )


def searched(state, k):
    queries, gallery = state.members[0]
    return exact.Index(gallery).search(queries, k)


SETTINGS = [
    {},
    {"power": 0.1, "centre": "own", "fit_on": "both"},
    {"power": 0.25, "fit_on": "both"},
    {"centre": "own", "fit_on": "queries", "relative_ridge": 0.01},
    {"fit_on": "queries", "power": 0.3},
    {"centre": "own", "shrink": True},
    {"dim": 7, "centre": "own"},
]


@pytest.mark.parametrize("kwargs", SETTINGS, ids=str)
@pytest.mark.parametrize("rows", [(90, 150), (15, 18)], ids=["many rows", "fewer rows than dimensions"])
def test_a_whitening_finds_what_the_search_finds(kwargs, rows):
    both = sides(*rows)
    expected = searched(whitening.step(State([both]), **kwargs), 10).item_rows
    assert np.array_equal(_trying.apply((("whitening", kwargs),), *both), expected)


@pytest.mark.parametrize("kwargs", SETTINGS[:4], ids=str)
def test_a_whitening_of_fewer_rows_is_applied_to_all(kwargs):
    both, most = sides(), (30, 16)
    some = [side.take(spread(len(side), rows)) for side, rows in zip(both, most, strict=True)]
    fitted = whitening.fit_sides(*some, **kwargs)
    state = State([tuple(fitted.apply(side, name) for side, name in zip(both, ("query", "gallery"), strict=True))])
    rows = _trying.apply((("whitening", kwargs),), *both, None, most)
    assert np.array_equal(rows, searched(state, 10).item_rows)


def test_all_candidates_share_three_decompositions(monkeypatch):
    both, known, calls = sides(), {}, []
    plain = whitening.spectrum
    monkeypatch.setattr(whitening, "spectrum", lambda covariance: calls.append(1) or plain(covariance))
    found = [_trying.apply(steps, *both, known) for steps in choosing.WHITENINGS]
    assert len(calls) == 3
    for steps, rows in zip(choosing.WHITENINGS, found, strict=True):
        assert np.array_equal(rows, _trying.apply(steps, *both))


def test_the_plain_cosine_leaves_out_the_query_itself_and_pads():
    queries, gallery = sides(queries=12, gallery=12)
    queries = dataclasses.replace(queries, ids=gallery.ids)
    rows = _trying.apply((), queries, gallery)
    assert np.array_equal(rows, exact.Index(gallery).search(queries, 10).item_rows)
    assert all(row not in found for row, found in enumerate(rows.tolist()))
    few = _trying.apply((), queries, gallery.take(np.arange(3)))
    assert few.shape == (12, 3) and few[0].tolist()[-1] == -1 and (few[5:] >= 0).all()


def test_a_zero_vector_scores_zero():
    queries, gallery = sides()
    vectors = gallery.vectors.copy()
    vectors[4] = 0.0
    gallery = dataclasses.replace(gallery, vectors=vectors)
    with pytest.warns(UserWarning, match="zero vectors"):
        expected = exact.Index(gallery).search(queries, 10).item_rows
    assert np.array_equal(_trying.apply((), queries, gallery), expected)


def test_steps_on_top_of_a_whitening_are_ranked_once(monkeypatch):
    both, known, scaled = sides(), {}, []
    plain = _trying._scaled
    monkeypatch.setattr(_trying, "_scaled", lambda *args: scaled.append(1) or plain(*args))
    first = (("whitening", {"power": 0.25}),)
    for name in ("reranking", "global_reranking"):
        assert _trying.apply((*first, (name, {})), *both, known).shape == (90, 10)
    assert len(scaled) == 2  # each side once
    state = whitening.step(State([both]), power=0.25)
    state = dataclasses.replace(state, ranking=searched(state, 100))
    expected = searched(query_expansion.step(state, depth=3), 10).item_rows
    assert np.array_equal(_trying.apply((*first, ("query_expansion", {"depth": 3})), *both, known), expected)


def test_hubness_is_the_skewness_of_occurrences():
    from scipy import stats

    rows = np.random.default_rng(3).integers(0, 9, (50, 10))
    assert _trying.hubness(rows, 12) == pytest.approx(stats.skew(np.bincount(rows.ravel(), minlength=12)))
    assert _trying.hubness(np.arange(12)[:, None], 12) == 0.0
