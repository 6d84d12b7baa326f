"""Local k-reciprocal re-ranking against plain loops over sets, and against the runner-up's numbers."""

import time

import numpy as np
import pytest

import reference
from retrieval_jax.embeddings import Embeddings, Shards
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, reranking
from retrieval_jax.scoring.ranking import Ranking


def naive(query, gallery, candidates, k1, k2, lambda_value):
    """Re-ranks query by query with sets and dicts, in float64."""
    out = np.full(candidates.shape, np.inf)
    for number, rows in enumerate(candidates):
        there = [place for place, row in enumerate(rows) if row >= 0]
        points = [query[number].astype(np.float64), *(gallery[rows[place]].astype(np.float64) for place in there)]
        size = len(points)
        squared = [[float(((a - b) ** 2).sum()) for b in points] for a in points]
        scaled = [[value / max(row) if max(row) > 0 else 0.0 for value in row] for row in squared]
        order = [sorted(range(size), key=lambda j, row=row: (row[j], j)) for row in scaled]

        def reciprocal(i, k, order=order):
            return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

        encoding = []
        for i in range(size):
            first = reciprocal(i, k1)
            members = set(first)
            for j in first:
                brought = reciprocal(j, round(k1 / 2))
                if 3 * len(brought & first) > 2 * len(brought):
                    members |= brought
            weights = {j: np.exp(-scaled[i][j]) for j in members}
            total = sum(weights.values())
            encoding.append([weights.get(j, 0.0) / total for j in range(size)])
        if k2 > 1:
            encoding = [[sum(encoding[j][m] for j in order[i][:k2]) / len(order[i][:k2]) for m in range(size)]
                        for i in range(size)]  # fmt: skip
        for place, j in zip(there, range(1, size), strict=True):
            shared = sum(min(a, b) for a, b in zip(encoding[0], encoding[j], strict=True))
            jaccard = 1 - shared / (2 - shared)
            out[number, place] = (1 - lambda_value) * jaccard + lambda_value * scaled[0][j]
    return out


