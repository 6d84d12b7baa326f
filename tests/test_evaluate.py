"""The verb evaluate: metrics.json, the two halves, slices, near-duplicates, the submission."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

import edited_catalogue
from retrieval_jax import evaluate
from retrieval_jax.data import loading
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.contents import Contents
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.embeddings import Embeddings, Ids, writer
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import intra_list, metrics, submission
from retrieval_jax.scoring.ranking import Ranking, Truth
from retrieval_jax.workdir import sides

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
    monkeypatch.setattr(loading, "load", lambda config_data: found)
    return tmp_path, found


def make_config(**changes):
    settings = {"ks": (1, 5), "selection_share": 0.5, "submission_stage": "", **changes}
    return ConfigDict({"data": {}, "evaluate": settings})


def test_metrics_json_has_every_stage_and_both_halves(made, capsys):
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


def test_the_submission_is_in_eproducts_format(made):
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


def test_without_truth_only_the_submission_is_written(made, capsys):
    workdir, catalog = made
    (workdir / "metrics.json").write_text("old")
    catalog.truth = None
    assert evaluate.run(make_config(), workdir)["scored"] is False
    assert (workdir / "submission.csv").exists() and not (workdir / "metrics.json").exists()
    assert "nothing is scored" in capsys.readouterr().out


def test_a_querys_half_depends_on_its_id_alone():
    ids = [f"item{row}" for row in range(4000)]
    half = metrics.selection_half(ids, 0.5)
    assert 0.46 < half.mean() < 0.54 and np.array_equal(metrics.selection_half(ids[::-1], 0.5), half[::-1])
    assert half[:3].tolist() == metrics.selection_half(ids[:3]).tolist()
    assert metrics.selection_half(ids, 1.0).all() and not metrics.selection_half(ids, 0.0).any()
    with pytest.raises(InputError, match="0 to 1"):
        metrics.selection_half(ids, 2)


def test_rankings_of_another_catalogue_are_rejected(made):
    workdir, catalog = made
    catalog.gallery.ids = GALLERY[::-1]
    with pytest.raises(InputError, match="a different gallery"):
        evaluate.run(make_config(), workdir)
    catalog.gallery.ids, catalog.query.ids = GALLERY, QUERIES[1:]
    with pytest.raises(InputError, match="40 queries, the catalogue 39"):
        evaluate.run(make_config(), workdir)
    with pytest.raises(InputError, match="retrieval-jax search"):
        evaluate.run(make_config(), workdir / "none")


def test_an_id_with_whitespace_cannot_be_submitted(tmp_path):
    ranking = Ranking(["q"], [[0]], [[1.0]])
    with pytest.raises(InputError, match="'a b'"):
        submission.write_submission(tmp_path / "s.csv", ranking, ["a b"])
    assert not list(tmp_path.iterdir())


def test_slices_and_intervals_are_written_beside_the_means(made, capsys):
    workdir, catalog = made
    catalog.category_levels, catalog.category_names = ("kind",), (["shoes", "bags"],)
    catalog.gallery.categories = np.arange(51)[:, None] % 2
    evaluate.run(make_config(draws=200), workdir)
    written = json.loads((workdir / "metrics.json").read_text())
    printed = capsys.readouterr().out
    counts = catalog.truth.num_relevant
    for row in written["stages"]:
        ranking = Ranking.load(workdir / "rankings" / row["model"] / row["stage"])
        each = metrics.per_query(ranking, catalog.truth, (10,))
        for name in each:
            for scores in (row, row["selection"], row["report"]):
                assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"]
        assert row["mar@10_low"] < row["mar@10"] < row["mar@10_high"]
        chosen = (counts >= 6) & (counts <= 10)
        part = row["slices"]["relevant listings"]["6-10"]
        assert part["ndcg@10"] == pytest.approx(each["ndcg@10"][chosen].mean()) and part["num_scored"] == chosen.sum()
        for kind in ("relevant listings", "category kind"):
            parts = row["slices"][kind].values()
            total = sum(part["mar@10"] * part["num_scored"] for part in parts if part["num_scored"])
            assert sum(part["num_scored"] for part in parts) == row["num_scored"]
            assert total / row["num_scored"] == pytest.approx(row["mar@10"])
        first = [catalog.truth.relevant(q)[0] % 2 if counts[q] else -1 for q in range(40)]
        assert row["slices"]["category kind"]["bags"]["num_scored"] == first.count(1)
    low, high = (100 * written["stages"][-1][f"mar@10_capped_{end}"] for end in ("low", "high"))
    for words in (
        f"{low:.1f} to {high:.1f}",
        "trained whitening by relevant listings",
        "by category kind",
        "6-10",
        "near-duplicates were not checked",
    ):
        assert words in printed
    assert set(written["definitions"]) >= {"ndcg@K", "precision@K", "*_low, *_high", "slices", "near_duplicates"}
    evaluate.run(make_config(draws=0), workdir)
    assert "mar@10_low" not in json.loads((workdir / "metrics.json").read_text())["stages"][0]


def test_near_duplicates_are_counted_and_shown_but_not_removed(made, capsys):
    workdir, catalog = made
    rng = np.random.default_rng(3)
    gallery = rng.integers(0, 256, (51, 9, 8, 3), dtype=np.uint8)
    query = rng.integers(0, 256, (40, 9, 8, 3), dtype=np.uint8)
    right = int(np.flatnonzero(catalog.truth.num_relevant)[5])
    query[right] = gallery[catalog.truth.relevant(right)[0]]
    query[3] = gallery[50]  # itself
    wrong = next(q for q in range(20, 40) if 7 not in catalog.truth.relevant(q))
    query[wrong] = gallery[7]

    def embed(folder, name, columns):
        job = writer.Job(folder, Ids.of(catalog.split(name).ids), "r", "float32", 16)
        earlier = writer.Earlier(folder, "r", "float32")
        writer.write(
            job, earlier, Contents(columns), lambda rows, _: (np.ones((len(rows), 2)), "s"), range(job.count), print
        )
        writer.finish(job, {}, earlier)

    for name, images in (("query", query), ("gallery", gallery)):
        embed(workdir / "embeddings" / "trained" / name, name, {"image": Pictures(images)})
    train = np.concatenate([gallery[:2], rng.integers(0, 256, (30, 9, 8, 3), dtype=np.uint8)])
    catalog.train = Split("train", [f"t{row}" for row in range(32)], None, None, train)
    config = make_config(near_duplicates={"max_difference": 0.05, "train_listings": 100})
    config.embed = {"models": ("histogram", "trained")}
    evaluate.run(config, workdir)
    written, printed = json.loads((workdir / "metrics.json").read_text()), capsys.readouterr().out
    found, main = written["near_duplicates"], written["stages"][-1]
    assert (found["query"]["found"], found["query"]["relevant"], found["train"]["found"]) == (2, 1, 2)
    assert {"query": f"q{wrong}", "gallery": "g7", "difference": 0.0, "relevant": False} in found["query"]["examples"]
    assert [example["train"] for example in found["train"]["examples"]] == ["t0", "t1"]
    assert main["num_queries"] == 40 and main["without_near_duplicates"]["num_queries"] == 38
    ranking = Ranking.load(workdir / "rankings" / "trained" / "whitening")
    clean = ~np.isin(np.arange(40), [right, wrong])
    without = metrics.evaluate(ranking, catalog.truth, (10,), chosen=clean)
    assert main["without_near_duplicates"]["mar@10"] == without["mar@10"]
    assert "WARNING: 2 of 40 query listings (5.0 %)" in printed and "WARNING: 2 of 32 train listings" in printed
    assert f"{100 * without['mar@10_capped']:.2f} without those queries" in printed

    config.evaluate.near_duplicates.max_difference = -1.0
    evaluate.run(config, workdir)
    written = json.loads((workdir / "metrics.json").read_text())
    assert "below 0" in written["near_duplicates"]["not_checked"]

    # queries that are texts have no thumbnails: of the folder of their side, where that of pictures is there too
    config.evaluate.near_duplicates.max_difference = 0.05
    config.search = {"query_from": {"predict_fn": "embed_text"}}
    words = Ragged.of([[row] for row in range(40)])
    embed(workdir / "embeddings" / sides.of(config)["query"].folder / "query", "query", {"words": words})
    evaluate.run(config, workdir)
    written = json.loads((workdir / "metrics.json").read_text())
    assert "text has none" in written["near_duplicates"]["not_checked"]
    assert "without_near_duplicates" not in written["stages"][-1]


def test_edits_are_scored_by_what_they_changed_and_kept(tmp_path, monkeypatch, capsys):
    kinds = np.array([0, 0, 1, 1, 1, 0, 0])
    found = edited_catalogue.catalogue(kind=kinds, phrasing=["seen", "unseen", "", "seen", "seen", "seen", "seen"])
    found.column_names["kind"] = ["colour", "part"]
    monkeypatch.setattr(loading, "load", lambda config_data: found)
    ranking = edited_catalogue.ranking(found)
    ranking.save(tmp_path / "rankings" / "trained" / "cosine")
    stages = {"stages": [{"model": "trained", "stage": "cosine"}]}
    (tmp_path / "rankings" / "rankings.json").write_text(json.dumps(stages))
    config = make_config(slices=("phrasing",), edits={"kept": ("type",), "similarity": "colour_and_edges"})
    evaluate.run(config, tmp_path)
    assert "was not measured: the gallery is not embedded by 'colour_and_edges': add it" in capsys.readouterr().out
    vectors = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    Embeddings(found.gallery.ids, vectors).save(tmp_path / "embeddings" / "colour_and_edges" / "gallery")
    evaluate.run(config, tmp_path)
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "metrics.json").read_text())
    scores = written["edits"]["stages"][0]
    assert written["edits"]["counts"]["scored"] == 4 and written["edits"]["similarity_of"] == "colour_and_edges"
    assert scores["right@10"] == pytest.approx((2 + 2 + 3 + 3) / 40) and scores["right@10_scored"] == 4
    assert scores["slices"]["kind"]["part"]["right@10"] == pytest.approx(0.3)
    assert scores["slices"]["phrasing"]["unseen"]["right@10"] == pytest.approx(0.2)
    wanted = intra_list.similarity(ranking, vectors)["similarity@10"].mean()
    assert scores["similarity@10"] == pytest.approx(wanted)
    assert set(written["stages"][0]["slices"]) >= {"kind", "phrasing"}
    assert written["references"] == {"queries": 7, "in_gallery": 6, "elsewhere": 1, "none": 0, "without_answer": 0}
    for words in (
        "6 of 7 queries are about a gallery listing",
        "4 of 7 edits are scored",
        "trained cosine by phrasing",
        "right@10",
        "by colour_and_edges",
    ):
        assert words in printed
    with pytest.raises(InputError, match=r"the queries have no column 'phrase'; did you mean phrasing"):
        evaluate.run(make_config(slices=("phrase",)), tmp_path)
    with pytest.raises(InputError, match=r"config.evaluate.edits.kept: the gallery has no field 'kind'"):
        evaluate.run(make_config(edits={"kept": ("kind",), "similarity": ""}), tmp_path)
