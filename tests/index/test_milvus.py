"""Milvus, both as milvus-lite in a local file and behind an address, against exact search and plain Python."""

import base64
import concurrent.futures
import fcntl
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from retrieval_jax import index
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact, milvus

pymilvus = pytest.importorskip("pymilvus", reason="pymilvus is not installed: requirements-milvus.txt")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: requirements-milvus.txt")
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One file for all tests of this module; every gallery has its own collection in it."""
    return str(tmp_path_factory.mktemp("milvus") / "test.db")


def embeddings(name, count, dim, seed, space="s"):
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return Embeddings([f"{name}{row * 7 % count:04d}" for row in range(count)], vectors, {"space": space})


def same(first, second):
    np.testing.assert_array_equal(first.item_rows, second.item_rows)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert first.gallery_sha256 == second.gallery_sha256 and first.query_ids == second.query_ids


@pytest.mark.parametrize("kind", ["plain", "ties", "duplicates", "all_equal"])
def test_flat_equals_exact_search(uri, kind):
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(150, 6)), rng.normal(size=(13, 6))
    if kind == "ties":  # small integers: many exact ties, some zero vectors
        gallery, queries = rng.integers(-2, 3, gallery.shape), rng.integers(-2, 3, queries.shape)
        gallery[5] = queries[3] = 0
    if kind == "duplicates":  # runs of ties longer than the margin
        gallery = np.repeat(gallery[:6], 25, 0)[rng.permutation(150)]
    if kind == "all_equal":
        gallery[:] = 1.5
    ids = [f"{row:03d}{'é' if row % 2 else ''}" for row in rng.permutation(150)]
    gallery = Embeddings(ids, gallery.astype(np.float32))
    queries = Embeddings([ids[7], "q1", ids[100], *(f"q{row}" for row in range(3, 13))], queries.astype(np.float32))
    found = index.get("milvus").Index(gallery, uri=uri).search(queries, 12)
    same(found, exact.Index(gallery).search(queries, 12))
    assert 7 not in found.item_rows[0] and 100 not in found.item_rows[2]


def test_arrays_without_ids_padding_and_empty_galleries(uri):
    gallery, queries = embeddings("g", 9, 4, 1).vectors, embeddings("q", 3, 4, 2).vectors
    made = milvus.Index(gallery, uri=uri)
    same(made.search(queries, 30), exact.Index(gallery).search(queries, 30))  # more than the gallery has
    assert made.search(queries[:0], 3).item_rows.shape == (0, 3)
    empty = milvus.Index(gallery[:0], uri=uri).search(queries, 2)
    assert (empty.item_rows == -1).all() and np.isneginf(empty.scores).all()
    extreme = np.array([[1e-30, 0], [1e30, 1e30], [0, 1]], np.float32)
    assert milvus.Index(extreme, uri=uri).search(extreme[:1] * 1e25, 3).item_rows.tolist() == [[0, 1, 2]]


def test_approximate_indexes_take_parameters_and_score_like_exact_search(uri):
    gallery, queries = embeddings("g", 600, 24, 3), embeddings("q", 20, 24, 4)
    want = exact.Index(gallery).search(queries, 600)
    score_of = [dict(zip(*pair, strict=True)) for pair in zip(want.item_rows.tolist(), want.scores, strict=True)]
    recall, collections = {}, set()
    for name, kind, build, search in (
        ("graph", "HNSW", {"M": 16, "efConstruction": 100}, {"ef": 100}),
        ("all lists", "IVF_FLAT", {"nlist": 8}, {"nprobe": 8}),
        ("one list", "IVF_FLAT", {"nlist": 8}, {"nprobe": 1}),
        ("a short list", "IVF_FLAT", {"nlist": 64}, {"nprobe": 1}),
    ):
        made = milvus.Index(gallery, uri=uri, index_type=kind, index_params=build, search_params=search)
        found = made.search(queries, 10)
        kept = found.item_rows >= 0
        recall[name] = np.mean(
            [len(set(a) & set(b)) / 10 for a, b in zip(found.item_rows, want.item_rows[:, :10], strict=True)]
        )
        collections.add(made.collection)
        for query, slot in zip(*np.nonzero(kept), strict=True):
            assert found.scores[query, slot] == score_of[query][found.item_rows[query, slot]]
    assert recall["all lists"] == 1 and recall["graph"] > 0.95, recall
    assert recall["a short list"] < recall["one list"] < 0.9, recall
    assert len(collections) == 3  # search parameters do not change the index


def naive(queries, gallery, k, keep):
    """Searches by sorting (score, id) over the gallery rows for which keep(query, row) is true."""
    unit = [side.vectors.astype(np.float64) for side in (queries, gallery)]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in unit]
    out = []
    for q in range(len(queries)):
        rows = [row for row in range(len(gallery)) if keep(q, row) and gallery.ids[row] != queries.ids[q]]
        rows = sorted(rows, key=lambda row: (-np.float32(unit[0][q] @ unit[1][row]), gallery.ids[row]))[:k]
        out.append(rows + [-1] * (k - len(rows)))
    return out


def test_filters_by_category_attribute_and_query(uri):
    rng = np.random.default_rng(5)
    gallery, queries = embeddings("g", 200, 8, 6), embeddings("g", 12, 8, 7)
    category = rng.integers(0, 5, 200)
    attributes = [[word for word in ("linen", "red", "v-neck", "größe") if rng.random() < 0.3] for _ in range(200)]
    sizes = [[int(size) for size in rng.integers(30, 50, rng.integers(0, 4))] for _ in range(200)]
    price = rng.uniform(1, 100, 200)
    made = milvus.Index(
        gallery,
        uri=uri,
        filter="category == 3",
        fields={
            "category": category,
            "attributes": attributes,
            "sizes": sizes,
            "price": price,
            "on_sale": category % 2 == 0,
            "brand": [f"brand{number % 3}" for number in range(200)],
        },
    )
    assert made.search(queries, 9).item_rows.tolist() == naive(queries, gallery, 9, lambda q, row: category[row] == 3)
    for text, keep in (
        ('array_contains(attributes, "linen")', lambda row: "linen" in attributes[row]),
        (
            'array_contains_any(attributes, ["red", "größe"]) and price < 50.5',
            lambda row: {"red", "größe"} & set(attributes[row]) and price[row] < 50.5,
        ),
        ("array_contains(sizes, 41)", lambda row: 41 in sizes[row]),
        ('brand == "brand1" and on_sale == true', lambda row: row % 3 == 1 and category[row] % 2 == 0),
        ('id == "g0007"', lambda row: gallery.ids[row] == "g0007"),
        ("category == 77", lambda row: False),
        ("", lambda row: True),
    ):
        found = made.search(queries, 20, filter=text)
        assert found.item_rows.tolist() == naive(queries, gallery, 20, lambda q, row, keep=keep: keep(row)), text
    guided = [f"category == {number % 5}" for number in range(12)]  # every query in its own category
    found = made.search(queries, 9, filter=guided).item_rows.tolist()
    assert found == naive(queries, gallery, 9, lambda q, row: category[row] == q % 5)
    for wrong in ("categorie == 3", "category =="):
        with pytest.raises(InputError, match="with the filter"):
            made.search(queries, 3, filter=wrong)
    with pytest.raises(InputError, match="3 filters for 12"):
        made.search(queries, 3, filter=guided[:3])


def test_a_collection_of_something_else_is_rejected(uri):
    gallery = embeddings("g", 40, 8, 8)
    made = milvus.Index(gallery, uri=uri, collection="mine", fields={"category": [1] * 40})
    again = milvus.Index(gallery, uri=uri, collection="mine", fields={"category": [1] * 40})
    same(again.search(gallery, 3), made.search(gallery, 3))
    changed = gallery.vectors.copy()
    changed[17, 3] += 1e-6
    others = {
        "vectors": (Embeddings(gallery.ids, changed, gallery.meta), [1] * 40),
        "ids": (Embeddings(gallery.ids[::-1], gallery.vectors, gallery.meta), [1] * 40),
        "space": (Embeddings(gallery.ids, gallery.vectors, {"space": "other"}), [1] * 40),
        "rows": (Embeddings(gallery.ids[:30], gallery.vectors[:30], gallery.meta), [1] * 30),
        "fields": (gallery, [1] * 39 + [2]),
    }
    for name, (other, category) in others.items():
        with pytest.raises(InputError, match=f'different gallery.*"{name}":.*this one has .*"{name}":.*drop it'):
            milvus.Index(other, uri=uri, collection="mine", fields={"category": category})
        assert milvus.Index(other, uri=uri, fields={"category": category}).collection != made.collection
    client = pymilvus.MilvusClient(uri)
    client.create_collection("foreign", dimension=8)
    with pytest.raises(InputError, match="not created by retrieval_jax"):
        milvus.Index(gallery, uri=uri, collection="foreign")


LOAD = """
import sys
from pymilvus import MilvusClient
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.index import milvus