def products(rng, num_queries, num_gallery, dim, width):
    centres = rng.normal(size=(num_gallery // 6, dim))
    gallery = (
        centres[rng.integers(len(centres), size=num_gallery)] + 0.5 * rng.normal(size=(num_gallery, dim))
    ).astype(np.float32)
    query = (centres[rng.integers(len(centres), size=num_queries)] + 0.5 * rng.normal(size=(num_queries, dim))).astype(
        np.float32
    )
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    return query, gallery, np.argsort(-query @ gallery.T, axis=1, kind="stable")[:, :width]


@pytest.mark.parametrize(
    "k1, k2, lambda_value", [(10, 6, 0.5), (5, 1, 0.3), (7, 3, 0.0), (40, 50, 0.9), (1, 2, 1.0), (3, 2, 0.5)]
)
def test_equals_naive_loops(k1, k2, lambda_value):
    query, gallery, candidates = products(np.random.default_rng(k1), 6, 120, 8, 30)
    found = reranking.local_k_reciprocal(query, gallery, candidates, k1=k1, k2=k2, lambda_value=lambda_value)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive(query, gallery, candidates, k1, k2, lambda_value), atol=2e-6)


def test_padding_ragged_lists_and_exact_duplicates():
    query, gallery, candidates = products(np.random.default_rng(1), 5, 120, 8, 20)
    gallery[candidates[0, 3]] = gallery[candidates[0, 1]]
    gallery[candidates[1, :6]] = query[1]
    candidates[2, 4:] = -1
    candidates[3] = -1
    candidates[4, 1:] = -1
    found = reranking.local_k_reciprocal(query, gallery, candidates)
    np.testing.assert_allclose(found, naive(query, gallery, candidates, 10, 6, 0.5), atol=2e-6)
    assert np.isinf(found[3]).all() and np.isfinite(found[2, :4]).all() and np.isinf(found[2, 4:]).all()
    assert np.isfinite(reranking.local_k_reciprocal(np.ones((1, 3)), np.ones((9, 3)), np.arange(9)[None])).all()
    assert reranking.local_k_reciprocal(query, gallery, candidates[:, :0]).shape == (5, 0)


def test_results_are_bitwise_equal_for_any_chunk_batch_and_thread_count(monkeypatch):
    query, gallery, candidates = products(np.random.default_rng(2), 9, 120, 48, 30)
    gallery[candidates[0, 5:12]] = gallery[candidates[0, 3]]  # equal distances, which BLAS sums in different orders
    gallery[candidates[1, ::2]] = query[1]
    candidates[3, 20:] = -1
    whole = reranking.local_k_reciprocal(query, gallery, candidates, threads=1)
    shards = Embeddings([str(row) for row in range(120)], Shards([gallery[:50], gallery[50:]], 48))
    for chunk, batch, threads in [(1, 1, 3), (4 * 48 * 31 * 4, 8 * 31 * 31 * 3, 2), (1 << 20, 8 * 31 * 31 * 2, 1)]:
        monkeypatch.setattr(reranking, "CHUNK_BYTES", chunk)
        monkeypatch.setattr(reranking, "BATCH_BYTES", batch)
        assert np.array_equal(reranking.local_k_reciprocal(query, shards, candidates, threads=threads), whole)
    for number in range(9):  # one query at a time
        alone = reranking.local_k_reciprocal(query[number : number + 1], gallery, candidates[number : number + 1])
        assert np.array_equal(alone, whole[number : number + 1])


def test_parity_with_the_runner_up():
    with np.load(reference.path("parity/postprocess.npz")) as file:
        members = [(file[f"query_{m}"], file[f"gallery_{m}"]) for m in (0, 1)]
        candidates, expected = file["ensemble_top100"], file["reranked_distance"]
    from retrieval_jax.postprocess import ensemble, whitening

    sides = []
    for side in (0, 1):
        whitened = [whitening.fit(member[1]).apply(member[side]) for member in members]
        sides.append(
            ensemble.concatenate([Embeddings([str(row) for row in range(len(part))], part) for part in whitened])
        )
    found = reranking.local_k_reciprocal(sides[0], sides[1], candidates)
    assert np.abs(found - expected).max() <= 1e-4


def test_far_faster_than_loops():
    query, gallery, candidates = products(np.random.default_rng(3), 40, 1200, 32, 100)
    start = time.perf_counter()
    reranking.local_k_reciprocal(query, gallery, candidates)
    ours = (time.perf_counter() - start) / len(query)
    start = time.perf_counter()
    naive(query[:3], gallery, candidates[:3], 10, 6, 0.5)
    loops = (time.perf_counter() - start) / 3
    print(f"\nre-ranking 100 candidates: {1e3 * ours:.2f} ms per query, naive loops {1e3 * loops:.0f} ms")
    assert ours < loops / 5


def test_the_step_reorders_the_top_results_and_drops_the_rest():
    query, gallery, candidates = products(np.random.default_rng(4), 5, 120, 8, 30)
    candidates[4, 12:] = -1
    scores = np.where(candidates >= 0, -np.arange(30.0), -np.inf)
    sides = tuple(
        Embeddings([f"{name}{row}" for row in range(len(part))], part)
        for name, part in (("q", 3 * query), ("g", gallery))
    )
    state = State([sides], Ranking(sides[0].ids, candidates, scores, "sha"))
    ranking = reranking.step(state, depth=20).ranking
    query, gallery = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (3 * query, gallery))
    distance = reranking.local_k_reciprocal(query, gallery, candidates[:, :20])
    assert ranking.k == 20 and ranking.gallery_sha256 == "sha"
    assert reranking.step(state).ranking.k == 30  # the default depth is min(100, search.k)
    for number in range(5):
        order = sorted((value, place) for place, value in enumerate(distance[number]))
        assert ranking.item_rows[number].tolist() == [candidates[number, place] for _, place in order]
        np.testing.assert_allclose(ranking.scores[number], [-value for value, _ in order], rtol=1e-5)
    with pytest.raises(InputError, match="put ensemble before"):
        reranking.step(State([sides, sides]))
    with pytest.raises(InputError, match="depth=0"):
        reranking.step(state, depth=0)
    with pytest.raises(InputError, match="search.k is 30"):
        reranking.step(state, depth=31)


@pytest.mark.parametrize("change", [
    dict(k1=0), dict(lambda_value=1.5), dict(candidates=[[99]]), dict(candidates=[[-2]]), dict(candidates=[[0], [1]]),
    dict(query=np.ones((1, 3))),
])  # fmt: skip
def test_bad_input_is_rejected(change):
    arguments = {"query": np.ones((1, 2)), "gallery": np.ones((4, 2)), "candidates": [[0]], **change}
    with pytest.raises(InputError):
        reranking.local_k_reciprocal(**arguments)
