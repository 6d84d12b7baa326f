"""Labels that teach nothing are refused before a training, in every task, with what to change."""

import logging
import sys
import types

import jax
import numpy as np
import pytest

from retrieval_jax import tasks, train
from retrieval_jax.data.catalog import Split
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError
from retrieval_jax.tasks import parts
from retrieval_jax.tasks.parts import degenerate
from tiny import tiny_batch, tiny_config

NAMES = ["blue", "hat", "red"]


def _check(labels=None, categories=None, task="multilabel", names=NAMES, batch_size=4, **kwargs):
    """Checks listings with the given lists of words and categories."""
    rows = len(labels if labels is not None else categories if categories is not None else range(4))
    columns = {"image": Pictures(np.zeros((rows, 2, 2, 3), np.uint8))}
    if labels is not None:
        indptr = np.cumsum([0, *map(len, labels)])
        columns["label_ids"] = Ragged(indptr, np.array([one for row in labels for one in row], np.int32))
    if categories is not None:
        columns["category"] = np.array(categories, np.int32)
    levels = (["bags", "shoes", "tops"],) if categories is not None else ()
    info = DataInfo(names if labels is not None else [], np.ones(len(names), np.int64), rows, levels, (), "")
    settings = types.SimpleNamespace(task=task, task_kwargs=kwargs, batch_size=batch_size)
    degenerate.check(settings, Examples(columns, list(map(str, range(rows)))), info)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"labels": [[], [], []]}, "none of the 3 training listings has a mined word.*lower config.mine.threshold"),
        ({"labels": [[0], [0]], "loss": "softmax", "names": ["red"]}, "one word was mined, 'red'.*loss = 'sigmoid'"),
        ({"labels": [[0, 2], [0, 2]]}, "all 2 titles with a mined word have the same ones .blue, red."),
        ({"labels": [[0, 2], [], [0, 2]], "loss": "softmax"}, "all 2 titles with a mined word have the same ones"),
        ({"labels": [[0, 1], [0, 1]], "task": "image_title", "title_weight": 0.0}, "all 2 titles with a mined word"),
        ({"labels": [[1]]}, "all 1 titles"),
        ({"categories": [1, 1, -1], "task": "category"}, "all 2 training listings with a category.*'shoes'.*one class"),
        ({"categories": [-1, -1], "task": "category"}, "no training listing has a category.*task = 'multilabel'"),
        (
            {"labels": [[0], [1]], "categories": [2, 2], "category_weight": 1.0},
            "'tops': the head of categories would have one class.*category_weight = 0",
        ),
        (
            {"categories": [0, 0], "task": "category", "category_labels": "clusters"},
            "with a pseudo-product have the same.*lower config.mine.clusters.max_difference",
        ),
        ({"categories": [0, 1, 2], "task": "category", "category_loss": "supcon"}, "no two training listings share a"),
        ({"task": "self_supervised", "batch_size": 1}, "'self_supervised' compares.*config.train.batch_size is 1"),
        ({"labels": [[0], [1]], "task": "image_title", "batch_size": 1}, "'image_title' compares.*batch_size is 1"),
        ({"labels": [[0]], "task": "self_supervised"}, "the number of training listings is 1"),
    ],
)
def test_labels_that_teach_nothing_are_refused(given, says):
    with pytest.raises(InputError, match=f"(?s){says}"):
        _check(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"labels": [[0], [1]]},
        {"labels": [[0], []]},
        {"labels": [[0], []], "names": ["red"]},
        {"labels": [[0, 1], [0, 2]], "loss": "softmax"},
        {"labels": [[], []], "title_weight": 0.0},
        {"labels": [[], []], "task": "category", "categories": [0, 1]},
        {"labels": [[0], [1]], "categories": [0, 0]},
        {"labels": [[0], [0]], "task": "self_supervised"},
        {"categories": [0, 1], "task": "category"},
        {"categories": [0, 0, 1], "task": "category", "category_loss": "supcon"},
        {"task": "another"},
    ],
)
def test_labels_that_teach_something_pass(given, caplog):
    with caplog.at_level(logging.WARNING):
        _check(**given)
    assert not [line for line in caplog.messages if "in every title" not in line and "have no" not in line]


def test_labels_that_teach_little_are_reported(caplog):
    with caplog.at_level(logging.WARNING):
        _check(labels=[[0, 1], [1, 2], [1]])
    assert "1 mined words are in every title and teach nothing: 'hat'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        _check(labels=[[0], [1], [], [], []], categories=[0, 1, -1, -1, -1], category_weight=1.0)
    assert "3 of 5 training listings have no mined word" in caplog.text
    assert "3 of 5 training listings have no category" in caplog.text


def test_what_is_refused_has_a_gradient_of_zero(patches):
    """The reason for the check: a softmax over one class is 0, and so is everything that it teaches."""
    info = DataInfo(["red"], np.array([4]), 4, (["shoes"],), (np.array([4]),), "")
    config = tiny_config().train
    config.task_kwargs.update({"loss": "softmax", "category_weight": 1.0, "poly_epsilon": 0.5})
    task = tasks.get("multilabel").make(config, info)
    batch = {**tiny_batch(), "category": np.zeros(len(tiny_batch()["image"]), np.int32)}
    batch["label_ids"] = np.zeros_like(batch["label_ids"][:, :1])
    batch["label_ids_mask"] = np.ones_like(batch["label_ids_mask"][:, :1])
    params = task.init(jax.random.key(0), batch)

    def loss(params):
        return task.loss_fn(params, batch, rng=jax.random.key(0), step=0, ema=params, constants=None, train=False)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert value == 0 and all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_training_refuses_before_the_first_step(tmp_path, monkeypatch):
    config = tiny_config()
    config.train.task, config.train.task_kwargs = "category", {}
    find = train.loading.load

    def one_category(*args, **kwargs):
        found = find(*args, **kwargs)
        found.train.categories[:] = 0
        return found

    monkeypatch.setattr(train.loading, "load", one_category)
    monkeypatch.setattr(parts.examples, "mined", lambda workdir, rows: (None, Ragged(np.zeros(rows + 1, int), [])))
    with pytest.raises(InputError, match="one class and learn nothing"):
        train.run(config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_embedding_titles_needs_titles(monkeypatch, caplog):
    columns = sys.modules["retrieval_jax.tasks.parts.columns"]  # the name leads to the function
    split = Split("query", ["q0", "q1", "q2"], ["red", "", "x"], None, np.zeros((3, 2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="1 of 3 listings of the split query have no title, such as 'q1'"):
        columns._labels(split, "")
    split.titles[1] = "hat"
    monkeypatch.setattr(columns, "title_labels", lambda *args: Ragged(np.array([0, 1, 2, 2]), np.array([0, 1])))
    with caplog.at_level(logging.WARNING):
        assert len(columns._labels(split, "")) == 3
    assert "1 of 3 titles of the split query have no word that was mined" in caplog.text
