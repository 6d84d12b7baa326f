"""Queries about a listing ("this shirt, but in denim"): no engine, truth or file returns the listing itself."""

import csv
import dataclasses

import numpy as np
import pytest

from retrieval_jax import leaks
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.duplicates import thumbnails
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.index import accelerator, attribute, binary, exact, faiss_index, lexical
from retrieval_jax.postprocess import global_reranking
from retrieval_jax.scoring import metrics, submission
from retrieval_jax.scoring.ranking import Ranking, Truth

COUNT = 12
GALLERY = [f"g{row}" for row in range(COUNT)]
# Queries with the picture of a listing: about it, about one that is not in the gallery, about none; and listings, about
# none, about another, and about one that is not in the gallery: they never find themselves, whatever they are about.
IDS, ROWS = ["q0", "q1", "q2", "g5", "g7", "g2"], [3, 3, 4, 5, 7, 2]
ABOUT = ["g3", "elsewhere", "", "", "g3", "elsewhere"]
AFTER = ["g3", "elsewhere", "q2", "g5", "g3", "elsewhere"]
LEFT_OUT = [{3}, set(), set(), {5}, {3, 7}, {2}]


@pytest.fixture
def sides():
    vectors = np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float32)
    return Embeddings(Ids.of(IDS).with_about(ABOUT), vectors[ROWS]), Embeddings(GALLERY, vectors)


def check(ranking, names=GALLERY):
    for query, (row, left_out) in enumerate(zip(ROWS, LEFT_OUT, strict=True)):
        found = [names[at] for at in ranking.item_rows[query] if at >= 0]
        wanted = set(GALLERY) - {GALLERY[one] for one in left_out}
        assert set(found) == wanted and len(found) == len(wanted)
        if row not in left_out:
            assert found[0] == GALLERY[row]
    assert list(ranking.query_ids) == IDS and list(ranking.query_ids.about) == AFTER


@pytest.mark.parametrize(
    "make",
    [
        lambda gallery: exact.Index(gallery),
        lambda gallery: exact.Index(gallery, query_block=1, gallery_block=5),
        lambda gallery: faiss_index.Index(gallery, factory="Flat"),
        lambda gallery: accelerator.Index(gallery),
        lambda gallery: binary.Index(gallery, candidates=COUNT),
        lambda gallery: attribute.Index(gallery, fields={"n": np.arange(COUNT)}),
    ],
    ids=["exact", "blocks", "faiss", "accelerator", "binary", "attribute"],
)
def test_indexes(sides, make):
    queries, gallery = sides
    check(make(gallery).search(queries, COUNT))


def test_few_queries_in_a_large_gallery():
    gallery = exact.Index(np.eye(200, 3, dtype=np.float32), [f"g{row}" for row in range(200)])
    assert gallery.own_rows(Ids.of(["q"]).with_about(["g150"])).tolist() == [[0, 150]]  # found by bisection
    own = gallery.own_rows(Ids.of(["g160", "q"]).with_about(["g150", ""]))
    assert own.tolist() == [[0, 150], [0, 160]]


def test_stores(sides, tmp_path):
    queries, gallery = sides
    sample = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    store = binary.create(tmp_path / "binary", sample, bits=32, cells=2, probes=2, candidates=COUNT, shards=2)
    store.update(gallery.ids, gallery.vectors)
    found = store.search(queries, COUNT + 1)
    check(found, {row: store.names(np.array([row]))[0] for row in np.unique(found.item_rows).tolist() if row >= 0})
    store.close()
    store = attribute.create(tmp_path / "attribute", gallery.vectors, {"n": np.arange(COUNT)}, list(gallery.ids))
    check(store.search(queries, COUNT).ranking)
    store.close()


def test_texts():
    index = lexical.Index([f"same w{row}" for row in range(COUNT)], GALLERY)
    texts = [f"same w{row}" for row in ROWS]
    check(index.search(texts, COUNT + 1, query_ids=Ids.of(IDS).with_about(ABOUT)))


def test_milvus(sides, tmp_path):
    pytest.importorskip("milvus_lite")
    from retrieval_jax.index import milvus

    queries, gallery = sides
    check(milvus.Index(gallery, uri=str(tmp_path / "test.db")).search(queries, COUNT + 1))


def test_re_ranking_leaves_it_out(sides):
    queries, gallery = sides
    everything = np.tile(np.arange(COUNT), (len(IDS), 1))
    rows, _ = global_reranking.global_k_reciprocal(queries, gallery, everything, k1=4, k2=2)
    for found, left_out in zip(rows.tolist(), LEFT_OUT, strict=True):
        assert not left_out & set(found)


