"""The last stage in a search: what it reads of the catalogue, what it leaves behind, and what it refuses early."""

import json

import numpy as np
import pytest

from retrieval_jax import search
from retrieval_jax.data import loading
from retrieval_jax.data.shop import synthetic
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import new_queries, quality
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.settings import base

pytest.importorskip("lightgbm", reason="pip install -r requirements-ranking.txt")
SHOP = {"num_train": 60, "num_val": 20, "num_query": 90, "num_gallery": 400, "image_size": 32}


def config_of(**more):
    config = base.defaults()
    config.data.source = "synthetic"
    config.data.kwargs = {**SHOP, "num_clicks": 3000, "biased_clicks": True, **more}
    config.embed.models = ("trained",)
    config.search.k = 60
    config.search.steps = (("l2", {}), ("quality", {"depth": 30, "cost": 0.05}))
    return config


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder whose vectors know the product, with noise, in another order than the catalogue's; searched."""
    folder, config = tmp_path_factory.mktemp("run"), config_of()
    catalog, shop, rng = loading.load(config.data), synthetic.make_shop(**SHOP), np.random.default_rng(0)
    for name in ("query", "gallery"):
        split = catalog.split(name)
        rows = rng.permutation(len(split))
        products = synthetic.product_ids(shop, name, rows)
        vectors = np.stack([np.random.default_rng(product).normal(size=16) for product in products])
        vectors += rng.normal(0, 0.6, vectors.shape)
        side = Embeddings([split.ids[row] for row in rows], vectors, {"space": "test"})
        side.save(folder / "embeddings" / "trained" / name)
    (folder / "config.json").write_text(config.to_json_best_effort())
    search.run(config, folder)
    return folder, catalog


def test_it_permutes_the_first_results_of_the_stage_before(searched):
    folder, _ = searched
    before, after = (Ranking.load(folder / "rankings" / "trained" / stage) for stage in ("l2", "quality"))
    np.testing.assert_array_equal(np.sort(before.item_rows[:, :30], 1), np.sort(after.item_rows[:, :30], 1))
    np.testing.assert_array_equal(before.item_rows[:, 30:], after.item_rows[:, 30:])


def test_what_it_leaves_orders_again(searched):
    folder, catalog = searched
    ranker = quality.load(folder / "rankings" / "trained")
    about = json.loads((folder / "rankings" / "trained" / "quality.json").read_text())
    assert ranker.columns == quality.COLUMNS and ranker.weight == about["weight"] > 0
    ids = Embeddings.load(folder / "embeddings" / "trained" / "gallery").ids
    listed = search._quality(config_of(), catalog, catalog.query.ids, ids, list(quality.COLUMNS))["listed"]
    row_of = {name: row for row, name in enumerate(catalog.gallery.ids)}
    prices = [catalog.gallery.columns["price"][row_of[name]] for name in ids]
    np.testing.assert_array_equal(listed["price"], np.array(prices, np.float32))
    before, after = (Ranking.load(folder / "rankings" / "trained" / stage) for stage in ("l2", "quality"))
    report = ~metrics.selection_half(before.query_ids)  # the others are ordered by trees that have not seen them
    np.testing.assert_array_equal(ranker.apply(before, listed).item_rows[report], after.item_rows[report])


def test_it_is_not_served_yet(searched):
    folder, _ = searched
    stages, note = new_queries.of_run(folder, json.loads((folder / "config.json").read_text()))
    assert stages[-1].name == "l2" and "reads prices and other numbers" in note


def test_what_the_catalogue_lacks_is_said_before_anything_is_computed(tmp_path):
    with pytest.raises(InputError, match="no column 'price'"):
        search.check(config_of(biased_clicks=False), tmp_path)
    config = config_of()
    config.search.steps = (("quality", {"columns": ("prise",)}),)
    with pytest.raises(InputError, match="no column 'prise'; did you mean price"):
        search.check(config, tmp_path)
    config.search.steps = (("quality", {"columns": "price"}),)
    with pytest.raises(InputError, match="expected a list"):
        search.check(config, tmp_path)
