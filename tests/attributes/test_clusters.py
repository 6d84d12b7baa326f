"""Pseudo-products: planted ones are found, noise is not, sizes are capped, and results do not depend on threads."""

import numpy as np
import pytest
import threadpoolctl

from retrieval_jax import mine, train
from retrieval_jax.attributes import clusters
from retrieval_jax.data.info import DataInfo
from retrieval_jax.data.shop import synthetic
from retrieval_jax.errors import InputError
from retrieval_jax.settings import arguments, eproduct, quickstart


def unit(values):
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def planted():
    """600 listings in 3 categories: products of 2 to 5 near-identical listings, and 150 listings unlike any other."""
    rng = np.random.default_rng(0)
    product = np.concatenate([np.repeat(np.arange(130), rng.integers(2, 6, 130))[:450], 1000 + np.arange(150)])
    centres = rng.normal(size=(2000, 24))
    vectors = unit(centres[product] + 0.05 * rng.normal(size=(600, 24)))
    order = rng.permutation(600)
    return vectors[order], (product % 3)[order], product[order]


def test_planted_products_are_found_and_nothing_else(planted):
    vectors, categories, product = planted
    found = clusters.find(lambda rows: vectors[rows], categories, 0.4, 10)
    assert found.dtype == np.int32 and (found[product >= 1000] == -1).all()
    scores = clusters.scores(found, product)
    assert scores["purity"] == scores["pair_precision"] == 1.0 and scores["clustered"] > 0.7
    assert scores["v_measure"] > 0.97 and scores["pair_recall"] > 0.6
    first = [int(np.flatnonzero(found == number)[0]) for number in range(found.max() + 1)]
    assert first == sorted(first)  # numbered by first listing
    hidden = np.where(np.arange(600) < 300, -1, categories)
    assert (clusters.find(lambda rows: vectors[rows], hidden, 0.4, 10)[:300] == -1).all()


def test_clusters_stay_within_a_category_and_the_size_limit(planted):
    vectors, categories, _ = planted
    same = np.repeat(vectors[:1], 60, 0)
    found = clusters.find(lambda rows: same[rows], np.arange(60) % 2, 0.4, 50)
    assert found.tolist() == (np.arange(60) % 2).tolist()
    assert (clusters.find(lambda rows: same[rows], np.arange(60) % 2, 0.4, 29) == -1).all()
    assert clusters.find(lambda rows: same[rows], np.zeros(60, int), 0.4, 60).tolist() == [0] * 60
    found = clusters.find(lambda rows: vectors[rows], categories, 2.0, 4)
    assert np.bincount(found[found >= 0]).max() <= 4
    for number in range(found.max() + 1):
        assert len(set(categories[found == number])) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_listings(count):
    vectors = np.repeat(unit(np.ones((1, 4))), count, 0)
    found = clusters.find(lambda rows: vectors[rows], np.zeros(count, int), 0.5)
    assert found.tolist() == ([0] * count if count > 1 else [-1] * count)


def test_the_number_of_threads_does_not_matter(planted):
    vectors, categories, _ = planted
    found = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            found.append(clusters.find(lambda rows: vectors[rows], np.zeros(600, int), 0.9, 20))
    assert np.array_equal(*found) and found[0].max() > 50


def test_vectors_of_titles():
    titles = ["Nike red shoe 42", "nike Red SHOE 42", "nike red shoe 43", "wool hat", "the", "hat of wool wool", "- ?"]
    vectors = clusters.title_vectors(titles)
    near = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert vectors.shape == (7, clusters.DIMS) and vectors.dtype == np.float32
    assert near[0, 1] == 0 < near[0, 2] < near[0, 3] and near[3, 5] < 1e-6
    assert (np.sort(near[[4, 6]])[:, 1] > 1).all()  # titles without tokens are not similar
    assert np.array_equal(vectors, clusters.title_vectors(titles))
    pictures = clusters.picture_vectors(np.array([[0, 10, 0], [0, 20, 0], [0, 10, 200]], np.uint8))
    both = clusters.joined(vectors[:3], pictures, 0.25)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
    expected = 0.25 * near[0, 2] ** 2 + 0.75 * np.square(pictures[0] - pictures[2]).sum()
    assert np.square(both[0] - both[2]).sum() == pytest.approx(expected, rel=1e-5)


