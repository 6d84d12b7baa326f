"""Starting from another run's weights: labels matched by name, the rest by path, with counts."""

import pathlib

import jax
import ml_collections
import numpy as np
import pytest

from retrieval_jax import plans, workdir
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError
from retrieval_jax.tasks import Task
from retrieval_jax.training import checkpoints, optim, warm_start


def info(labels, categories):
    return DataInfo(
        labels,
        np.ones(len(labels), np.int64),
        9,
        (["all"], categories),
        (np.array([9]), np.ones(len(categories), np.int64)),
        "-".join(labels),
    )


OLD, NEW = info(["black", "dress", "red"], ["shoes", "tops"]), info(["dress", "hat", "red", "wool"], ["tops", "bags"])


def network(data_info, seed, width=4, **further):
    """Returns random parameters named like an embedder's."""
    labels, categories = len(data_info.label_names), len(data_info.category_names[-1])
    shapes = {
        "backbone": {"stem": {"kernel": (3, width)}, "block0": {"bias": (width,)}},
        "projection": {"kernel": (width, 6)},
        "heads_titles": {"kernel": (6, labels), "bias": (labels,), "log_scale": ()},
        "heads_category": {"kernel": (6, categories), "bias": (categories,)},
        "title_tower": {"labels": {"embedding": (labels, 5)}},
        **further,
    }
    rng = np.random.default_rng(seed)

    def noise(shape):
        return rng.normal(size=shape).astype("f")

    return jax.tree.map(noise, shapes, is_leaf=lambda x: isinstance(x, tuple))


def save(folder, params, data_info):
    store = checkpoints.Checkpoints(folder / "checkpoints")
    meta = {"vocabulary_hash": data_info.vocabulary_hash}
    store.save(7, {"params": jax.tree.map(np.zeros_like, params), "ema": params}, meta)
    store.close()
    info_lib.save(folder / "checkpoints" / "data_info.json", data_info)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save(folder, network(OLD, 0, **{"heads_projector": {"kernel": (4, 4)}}), OLD)
    return folder


def test_labels_are_matched_by_name_and_the_rest_by_path(run):
    old = network(OLD, 0, **{"heads_projector": {"kernel": (4, 4)}})
    fresh = network(NEW, 1, **{"heads_new": {"bias": (2,)}})
    params, counts = warm_start.from_run(fresh, run, NEW)
    assert counts == {
        "from": str(run),
        "step": 7,
        "tensors_taken": 9,
        "tensors_fresh": 1,
        "tensors_left_over": 1,
        "labels_matched": 2 + 1 + 2,
        "labels_fresh": 2 + 1 + 2,
    }
    for name in ("backbone", "projection"):
        jax.tree.map(np.testing.assert_array_equal, params[name], old[name])
    titles, categories = params["heads_titles"], params["heads_category"]
    np.testing.assert_array_equal(titles["kernel"][:, [0, 2]], old["heads_titles"]["kernel"][:, [1, 2]])  # dress, red
    np.testing.assert_array_equal(titles["bias"][[0, 2]], old["heads_titles"]["bias"][[1, 2]])
    np.testing.assert_array_equal(titles["kernel"][:, [1, 3]], fresh["heads_titles"]["kernel"][:, [1, 3]])
    np.testing.assert_array_equal(titles["log_scale"], old["heads_titles"]["log_scale"])
    np.testing.assert_array_equal(categories["kernel"][:, 0], old["heads_category"]["kernel"][:, 1])  # tops
    np.testing.assert_array_equal(categories["bias"][1], fresh["heads_category"]["bias"][1])
    tower = params["title_tower"]["labels"]["embedding"]
    np.testing.assert_array_equal(tower[[0, 2]], old["title_tower"]["labels"]["embedding"][[1, 2]])
    np.testing.assert_array_equal(tower[[1, 3]], fresh["title_tower"]["labels"]["embedding"][[1, 3]])
    np.testing.assert_array_equal(params["heads_new"]["bias"], fresh["heads_new"]["bias"])
    assert jax.tree.structure(params) == jax.tree.structure(fresh)


def test_label_axis_is_found_if_labels_equal_dimensions(tmp_path):
    here = info([f"label{i}" for i in range(6)], ["tops", "bags"])  # six, like the projection's dimensions
    there = info(here.label_names[::-1], ["tops", "bags"])
    save(tmp_path, network(there, 0), there)
    params, _ = warm_start.from_run(network(here, 1), tmp_path, here)
    kernels = [tree["heads_titles"]["kernel"] for tree in (params, network(there, 0))]
    np.testing.assert_array_equal(kernels[0], kernels[1][:, ::-1])


