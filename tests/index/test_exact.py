"""Exact search against brute force: ties, near-ties, duplicates, block sizes."""

import math

import numpy as np
import pytest
import threadpoolctl

from retrieval_jax import index
from retrieval_jax.embeddings import Embeddings, Ids, Shards
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact


def brute_force(queries, gallery, k, query_ids=None, gallery_ids=None):
    """Returns [(row, score)] per query from plain loops: correctly rounded sums, sorted by (score, id)."""
    norms = [math.sqrt(math.fsum(float(x) * float(x) for x in vector)) for vector in gallery]
    out = []
    for number, query in enumerate(queries):
        norm = math.sqrt(math.fsum(float(x) * float(x) for x in query))
        scored = []
        for row, vector in enumerate(gallery):
            if gallery_ids is not None and query_ids is not None and gallery_ids[row] == query_ids[number]:
                continue
            dot = math.fsum(float(x) * float(y) for x, y in zip(query, vector, strict=True))
            score = np.float32(dot / (norm * norms[row])) if norm * norms[row] > 0 else np.float32(0)
            key = gallery_ids[row].encode() if gallery_ids is not None else row
            scored.append((-score, key, row))
        out.append([(row, -score) for score, _, row in sorted(scored)[:k]])
    return out


def check(ranking, expected, k):
    for rows, scores, want in zip(ranking.item_rows, ranking.scores, expected, strict=True):
        assert rows[: len(want)].tolist() == [row for row, _ in want]
        np.testing.assert_allclose(scores[: len(want)], [score for _, score in want], rtol=0, atol=1e-7)
        assert (rows[len(want) :] == -1).all() and np.isneginf(scores[len(want) :]).all()
    assert ranking.item_rows.shape[1] == k


def catalogue(kind, rng):
    # small integers: many exact ties, some zero vectors
    gallery = rng.integers(-2, 3, (150, 6)).astype(np.float32)
    queries = rng.integers(-2, 3, (13, 6)).astype(np.float32)
    if kind == "ties":
        gallery[5] = queries[3] = 0
    if kind == "near_ties":
        gallery = np.ones((150, 6), np.float32)
        gallery += (rng.integers(-3, 4, gallery.shape) * 2.0**-23).astype(np.float32)
    if kind == "duplicates":
        gallery = np.repeat(rng.normal(size=(10, 6)).astype(np.float32), 15, 0)[rng.permutation(150)]
    if kind == "all_equal":
        gallery[:] = 1.5
    if kind == "plain":
        gallery, queries = (
            rng.normal(size=gallery.shape).astype(np.float32),
            rng.normal(size=queries.shape).astype(np.float32),
        )
    return queries, gallery


@pytest.mark.parametrize("kind", ["plain", "ties", "near_ties", "duplicates", "all_equal"])
@pytest.mark.parametrize("blocks", [(13, 1, 0), (4, 7, 0), (5, 64, 2), (512, 16384, 3), (1, 150, 200)])
def test_equals_brute_force(kind, blocks, monkeypatch):
    monkeypatch.setattr(exact, "TILE", 5)
    rng = np.random.default_rng(0)
    queries, gallery = catalogue(kind, rng)
    gallery_ids = [f"{row:03d}é" if row % 2 else f"{row:03d}" for row in rng.permutation(150)]
    query_ids = [gallery_ids[7], "q1", gallery_ids[100], *(f"q{row}" for row in range(3, 13))]
    query_block, gallery_block, margin = blocks
    found = (
        index.get("exact")
        .Index(Embeddings(gallery_ids, gallery), query_block=query_block, gallery_block=gallery_block, margin=margin)
        .search(Embeddings(query_ids, queries), 12)
    )
    check(found, brute_force(queries, gallery, 12, query_ids, gallery_ids), 12)
    assert 7 not in found.item_rows[0] and 100 not in found.item_rows[2]


def test_arrays_and_shards_without_ids_break_ties_by_row():
    queries, gallery = catalogue("ties", np.random.default_rng(1))
    expected = brute_force(queries, gallery, 20)
    exact = index.get("exact")
    check(exact.Index(gallery, gallery_block=40, margin=1).search(queries, 20), expected, 20)
    check(exact.Index(Shards([gallery[:60], gallery[60:]], 6), gallery_block=33).search(queries, 20), expected, 20)


def test_results_for_wide_vectors_are_bitwise_equal_for_any_block_size():
    rng = np.random.default_rng(2)
    gallery = rng.normal(size=(700, 257)).astype(np.float32)
    gallery[300:350] = gallery[0] * (1 + 1e-6 * rng.normal(size=(50, 257)))  # fifty near-ties
    queries = np.concatenate([gallery[:3], rng.normal(size=(20, 257)).astype(np.float32)])
    first = index.get("exact").Index(gallery).search(queries, 15)
    for query_block, gallery_block in ((1, 700), (7, 13), (23, 101)):
        other = (
            index.get("exact")
            .Index(gallery, query_block=query_block, gallery_block=gallery_block, margin=4)
            .search(queries, 15)
        )
        assert np.array_equal(first.item_rows, other.item_rows) and np.array_equal(first.scores, other.scores)


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_gallery_order_does_not_matter(order, monkeypatch):
    monkeypatch.setattr(exact, "TILE", 7)
    rng = np.random.default_rng(3)
    queries, gallery = np.abs(rng.normal(size=(20, 8))).astype(np.float32), rng.normal(size=(3000, 8)).astype("float32")
    if order != "shuffled":  # best last: every block beats all blocks before it; best first: no block does
        gallery = gallery[np.argsort(gallery.sum(1) / np.linalg.norm(gallery, axis=1))]
        gallery = gallery if order == "rising" else gallery[::-1].copy()
    cosines = (queries.astype(float) @ gallery.T.astype(float)) / np.linalg.norm(queries, axis=1)[:, None]
    cosines /= np.linalg.norm(gallery.astype(float), axis=1)
    found = exact.Index(gallery, gallery_block=101, margin=3).search(queries, 10)
    assert np.array_equal(found.item_rows, np.argsort(-cosines, axis=1, kind="stable")[:, :10])