def test_scores_by_hand():
    scores = clusters.scores(np.array([0, 0, 1, 1, -1, -1]), np.array([5, 5, 5, 6, 6, 7]))
    assert scores["clustered"] == pytest.approx(4 / 6) and scores["purity"] == 0.75
    assert (
        scores["pair_precision"] == 0.5 and scores["pair_recall"] == 0.25
    )  # (0, 1) among (0, 1), (2, 3); 1 of 4 true pairs
    assert clusters.with_own_instances(np.array([0, -1, 1, -1], np.int32)).tolist() == [0, 2, 1, 3]


def test_saved_clusters_become_a_category_level(tmp_path):
    info = DataInfo(["a"], np.ones(1), 9, (["x", "y"],), (np.array([2, 3]),), "h")
    clusters.save(tmp_path / "clusters.npz", np.array([0, -1, 1, 0, -1]))
    column, got = clusters.as_categories(tmp_path / "clusters.npz", 5, info)
    assert column.tolist() == [0, -1, 1, 0, -1] and column.dtype == np.int32
    assert got.category_names[0] == ["x", "y"] and len(got.category_names[1]) == 2
    assert got.category_counts[1].tolist() == [2, 1]
    for path, rows, words in (("clusters.npz", 4, "split has 4"), ("other.npz", 5, "not found")):
        with pytest.raises(InputError, match=words):
            clusters.as_categories(tmp_path / path, rows, info)
    clusters.save(tmp_path / "clusters.npz", np.full(5, -1))
    with pytest.raises(InputError, match="no listing is in a cluster"):
        clusters.as_categories(tmp_path / "clusters.npz", 5, info)


def tiny():
    config = quickstart.experiment("test", arguments.parse("runlocal"))
    config.data.kwargs.update({"num_train": 240, "num_val": 8, "num_query": 8, "num_gallery": 16, "image_size": 32})
    config.data.image_size = (32, 32)
    config.mine.clusters.max_difference = 0.95
    config.train.model.kwargs.update(eproduct.SMALL["convnext"])
    config.train.update(
        {"epochs": 0.3, "warmup_epochs": 0.1, "batch_size": 24, "eval_every_epochs": 0.0, "log_every_steps": 1}
    )
    config.train.task_kwargs.update({"category_labels": "clusters", "category_weight": 1.0})
    return config


@pytest.mark.parametrize(
    "loss", ["softmax", *(pytest.param(loss, marks=pytest.mark.long) for loss in ("arcface", "proxy_anchor", "supcon"))]
)
def test_mined_clusters_of_the_embedded_catalogue_are_learned_as_instances(loss, tmp_path):
    config = tiny()
    config.train.task_kwargs.category_loss = loss
    summary = mine.run(config, tmp_path)["clusters"]
    with np.load(tmp_path / "attributes" / "clusters.npz") as content:
        found = content["clusters"]
    assert summary["clustered"] == (found >= 0).sum() > 60 and summary["listings"] == len(found) == 240
    truth = synthetic.product_ids(synthetic.make_shop(**config.data.kwargs), "train", np.arange(240))
    by_chance = clusters.scores(np.random.default_rng(0).permutation(found), truth)
    assert clusters.scores(found, truth)["pair_precision"] > 5 * by_chance["pair_precision"]
    done = train.run(config, tmp_path)
    assert done["steps"] == 3 and np.isfinite(done["final_loss"])
    written = (tmp_path / "checkpoints" / "data_info.json").read_text()
    assert f'"cluster {summary["clusters"] - 1}"' in written


def test_bad_cluster_settings_are_refused(tmp_path):
    config = tiny()
    config.data.kwargs.num_train = 90
    for name, value in (("max_difference", 3.0), ("max_size", 1), ("title_share", 1.5), ("noise", "all")):
        wrong = config.copy_and_resolve_references()
        wrong.mine.clusters[name] = value
        with pytest.raises(InputError, match=name):
            mine.run(wrong, tmp_path)
    config.mine.clusters.noise = "own"
    summary = mine.run(config, tmp_path)["clusters"]
    with np.load(tmp_path / "attributes" / "clusters.npz") as content:
        found = content["clusters"]
    assert (found >= 0).all() and len(np.unique(found)) == summary["clusters"] + 90 - summary["clustered"]
    config.mine.clusters.max_difference = 0.0
    assert "clusters" not in mine.run(config, tmp_path / "other")
    with pytest.raises(InputError, match="clusters.npz not found.*max_difference"):
        train.run(config, tmp_path / "other")
