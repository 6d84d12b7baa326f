"""Approximate search with faiss: exact scores, own ids, padding, folders that recognise their gallery."""

import contextlib
import json

import numpy as np
import pytest

from retrieval_jax import index
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact, faiss_index
from retrieval_jax.postprocess import ensemble


def clusters(count, seed=0, dim=16):
    """Returns vectors of various lengths around 20 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, dim))
    vectors = centres[rng.integers(0, 20, count)] + 0.3 * rng.normal(size=(count, dim))
    return (vectors * rng.uniform(0.1, 10, (count, 1))).astype(np.float32)


def embeddings(count, seed=0, name="g"):
    return Embeddings([f"{name}{row:04d}" for row in range(count)], clusters(count, seed))


@pytest.mark.parametrize("factory, parameters", [("Flat", ""), ("IVF8,Flat", "nprobe=8"), ("HNSW16", "efSearch=400")])
def test_an_exhaustive_faiss_search_equals_exact_search(factory, parameters):
    gallery, queries = embeddings(1200), clusters(30, seed=1)
    gallery.vectors[600:620] = gallery.vectors[5]  # ties go by id
    gallery.vectors[7] = 0
    queries = Embeddings(["g0005", "g0700", *(f"q{row}" for row in range(28))], queries)
    queries.vectors[0] = 3 * gallery.vectors[5]
    made = index.get("faiss_index").Index(gallery, factory=factory, parameters=parameters, candidates=60)
    found, wanted = made.search(queries, 25), exact.Index(gallery).search(queries, 25)
    assert np.array_equal(found.item_rows, wanted.item_rows) and np.array_equal(found.scores, wanted.scores)
    assert found.item_rows[0, :20].tolist() == list(range(600, 620)) and found.gallery_sha256 == wanted.gallery_sha256


@pytest.mark.parametrize("factory", ["IVF16,SQ8", "IVF16,PQ4x4fs", "RR16,IVF16,RaBitQ", "PCA8,IVF16,PQ4x4", "SQ4"])
def test_recall_grows_with_candidates_and_scores_are_exact_cosines(factory):
    gallery, queries = clusters(1500), clusters(40, seed=1)
    wanted = exact.Index(gallery).search(queries, 10).item_rows
    made = faiss_index.Index(gallery, factory=factory, parameters="nprobe=16" if "IVF" in factory else "")
    recalls = []
    for made.candidates in (10, 100, 1500):
        found = made.search(queries, 10)
        recalls.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.item_rows, wanted, strict=True)]))
        units = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (queries, gallery)]
        scores = np.einsum("qd,qkd->qk", units[0].astype(float), units[1].astype(float)[found.item_rows])
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)
        assert (np.diff(found.scores, axis=1) <= 0).all()
    assert recalls[0] < recalls[1] <= recalls[2] == 1.0


def test_fewer_probes_find_fewer_and_parameters_can_be_changed():
    gallery, queries = clusters(1500), clusters(40, seed=1)
    wanted = exact.Index(gallery).search(queries, 100).item_rows
    made = faiss_index.Index(gallery, factory="IVF64,Flat", parameters="nprobe=1")
    few = made.search(queries, 100)
    assert (few.item_rows == -1).any() and np.isneginf(few.scores[few.item_rows == -1]).all()  # found fewer than k
    made.set_parameters("nprobe=64")
    assert np.array_equal(made.search(queries, 100).item_rows, wanted)


def test_rankings_of_small_and_empty_galleries_are_padded():
    gallery = Embeddings(["a", "b", "a"], np.eye(3)[:, :2] + 0.5)
    ranking = faiss_index.Index(gallery, factory="Flat").search(Embeddings(["a", "c"], [[1.0, 0.0]] * 2), 4)
    assert ranking.item_rows.tolist() == [[1, -1, -1, -1], [0, 2, 1, -1]]
    empty = faiss_index.Index(np.zeros((0, 2), np.float32), factory="Flat")
    assert empty.search(np.ones((3, 2)), 2).item_rows.tolist() == [[-1, -1]] * 3


def test_a_saved_index_is_loaded_and_not_rebuilt(tmp_path, monkeypatch):
    gallery, queries, folder = embeddings(1200), clusters(10, seed=1), tmp_path / "kept"
    settings = {"factory": "HNSW8", "parameters": "efSearch=20", "folder": folder}
    first = faiss_index.Index(gallery, **settings).search(queries, 5)
    assert sorted(file.name for file in folder.iterdir()) == ["index.faiss", "index.json", "witnesses.npy"]
    monkeypatch.setattr(faiss_index.Index, "_build", None)  # it must not be rebuilt
    again = faiss_index.Index(gallery, **settings).search(queries, 5)
    assert np.array_equal(first.item_rows, again.item_rows) and np.array_equal(first.scores, again.scores)


def test_a_folder_of_another_gallery_is_rejected(tmp_path):
    gallery, settings = embeddings(300), {"factory": "Flat", "folder": tmp_path / "kept"}
    faiss_index.Index(gallery, **settings)
    renamed = Embeddings([*gallery.ids[:299], "other"], gallery.vectors)
    moved = Embeddings(gallery.ids, clusters(300, seed=3))
    fewer = embeddings(299)
    for other, message in (
        (renamed, "a different gallery"),
        (fewer, "a different gallery"),
        (moved, "outdated vectors"),
    ):
        with pytest.raises(InputError, match=message):
            faiss_index.Index(other, **settings)
    with pytest.raises(InputError, match="holds an index 'Flat'"):
        faiss_index.Index(gallery, factory="SQ8", folder=tmp_path / "kept")


@pytest.mark.parametrize("joined", [False, True])
def test_a_folder_is_rejected_if_a_single_listing_was_embedded_again(tmp_path, joined):
    def gallery(changed=()):
        made = embeddings(3000)
        made.vectors[list(changed)] = 1.0
        made.save(tmp_path / "gallery")
        loaded = Embeddings.load(tmp_path / "gallery")
        return ensemble.concatenate([made, loaded]) if joined else loaded

    settings = {"factory": "Flat", "folder": tmp_path / "kept"}
    faiss_index.Index(gallery(), **settings)
    faiss_index.Index(gallery(), **settings)
    with pytest.raises(InputError, match="outdated vectors"):
        faiss_index.Index(gallery(changed=[1001]), **settings)


@pytest.mark.parametrize("harm, message", [
    (lambda folder: (folder / "index.faiss").write_bytes(b"IxFI" * 30), "has changed"),
    (lambda folder: (folder / "index.faiss").unlink(), "is missing"),
    (lambda folder: (folder / "witnesses.npy").write_bytes(b""), "truncated"),
    (lambda folder: (folder / "index.json").write_text("{"), "index.json is not readable JSON"),
    (lambda folder: (folder / "index.json").write_text(
        json.dumps({**json.loads((folder / "index.json").read_text()), "format": 9})), "format 9"),
])  # fmt: skip
def test_a_damaged_folder_is_reported(tmp_path, harm, message):
    gallery, settings = embeddings(300), {"factory": "Flat", "folder": tmp_path / "kept"}
    faiss_index.Index(gallery, **settings)
    harm(tmp_path / "kept")
    with pytest.raises(InputError, match=message):
        faiss_index.Index(gallery, **settings)


def test_bad_input_has_a_remedy():
    gallery = clusters(100)
    with pytest.raises(InputError, match="for example"):
        faiss_index.Index(gallery, factory="IVF,Flot")
    with pytest.raises(InputError, match="divides the dimensions"):
        faiss_index.Index(gallery, factory="PQ5")
    with pytest.raises(InputError, match="fewer clusters"):
        faiss_index.Index(gallery, factory="IVF200,Flat")
    with pytest.raises(InputError, match="nprobe=16"):
        faiss_index.Index(gallery, factory="Flat", parameters="nprobe=4")
    with pytest.raises(InputError, match="same model"):
        faiss_index.Index(gallery, factory="Flat").search(np.ones((1, 3), np.float32), 1)
    gallery[70, 2] = np.inf
    with pytest.raises(InputError, match="row 70"):
        faiss_index.Index(gallery, factory="Flat")


def test_a_non_finite_vector_is_named_by_row_and_id_wherever_it_is_read(tmp_path):
    gallery, settings = embeddings(1200), {"factory": "IVF8,Flat", "folder": tmp_path / "kept"}
    faiss_index.Index(gallery, **settings)
    gallery.vectors[701] = np.nan
    kept = faiss_index.Index(gallery, parameters="nprobe=8", candidates=1200, **settings)
    with pytest.raises(InputError, match=r"row 701 \(g0701\)"):
        kept.search(clusters(1, seed=1), 10)
    gallery = embeddings(1200)
    rows = np.unique(np.linspace(0, 1199, 400).astype(np.int64))  # the training rows
    gallery.vectors[rows[300]] = np.inf
    with pytest.raises(InputError, match=rf"row {rows[300]} \(g0{rows[300]}\)"):
        faiss_index.Index(gallery, factory="IVF8,Flat", train_rows=400)


def test_bytes_per_vector_are_reported_and_faiss_threads_restored():
    gallery = clusters(1000)
    before = faiss_index.faiss.omp_get_max_threads()
    flat, coded = (faiss_index.Index(gallery, factory=name, threads=1) for name in ("Flat", "SQ8"))
    assert 64 <= flat.bytes_per_vector() < 66 and 16 <= coded.bytes_per_vector() < 17
    assert faiss_index.faiss.omp_get_max_threads() == before


def test_a_graph_built_with_one_thread_is_reproducible(tmp_path):
    gallery = clusters(3000)
    digests = set()
    for name in ("a", "b"):
        faiss_index.Index(gallery, factory="HNSW16", threads=1, folder=tmp_path / name)
        digests.add(json.loads((tmp_path / name / "index.json").read_text())["index_sha256"])
    assert len(digests) == 1


@pytest.mark.parametrize(
    "factory, parameters, words",
    [
        ("IDMap,Flat", "", "leave IDMap out"),
        ("Flat,IDMap2", "", "leave IDMap out"),
        ("HNSW0", "", "number that is 0"),  # faiss would end the process
        ("HNSW1", "", "too few edges"),
        ("NSG4", "", "too few edges"),  # faiss would never return
        ("PQ4x0", "", "number that is 0"),
        ("IVF99999999999,Flat", "", "its clusters would take"),
        ("IVF2000,Flat", "", "cannot train 'IVF2000,Flat' on 600 vectors"),
        ("PQ5", "", "cannot build an index 'PQ5' for 16 dimensions"),
        ("PQ4x16", "", "cannot train"),
        ("", "", "expected a text such as"),
        ("IVF8,Flat", "nprobe=0", "an integer of at least 1"),
        ("IVF8,Flat", "nprobe=1e30", "an integer of at least 1"),
        ("IVF8,Flat", "nprobe=nan", "an integer of at least 1"),
        ("IVF8,Flat", "efSearch=64", "does not accept the parameters"),
        ("HNSW8", "efSearch=0", "an integer of at least 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:the index")
def test_what_faiss_cannot_do_is_a_sentence(factory, parameters, words):
    with pytest.raises(InputError, match=words):
        faiss_index.Index(clusters(600), factory=factory, parameters=parameters).search(clusters(3), 5)


@pytest.mark.parametrize("factory", ["IVF16,Flat", "OPQ2_8,IVF4,PQ2x4fs", "RQ2x4", "HNSW8_PQ2x6"])
def test_few_training_vectors_are_reported_once_and_not_by_faiss(factory, capfd):
    with (
        pytest.warns(UserWarning, match="vectors to train them on") if factory != "RQ2x4" else contextlib.nullcontext()
    ):
        faiss_index.Index(clusters(600), factory=factory, threads=1)
    assert "WARNING" not in capfd.readouterr().err
