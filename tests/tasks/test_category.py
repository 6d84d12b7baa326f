"""The category task is the multi-label task with the category head alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import tasks
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from tiny import INFO, TINY, tiny_batch, tiny_config


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", TINY)


def make_config():
    """Returns the train block of tiny_config with this task's options."""
    config = tiny_config().train
    config.task = "category"
    config.task_kwargs = {"head_init_scale": config.task_kwargs.head_init_scale}
    return config


def test_category_is_multilabel_without_titles():
    config = make_config()
    config.lock()  # as the command line hands it over
    before = config.to_json_best_effort()
    task = tasks.get("category").make(config, INFO)
    assert config.to_json_best_effort() == before
    same = tiny_config().train
    same.task_kwargs.title_weight, same.task_kwargs.category_weight = 0.0, 1.0
    same = tasks.get("multilabel").make(same, INFO)
    params = jax.jit(task.init)(jax.random.key(0), tiny_batch())
    assert params.keys() == {"backbone", "heads_category"}
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(same.init, jax.random.key(0), tiny_batch()))
    batch = {name: value for name, value in tiny_batch().items() if not name.startswith("label")}  # titles are not read
    kwargs = {"rng": jax.random.key(0), "step": jnp.int32(0), "ema": params, "constants": None, "train": True}
    (loss, values), gradients = jax.jit(
        jax.value_and_grad(functools.partial(task.loss_fn, batch=batch, **kwargs), has_aux=True)
    )(params)
    assert values.keys() == {"category_loss", "category_accuracy"} and loss == values["category_loss"]
    again, _ = jax.jit(functools.partial(same.loss_fn, batch=batch, **kwargs))(params)
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    assert task.predict_fns.keys() == {"embed_image", "category"}


def test_a_catalogue_without_titles_is_enough_and_one_without_categories_is_refused():
    empty = np.zeros(0, np.int64)
    no_titles = DataInfo([], empty, 90, INFO.category_names, INFO.category_counts, "")
    assert tasks.get("category").make(make_config(), no_titles)
    no_categories = DataInfo(INFO.label_names, INFO.label_counts, 90, (), (), "abc")
    with pytest.raises(InputError, match="the catalogue has no categories"):
        tasks.get("category").make(make_config(), no_categories)
