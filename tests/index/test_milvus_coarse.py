"""Coarse and fine search in Milvus against the binary index on the same codes, and against plain loops.

milvus-lite 3 has no binary vectors, so its codes are floats. Set RETRIEVAL_JAX_TEST_MILVUS to the address of a server
(http://127.0.0.1:19530, or unix:<socket> of a milvus-lite 2.5, which has them) to test the binary field too.
"""

import functools
import os

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import binary, exact, milvus
from retrieval_jax.index.binary import codes

pytest.importorskip("pymilvus", reason="pymilvus is not installed: requirements-milvus.txt")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: requirements-milvus.txt")


@pytest.fixture(scope="module", params=["lite", "server"])
def uri(request, tmp_path_factory):
    """One database for all tests of this module; every gallery has its own collection in it."""
    if request.param == "lite":
        return str(tmp_path_factory.mktemp("milvus") / "test.db")
    if "RETRIEVAL_JAX_TEST_MILVUS" not in os.environ:
        pytest.skip("RETRIEVAL_JAX_TEST_MILVUS is not set to the address of a server")
    return os.environ["RETRIEVAL_JAX_TEST_MILVUS"]


def sides(count=600, dim=24, seed=0, kind="plain"):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, dim))
    gallery, queries = (centres[rng.integers(0, 12, n)] + 0.6 * rng.normal(size=(n, dim)) for n in (count, 30))
    if kind == "duplicates":  # runs of ties longer than any margin
        gallery = np.repeat(gallery[: count // 50], 50, 0)[rng.permutation(count)]
    if kind == "integers":
        gallery, queries = np.rint(gallery), np.rint(queries)
        gallery[5] = queries[3] = 0
    ids = [f"g{number:04d}{'é' if number % 2 else ''}" for number in rng.permutation(count)]
    query_ids = [ids[7], "q1", ids[100], *(f"q{number}" for number in range(3, 30))]
    meta = {"space": "s"}
    return Embeddings(ids, gallery.astype(np.float32), meta), Embeddings(query_ids, queries.astype(np.float32), meta)


def same(first, second):
    np.testing.assert_array_equal(first.item_rows, second.item_rows)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert first.gallery_sha256 == second.gallery_sha256 and first.query_ids == second.query_ids


@pytest.mark.parametrize("kind", ["plain", "duplicates", "integers"])
@pytest.mark.parametrize(
    "settings", [{"bits": 16, "candidates": 40}, {"bits": 64, "candidates": 15}, {"candidates": 1}]
)
def test_equals_the_binary_index(uri, kind, settings):
    gallery, queries = sides(kind=kind)
    ours = binary.Index(gallery, **settings, shards=3)
    made = milvus.Index(gallery, uri=uri, coarse=settings)
    np.testing.assert_array_equal(made.coarse.coder.rotation, ours.coder.rotation)
    found = made.search(queries, 12)
    same(found, ours.search(queries, 12))
    assert 7 not in found.item_rows[0] and 100 not in found.item_rows[2]
    same(milvus.Index(gallery, uri=uri, coarse=settings).search(queries, 12), found)  # now from the collection


def test_recall_grows_with_candidates_up_to_exact_search(uri):
    gallery, queries = sides(1200, seed=1)
    want, recall = exact.Index(gallery).search(queries, 10), []
    for count in (10, 40, 160, 1200):
        made = milvus.Index(gallery, uri=uri, coarse={"bits": 32, "candidates": count})
        found = made.search(queries, 10)
        recall.append(np.mean([np.isin(a, b).mean() for a, b in zip(want.item_rows, found.item_rows, strict=True)]))
    assert recall == sorted(recall) and recall[0] < recall[1] < recall[2] and recall[-1] == 1, recall
    np.testing.assert_array_equal(found.item_rows, want.item_rows)


def test_filters_come_before_the_codes(uri):
    """Candidates are counted among the rows that match: loops over codes and cosines, per query's own filter."""
    gallery, queries = sides(seed=2)
    category = np.random.default_rng(3).integers(0, 5, len(gallery))
    made = milvus.Index(
        gallery,
        uri=uri,
        filter="category < 3",
        fields={"category": category, "words": [["linen"] if row % 4 == 0 else [] for row in range(len(gallery))]},
        coarse={"bits": 24, "candidates": 20},
    )
    code, asked = (np.unpackbits(made.coarse.coder.encode(side.vectors)[0], axis=1) for side in (gallery, queries))
    unit, asked_unit = codes.units(gallery.vectors), codes.units(queries.vectors)

    def naive(query, keep, k=9):
        rows = [row for row in range(len(gallery)) if keep(row) and gallery.ids[row] != queries.ids[query]]
        rows = sorted(rows, key=lambda row: (int((code[row] != asked[query]).sum()), gallery.ids[row].encode()))[:20]
        cosine = {row: np.float32(unit[row] @ asked_unit[query]) for row in rows}
        rows = sorted(rows, key=lambda row: (-cosine[row], gallery.ids[row].encode()))[:k]
        return rows + [-1] * (k - len(rows))

    def check(filter, keep):
        found = made.search(queries, 9, filter=filter).item_rows.tolist()
        assert found == [naive(query, functools.partial(keep, query)) for query in range(len(queries))]

    check(None, lambda query, row: category[row] < 3)
    check('array_contains(words, "linen")', lambda query, row: row % 4 == 0)
    check("row == 17", lambda query, row: row == 17)
    check("category == 77", lambda query, row: False)
    check([f"category == {query % 5}" for query in range(len(queries))], lambda query, row: category[row] == query % 5)


def test_learned_codes_and_a_saved_coder(uri, tmp_path):
    gallery, queries = sides(seed=4)
    ours = binary.Index(gallery, bits=16, candidates=30, method="learned")
    ours.coder.save(tmp_path / "coder.npz")
    want = ours.search(queries, 10)
    for settings in ({"bits": 16, "method": "learned"}, {"coder": str(tmp_path / "coder.npz")}):
        made = milvus.Index(gallery, uri=uri, coarse={"candidates": 30, **settings})
        same(made.search(queries, 10), want)


def test_shards_and_replicas_are_passed_on_and_change_nothing(uri, monkeypatch):
    from pymilvus import MilvusClient

    given = {}
    for name in ("create_collection", "load_collection"):
        real = getattr(MilvusClient, name)
        monkeypatch.setattr(
            MilvusClient, name, lambda *a, real=real, name=name, **k: (given.update({name: k}), real(*a, **k))[1]
        )
    gallery, queries = sides(seed=5)
    settings = {"uri": uri, "coarse": {"bits": 16, "candidates": 30}}
    many = milvus.Index(gallery, **settings, collection=f"many{os.getpid()}", shards=3, replicas=2)
    assert given["create_collection"]["num_shards"] == 3 and given["load_collection"]["replica_number"] == 2
    one = milvus.Index(gallery, **settings)
    assert "num_shards" not in given["create_collection"] and "replica_number" not in given["load_collection"]
    same(many.search(queries, 10), one.search(queries, 10))


def test_other_codes_are_another_collection(uri):
    gallery, _ = sides(120, seed=6)
    plain = milvus.Index(gallery, uri=uri)
    made = [milvus.Index(gallery, uri=uri, coarse={"bits": bits}) for bits in (16, 24)]
    assert len({one.collection for one in (plain, *made)}) == 3
    assert milvus.Index(gallery, uri=uri, coarse={"bits": 16, "candidates": 9}).collection == made[0].collection
    with pytest.raises(InputError, match='different gallery.*"coarse":.*drop it'):
        milvus.Index(gallery, uri=uri, collection=made[0].collection, coarse={"bits": 24})


def test_bad_settings_are_rejected_with_a_remedy(tmp_path):
    gallery, queries = sides(120, seed=7)
    uri = str(tmp_path / "test.db")
    codes.fit(gallery.vectors[:, :8]).save(tmp_path / "other.npz")
    for settings, words in (
        ({"candidate": 3}, "no argument 'candidate'.*candidates"),
        ({"candidates": 0}, "candidates=0"),
        ({"bits": 12}, "multiple of 8"),
        ({"method": "lerned"}, "method='lerned'"),
        ({"index_type": "BIN_IVF_FLAT"}, "available: BIN_FLAT"),
        ({"index_type": "HNSW"}, "index_type='HNSW'"),
        ({"coder": str(tmp_path / "none.npz")}, "none.npz"),
        ({"coder": str(tmp_path / "other.npz"), "bits": 64}, "coder names fitted codes, and bits says how to fit some"),
        ({"coder": str(tmp_path / "other.npz")}, "vectors of 8 dimensions, the gallery has 24"),
    ):
        with pytest.raises(InputError, match=words):
            milvus.Index(gallery, uri=uri, coarse=settings)
    with pytest.raises(InputError, match="cannot be named 'code'"):
        milvus.Index(gallery, uri=uri, coarse={}, fields={"code": [1] * 120})
    made = milvus.Index(gallery, uri=uri, coarse={"bits": 16})
    with pytest.raises(InputError, match="with the filter"):
        made.search(queries, 3, filter="categorie == 3")
