"""The command that proposes an index: its recall, its choice, the config lines and files it writes."""

import json

import ml_collections
import numpy as np
import pytest

from retrieval_jax import index, propose_index
from retrieval_jax.__main__ import main
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.workdir import sides
from tiny import tiny_config


@pytest.fixture
def run(tmp_path):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 16))
    for split, count in (("query", 60), ("gallery", 2500)):
        vectors = (centres[rng.integers(0, 30, count)] + 0.3 * rng.normal(size=(count, 16))).astype(np.float32)
        Embeddings([f"{split}{row}" for row in range(count)], vectors).save(tmp_path / "embeddings" / "trained" / split)
    return tmp_path


def ranking(rows, scores):
    return Ranking([str(query) for query in range(len(rows))], rows, scores)


def test_recall_counts_rows_that_score_like_the_last_exact_one():
    inf = np.inf
    wanted = ranking([[4, 7, 9], [1, 2, 3], [5, -1, -1], [-1, -1, -1]],
                     [[0.9, 0.8, 0.7], [0.5, 0.5, 0.5], [0.4, -inf, -inf], [-inf] * 3])  # fmt: skip
    found = ranking([[4, 9, 1], [8, 9, 1], [5, -1, -1], [-1, -1, -1]],
                    [[0.9, 0.7, 0.6], [0.5, 0.5, 0.4], [0.4, -inf, -inf], [-inf] * 3])  # fmt: skip
    assert propose_index.per_query_recall(found, wanted).tolist() == [2 / 3, 2 / 3, 1, 0]


def test_the_cheapest_is_the_fastest_that_reaches_the_recall_within_memory():
    rows = [{"recall": recall, "queries_per_second": speed, "bytes_per_vector": size}
            for recall, speed, size in ((1.0, 10, 0), (0.99, 50, 900), (0.98, 40, 100), (0.9, 500, 20))]  # fmt: skip
    assert propose_index.cheapest(rows, 0.98) is rows[1]
    assert propose_index.cheapest(rows, 0.98, 200) is rows[2]
    assert propose_index.cheapest(rows, 0.995) is rows[0]
    assert propose_index.cheapest(rows[1:], 0.995) is None


@pytest.mark.parametrize("rows, dim", [(300, 8), (7016, 672), (1_100_000, 2048), (5000, 96), (60, 7)])
def test_every_proposed_factory_can_be_built(rows, dim):
    faiss = index.get("faiss_index").faiss
    found = propose_index.factories(rows, dim)
    for factory in found:
        made = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        if "IVF" in factory:
            lists = faiss.extract_index_ivf(made).nlist
            assert 39 * lists <= max(rows, 4 * 39)  # enough vectors to train on
            assert propose_index.parameters(factory)[-1] == f"nprobe={lists}"
    assert len(found) == len(set(found)) and any("HNSW" in factory for factory in found)


def test_the_command_writes_a_curve_and_config_lines_that_search_accepts(run, capsys):
    factories = ["IVF32,Flat", "IVF32,PQ4x4", "HNSW8"]
    main(["propose_index", str(run), "--recall=0.9", "--queries=50", "--factories", *factories])
    out = capsys.readouterr().out
    found = json.loads((run / "index_proposal" / "settings.json").read_text())
    assert (run / "index_proposal" / "curve.png").read_bytes().startswith(b"\x89PNG")
    rows, chosen = found["rows"], found["chosen"]
    assert [row["factory"] for row in rows] == sorted((row["factory"] for row in rows), key=["", *factories].index)
    assert rows[0]["index"] == "exact" and rows[0]["recall"] == 1.0
    assert chosen["recall"] >= 0.9 and all(row["recall"] < 0.9 for row in rows
                                           if row["queries_per_second"] > chosen["queries_per_second"])  # fmt: skip
    flat = [row["recall"] for row in rows if row["factory"] == "IVF32,Flat"]
    assert flat[0] < flat[-1] == 1.0  # more probes find more
    coded = [row for row in rows if row["factory"] == "IVF32,PQ4x4"]
    assert coded[1]["candidates"] == 40 and coded[0]["recall"] < coded[1]["recall"]  # more candidates too
    # A config accepts the printed lines, and they give the measured recall.
    config = ml_collections.ConfigDict({"search": {"index": "", "index_kwargs": {}}})
    exec(propose_index.config_lines(coded[-1]), {"config": config})
    gallery = Embeddings.load(run / "embeddings" / "trained" / "gallery")
    queries = propose_index.load(run, "", 50, False)[0]
    made = index.get(config.search.index).Index(gallery, **config.search.index_kwargs)
    wanted = index.get("exact").Index(gallery).search(queries, 10)
    again = propose_index.per_query_recall(made.search(queries, 10), wanted).mean()
    assert again == pytest.approx(coded[-1]["recall"], abs=0.02)
    assert propose_index.config_lines(chosen) in out


@pytest.mark.parametrize("factory", ["IVF5,Flat", "OPQ4,IVF5_HNSW32,PQ4x4", "IVF5(RCQ2x4),SQ8"])
def test_probes_go_up_to_the_number_of_clusters(factory):
    assert propose_index.parameters(factory) == ["nprobe=1", "nprobe=2", "nprobe=4"]


def test_whitened_vectors_and_fewer_queries(run):
    queries, gallery = propose_index.load(run, "trained", 7, True)
    assert len(queries) == 7 and len(gallery) == 2500
    covariance = np.cov(np.asarray(gallery.vectors[:], float), rowvar=False)
    assert np.abs(covariance * 16 - np.eye(16)).max() < 0.25  # unit length and white


def test_the_sides_of_two_networks_are_those_that_the_run_searches(run):
    (run / "embeddings" / "trained" / "gallery").rename(run / "gallery")
    config = tiny_config()
    config.search.gallery_from.run = "a/large"
    (run / "config.json").write_text(config.to_json())
    with pytest.raises(InputError, match=r"no embeddings of 'trained' in .* \(available: none\)"):
        propose_index.load(run, "", 7, False)
    there = run / "embeddings" / sides.of(config)["gallery"].folder / "gallery"
    there.parent.mkdir()
    (run / "gallery").rename(there)
    queries, gallery = propose_index.load(run, "", 7, False)
    assert len(queries) == 7 and gallery.ids[0] == "gallery0"


def test_bad_input_is_one_message(run, capsys):
    for arguments, message in (
        (["--model=pretrained"], "no embeddings of 'pretrained'"),
        (["--recall=1.5"], "--recall must be"),
        (["--factories", "IVF8"], "cannot build an index 'IVF8'"),
        (["--k=3000"], "too few to measure recall@3000"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["propose_index", str(run), *arguments])
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["propose_index", str(run / "nowhere")])
    assert "retrieval-jax embed" in capsys.readouterr().err