def test_all_tensors_of_other_shapes_are_listed(run):
    fresh = network(NEW, 1, width=8)
    with pytest.raises(InputError) as error:
        warm_start.from_run(fresh, run, NEW)
    for words in (
        "backbone/stem/kernel: (3, 4) there, (3, 8) here",
        "backbone/block0/bias: (4,) there, (8,) here",
        "projection/kernel: (4, 6) there, (8, 6) here",
        "set config.train.model",
    ):
        assert words in str(error.value)


def test_another_backbone_and_a_folder_without_training_are_refused(run, tmp_path):
    fresh = {"backbone": {"other": np.zeros(3, np.float32)}}
    with pytest.raises(InputError, match="has no tensor of this config's backbone"):
        warm_start.from_run(fresh, run, NEW)
    with pytest.raises(InputError, match="no checkpoint there; train first"):
        warm_start.from_run(fresh, tmp_path, NEW)


def test_an_earlier_run_overrides_public_weights(run):
    def public(params):
        return jax.tree.map(lambda p: np.full_like(p, 5.0), params)

    fresh = network(NEW, 1, **{"heads_new": {"bias": (2,)}})
    task = Task(None, None, {}, "space", warm_start=public)
    params, counts = warm_start.put(fresh, task, None, NEW)
    assert counts == {} and all((leaf == 5.0).all() for leaf in jax.tree.leaves(params))
    params, counts = warm_start.put(fresh, task, run, NEW)
    assert counts["tensors_taken"] == 9
    assert (params["heads_new"]["bias"] == 5.0).all() and (params["heads_titles"]["bias"][[1, 3]] == 5.0).all()
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], network(OLD, 0)["backbone"])


def test_a_run_that_saw_pictures_otherwise_is_refused(run, tmp_path):
    plans.check_pixels({}, run)  # neither started from public weights
    store = checkpoints.Checkpoints(tmp_path / "checkpoints")
    lite = {"pretrained": {"name": "tf_efficientnet_lite0.in1k", "path": "moved/since.safetensors"}}
    store.save(1, {"params": {"a": np.zeros(1)}, "ema": {"a": np.zeros(1)}}, {"config": {"model": lite}})
    store.close()
    plans.check_pixels({"pretrained": {"name": "tf_efficientnet_lite1.in1k", "path": ""}}, tmp_path)  # of one kind
    for name in ("", "convnext_atto.d2_in1k"):
        with pytest.raises(InputError, match="set config.train.model.pretrained as in that run.*tf_efficientnet_lite0"):
            plans.check_pixels({"pretrained": {"name": name, "path": ""}}, tmp_path)


@pytest.mark.parametrize(
    "init_from, name, folder",
    [
        ("", "", None),
        ("one", "one", "runs/one"),
        ("one:runlocal", "one:runlocal", "runs/one-runlocal"),
        ("runs/other", "", "runs/other"),
        ("./other", "", "other"),
        ("/abs/x:y", "", "/abs/x:y"),
    ],
)
def test_meaning_of_init_from(init_from, name, folder):
    config = ml_collections.ConfigDict({"train": {"init_from": init_from}})
    assert workdir.predecessor(config) == name
    assert workdir.predecessor_folder(config, "runs/mine") == (folder and pathlib.Path(folder))
    assert workdir.predecessor(ml_collections.ConfigDict({"search": {}})) == ""


def test_head_names_match_those_of_the_embedder():
    assert {path.split("/")[0] for path in jax.tree.leaves(optim.paths(network(OLD, 0)))} >= set(warm_start._LABELS)


def test_a_tower_of_queries_starts_as_the_only_tower_of_the_earlier_run(monkeypatch):
    old = {"backbone": {"a": np.ones(3)}, "head_tokens": {"b": np.ones(2)}}
    monkeypatch.setattr(checkpoints, "load_params", lambda folder: (old, {}, 7))
    monkeypatch.setattr(info_lib, "check_vocabulary", lambda *given: None)
    monkeypatch.setattr(info_lib, "load", lambda file: OLD)
    fresh = {"backbone": {"a": np.zeros(3)}, "query_backbone": {"a": np.zeros(3)}, "head_contrast": {"c": np.zeros(1)}}
    params, counts = warm_start.from_run(fresh, "earlier", NEW)
    assert params["query_backbone"]["a"].sum() == 3 and params["head_contrast"]["c"].sum() == 0
    assert (counts["tensors_taken"], counts["tensors_fresh"], counts["tensors_left_over"]) == (2, 1, 1)