def test_gallery_rows_are_read_once_for_all_queries_and_again_only_to_re_score():
    class Counted:
        def __init__(self, array):
            self.array, self.shape, self.read = array, array.shape, np.zeros(len(array), int)

        def __len__(self):
            return len(self.array)

        def __getitem__(self, key):
            self.read[key] += 1
            return self.array[key]

    rng = np.random.default_rng(4)
    gallery = Counted(rng.normal(size=(2000, 16)).astype(np.float32))
    found = exact.Index(gallery, gallery_block=300, margin=2).search(rng.normal(size=(40, 16)), 3)
    scored = np.zeros(2000, bool)
    scored[found.item_rows] = True
    assert gallery.read.min() == 1 and gallery.read.max() == 2 and (gallery.read[scored] == 2).all()
    assert np.count_nonzero(gallery.read == 2) <= 40 * 5


def test_rankings_of_small_and_empty_galleries_are_padded():
    exact = index.get("exact")
    ranking = exact.Index(Embeddings(["a", "b"], np.eye(2))).search(Embeddings(["b"], [[1.0, 0.0]]), 4)
    assert ranking.item_rows.tolist() == [[0, -1, -1, -1]]
    assert exact.Index(np.zeros((0, 2), np.float32)).search(np.ones((3, 2)), 2).item_rows.tolist() == [[-1, -1]] * 3


def test_scale_does_not_matter_even_at_the_limits_of_float32():
    gallery = np.array([[1e-30, 0], [1e30, 1e30], [0, 1]], np.float32)
    ranking = index.get("exact").Index(gallery).search(np.array([[1e25, 0]], np.float32), 3)
    assert ranking.item_rows.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(ranking.scores[0], [1, math.sqrt(0.5), 0], atol=1e-7)


def test_non_finite_vectors_are_named():
    gallery = np.ones((30, 2), np.float32)
    gallery[17, 1] = np.nan
    with pytest.raises(InputError, match=r"1 of 30 vectors is non-finite .* row 17 \(item17\)"):
        index.get("exact").Index(Embeddings([f"item{row}" for row in range(30)], gallery), gallery_block=8).search(
            np.ones((1, 2), np.float32), 1
        )
    with pytest.raises(InputError, match="query embeddings: 1 of 2 vectors is non-finite .* row 1:"):
        index.get("exact").Index(np.ones((3, 2), np.float32)).search(np.array([[1, 1], [np.inf, 1]], np.float32), 1)


def test_other_bad_input_has_a_remedy():
    exact = index.get("exact")
    with pytest.raises(InputError, match="no index .* named 'exakt'; did you mean exact.* faiss_index"):
        index.get("exakt")
    assert index.names() == ["accelerator", "attribute", "binary", "exact", "faiss_index", "lexical", "milvus"]
    with pytest.raises(InputError, match="same model"):
        exact.Index(np.ones((3, 2), np.float32)).search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(InputError, match="one id per row"):
        exact.Index(np.ones((3, 2), np.float32), ids=["a"])
    with pytest.raises(InputError, match="k=0, expected an integer of at least 1"):
        exact.Index(np.ones((3, 2), np.float32)).search(np.ones((1, 2), np.float32), 0)


def test_progress_counts_gallery_blocks_and_small_searches_are_quiet(monkeypatch, capfd):
    rng = np.random.default_rng(0)
    made = exact.Index(rng.standard_normal((25, 4)), query_block=3, gallery_block=10)
    made.search(rng.standard_normal((7, 4)), 2)
    assert "search" not in capfd.readouterr().err
    monkeypatch.setattr(exact, "QUIET_PAIRS", 100)
    made.search(rng.standard_normal((7, 4)), 2)
    assert "9/9" in capfd.readouterr().err  # 3 blocks of queries, 3 of the gallery


def test_rows_of_a_few_query_ids_are_found_by_bisection():
    rng = np.random.default_rng(0)
    ids = [f"é{number}" for number in rng.integers(0, 60, 300)]  # each occurs about five times
    engine = exact.Index(np.ones((300, 2)), ids)
    names = ["é7", "none", "é15", "zzz", ""]
    few = engine.own_rows(Ids.of(names[:4]))
    want = [(query, row) for query, item in enumerate(names) for row in range(300) if ids[row] == item]
    assert few.tolist() == [list(pair) for pair in want] and len(want) > 2
    many = engine.own_rows(Ids.of([*names, *(f"x{number}" for number in range(50))]))  # all ids are read
    assert many.tolist() == few.tolist()


def test_limits_that_overlap_in_threads_end_with_the_last_of_them():
    def threads():
        found = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
        return {one["num_threads"] for one in found if "numpy" in one["filepath"]}

    with threadpoolctl.threadpool_limits(2, "blas"):
        first, second = exact.one_thread(True), exact.one_thread(True)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        with exact.one_thread(False):
            assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}
