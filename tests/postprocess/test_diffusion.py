"""Diffusion re-ranking against dense matrices and their inverse."""

import dataclasses

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index.exact import Index
from retrieval_jax.postprocess import State, diffusion


def dense_graph(gallery, k, gamma):
    units = gallery.astype(np.float64) / np.linalg.norm(gallery.astype(np.float64), axis=1, keepdims=True)
    cosines, count = units @ units.T, len(units)
    near = []
    for i in range(count):
        near.append(sorted(set(range(count)) - {i}, key=lambda j, i=i: (-np.float32(cosines[i, j]), j))[:k])
    matrix = np.zeros((count, count))
    for i in range(count):
        for j in near[i]:
            if i in near[j]:
                matrix[i, j] = max(cosines[i, j], 0.0) ** gamma
    scale = np.array([1 / np.sqrt(total) if total > 0 else 0.0 for total in matrix.sum(1)])
    return scale[:, None] * matrix * scale


def spiral(rng, turns, count):
    """Returns points along an arm that winds around a sphere: adjacent points are near, the ends are not."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    return np.stack([np.cos(angle), np.sin(angle), 0.35 * np.cos(3 * angle) + turns], 1) + 0.02 * rng.normal(
        size=(count, 3)
    )


def data(seed, queries=6, count=80, dim=6):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, dim))
    return tuple(
        (centres[rng.integers(12, size=n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)
        for n in (queries, count)
    )


@pytest.mark.parametrize("depth, k, gamma, alpha", [(80, 8, 3.0, 0.9), (30, 12, 1.0, 0.99), (25, 5, 3.0, 0.0)])
def test_equals_the_inverse_of_the_dense_matrix(depth, k, gamma, alpha, monkeypatch):
    query, gallery = data(k)
    gallery[[3, 40]] = gallery[20]
    candidates = Index(gallery).search(query, depth).item_rows
    candidates[2, 9:] = -1
    candidates[4] = -1
    affinities = diffusion.graph(gallery, k, gamma)
    expected_graph = dense_graph(gallery, k, gamma)
    np.testing.assert_allclose(affinities.toarray(), expected_graph, atol=1e-6)
    kwargs = dict(neighbours_of_query=7, alpha=alpha, gamma=gamma)
    found = diffusion.diffuse(query, gallery, candidates, affinities, **kwargs)
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, gallery)]
    for number, rows in enumerate(candidates):
        rows = rows[rows >= 0]
        source = np.maximum(units[1][rows] @ units[0][number], 0.0) ** gamma
        source[7:] = 0
        matrix = np.eye(len(rows)) - alpha * expected_graph[np.ix_(rows, rows)]
        flow = (1 - alpha) * np.linalg.solve(matrix, source)
        np.testing.assert_allclose(found[number, : len(rows)], flow, atol=1e-5)
        assert np.isneginf(found[number, len(rows) :]).all()
    monkeypatch.setattr(diffusion, "BLOCK_BYTES", 1)
    assert np.array_equal(diffusion.diffuse(query, gallery, candidates, affinities, **kwargs), found)
    assert (diffusion.graph(gallery, k, gamma) != affinities).nnz == 0


def test_diffusion_follows_a_curved_neighbourhood_that_cosine_cannot():
    rng = np.random.default_rng(0)
    arms = [spiral(rng, turns, 150) for turns in (0.0, 0.9)]
    gallery = Embeddings([str(row) for row in range(300)], np.concatenate(arms).astype(np.float32))
    query = Embeddings(["q"], arms[0][75:76].astype(np.float32))
    found = Index(gallery).search(query, 300)
    after = diffusion.step(State([(query, gallery)], found), depth=300, k=10).ranking
    right = [(ranking.item_rows[0, :150] < 150).mean() for ranking in (found, after)]
    assert right[1] > right[0] + 0.2, right
    assert (np.diff(after.scores[0]) <= 0).all() and sorted(after.item_rows[0].tolist()) == list(range(300))


def test_the_step_truncates_keeps_the_order_of_unreached_candidates_and_rejects_bad_settings():
    query, gallery = data(5)
    gallery[70:] = -10 * np.eye(10, 6)  # isolated listings
    sides = tuple(Embeddings([f"{name}{row}" for row in range(len(side))], side) for name, side in
                  (("q", query), ("g", gallery)))  # fmt: skip
    found = Index(sides[1]).search(sides[0], 80)
    state = State([sides], found)
    ranking = diffusion.step(state, depth=60, k=4, neighbours_of_query=3).ranking
    assert ranking.k == 60 and ranking.gallery_sha256 == found.gallery_sha256
    for before, after, scores in zip(found.item_rows[:, :60], ranking.item_rows, ranking.scores, strict=True):
        assert sorted(before) == sorted(after)
        place = {row: number for number, row in enumerate(before)}
        unreached = [place[row] for row, score in zip(after, scores, strict=True) if score == 0]
        assert unreached and unreached == sorted(unreached)
    for kwargs in (dict(k=0), dict(gamma=-1), dict(alpha=1.0), dict(neighbours_of_query=0), dict(depth=90)):
        with pytest.raises(InputError):
            diffusion.step(dataclasses.replace(state, ranking=Index(sides[1]).search(sides[0], 70)), **kwargs)
