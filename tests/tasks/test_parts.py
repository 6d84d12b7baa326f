"""What tasks are put together from: every choice of loss, mixed batches, the teacher, and pretrained weights."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import tasks
from retrieval_jax.errors import InputError
from retrieval_jax.losses import distillation, margins
from retrieval_jax.losses import multilabel as losses
from retrieval_jax.models import heads, pixels, pretrained
from retrieval_jax.settings import tasks as settings_tasks
from retrieval_jax.tasks import multilabel, parts
from tiny import INFO, tiny_batch, tiny_config

B, D = 8, 6
EMBEDDING = np.random.default_rng(1).normal(0, 1, (B, D)).astype(np.float32)
TEACHER = {
    name: np.random.default_rng(2).normal(0, 1, (B, size)).astype(np.float32)
    for name, size in (("titles", 5), ("category", 3))
}


def supervise(**task_kwargs):
    """Returns (supervision, its heads' parameters, function (params, batch, step, train) -> (loss, values)).

    The network is the heads alone, on EMBEDDING; the teacher's logits are TEACHER.
    """
    config = tiny_config().train
    config.task_kwargs.update({"positive_weight_power": 0.0, **task_kwargs})
    made = parts.supervision(config, INFO, parts.options(config, multilabel.OPTIONS))
    params = jax.jit(
        lambda: {name: head.init(jax.random.key(0), EMBEDDING)["params"] for name, head in made.heads.items()}
    )()

    def apply(params, images, **kwargs):
        del images, kwargs
        if isinstance(params, str):
            return {"logits": TEACHER}
        return {
            "embedding": EMBEDDING,
            "logits": {name: head.apply({"params": params[name]}, EMBEDDING) for name, head in made.heads.items()},
        }

    @functools.partial(jax.jit, static_argnames="train")
    def run(params, batch, step=0, train=True):
        return made.loss(
            types.SimpleNamespace(apply=apply),
            params,
            batch,
            apply(params, batch["image"]),
            rng=jax.random.key(0),
            step=step,
            ema="teacher",
            train=train,
        )

    return made, params, run


@pytest.mark.parametrize(
    "name", ["attribute_sequence", "category", "image_title", "multilabel", "regions", "self_supervised"]
)
def test_the_options_are_those_of_the_settings(name):
    assert getattr(settings_tasks, name)().to_dict() == tasks.get(name).OPTIONS


@pytest.mark.parametrize(
    "loss, category_loss, others",
    [
        ("sigmoid", "softmax", {"head": "cosine"}),
        ("focal", "cosface", {}),
        ("asymmetric", "arcface", {}),
        ("softmax", "proxy_nca", {}),
        ("sigmoid", "proxy_anchor", {"positive_weight_power": 0.5}),
        ("softmax", "supcon", {"class_balanced_beta": 0.9999}),
    ],
)
def test_every_choice_of_loss_reaches_its_head(loss, category_loss, others):
    made, params, run = supervise(loss=loss, category_loss=category_loss, **others)
    assert set(made.heads) == ({"titles"} if category_loss == "supcon" else {"titles", "category"})
    (total, values), gradients = jax.jit(jax.value_and_grad(run, has_aux=True))(params, tiny_batch())
    np.testing.assert_allclose(total, values["title_loss"] + 0.5 * values["category_loss"], rtol=1e-6)
    assert ("category_accuracy" in values) == (category_loss != "supcon")
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_a_loss_gets_its_own_numbers():
    _, params, run = supervise(
        category_loss="arcface",
        category_kwargs={"margin": 0.1, "scale": 4.0},
        loss="asymmetric",
        loss_kwargs={"margin": 0.0, "gamma_absent": 1.0},
        label_smoothing=0.1,
    )
    batch = tiny_batch()
    _, values = run(params, batch)
    unit = EMBEDDING / np.linalg.norm(EMBEDDING, axis=1, keepdims=True)
    kernel = params["category"]["kernel"]
    cosines = unit @ (kernel / jnp.linalg.norm(kernel, axis=0))
    where = batch["_mask"]
    expected = margins.arcface(cosines, batch["category"], scale=4.0, margin=0.1, label_smoothing=0.1, where=where)
    np.testing.assert_allclose(values["category_loss"], expected.sum() / (where & (batch["category"] >= 0)).sum(), 1e-5)
    logits = EMBEDDING @ params["titles"]["kernel"] + params["titles"]["bias"]
    expected = losses.asymmetric(logits, batch["label_ids"], batch["label_ids_mask"], margin=0.0, gamma_absent=1.0)
    np.testing.assert_allclose(values["title_loss"], expected[:7].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "task_kwargs, message",
    [
        ({"head": "mlp"}, "task_kwargs.head: there is no 'mlp' .available: linear, cosine"),
        (
            {"category_loss": "triplet"},
            "category_loss: there is no 'triplet' .available: softmax, cosface, arcface, proxy_nca",
        ),
        ({"contrastive_loss": "softmax"}, "task 'multilabel' has no argument 'contrastive_loss'; did you mean"),
        ({"loss_kwargs": {"gama": 1}, "loss": "focal"}, "loss 'focal' has no argument 'gama'; did you mean gamma"),
        (
            {"loss_kwargs": {"gamma": 1}, "loss": "softmax"},
            "loss 'softmax' has no argument 'gamma' .available: nothing",
        ),
        (
            {"category_kwargs": {"m": 1}, "category_loss": "arcface"},
            "loss 'arcface' has no argument 'm' .available: margin, scale",
        ),
        (
            {"category_loss": "supcon", "label_smoothing": 0.1},
            "label_smoothing does not apply to category_loss='supcon'",
        ),
        ({"category_loss": "supcon", "title_weight": 0.0, "distill_share": 0.5}, "need a head that predicts"),
    ],
)
def test_options_that_cannot_be_used_are_refused(task_kwargs, message):
    with pytest.raises(InputError, match=message):
        supervise(**task_kwargs)


def test_the_loss_of_a_mixed_batch_is_the_mixed_loss():
    _, params, run = supervise(class_balanced_beta=0.99)
    batch = {name: value for name, value in tiny_batch().items()}
    batch["_mask"], batch["category"] = np.ones(B, bool), np.arange(B, dtype=np.int32) % 3
    names = ("label_ids", "label_ids_mask", "category")
    partner = {**batch, **{name: np.roll(batch[name], 1, 0) for name in names}}
    mix = {f"mix_{name}": partner[name] for name in names}
    own, other = run(params, batch)[1], run(params, partner)[1]
    for share in (1.0, 0.3):
        _, values = run(params, {**batch, **mix, "mix": np.full(B, share, np.float32)})
        for name in ("title_loss", "category_loss", "category_accuracy"):
            np.testing.assert_allclose(values[name], share * own[name] + (1 - share) * other[name], rtol=1e-5)


def test_the_teachers_share_grows_over_the_run():
    config, batch = tiny_config().train, tiny_batch()
    num_steps = round(config.epochs * 90 / config.batch_size)
    for loss, teach in (("softmax", distillation.softmax), ("sigmoid", distillation.sigmoid)):
        made, params, run = supervise(loss=loss, distill_share=0.8)
        plain = supervise(loss=loss)[2](params, batch)[1]
        start = plain["title_loss"] + 0.5 * plain["category_loss"]
        np.testing.assert_allclose(run(params, batch, step=0)[0], start, rtol=1e-6)
        taught = {
            "title": teach(EMBEDDING @ params["titles"]["kernel"] + params["titles"]["bias"], TEACHER["titles"]),
            "category": distillation.softmax(
                EMBEDDING @ params["category"]["kernel"] + params["category"]["bias"], TEACHER["category"]
            ),
        }
        for step, share in ((num_steps // 2, 0.8 * (num_steps // 2) / num_steps), (2 * num_steps, 0.8)):
            total, values = run(params, batch, step=step)
            expected = sum(
                weight * ((1 - share) * plain[f"{name}_loss"] + share * taught[name][:7].mean())
                for name, weight in (("title", 1.0), ("category", 0.5))
            )
            np.testing.assert_allclose(total, expected, rtol=1e-5)
            assert {"title_teacher_loss", "category_teacher_loss"} < values.keys()
        evaluated = jax.eval_shape(functools.partial(run, train=False), params, batch)[1]
        assert evaluated.keys() == plain.keys()


def test_unlabelled_pictures_have_the_teachers_target_alone():
    _, params, run = supervise(loss="softmax", unlabelled_weight=2.0)
    batch = tiny_batch()
    with pytest.raises(InputError, match="no unlabelled pictures: set config.train.unlabelled.split and batch_size"):
        run(params, batch)
    plain = supervise(loss="softmax")[2](params, batch)[0]
    mask = np.arange(B) < 5
    batch |= {"unlabelled_image": batch["image"], "unlabelled_mask": mask}
    np.testing.assert_allclose(run(params, batch, step=0)[0], plain, rtol=1e-6)
    total, values = run(params, batch, step=10**6)
    logits = {name: EMBEDDING @ params[name]["kernel"] + params[name]["bias"] for name in TEACHER}
    expected = sum(
        weight * distillation.softmax(logits[name], TEACHER[name])[:5].mean()
        for name, weight in (("titles", 1.0), ("category", 0.5))
    )
    np.testing.assert_allclose(values["unlabelled_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(total, plain + 2 * expected, rtol=1e-5)


def test_nothing_flows_into_the_teacher_and_unlabelled_pictures_teach_the_network(patches):
    config = tiny_config().train
    config.task_kwargs.update({"distill_share": 0.5, "unlabelled_weight": 1.0})
    task = tasks.get("multilabel").make(config, INFO)
    batch = {**tiny_batch(), "unlabelled_image": tiny_batch()["image"][:4], "unlabelled_mask": np.ones(4, bool)}
    params = jax.jit(task.init)(jax.random.key(0), batch)

    @jax.jit
    def gradients(params, ema, weight):
        def loss(params, ema):
            total, values = task.loss_fn(
                params, batch, rng=jax.random.key(0), step=100, ema=ema, constants=None, train=True
            )
            return weight * total + (1 - weight) * values["unlabelled_loss"]

        return jax.grad(loss, (0, 1))(params, ema)

    ema = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    for weight in (0.0, 1.0):
        ours, teachers = gradients(params, ema, weight)
        assert not any(np.abs(leaf).max() for leaf in jax.tree.leaves(teachers))
        assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(ours))


def test_pretrained_weights_replace_the_fresh_ones_and_bring_their_mean(tmp_path, monkeypatch):
    kwargs = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 12)}
    model, rng = pretrained.model("convnext_atto", **kwargs), np.random.default_rng(0)
    weights = jax.tree.map(
        lambda leaf: rng.normal(0, 1, leaf.shape).astype(np.float32), pretrained.shapes_of(model, (32, 32))
    )
    info = pretrained.Info((0.5, 0.5, 0.4), (0.25, 0.25, 0.2), "bicubic", 0.9, (32, 32), "mit")
    pretrained.save(model, weights, tmp_path / "model.safetensors", timm_name="convnext_atto", about=info)
    config = tiny_config().train
    config.model.pretrained = {"name": "convnext_atto", "path": str(tmp_path), "offline": True, "kwargs": kwargs}
    config.model.kwargs = {"drop_path": 0.1}
    task = tasks.get("multilabel").make(config, INFO)
    fresh = {"backbone": jax.tree.map(np.zeros_like, weights), "heads_titles": {}, "heads_category": {}}
    params = task.warm_start(fresh)
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], weights)
    assert params["heads_titles"] is fresh["heads_titles"]
    with pytest.raises(InputError, match="the weights of convnext_atto do not fit the network"):
        task.warm_start({**fresh, "backbone": {}})

    seen, real = [], pixels.normalize
    monkeypatch.setattr(pixels, "normalize", lambda images, *args: seen.append(args) or real(images, *args))
    batch = {"image": jax.ShapeDtypeStruct((2, 32, 32, 3), np.uint8)}
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert jax.tree.map(np.shape, shapes["backbone"]) == jax.tree.map(np.shape, weights)
    assert seen == [(jnp.float32, info.mean, info.std)]
    config.model.kwargs = {"drop_paths": 0.1}
    with pytest.raises(InputError, match="drop_paths"):
        tasks.get("multilabel").make(config, INFO)


def test_a_cosine_head_reads_directions_alone():
    head = heads.Cosine(4, 0.05)
    params = head.init(jax.random.key(0), EMBEDDING)["params"]
    np.testing.assert_allclose(jnp.exp(params["log_scale"]), 20.0, rtol=1e-5)
    logits = head.apply({"params": params}, EMBEDDING)
    longer = {**params, "kernel": 3 * params["kernel"]}
    np.testing.assert_allclose(head.apply({"params": longer}, 5 * EMBEDDING), logits, rtol=1e-4)
    bare = heads.Cosine(4, None, (1.0, 2.0, 3.0, 4.0))
    out = bare.apply({"params": {"kernel": params["kernel"], "bias": jnp.arange(1.0, 5)}}, EMBEDDING)
    np.testing.assert_allclose(20 * (out - jnp.arange(1.0, 5)), logits, rtol=1e-4, atol=1e-5)
    assert np.isfinite(jax.grad(lambda e: head.apply({"params": params}, e).sum())(jnp.zeros((2, D)))).all()


def test_pictures_are_normalised_with_the_weights_own_mean():
    images = np.array([[[[0, 128, 255]]]], np.uint8)
    out = pixels.normalize(images.astype(np.float32), jnp.float32, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
    np.testing.assert_allclose(out[0, 0, 0], [-1, (128 / 255 - 0.4) / 0.25, 3.5], rtol=1e-5)


@pytest.mark.parametrize("loss, head", [("softmax", "linear"), ("sigmoid", "cosine")])
def test_blocks_of_labels_change_nothing(patches, loss, head):
    def results(block):
        config = tiny_config().train
        config.task_kwargs.update({"loss": loss, "head": head, "label_block": block})
        task = tasks.get("multilabel").make(config, INFO)
        params = jax.jit(task.init)(jax.random.key(0), tiny_batch())

        @jax.jit
        def run(params):
            return task.loss_fn(
                params, tiny_batch(), rng=jax.random.key(0), step=0, ema=params, constants=None, train=True
            )[0]

        return jax.value_and_grad(run)(params)

    for ours, whole in zip(jax.tree.leaves(results(2)), jax.tree.leaves(results(0)), strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6)


def test_blocks_of_labels_are_refused_where_whole_logits_are_compared():
    with pytest.raises(InputError, match="label_block cuts up the logits that distill_share"):
        supervise(label_block=2, distill_share=0.5)
    with pytest.raises(InputError, match="label_block is -1"):
        supervise(label_block=-1)