def catalogue(**columns):
    query = Split("query", IDS, None, None, None, columns=columns)
    truth = Truth.from_lists(IDS, GALLERY, [["g3", "g1"], ["g3"], ["g4"], ["g5", "g0"], ["g3"], ["g2", "g9"]])
    return Catalog("test", query=query, gallery=Split("gallery", GALLERY, None, None, None), truth=truth)


def test_a_catalogue_with_references():
    found = catalogue(reference=ABOUT)
    assert list(found.query.ids.about) == AFTER
    assert [found.truth.relevant(query).tolist() for query in range(6)] == [[1], [3], [4], [0], [], [9]]
    assert list(found.truth.about) == list(found.query.ids.about)
    plain = catalogue(words=["red"] * 6)
    assert plain.query.ids is IDS and plain.truth.relevant(0).tolist() == [1, 3]
    numbers = catalogue(reference=np.arange(6, dtype=np.float32))  # only ids, which are text, name listings
    assert numbers.query.ids is IDS and numbers.references == {} and catalogue(reference=[""] * 6).references == {}


def test_references_are_counted_and_doubtful_ones_reported(caplog):
    found = catalogue(reference=ABOUT)
    counts = {"queries": 6, "in_gallery": 2, "elsewhere": 2, "none": 2, "without_answer": 1}
    assert found.references == counts
    assert "1 of 6 queries have no right answer" in caplog.text and "the gallery lacks" not in caplog.text
    caplog.clear()
    assert dataclasses.replace(found).references == counts and not caplog.text  # a copy is not counted again
    articles = catalogue(reference=["A-1", "A-2", "A-3", "A-4", "", ""])
    assert articles.references == {"queries": 6, "in_gallery": 0, "elsewhere": 4, "none": 2, "without_answer": 0}
    assert "names listings that the gallery lacks in 4 of 6 queries, such as 'A-1'" in caplog.text
    assert articles.truth.relevant(3).tolist() == [0]  # not the query itself


def test_truths_in_another_order_know_them():
    truth = catalogue(reference=ABOUT).truth
    moved = truth.moved(Ids.of(IDS).with_about(ABOUT).take(np.array([2, 0])), GALLERY[::-1])
    assert list(moved.about) == ["q2", "g3"] and [moved.relevant(query).tolist() for query in range(2)] == [[7], [10]]


def test_scores_of_another_reference_are_refused(sides):
    ranking = exact.Index(sides[1]).search(sides[0], 3)
    truth = catalogue(reference=ABOUT).truth
    assert metrics.evaluate(ranking, truth)["num_scored"] == 5
    with pytest.raises(Exception, match="about other listings than the truth's"):
        metrics.evaluate(ranking, catalogue().truth)


def test_chance_counts_the_listings_that_are_searched():
    ids, gallery = ["q0", "q1"], [f"g{row}" for row in range(21)]
    truth = Truth.from_lists(Ids.of(ids).with_about(["g7", ""]), gallery, [["g0"], ["g0"]])
    assert metrics.chance(truth)["recall@1"] == pytest.approx((1 / 20 + 1 / 21) / 2)
    truth = Truth.from_lists(Ids.of(["g9", "q1"]).with_about(["g7", ""]), gallery, [["g0"], ["g0"]])
    assert metrics.chance(truth)["recall@1"] == pytest.approx((1 / 19 + 1 / 21) / 2)


def test_rankings_keep_what_queries_are_about(sides, tmp_path):
    ranking = exact.Index(sides[1]).search(sides[0], 3)
    ranking.save(tmp_path / "ranking")
    assert Ranking.load(tmp_path / "ranking").query_ids == ranking.query_ids
    everything = np.tile(np.arange(COUNT), (len(IDS), 1))
    scores = -everything.astype(np.float32)
    submission.write_submission(tmp_path / "s.csv", Ranking(sides[0].ids, everything, scores), GALLERY, depth=5)
    lines = {query: items.split() for query, items in csv.reader((tmp_path / "s.csv").open())}
    assert lines["q0"] == ["g0", "g1", "g2", "g4", "g5"] and lines["g5"] == ["g0", "g1", "g2", "g3", "g4"]
    assert lines["g2"] == ["g0", "g1", "g3", "g4", "g5"]


def test_the_picture_that_a_query_has_from_its_listing_is_not_a_duplicate():
    pictures = np.random.default_rng(0).integers(0, 256, (COUNT, 192), dtype=np.uint8)
    truth = catalogue(reference=ABOUT).truth
    entry, rows = thumbnails.of_queries(pictures[ROWS], pictures, truth, 0.05)
    assert rows.tolist() == [1, 2, 4] and entry["relevant"] == 2
    found = catalogue(reference=ABOUT)
    assert leaks._own_rows(found.query, found.gallery).tolist() == [3, -1, -1, 5, 3, 2]
