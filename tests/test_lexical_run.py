"""Typed queries over a table of titles, from the table to the report, without pictures and without a network."""

import csv
import json

import numpy as np
import pytest

from retrieval_jax import evaluate, run, search
from retrieval_jax.data import loading
from retrieval_jax.data.pictures.sources import NoPictures
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import fused
from retrieval_jax.scoring import comparing, written
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.settings import base

COLOURS, TYPES = ("red", "blue", "green", "black"), ("shirt", "shoes", "watch", "bag", "scarf")


def write(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def shop(tmp_path):
    """Titles of 40 listings, 40 typed queries with kinds, and their graded judgements in TREC's form."""
    root = tmp_path / "shop"
    root.mkdir()
    gallery = [(f"g{n}", f"{COLOURS[n % 4]} cotton {TYPES[n % 5]} no {n}") for n in range(40)]
    write(root / "gallery.csv", ("id", "title"), gallery)
    queries, lines = [], []
    for n in range(40):
        colour, kind = COLOURS[n % 4], TYPES[(n // 4) % 5]
        typed = f"{colour} {kind}" if n < 30 else f"{colour[:-1]}x {kind}"
        queries.append((f"q{n}", typed, "narrow" if n < 30 else "misspelt"))
        for item, title in gallery:
            grade = 2 * (colour in title and kind in title) or int(kind in title)
            lines.append(f"q{n} 0 {item} {grade}\n")
    write(root / "query.csv", ("id", "query", "kind"), queries)
    (root / "truth.qrels").write_text("".join(lines))
    return root


def settings(root):
    config = base.defaults()
    base.without_training(config)
    config.name, config.data.source = "titles", "table"
    config.data.kwargs = dict(
        root=str(root),
        files=dict(query="query.csv", gallery="gallery.csv"),
        columns=dict(image="", title="title", query=("query", "text"), kind=("kind", "category")),
        ground_truth="truth.qrels",
    )
    config.embed.models = ("lexical",)
    config.search.steps, config.search.k = (), 20
    config.evaluate.metrics = ("ndcg@10", "mrr", "map", "precision@5", "recall@20")
    return config


def test_titles_and_typed_queries_are_searched_scored_and_reported(shop, tmp_path, capsys):
    config = settings(shop)
    catalog = loading.load(config.data)
    assert isinstance(catalog.query.images, NoPictures) and isinstance(catalog.gallery.images, NoPictures)
    assert catalog.column_names["kind"] == ["misspelt", "narrow"]
    assert len(catalog.truth.rated_zero) + len(catalog.truth.rows) == 40 * 40
    folder = tmp_path / "run"
    run.run(config, folder)
    found = json.loads((folder / "metrics.json").read_text())
    (row,) = found["stages"]
    assert (row["model"], row["stage"]) == ("lexical", "bm25") and found["metrics"][0] == "ndcg@10"
    assert row["ndcg@10"] > 0.95 and row["mrr"] == 1.0
    assert set(row["slices"]["kind"]) == {"narrow", "misspelt"}
    assert row["slices"]["kind"]["misspelt"]["num_scored"] == 10
    page = (folder / "report.html").read_text()
    assert "nDCG@10" in page and "red shirt" in page and "Lexical search" in page
    # Texts are read again only where they have changed.
    run.run(config, folder)
    assert "search: complete, skipped" in capsys.readouterr().out
    rows = list(csv.reader(open(shop / "gallery.csv")))
    write(shop / "gallery.csv", rows[0], [*rows[1:-1], ("g39", "yellow umbrella")])
    run.run(config, folder)
    assert "gallery titles changed" in (said := capsys.readouterr().out) and "search: runs" in said


def test_condensed_lists_and_linear_gain_reach_the_scores(shop, tmp_path):
    config = settings(shop)
    config.evaluate.unrated, config.evaluate.gain = "condensed", "linear"
    truth = loading.load(config.data).truth
    search.run(config, tmp_path)
    evaluate.run(config, tmp_path)
    (row,) = written.stages(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["unrated"] == "condensed"
    graded = {"gain": "linear", "unrated": "condensed"}
    ((_, each),) = [comparing.scores(tmp_path, "bm25", truth, ["ndcg@10"], graded)]
    assert np.nanmean(each["ndcg@10"]) == pytest.approx(row["ndcg@10"])


def write_vectors(folder, catalog, noise):
    """Writes vectors that know the type of a listing or query, and nothing else."""
    from retrieval_jax.embeddings import Embeddings

    rng = np.random.default_rng(0)
    for split in ("query", "gallery"):
        texts = catalog.query.columns["query"] if split == "query" else catalog.gallery.titles
        known = np.array([[name in text for name in TYPES] for text in texts], np.float32)
        vectors = known + noise * rng.normal(size=known.shape)
        ids = catalog.split(split).ids
        Embeddings(ids, vectors, {"space": "types"}).save(folder / "embeddings" / "pretrained" / split)


@pytest.mark.parametrize("noise", [0.05, 50.0])
def test_fused_is_not_worse_than_lexical_search_alone(shop, tmp_path, noise):
    config = settings(shop)
    catalog = loading.load(config.data)
    config.embed.models, config.search.join = ("pretrained", "lexical"), ("pretrained", "lexical")
    config.search.steps = (("fusion", {"method": "min_max", "weights": "chosen"}),)
    write_vectors(tmp_path, catalog, noise)
    search.run(config, tmp_path)
    evaluate.run(config, tmp_path)
    scores = {row["model"]: row["report"]["ndcg@10"] for row in written.stages(tmp_path)}
    assert scores["ensemble"] >= scores["lexical"] - 1e-9
    made = fused.load(tmp_path)
    assert sum(made.weights.values()) == pytest.approx(1) and "judged queries of the selection half" in made.why
    if noise > 1:
        assert made.weights["pretrained"] < 1e-6
    result = made.explain(0, catalog.gallery.ids, 3)
    assert [one.id for one in result] == [catalog.gallery.ids[row] for row in made.fused.item_rows[0][:3]]
    for one, score in zip(result, made.fused.scores[0], strict=False):
        parts = one.to_json()["parts"]
        assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
        assert sum(part["similarity"] * part["weight"] for part in parts.values()) == pytest.approx(score, rel=1e-5)


def test_a_query_without_known_words_gets_the_results_of_vectors(shop, tmp_path):
    rows = list(csv.reader(open(shop / "query.csv")))
    write(shop / "query.csv", rows[0], [*rows[1:-1], ("q39", "zzz qqq shoes"[:7], "misspelt")])
    config = settings(shop)
    catalog = loading.load(config.data)
    config.embed.models, config.search.join = ("pretrained", "lexical"), ("pretrained", "lexical")
    config.search.steps = (("fusion", {"method": "min_max", "weights": {"lexical": 1.0}}),)
    write_vectors(tmp_path, catalog, 0.05)
    search.run(config, tmp_path)
    assert (Ranking.load(tmp_path / "rankings/lexical/bm25").item_rows[39] == -1).all()
    config.search.steps = (("fusion", {"weights": "chosen"}),)
    search.run(config, tmp_path)
    assert (Ranking.load(tmp_path / "rankings/ensemble/fusion").item_rows[39] >= 0).all()


def test_what_lexical_search_cannot_do_is_refused(shop, tmp_path):
    config = settings(shop)
    config.search.join = ("lexical",)
    config.search.steps = (("fusion", {}),)
    with pytest.raises(InputError, match="at least two models"):
        search.check(config, tmp_path)
    config.embed.models = config.search.join = ("lexical", "histogram")
    config.search.steps = (("ensemble", {}),)
    with pytest.raises(InputError, match="no vectors: let search.steps end with"):
        search.check(config, tmp_path)
    config = settings(shop)
    config.search.lexical.query = "words"
    with pytest.raises(InputError, match="the query split has no column 'words'"):
        search.run(config, tmp_path)
    config = settings(shop)
    config.search.index = "lexical"
    config.embed.models = ("pretrained",)
    write_vectors(tmp_path, loading.load(config.data), 1.0)
    with pytest.raises(InputError, match="expected texts"):
        search.run(config, tmp_path)
