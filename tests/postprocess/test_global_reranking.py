"""Global k-reciprocal re-ranking against the dense form in plain loops."""

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.vectors import Shards
from retrieval_jax.errors import InputError
from retrieval_jax.index.exact import Index
from retrieval_jax.postprocess import State, global_reranking


def dense(query, gallery, k1, k2, lambda_value):
    """Returns all distances [Q, G], from sets and square matrices in float64."""
    points = np.concatenate([query, gallery]).astype(np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    size = len(points)
    # duplicates have equal cosines, and ties go by row
    squared = 2 - 2 * np.array([[np.float32((a * b).sum()) for b in points] for a in points], np.float64)
    scaled = squared / squared.max(1, keepdims=True)
    order = [sorted(range(size), key=lambda j, i=i: (squared[i, j], j)) for i in range(size)]

    def reciprocal(i, k):
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    encoding = np.zeros((size, size))
    for i in range(size):
        first = reciprocal(i, k1)
        members = set(first)
        for j in first:
            brought = reciprocal(j, round(k1 / 2))
            if 3 * len(brought & first) > 2 * len(brought):
                members |= brought
        members = sorted(members)
        weights = np.exp(-scaled[i, members])
        encoding[i, members] = weights / weights.sum()
    if k2 > 1:
        encoding = np.stack([encoding[order[i][:k2]].mean(0) for i in range(size)])
    out = np.zeros((len(query), len(gallery)))
    for q in range(len(query)):
        shared = np.minimum(encoding[q], encoding[len(query) :]).sum(1)
        out[q] = (1 - lambda_value) * (1 - shared / (2 - shared)) + lambda_value * scaled[q, len(query) :]
    return out


def products(seed, num_queries=12, num_gallery=150, dim=8):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_gallery // 6, dim))
    return tuple(
        (centres[rng.integers(len(centres), size=n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)
        for n in (num_queries, num_gallery)
    )


@pytest.mark.parametrize("k1, k2, lambda_value", [(20, 6, 0.3), (5, 1, 0.5), (9, 3, 0.0), (3, 8, 0.9)])
def test_equals_the_dense_form(k1, k2, lambda_value, monkeypatch):
    monkeypatch.setattr(global_reranking, "BLOCK", 37)
    query, gallery = products(k1)
    gallery[[7, 90, 91]] = gallery[30]  # duplicate listings
    query[3] = gallery[12]
    candidates = Index(gallery).search(query, 25).item_rows
    kwargs = dict(k1=k1, k2=k2, lambda_value=lambda_value)
    rows, distance = global_reranking.global_k_reciprocal(query, gallery, candidates, **kwargs)
    expected = dense(query, gallery, **kwargs)
    assert rows.shape == distance.shape == (12, 25) and distance.dtype == np.float32
    np.testing.assert_allclose(distance, np.sort(expected, axis=1)[:, :25], atol=2e-6)
    np.testing.assert_allclose(distance, np.take_along_axis(expected, rows, 1), atol=2e-6)
    assert all(len(set(row)) == 25 for row in rows.tolist())
    # it finds listings that the search by cosine missed
    assert any(set(found) - set(before) for found, before in zip(rows.tolist(), candidates.tolist(), strict=True))


def test_results_are_bitwise_equal_for_any_block_and_shard_size(monkeypatch):
    query, gallery = products(1)
    candidates = Index(gallery).search(query, 10).item_rows
    whole = global_reranking.global_k_reciprocal(query, gallery, candidates)
    monkeypatch.setattr(global_reranking, "BLOCK", 11)
    monkeypatch.setattr(global_reranking, "cores", lambda: 3)
    again = global_reranking.global_k_reciprocal(
        query, Shards([gallery[:40], gallery[40:]], 8), candidates, index_kwargs={"gallery_block": 13}
    )
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


def test_the_step_breaks_ties_by_id_and_omits_the_query_itself():
    query, gallery = products(2)
    gallery[20] = gallery[10]
    query[0] = gallery[10]
    names = [f"g{row:03d}" for row in range(150)]
    names[10], names[20], names[5] = "z", "a", "q1"  # row 5 has the id of query 1
    sides = Embeddings([f"q{row}" for row in range(12)], query), Embeddings(names, gallery)
    found = Index(sides[1]).search(sides[0], 30)
    ranking = global_reranking.step(State([sides], found), depth=20).ranking
    assert ranking.k == 20 and ranking.gallery_sha256 == found.gallery_sha256
    assert (np.diff(ranking.scores, axis=1) <= 0).all()
    assert ranking.item_rows[0, :2].tolist() == [20, 10] and ranking.scores[0, 0] == ranking.scores[0, 1]
    assert 5 not in ranking.item_rows[1] and 5 in ranking.item_rows
    with pytest.raises(InputError, match="put ensemble before global_reranking"):
        global_reranking.step(State([sides, sides]))
    with pytest.raises(InputError, match="search.k is 30"):
        global_reranking.step(State([sides], found), depth=31)


def test_few_points_padding_and_bad_input():
    query, gallery = (side[:4] for side in products(3, 2))
    rows, distance = global_reranking.global_k_reciprocal(query, gallery[:4], [[0, 1, 2, 3, -1], [3, 2, 1, 0, -1]])
    assert sorted(rows[0].tolist()) == [-1, 0, 1, 2, 3] and rows[0, -1] == -1 and np.isinf(distance[:, -1]).all()
    for change in (dict(k1=0), dict(lambda_value=-1), dict(candidates=[[9], [0]]), dict(candidates=[[0]])):
        arguments = {"query": query, "gallery": gallery, "candidates": [[0], [0]], **change}
        with pytest.raises(InputError):
            global_reranking.global_k_reciprocal(**arguments)
