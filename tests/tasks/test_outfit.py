"""Outfits: without unlabelled losses the run is the supervised one bit for bit, and vectors are projected by type."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import inference, train
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading
from retrieval_jax.data.outfits import sets
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import outfits as evaluation
from retrieval_jax.models import outfits as networks
from retrieval_jax.settings import tasks as options
from retrieval_jax.tasks import outfit
from retrieval_jax.tasks.parts import changes
from retrieval_jax.training import checkpoints
from tiny import logged, tiny_config


@pytest.fixture(autouse=True)
def small(patches):
    """A network that compiles in no time."""


def settings(unlabelled=24, **task_kwargs):
    """Returns the config of a tiny training of outfits."""
    config = tiny_config()
    config.data.kwargs.update(
        {"num_train": 1500, "num_val": 600, "num_gallery": 400, "num_outfits": 24, "products": True}
    )
    config.train.task = "outfit"
    config.train.task_kwargs = options.outfit()
    config.train.task_kwargs.update({"types": "middle", "same_product": "product", **task_kwargs})
    if unlabelled:
        config.train.unlabelled.split, config.train.unlabelled.batch_size = "train", unlabelled
    config.train.epochs, config.train.warmup_epochs, config.train.batch_size = 1.0, 0.0, 4
    config.embed.predict_fn = "embed_item"
    return config


def params(folder):
    return checkpoints.load_params(folder / "checkpoints", which="params")[0]


def test_both_weights_0_are_the_supervised_run_bit_for_bit(tmp_path):
    without = {"pseudo_weight": 0.0, "consistency_weight": 0.0}
    config = settings(**without)
    config.train.evaluations, config.train.eval_every_epochs = (("outfits", {}),), 1.0
    for name, one in (
        ("zero", config),
        ("supervised", settings(0, **without)),
        ("both", settings(set_weight=1.0, pseudo_ramp=3, max_items=3)),
    ):
        train.run(one, tmp_path / name)
    jax.tree.map(np.testing.assert_array_equal, params(tmp_path / "zero"), params(tmp_path / "supervised"))
    assert [line["loss"] for line in logged(tmp_path / "zero") if "loss" in line] == [
        line["loss"] for line in logged(tmp_path / "supervised") if "loss" in line
    ]
    (last,) = [line for line in logged(tmp_path / "zero") if "outfits/auc" in line]
    assert 0 <= last["outfits/auc"] <= 1 and 0 <= last["outfits/fitb"] <= 1
    lines = [line for line in logged(tmp_path / "both") if "loss" in line]
    assert {"outfit_loss", "consistency_loss", "pseudo_loss", "set_loss", "matched"} <= lines[-1].keys()
    for line in lines:
        ramp = np.exp(-5 * (1 - min(line["step"] / 3, 1)) ** 2)
        parts = line["outfit_loss"] + line["set_loss"] + 0.1 * line["consistency_loss"] + ramp * line["pseudo_loss"]
        np.testing.assert_allclose(line["loss"], parts, rtol=1e-4)
    assert len(lines) == 3 and lines[-1]["matched"] > 0.2 and all(np.isfinite(line["loss"]) for line in lines)
    kernel = params(tmp_path / "both")["head_types"]["kernel"]
    assert np.abs(kernel - np.eye(kernel.shape[1])).max() > 1e-4  # learned, from the identity

    (tmp_path / "both" / "config.json").write_text(settings(set_weight=1.0, max_items=3).to_json())
    model = inference.load(tmp_path / "both")
    split = loading.load(model.config.data).split("val")
    arguments = inference.test_arguments(model.config)
    found = {}
    for name in ("embed_item", "embed_image"):
        function = model.task.predict_fns[name]
        columns = inference.columns(function, split, model.config, tmp_path / "both")
        found[name] = inference.predict(function, model.params, columns, rows=np.arange(12), **arguments)
    np.testing.assert_allclose(np.linalg.norm(found["embed_item"]["embedding"], axis=1), 1, rtol=1e-5)
    assert found["embed_image"]["space"] != model.space
    vectors = found["embed_item"]["embedding"].reshape(3, 4, -1)
    types = np.array([[0, 1, 2, -1]] * 3, np.int32)
    score = model.task.predict_fns["score_outfit"](model.params, {"vectors": vectors, "types": types})["score"]
    turned = model.task.predict_fns["score_outfit"](
        model.params, {"vectors": vectors[:, [2, 0, 1, 3]], "types": types[:, [2, 0, 1, 3]]}
    )["score"]
    np.testing.assert_allclose(score, turned, rtol=1e-4, atol=1e-5)


SMALL = {"set_weight": 1.0, "set_kwargs": {"width": 8, "depth": 1, "heads": 2}}
TWO_DEVICES = """
import pathlib, sys
from retrieval_jax import train
from retrieval_jax.models import embedder
from tasks import conftest, test_outfit
embedder.backbone = lambda *args: embedder.Backbone(conftest.Patches(), "patches")
train.run(test_outfit.settings(**test_outfit.SMALL), pathlib.Path(sys.argv[1]))
"""


def test_a_resumed_run_and_one_on_two_devices_are_the_same_run(tmp_path, capsys):
    config = settings(**SMALL)
    config.train.checkpoint_every_steps, config.train.keep_checkpoints = 1, 5
    train.run(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for step in (2, 3):
        shutil.rmtree(tmp_path / "resumed" / "checkpoints" / str(step))
    train.run(config, tmp_path / "resumed")
    assert "resumes from step 1 of 3" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, params(tmp_path / "whole"), params(tmp_path / "resumed"))

    tests = pathlib.Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]),
    }
    arguments = [sys.executable, "-c", TWO_DEVICES, str(tmp_path / "two")]
    done = subprocess.run(arguments, env=environment, text=True, capture_output=True, timeout=900)
    assert done.returncode == 0 and "on 2 x cpu" in done.stdout, done.stderr
    one, two = ([line for line in logged(tmp_path / name) if "loss" in line] for name in ("whole", "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3]
    for name in ("loss", "outfit_loss", "pseudo_loss", "consistency_loss", "set_loss", "matched"):
        ours, theirs = ([line[name] for line in lines] for lines in (one, two))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, err_msg=name)


def test_a_smaller_share_of_labels_is_part_of_a_larger_one():
    catalog = loading.load(settings().data)
    found = {}
    for share in (0.2, 0.5, 1.0):
        made, info = outfit.examples(settings(labels=share), catalog, None)
        found[share] = set(made.ids)
        assert info.label_names == ["middle=tops", "middle=bottoms", "middle=shoes", "middle=bags"]
        free = made.beside["unlabelled"].columns
        rows, train = free["image"].rows, catalog.split("train")
        np.testing.assert_array_equal(rows, np.flatnonzero(sets.types_of(train, "middle", info) >= 0))
        np.testing.assert_array_equal(free["type"], sets.types_of(train, "middle", info)[rows])
        np.testing.assert_array_equal(free["product"], sets.products_of(train, "product")[rows])
        assert made.beside["unlabelled"].ids == [train.ids[row] for row in rows] and 0 < len(rows) < 1500
    assert found[0.2] < found[0.5] < found[1.0]
    assert [len(one) for one in found.values()] == [2, 6, 12]  # of 24, half go together


def test_a_small_val_is_scored_by_what_can_be_asked(tmp_path, caplog):
    config, catalog = settings(), loading.load(settings().data)
    _, info = outfit.examples(config, catalog, None)
    info_lib.save(tmp_path / "checkpoints" / "data_info.json", info)
    task, table = outfit.make(config.train, info), catalog.table("outfits", "val")
    good = np.flatnonzero(table.columns["compatible"] == 1)
    bad = np.flatnonzero(table.columns["compatible"] == 0)
    unknown = {"listings": np.tile(table.columns["listings"][:1], (600, 1)), "compatible": np.full(600, -1, np.int32)}
    both = ("outfits/auc", "outfits/fitb")
    for rows, names in (([good[0], bad[0]], both[:1]), (good[:1], None), (good, both)):
        few = dataclasses.replace(  # those that nobody judged are not chosen in place of the others
            table, columns={name: np.concatenate([unknown[name], table.columns[name][rows]]) for name in unknown}
        )
        small = dataclasses.replace(catalog, tables={"outfits/val": few})
        made = evaluation.make(task, small, config=config, workdir=tmp_path)
        assert made is None if names is None else made.names == names
        if made is not None:
            batch = {"items": np.zeros((1, 2, 16, 16, 3), np.float32)}
            assert dict(made.run(task.init(jax.random.key(0), batch))).keys() == set(names)
    assert "has no blanks" in caplog.text and "has no outfits of one of the two kinds" in caplog.text


def test_another_splits_products_are_those_of_the_outfits_where_they_are():
    config, catalog = settings(), loading.load(settings().data)
    config.train.unlabelled.split = "val"
    train, val = catalog.split("train"), catalog.split("val")
    names = list(val.columns["product"])
    names[: len(names) // 2] = list(train.columns["product"])[: len(names) // 2]
    val.columns = {**val.columns, "product": names}
    made, info = outfit.examples(config, catalog, None)
    free = made.beside["unlabelled"].columns
    rows = np.flatnonzero(sets.types_of(val, "middle", info) >= 0)
    np.testing.assert_array_equal(free["image"].rows, rows)
    number = dict(zip(train.columns["product"], sets.products_of(train, "product").tolist(), strict=True))
    seen = {}
    for row, found in zip(rows, free["product"].tolist(), strict=True):
        assert found == number.get(names[row], found) and (names[row] in number or found <= -2)
        assert seen.setdefault(names[row], found) == found
    assert len(set(seen.values())) == len(seen)


def test_all_category_levels_are_types_under_any_name(tmp_path):
    config, catalog = settings(types="category"), loading.load(settings().data)
    catalog = dataclasses.replace(catalog, category_levels=("department", "group", "shelf"))
    split = catalog.split("train")
    assert "category" not in split.category_levels and len(split.category_names) == 3
    _, info = outfit.examples(config, catalog, None)
    info_lib.save(tmp_path / "checkpoints" / "data_info.json", info)
    types = outfit.columns(config, split, tmp_path)["type"]()
    np.testing.assert_array_equal(types, sets.types_of(split, "category", info))
    assert (types >= 0).any()


def test_the_set_model_sees_an_item_exchanged_for_one_of_its_type_elsewhere():
    class Keeps:  # a set model whose score is what it was given
        def apply(self, params, vectors, types, there, train, rngs):
            return vectors[..., 0]

    rng = np.random.default_rng(0)
    types = rng.permuted(np.tile(np.arange(4), (12, 1)), axis=1).astype(np.int32)
    there = np.arange(4) < rng.integers(1, 5, (12, 1))
    products = rng.integers(0, 20, (12, 4))
    types, products = np.where(there, types, -1), np.where(there, products, -1)
    types[0, 0] = 9  # of no other outfit
    exist = np.arange(12) < 11
    batch = {"types": types, "products": products, "items_mask": there, "_mask": exist}
    numbers = jnp.arange(48.0).reshape(12, 4, 1)
    for seed in range(20):
        good, bad, usable = outfit._scored(Keeps(), None, numbers, batch, jax.random.key(seed), True)
        np.testing.assert_array_equal(good, numbers[..., 0])
        assert usable.any() and not usable[there.sum(1) < 2].any() and not usable[11]
        for row in np.flatnonzero(usable):
            (place,) = np.flatnonzero(bad[row] != good[row])
            other, at = divmod(int(bad[row, place]), 4)
            assert there[row, place] and there[other, at] and exist[other] and other != row
            assert types[other, at] == types[row, place] and products[other, at] not in products[row, there[row]]


def test_outfits_are_learned_up_to_their_longest_allowed_item(caplog):
    catalog = loading.load(settings().data)
    whole, _ = outfit.examples(settings(), catalog, None)
    with caplog.at_level("INFO"):
        some, _ = outfit.examples(settings(max_items=3), catalog, None)
    np.testing.assert_array_equal(some.columns["items"].rows, whole.columns["items"].rows[:, :3])
    np.testing.assert_array_equal(some.columns["types"], whole.columns["types"][:, :3])
    np.testing.assert_array_equal(some.columns["products"], whole.columns["products"])  # none of them is a negative
    assert f"{len(whole.ids):,} items are left out, past max_items" in caplog.text


def test_what_an_outfit_has_past_its_learned_items_is_none_of_its_negatives():
    config, rng = settings(pseudo_weight=0.0, consistency_weight=0.0), np.random.default_rng(0)
    _, info = outfit.examples(config, loading.load(config.data), None)
    task = outfit.make(config.train, info)
    batch = {
        "items": rng.uniform(0, 255, (2, 2, 16, 16, 3)).astype(np.float32),
        "types": np.array([[0, 1], [0, 1]], np.int32),
        "items_mask": np.ones((2, 2), bool),
        "_mask": np.ones(2, bool),
    }
    params, found = task.init(jax.random.key(0), batch), []
    for past in (9, 2):  # a product of nobody; the first item of the other outfit
        products = np.array([[0, 1, past], [2, 3, 8]], np.int32)
        given = {"rng": jax.random.key(0), "step": 0, "ema": None, "constants": None, "train": False}
        found.append(float(task.loss_fn(params, {**batch, "products": products}, **given)[0]))
    assert found[0] != found[1]


def test_what_cannot_be_learned_is_refused():
    catalog = loading.load(settings().data)
    with pytest.raises(InputError, match="set config.train.unlabelled.split and batch_size"):
        outfit.examples(settings(0), catalog, None)
    with pytest.raises(InputError, match="'midle' does not exist"):
        outfit.examples(settings(types="midle"), catalog, None)
    table = catalog.table("outfits", "train")
    none = dataclasses.replace(table, columns={**table.columns, "compatible": np.zeros(len(table), np.int32)})
    with pytest.raises(InputError, match="no outfit of the train split that goes together"):
        outfit.examples(settings(), dataclasses.replace(catalog, tables={"outfits/train": none}), None)


def test_projections_are_those_of_each_type_and_start_as_the_identity():
    rng = np.random.default_rng(0)
    vectors, types = rng.normal(size=(7, 4)).astype(np.float32), np.array([0, 1, 2, -1, 1, 0, 2])
    np.testing.assert_array_equal(networks.project(networks.projections(3, 4, 4), vectors, types), vectors)
    kernels = rng.normal(size=(3, 4, 5)).astype(np.float32)
    expected = [v @ (kernels[t] if t >= 0 else np.eye(4, 5)) for v, t in zip(vectors, types, strict=True)]
    np.testing.assert_allclose(networks.project(kernels, vectors, types), expected, rtol=1e-5)


def test_changes_keep_or_change_colour_and_shape():
    red, grey = np.array([200, 40, 40], np.float32), np.array([220, 220, 220], np.float32)
    images = np.zeros((24, 32, 32, 3), np.float32) + grey
    images[:, 10:22, 8:24] = red
    near, far = (
        np.asarray(jax.jit(change)(jnp.asarray(images), jax.random.key(0)))
        for change in (changes.kept, changes.changed)
    )
    assert near.shape == far.shape == images.shape and far.min() >= 0 and far.max() <= 255
    recoloured = lambda pictures: np.abs(pictures[:, 16, 16] - red).max(1) > 45  # noqa: E731
    area = lambda pictures: (np.abs(pictures - grey).max(3) > 60).sum((1, 2)) / (12 * 16)  # noqa: E731
    assert not recoloured(near).any() and (np.abs(area(near) - 1) < 0.3).all()
    other_colour, other_shape = recoloured(far), area(far) > 1.3
    assert (other_colour ^ other_shape).all() and other_colour.any() and other_shape.any()


@pytest.mark.parametrize(
    "product, ground, hue", [((150, 105, 105), (250, 250, 250), True), ((90, 90, 90), (230, 150, 60), False)]
)
def test_the_colour_of_the_product_decides_and_not_that_of_its_ground(product, ground, hue):
    images = np.zeros((24, 32, 32, 3), np.float32) + np.array(ground, np.float32)
    images[:, 11:21, 11:21] = product
    far = np.asarray(jax.jit(changes.changed)(jnp.asarray(images), jax.random.key(0)))
    seen = far[:, 16, 16]
    other = np.abs(seen - product).max(1) > 10  # in colour; the rest is stretched
    assert 4 < other.sum() < 20
    light = np.abs(seen.mean(1) - np.mean(product)) > 25
    np.testing.assert_array_equal(light, other & (not hue))  # a hue that turns leaves the mean of the channels
    for place in (0, 9):  # the corner, and a pixel beside the product
        np.testing.assert_allclose(far[other, place, place], np.broadcast_to(ground, (other.sum(), 3)), atol=3)
