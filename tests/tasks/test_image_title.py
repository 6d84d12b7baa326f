"""Image and title in one space: gradients reach every parameter, and eight pairs are learnt by heart."""

import functools

import jax
import numpy as np
import optax
import pytest

from retrieval_jax import tasks
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive
from retrieval_jax.training import optim
from tiny import INFO, tiny_batch, tiny_config

pytestmark = pytest.mark.usefixtures("patches")


def make(info=INFO, **task_kwargs):
    config = tiny_config().train
    config.task_kwargs.update({"hidden_dims": 16, "category_weight": 0.0, **task_kwargs})
    return tasks.get("image_title").make(config, info)


def loss_of(task, params, batch, train=True):
    return task.loss_fn(params, batch, rng=jax.random.key(0), step=0, ema=params, constants=None, train=train)


def embed(task, params, batch):
    return [
        np.asarray(jax.jit(task.predict_fns[name])(params, batch)["embedding"])
        for name in ("embed_image", "embed_title")
    ]


def test_heads_and_contrast_learn_side_by_side():
    task, batch = make(contrastive_loss="sigmoid", contrastive_weight=0.5), tiny_batch()
    params = jax.jit(task.init)(jax.random.key(0), batch)
    (total, values), gradients = jax.jit(
        jax.value_and_grad(functools.partial(loss_of, task, train=False), has_aux=True)
    )(params, batch)
    np.testing.assert_allclose(total, values["title_loss"] + 0.5 * values["contrastive_loss"], rtol=1e-6)
    for path, leaf in zip(jax.tree.leaves(optim.paths(gradients)), jax.tree.leaves(gradients), strict=True):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    images, titles = embed(task, params, batch)
    assert images.shape == titles.shape
    where = batch["_mask"] & batch["label_ids_mask"].any(-1)
    groups = jax.jit(contrastive.title_groups)(batch["label_ids"], batch["label_ids_mask"])
    expected = jax.jit(contrastive.sigmoid)(images, titles, scale=1 / 0.07, bias=-10.0, where=where, groups=groups)
    np.testing.assert_allclose(values["contrastive_loss"], expected.sum() / where.sum(), rtol=1e-3)
    assert jax.eval_shape(task.predict_fns["attributes"], params, batch)["probabilities"].shape == (8, 5)


@pytest.mark.parametrize("code_weight", [0.0, 1.0])
def test_eight_pairs_are_learnt_by_heart(code_weight):
    batch = {
        **tiny_batch(),
        "_mask": np.ones(8, bool),
        "label_ids": np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3], [4, 0], [4, 1]], np.int32),
        "label_ids_mask": np.ones((8, 2), bool),
    }
    task, optimizer = make(title_weight=0.0, code_weight=code_weight), optax.adam(0.01)
    assert task.predict_fns.keys() == {"embed_image", "embed_title"}

    @jax.jit
    def run(params):
        def step(carry, _):
            params, opt_state = carry
            (_, values), gradients = jax.value_and_grad(functools.partial(loss_of, task), has_aux=True)(params, batch)
            updates, opt_state = optimizer.update(gradients, opt_state)
            return (optax.apply_updates(params, updates), opt_state), values

        return jax.lax.scan(step, (params, optimizer.init(params)), length=60)

    (params, _), values = run(jax.jit(task.init)(jax.random.key(0), batch))
    assert values["contrastive_loss"][-1] < 0.2 * values["contrastive_loss"][0]
    images, titles = embed(task, params, batch)
    titles = titles / np.linalg.norm(titles, axis=1, keepdims=True)
    assert ((images @ titles.T).argmax(1) == np.arange(8)).all()
    if code_weight:  # so do the signs of pictures
        assert ((np.where(images > 0, 1, -1) @ titles.T).argmax(1) == np.arange(8)).all()
        assert values["code_loss"][-1] < 0.5 * values["code_loss"][0]
    else:
        assert "code_loss" not in values


def test_titles_without_labels_are_refused():
    empty = DataInfo([], np.zeros(0, np.int64), 90, INFO.category_names, INFO.category_counts, "")
    with pytest.raises(InputError, match="no labels were mined, so titles are empty"):
        make(empty, title_weight=0.0)
