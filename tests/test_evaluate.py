"""The verb evaluate: metrics.json, the halves, the submission."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax import evaluate, metrics
from retrieval_jax.data import catalog as catalog_module
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.ranking import Ranking, Truth

QUERIES, GALLERY = [f"q{row}" for row in range(40)], [f"g{row}" for row in range(50)] + ["q3"]


def make_ranking(seed, gallery=GALLERY):
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(51)[:15] for _ in QUERIES])
    rows[7, 4:] = -1
    rows[3, 0], rows[3, 1] = 50, 50  # the query itself, twice
    return Ranking(QUERIES, rows, np.where(rows >= 0, -np.arange(15.0), -np.inf), Ids.of(gallery).sha256())


@pytest.fixture
def made(tmp_path, monkeypatch):
    stages = [("histogram", "cosine"), ("trained", "cosine"), ("trained", "whitening")]
    for seed, (model, stage) in enumerate(stages):
        make_ranking(seed).save(tmp_path / "rankings" / model / stage)
    (tmp_path / "rankings" / "rankings.json").write_text(
        json.dumps({"stages": [{"model": model, "stage": stage} for model, stage in stages]})
    )
    rng = np.random.default_rng(9)
    relevant = [rng.choice(GALLERY, rng.integers(0, 20)).tolist() for _ in QUERIES]
    relevant[0] = []
    found = Catalog("test", truth=Truth.from_lists(QUERIES, GALLERY, relevant))
    for name, ids in (("query", QUERIES), ("gallery", GALLERY)):
        setattr(found, name, Split(name, ids, None, None, None))
    monkeypatch.setattr(catalog_module, "load", lambda config_data: found)
    return tmp_path, found


def make_config(**changes):
    settings = {"ks": (1, 5), "selection_share": 0.5, "submission_stage": "", **changes}
    return ConfigDict({"data": {}, "evaluate": settings})


def test_metrics_json_holds_every_stage_and_both_halves(made, capsys):
    workdir, catalog = made
    summary = evaluate.run(make_config(), workdir)
    written = json.loads((workdir / "metrics.json").read_text())["stages"]
    assert [(row["model"], row["stage"]) for row in written] == [
        ("histogram", "cosine"),
        ("trained", "cosine"),
        ("trained", "whitening"),
    ]
    for row in written:
        ranking = Ranking.load(workdir / "rankings" / row["model"] / row["stage"])
        for name, value in metrics.evaluate(ranking, catalog.truth, (1, 5, 10)).items():
            assert row[name] == pytest.approx(value)
        assert {"mar@10", "mar@10_capped", "recall@1", "map@10", "mar@10_capped_se", "mar@5"} <= set(row)
        halves = row["selection"], row["report"]
        assert row["num_queries"] == 40 == sum(half["num_queries"] for half in halves)
        assert row["num_scored"] + row["num_without_relevant"] == 40
        total = sum(half["mar@10"] * half["num_scored"] for half in halves)
        assert total / row["num_scored"] == pytest.approx(row["mar@10"])
    assert summary["scored"] and summary["mar@10"] == written[-1]["mar@10"]
    printed = capsys.readouterr().out
    for word in ("whitening", "mar@10_capped", "recall@1", f"{100 * written[-1]['mar@10_capped']:.2f}"):
        assert word in printed


def test_the_submission_has_eproducts_format(made):
    workdir, _ = made
    evaluate.run(make_config(), workdir)
    lines = (workdir / "submission.csv").read_text().splitlines()
    ranking = Ranking.load(workdir / "rankings" / "trained" / "whitening")
    assert len(lines) == 40
    for line, query, rows in zip(lines, ranking.query_ids, ranking.item_rows, strict=True):
        expected = []
        for row in rows:
            if row >= 0 and GALLERY[row] != query and GALLERY[row] not in expected:
                expected.append(GALLERY[row])
        assert line == f"{query},{' '.join(expected[:10])}"
    assert len(lines[7].split(",")[1].split()) <= 4  # fewer were found
    evaluate.run(make_config(submission_stage="cosine"), workdir)
    assert (workdir / "submission.csv").read_text().splitlines() != lines
    with pytest.raises(InputError, match="histogram/cosine, trained/cosine, trained/whitening"):
        evaluate.run(make_config(submission_stage="reranking"), workdir)


def test_without_truth_there_is_a_submission_and_nothing_else(made, capsys):
    workdir, catalog = made
    (workdir / "metrics.json").write_text("old")
    catalog.truth = None
    assert evaluate.run(make_config(), workdir)["scored"] is False
    assert (workdir / "submission.csv").exists() and not (workdir / "metrics.json").exists()
    assert "nothing is scored" in capsys.readouterr().out


def test_the_half_of_a_query_depends_on_its_id_alone():
    ids = [f"item{row}" for row in range(4000)]
    half = metrics.selection_half(ids, 0.5)
    assert 0.46 < half.mean() < 0.54 and np.array_equal(metrics.selection_half(ids[::-1], 0.5), half[::-1])
    assert half[:3].tolist() == metrics.selection_half(ids[:3]).tolist()
    assert metrics.selection_half(ids, 1.0).all() and not metrics.selection_half(ids, 0.0).any()
    with pytest.raises(InputError, match="0 to 1"):
        metrics.selection_half(ids, 2)


def test_rankings_of_another_catalogue_are_refused(made):
    workdir, catalog = made
    catalog.gallery.ids = GALLERY[::-1]
    with pytest.raises(InputError, match="another gallery"):
        evaluate.run(make_config(), workdir)
    catalog.gallery.ids, catalog.query.ids = GALLERY, QUERIES[1:]
    with pytest.raises(InputError, match="40 queries, the catalogue 39"):
        evaluate.run(make_config(), workdir)
    with pytest.raises(InputError, match="retrieval_jax.search"):
        evaluate.run(make_config(), workdir / "none")


def test_an_id_with_a_blank_cannot_be_submitted(tmp_path):
    ranking = Ranking(["q"], [[0]], [[1.0]])
    with pytest.raises(InputError, match="'a b'"):
        evaluate.write_submission(tmp_path / "s.csv", ranking, ["a b"])
    assert not list(tmp_path.iterdir())