def upsert(self, name, rows, real=MilvusClient.upsert):
    real(self, name, rows)
    print(rows[-1]["row"] + 1, flush=True)  # rows acknowledged so far
    sys.stdin.readline()  # the test lets it run two batches ahead of what it has read

MilvusClient.upsert = upsert
milvus.MESSAGE_BYTES = 4096
milvus.Index(Embeddings.load(sys.argv[1]), uri=sys.argv[2])
"""


def stored_rows(made):
    return sorted(
        hit["row"] for hit in made.client.query(made.collection, filter="row >= 0", output_fields=["row"], limit=16384)
    )


def test_a_killed_load_resumes(tmp_path):
    gallery = embeddings("g", 3000, 16, 9)
    gallery.save(tmp_path / "gallery", shard_rows=700)
    uri, acknowledged = str(tmp_path / "killed.db"), []
    for share in (0.2, 0.5):
        child = subprocess.Popen(
            [sys.executable, "-c", LOAD, str(tmp_path / "gallery"), uri],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        child.stdin.write(b"\n\n")
        done = [int(child.stdout.readline())]
        while done[-1] < share * 3000:
            child.stdin.write(b"\n")
            child.stdin.flush()
            done.append(int(child.stdout.readline()))
        child.kill()  # SIGKILL, somewhere inside the next batches
        done += [int(line) for line in child.communicate()[0].split()]
        assert done[-1] < 3000
        acknowledged.append(done)
    first, second = acknowledged
    batch = first[0]
    assert first[-1] < second[0] <= first[-1] + 3 * batch  # it resumes where the first process was killed
    sent = []
    upsert = pymilvus.MilvusClient.upsert
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(milvus, "MESSAGE_BYTES", 4096)
        patch.setattr(
            pymilvus.MilvusClient, "upsert", lambda self, name, rows: (sent.append(rows), upsert(self, name, rows))
        )
        made = milvus.Index(Embeddings.load(tmp_path / "gallery"), uri=uri)
    assert 0 < sum(map(len, sent)) <= 3000 - second[-1]
    assert stored_rows(made) == list(range(3000))
    same(made.search(embeddings("q", 5, 16, 10), 20), exact.Index(gallery).search(embeddings("q", 5, 16, 10), 20))

    made.client.delete(made.collection, ids=[5, 6, 2999])  # rows that somebody else deletes come back
    assert len(stored_rows(made)) == 2997
    assert stored_rows(milvus.Index(gallery, uri=uri)) == list(range(3000))
    made.client.upsert(made.collection, [{"row": 3000, "id": "stray", "vector": gallery.vectors[0]}])
    with pytest.raises(InputError, match="holds 3001 rows but the gallery has 3000: something else is writing to it"):
        milvus.Index(gallery, uri=uri)


def test_requests_respect_their_size_limit(uri, monkeypatch):
    sizes = {"upsert": [], "search": []}
    import pymilvus.client.prepare as prepare

    upsert, search = prepare.Prepare.row_upsert_param, prepare.Prepare.search_requests_with_expr

    def spy(kind, made):
        sizes[kind].append(made.ByteSize())
        return made

    monkeypatch.setattr(prepare.Prepare, "row_upsert_param", lambda *a, **k: spy("upsert", upsert(*a, **k)))
    monkeypatch.setattr(prepare.Prepare, "search_requests_with_expr", lambda *a, **k: spy("search", search(*a, **k)))
    monkeypatch.setattr(milvus, "MESSAGE_BYTES", 20000)
    gallery = embeddings("g", 500, 32, 11)
    made = milvus.Index(
        gallery,
        uri=uri,
        fields={
            "title": ["x" * (row % 50) for row in range(500)],
            "sizes": [list(range(row % 9)) for row in range(500)],
        },
    )
    made.search(gallery, 5)
    for kind in sizes:
        assert len(sizes[kind]) > 3 and max(sizes[kind]) <= 20000 + 1000, sizes  # plus their metadata


def test_an_address_replaces_the_file_and_the_token_comes_from_the_environment(tmp_path, monkeypatch):
    import grpc
    from milvus_lite.adapter.grpc.servicer import MilvusServicer
    from milvus_lite.db import MilvusLite
    from pymilvus.grpc_gen import milvus_pb2_grpc

    seen = set()

    class Listener(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            seen.update(value for key, value in details.invocation_metadata if key == "authorization")
            return continuation(details)

    database = MilvusLite(str(tmp_path / "server"))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, interceptors=(Listener(),))
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            monkeypatch.setenv("RETRIEVAL_JAX_MILVUS_URI", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("MILVUS_TOKEN", "shop:secret")
            gallery, queries = embeddings("g", 50, 8, 12), embeddings("q", 4, 8, 13)
            same(milvus.Index(gallery).search(queries, 6), exact.Index(gallery).search(queries, 6))
            assert {base64.b64decode(value).decode() for value in seen} == {"shop:secret"}
            monkeypatch.delenv("MILVUS_TOKEN")
            monkeypatch.setenv("MILVUS_USER", "reader")
            monkeypatch.setenv("MILVUS_PASSWORD", "hidden")
            seen.clear()
            milvus.Index(gallery)
            assert {base64.b64decode(value).decode() for value in seen} == {"reader:hidden"}
        finally:
            server.stop(0).wait()
            database.close()


def test_bad_input_is_rejected_with_a_remedy(uri, tmp_path, capfd):
    gallery = embeddings("g", 10, 4, 14)
    with pytest.raises(InputError, match="MILVUS_TOKEN") as raised:
        milvus.Index(gallery, uri="https://shop:secret@example.org:19530")
    assert "secret" not in str(raised.value)
    with pytest.raises(InputError, match="a local file ends in .db"):
        milvus.Index(gallery, uri="milvus.sqlite")
    with pytest.raises(InputError, match="does not exist: create it"):
        milvus.Index(gallery, uri=str(tmp_path / "none" / "milvus.db"))
    for fields, words in (
        ({"vector": [1] * 10}, "cannot be named"),
        ({"a-b": [1] * 10}, "cannot be named"),
        ({"category": [1] * 9}, "give one per row"),
        ({"category": [1] * 9 + [None]}, "use -1"),
        ({"words": [["a"]] * 9 + ["a"]}, r"row 9\): a field takes"),
    ):
        with pytest.raises(InputError, match=words):
            milvus.Index(gallery, uri=uri, fields=fields)
    broken = gallery.vectors.copy()
    broken[3, 1] = np.nan
    with pytest.raises(InputError, match=r"row 3 \(g0001\)"):
        milvus.Index(Embeddings(gallery.ids, broken), uri=uri)
    made = milvus.Index(gallery, uri=uri)
    with pytest.raises(InputError, match="same model"):
        made.search(gallery.vectors[:, :3], 1)
    with pytest.raises(InputError, match="k=0"):
        made.search(gallery, 0)
    with pytest.raises(InputError, match="at most 16384"):
        made.search(gallery, 16385)
    with pytest.raises(InputError, match=r"no index 'IVF_PQ' \(available: FLAT"):
        milvus.Index(gallery, uri=uri, index_type="IVF_PQ")
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_file_open_in_another_process_is_named(tmp_path):
    (tmp_path / "busy.db").mkdir()
    with open(tmp_path / "busy.db" / "LOCK", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the lock that a process with the file open holds
        with pytest.raises(InputError, match="open in another process"):
            milvus.Index(embeddings("g", 5, 4, 15), uri=str(tmp_path / "busy.db"))
