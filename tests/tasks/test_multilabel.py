"""The multi-label task: its options, that every parameter learns, and that it can learn eight pictures by heart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from retrieval_jax import tasks
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError
from retrieval_jax.losses import multilabel as losses
from retrieval_jax.models.backbones import convnext
from retrieval_jax.training import optim
from tiny import INFO, TINY, tiny_batch, tiny_config


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", TINY)


def make(info=INFO, **task_kwargs):
    config = tiny_config().train
    config.task_kwargs.update(task_kwargs)
    return tasks.get("multilabel").make(config, info)


@functools.cache
def first_params():
    """Parameters with both heads."""
    convnext.VARIANTS.setdefault("tiny test", TINY)
    return jax.jit(make().init)(jax.random.key(0), tiny_batch())


def loss_of(task, params, batch, train=False):
    return task.loss_fn(
        params, batch, rng=jax.random.key(0), step=jnp.int32(0), ema=params, constants=None, train=train
    )


def test_tasks_are_found_by_name():
    assert tasks.get("multilabel").make and tasks.get("category").make
    with pytest.raises(
        InputError,
        match="no task .config.train.task. named 'ranked' .available: attribute_sequence, .*, self_supervised",
    ):
        tasks.get("ranked")


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_loss_is_finite_and_its_gradient_reaches_every_parameter(loss):
    task = make(loss=loss, positive_weight_power=0.5)
    gradient = jax.jit(jax.value_and_grad(functools.partial(loss_of, task, train=True), has_aux=True))
    (total, values), gradients = gradient(first_params(), tiny_batch())
    assert np.isfinite(total) and values.keys() == {"title_loss", "category_loss", "category_accuracy"}
    np.testing.assert_allclose(total, values["title_loss"] + 0.5 * values["category_loss"], rtol=1e-6)
    for path, leaf in zip(jax.tree.leaves(optim.paths(gradients)), jax.tree.leaves(gradients), strict=True):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


def test_losses_are_means_over_the_pictures_that_count():
    batch, task = tiny_batch(), make(loss="softmax", label_smoothing=0.1)
    _, values = jax.jit(functools.partial(loss_of, task))(first_params(), batch)
    embedding = task.predict_fns["embed_image"](first_params(), batch)["embedding"]
    logits = {
        name: embedding @ first_params()[f"heads_{name}"]["kernel"] + first_params()[f"heads_{name}"]["bias"]
        for name in ("titles", "category")
    }
    titles = losses.softmax_poly1(logits["titles"], batch["label_ids"], batch["label_ids_mask"])
    np.testing.assert_allclose(values["title_loss"], titles[:7].mean(), rtol=1e-4)  # the eighth is padding
    known = np.array([0, 1, 3, 4, 5, 6])  # the third has no category
    category = losses.softmax_cross_entropy(logits["category"], batch["category"], label_smoothing=0.1)
    np.testing.assert_allclose(values["category_loss"], category[known].mean(), rtol=1e-4)
    hits = np.asarray(logits["category"]).argmax(-1) == batch["category"]
    np.testing.assert_allclose(values["category_accuracy"], hits[known].mean(), rtol=1e-6)


def test_what_stands_in_padded_rows_does_not_matter():
    batch, task = tiny_batch(), make()
    other = {**tiny_batch(), "image": batch["image"].copy(), "category": batch["category"].copy()}
    other["image"][7], other["category"][7] = 255, 0
    loss = jax.jit(functools.partial(loss_of, task))
    assert loss(first_params(), batch)[0] == loss(first_params(), other)[0]
    empty = {**batch, "_mask": np.zeros(8, bool)}
    assert loss(first_params(), empty)[0] == 0


def test_a_batch_of_bytes_is_normalised_inside_and_predictions_are_probabilities():
    out = {}
    for loss in ("sigmoid", "softmax"):
        task = make(loss=loss)
        assert task.predict_fns.keys() == {"embed_image", "attributes", "category"}
        out[loss] = task.predict_fns["attributes"](first_params(), {"image": tiny_batch()["image"]})["probabilities"]
        assert out[loss].shape == (8, 5) and (out[loss] > 0).all() and (out[loss] < 1).all()
    np.testing.assert_allclose(out["softmax"].sum(-1), 1.0, rtol=1e-5)
    # the head starts from the share of the listings that have the label
    np.testing.assert_allclose(out["sigmoid"].mean(0), INFO.label_counts / INFO.num_listings, atol=0.1)


def test_rare_labels_weigh_more_and_never_more_than_the_limit(monkeypatch):
    seen = []
    real = losses.sigmoid_cross_entropy
    monkeypatch.setattr(
        losses,
        "sigmoid_cross_entropy",
        lambda *args, **kwargs: seen.append(kwargs["positive_weights"]) or real(*args, **kwargs),
    )
    for power, limit in ((0.0, 100.0), (1.0, 100.0), (1.0, 10.0), (0.5, 100.0)):
        task = make(positive_weight_power=power, positive_weight_limit=limit)
        jax.eval_shape(functools.partial(loss_of, task), first_params(), tiny_batch())
    inverse = 90 / INFO.label_counts
    assert seen[0] is None
    for ours, expected in zip(seen[1:], (inverse, np.minimum(inverse, 10), inverse**0.5), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_options_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match="task 'multilabel' has no argument 'poly_eps'; did you mean poly_epsilon"):
        config = tiny_config().train
        config.task_kwargs = {"poly_eps": 1.0, "smoothing": 0.1}
        tasks.get("multilabel").make(config, INFO)
    with pytest.raises(
        InputError, match="task_kwargs.loss: there is no 'hinge' .available: sigmoid, focal, asymmetric, softmax"
    ):
        make(loss="hinge")
    with pytest.raises(InputError, match="backbone 'vit' has no argument 'layer_scales'"):
        config = tiny_config().train
        config.model = {"name": "vit", "variant": "micro", "projection": 0, "kwargs": {"layer_scales": 1.0}}
        tasks.get("multilabel").make(config, INFO)
    with pytest.raises(InputError, match="nothing to learn"):
        make(title_weight=0.0, category_weight=0.0)
    empty = np.zeros(0, np.int64)
    no_titles = DataInfo([], empty, 90, INFO.category_names, INFO.category_counts, "")
    with pytest.raises(InputError, match="no labels were mined: lower config.mine.threshold"):
        make(no_titles)
    assert make(no_titles, title_weight=0.0).predict_fns.keys() == {"embed_image", "category"}
    no_categories = DataInfo(INFO.label_names, INFO.label_counts, 90, (), (), "abc")
    with pytest.raises(InputError, match="no categories: set config.train.task_kwargs.category_weight = 0"):
        make(no_categories)
    assert "attributes" in make(no_categories, category_weight=0.0).predict_fns


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_eight_pictures_are_learnt_by_heart(loss):
    task = make(loss=loss, poly_epsilon=0.0)
    batch = {**tiny_batch(), "_mask": np.ones(8, bool), "label_ids_mask": np.arange(3) < 1 + np.arange(8)[:, None] % 3}
    optimizer = optax.adam(0.02)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, opt_state = carry
            (_, values), gradients = jax.value_and_grad(functools.partial(loss_of, task), has_aux=True)(params, batch)
            updates, opt_state = optimizer.update(gradients, opt_state)
            return (optax.apply_updates(params, updates), opt_state), values

        return jax.lax.scan(step, (params, optimizer.init(params)), length=40)

    (params, _), values = run(first_params())
    assert values["category_accuracy"][-1] == 1 and values["category_loss"][-1] < 0.1 * values["category_loss"][0]
    probabilities = np.asarray(task.predict_fns["attributes"](params, batch)["probabilities"])
    present = np.zeros((8, 5), bool)
    for row in range(8):
        present[row, batch["label_ids"][row][batch["label_ids_mask"][row]]] = True
    worst_present = np.where(present, probabilities, 2).min(-1)
    best_absent = np.where(present, -1, probabilities).max(-1)
    assert (worst_present > best_absent).all()
