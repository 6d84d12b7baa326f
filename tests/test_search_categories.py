"""Searches that prefer the categories that a photo probably shows: embedded, fitted, searched, and what is refused."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

import tiny
from retrieval_jax import embed, search, tasks, workdir
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import known_categories
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import linear_classifier
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.training import checkpoints
from tiny_linear import INFO, make_task

LEVELS, NAMES = ("top", "leaf"), (["all"], ["red", "green", "blue"])
ON = {"mass": 0.6, "k": 5, "listings": 20, "vote": "trained"}


def splits():
    """Returns noise whose leaf is its colour; few of the gallery are blue."""
    found = {}
    for name, leaves in (
        ("train", np.arange(40) % 3),
        ("val", np.arange(15) % 3),
        ("query", np.arange(6) % 3),
        ("gallery", np.where(np.arange(40) < 3, 2, np.arange(40) % 2)),
    ):
        rng = np.random.default_rng(len(name))
        images = rng.integers(0, 40, (len(leaves), 4, 4, 3))
        images[np.arange(len(leaves)), :, :, leaves] += 200
        categories = np.stack([np.zeros(len(leaves)), leaves], 1).astype(np.int32)
        ids = [f"{name}{row}" for row in range(len(leaves))]
        titles = None if name == "query" else ["a title"] * len(ids)
        categories = None if name == "query" else categories
        found[name] = Split(name, ids, titles, categories, images.astype(np.uint8))
    found["train"].categories[7, 1] = -1
    return found


def make_config(**search_settings):
    attribute = {"k": 12, "index": "attribute", "index_kwargs": {"fields": ("leaf",)}, "categories": ON}
    return tiny.embedding_config(search={**attribute, **search_settings})


@pytest.fixture
def run(tmp_path, monkeypatch):
    module = types.SimpleNamespace(
        make=make_task, columns=lambda config, split, folder: {"image": lambda: split.images}
    )
    monkeypatch.setattr(tasks, "get", lambda name: module)
    catalog = Catalog("tiny", **splits(), category_levels=LEVELS, category_names=NAMES)
    monkeypatch.setattr("retrieval_jax.data.loading.load", lambda block: catalog)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(make_config().to_json())
    info_lib.save(folder / "checkpoints" / "data_info.json", INFO)
    store = checkpoints.Checkpoints(folder / "checkpoints")
    params = {"w": jax.random.normal(jax.random.key(0), (48, 6))}
    store.save(3, {"params": params, "ema": params}, {"vocabulary_hash": "abc", "run": "one"})
    store.close()
    return folder


def test_listings_of_the_likely_categories_come_first_and_k_are_found(run, capsys):
    config = make_config()
    summary = embed.run(config, run)["embeddings"]["trained"]
    assert {name: summary[name]["rows"] for name in summary} == {"query": 6, "gallery": 40, "train": 20, "val": 15}
    train = Embeddings.load(run / "embeddings" / "trained" / "train")
    assert "train7" not in train.ids  # of unknown category
    search.run(config, run)
    assert "categories of 15 val listings: 100.0 % are right" in capsys.readouterr().out
    found = Ranking.load(run / "rankings" / "trained" / "cosine").item_rows
    leaves = splits()["gallery"].categories[:, 1]
    for query, rows in enumerate(found):
        mine = query % 3
        first = min(12, int((leaves == mine).sum()))
        assert (rows >= 0).all() and (leaves[rows[:first]] == mine).all()
        assert (leaves[rows[first:]] != mine).all()
    fitted = json.loads((run / "rankings" / "categories.json").read_text())
    assert fitted["level"] == "leaf" and fitted["categories"] == NAMES[1] and fitted["weights"]["k"] == 5
    classifier = linear_classifier.load(run / "rankings" / "category_classifier.npz")
    queries = Embeddings.load(run / "embeddings" / "trained" / "query")
    assert classifier.logits(queries).argmax(1).tolist() == [0, 1, 2, 0, 1, 2]


def test_another_models_vectors_may_vote(run):
    config = make_config(categories={**ON, "vote": "histogram"})
    config.embed.models = ("histogram", "trained")
    summary = embed.run(config, run)["embeddings"]
    assert summary["histogram"]["train"]["rows"] == 20 and summary["histogram"]["val"]["rows"] == 15
    search.run(config, run)
    fitted = json.loads((run / "rankings" / "categories.json").read_text())
    assert fitted["vote"] == "histogram" and fitted["val"]["listings"] == 15
    baseline = Ranking.load(run / "rankings" / "histogram" / "cosine").scores
    assert (np.diff(baseline, axis=1) <= 0).all()  # the trained vectors' categories order the trained network's results


@pytest.mark.filterwarnings("ignore:conditions of")
def test_what_a_query_asks_for_itself_goes_before(run, monkeypatch):
    config = make_config()
    embed.run(config, run)
    catalog = Catalog("tiny", **splits(), category_levels=LEVELS, category_names=NAMES)
    asked = json.dumps({"required": [{"field": "leaf", "values": ["green"]}]})
    catalog = dataclasses.replace(
        catalog, query=dataclasses.replace(catalog.query, columns={"wishes": [asked] + [""] * 5})
    )
    monkeypatch.setattr("retrieval_jax.data.loading.load", lambda block: catalog)
    config.search.index_kwargs.conditions_column = "wishes"
    search.run(config, run)
    found = Ranking.load(run / "rankings" / "trained" / "cosine").item_rows
    leaves = splits()["gallery"].categories[:, 1]
    assert (leaves[found[0]] == 1).all() and (leaves[found[3]] == 0).all()


def test_embeddings_that_are_missing_and_fields_that_do_not_have_the_level(run):
    config = make_config()
    off = make_config(categories={**ON, "mass": 0.0})
    assert "train" not in embed.run(off, run)["embeddings"]["trained"]
    with pytest.raises(InputError, match="no embeddings in .*train: make them first with"):
        search.run(config, run)
    config.search.index_kwargs.fields = ("top",)
    with pytest.raises(InputError, match="needs the finest category level among them: add 'leaf'"):
        search.run(config, run)


def test_queries_that_are_cropped_and_listings_that_are_not(tmp_path):
    config = make_config()
    config.embed.regions = {"run": "boxes", "splits": ("query", "gallery"), "margin": 0.1, "guided": False}
    with pytest.raises(InputError, match="or leave 'query' out of embed.regions.splits"):
        search.check(config, tmp_path)


@pytest.mark.parametrize(
    "settings, models, says",
    [
        ({"index": "exact", "index_kwargs": {}}, ("trained",), "config.search.index is 'exact': set it to 'attribute'"),
        ({"members": ("one", "two")}, ("trained",), "and config.search.members too"),
        ({}, ("histogram",), "config.embed.models has no vectors of 'trained'.*: add it there"),
        ({"categories": {**ON, "vote": "color"}}, ("trained",), "has no vectors of 'color'"),
        ({"categories": {**ON, "mass": 1.5}}, ("trained",), "config.search.categories.mass is 1.5"),
        ({"categories": {**ON, "k": 0}}, ("trained",), "config.search.categories.k is 0"),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, models, says):
    config = make_config(**settings)
    config.embed.models = models
    with pytest.raises(InputError, match=says):
        search.check(config, tmp_path)


def test_a_catalogue_without_known_categories():
    found = splits()
    found["val"].categories[:, 1] = -1
    with pytest.raises(InputError, match="the val split of the catalogue tiny has no listings of known category"):
        known_categories.rows(Catalog("tiny", **found, category_levels=LEVELS, category_names=NAMES), 5)
    with pytest.raises(InputError, match="the train split has no listing other, which was embedded"):
        known_categories.of(found["train"], ["train3", "other"])
    assert known_categories.of(found["train"], ["train4", "train3"]).tolist() == [1, 0]


def test_embed_depends_on_whether_categories_are_predicted_and_not_on_how():
    hashes = [
        workdir.stage_hash(make_config(categories=settings), "embed")
        for settings in (
            {**ON, "mass": 0.0},
            {**ON, "mass": 0.0, "listings": 9},
            ON,
            {**ON, "mass": 0.9, "k": 3},
            {**ON, "vote": "colour"},
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3] != hashes[4]
