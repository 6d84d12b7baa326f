"""Public weights embedded and scored with no training; pictures reach them as the weights say."""

import json
from types import SimpleNamespace

import jax
import ml_collections
import numpy as np
import pytest

from retrieval_jax import embed, embedders, inference, run, workdir
from retrieval_jax.data import fields, loading, saved_fields
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.pictures import transforms
from retrieval_jax.embeddings import Embeddings, Ids, evidence
from retrieval_jax.errors import InputError
from retrieval_jax.models import pixels, pretrained
from retrieval_jax.settings import base
from retrieval_jax.settings import tasks as task_settings
from retrieval_jax.workdir import command_line

NAME = "convnext_atto"
SHAPE = {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 12)}


pytestmark = pytest.mark.usefixtures("little_compilation")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A safetensors file of a tiny network with random weights, and its config.json."""
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    model = pretrained.model(NAME, **SHAPE)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
    params = jax.tree.map(lambda p: p + 0.1 * np.random.default_rng(p.size).normal(size=p.shape).astype("f"), params)
    about = pretrained.Info((0.4, 0.5, 0.6), (0.2, 0.3, 0.1), "bilinear", 0.9, (32, 32), "cc-by-4.0")
    pretrained.save(model, params, file, timm_name=NAME, about=about)
    return file


def make_config(weights):
    config = command_line.load_config("pretrained", f"runlocal,name={NAME},path={weights}")
    config.unlock()  # for tests that add a train block
    config.data.kwargs.update(num_train=8, num_val=8, num_query=12, num_gallery=24, image_size=48)
    config.report.rows = 2
    config.data.cache_bytes = 2**20
    return config


def test_public_weights_are_embedded_searched_scored_and_reported(weights, tmp_path, capsys):
    config = make_config(weights)
    assert workdir.verbs(config) == ("embed", "search", "evaluate", "report")
    done = run.run(config, tmp_path)
    assert list(done) == ["embed", "search", "evaluate", "report"]
    assert "licence of the weights: cc-by-4.0" in capsys.readouterr().out
    stages = json.loads((tmp_path / "metrics.json").read_text())["stages"]
    assert {
        ("histogram", "cosine"),
        ("pretrained", "cosine"),
        ("pretrained", "chosen"),
    } == {(stage["model"], stage["stage"]) for stage in stages}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Public weights" in page and "<h2>Chosen steps</h2>" in page
    found = evidence.load(tmp_path / "embeddings" / "pretrained" / evidence.FOLDER)
    assert len(found.train) == 8 == len(found.agreeing) and len(found.altered) == 24
    gallery = Embeddings.load(tmp_path / "embeddings" / "pretrained" / "gallery")
    assert set(found.altered.ids) == set(gallery.ids)
    assert {found.train.meta["space"], found.altered.meta["space"]} == {gallery.meta["space"]}

    # what the network gives for pictures prepared by hand as config.json says
    found = Embeddings.load(tmp_path / "embeddings" / "pretrained" / "query")
    model, params = pretrained.load(NAME, weights)
    source = loading.load(config.data).query.images
    crop = transforms.compose((("center_crop", {"crop_pct": 0.9, "interpolation": "bilinear"}),), (32, 32))
    images = np.stack([crop(source[row]) for row in range(len(found))])
    images = pixels.normalize(images, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
    expected = jax.jit(model.apply)({"params": params}, images)["embedding"]
    np.testing.assert_allclose(found.block(0, len(found)), expected, atol=1e-4)
    assert found.meta["checkpoint"].startswith(NAME) and found.meta["licence"] == "cc-by-4.0"
    with pytest.raises(InputError, match="holds no trained network"):
        inference.load(tmp_path)


def test_how_pictures_reach_a_network(weights):
    config = make_config(weights)
    block = config.embed.pretrained
    crop = (("center_crop", {"crop_pct": 0.9, "interpolation": "bilinear"}),)
    arguments = inference.test_arguments(config, block)
    assert arguments == {"transform": crop, "image_size": (32, 32), "batch_size": 32}
    arguments = inference.test_arguments(config)
    assert arguments == {"transform": (("resize", {}),), "image_size": (64, 64), "batch_size": 32}
    config.embed.image_size = (40, 40)
    config.embed.transforms = (("resize", {}),)
    assert inference.test_arguments(config, block)["image_size"] == (40, 40)
    assert inference.test_arguments(config, block)["transform"] == (("resize", {}),)
    # trained from public weights: their crop, but the size that this config trained with
    config = make_config(weights)
    with config.unlocked():
        config.train = ml_collections.ConfigDict({"model": {"pretrained": {"name": NAME, "path": str(weights)}}})
    arguments = inference.test_arguments(config)
    assert arguments["image_size"] == (64, 64) and arguments["transform"] == crop
    # published weights that were tested on squashed pictures
    block.update({"name": "convnext_xlarge.fb_in22k_ft_in1k_384", "path": ""})
    assert inference.test_arguments(config, block)["transform"] == (
        ("center_crop", {"crop_pct": 1.0, "interpolation": "bicubic", "squash": True}),
    )


def test_weights_that_are_not_named_and_a_model_that_does_not_exist(weights, tmp_path):
    config = make_config(weights)
    config.embed.pretrained.name = ""
    with pytest.raises(InputError, match="config.embed.pretrained.name is empty: give timm's name"):
        embed.run(config, tmp_path)
    config.embed.models = ("pretraind",)
    with pytest.raises(
        InputError,
        match="no model named 'pretraind'; did you mean pretrained.*colour_and_edges, colour, lexical, pretrained",
    ):
        embed.run(config, tmp_path)


def test_the_untrained_model_is_where_training_starts_public_weights_included(weights, tmp_path):
    config = make_config(weights)
    config.embed.models = ("pretrained", "untrained")
    config.embed.image_size = (32, 32)
    with config.unlocked():
        config.train = base.defaults().train
    config.train.model.pretrained.update({"name": NAME, "path": str(weights), "kwargs": SHAPE})
    config.train.model.kwargs = ml_collections.ConfigDict({"drop_path": 0.1})
    config.train.task, config.train.task_kwargs = "category", task_settings.category()
    config.data.image_size = (32, 32)
    info = info_lib.of_split(loading.load(config.data).split("train"))
    info_lib.save(tmp_path / "checkpoints" / "data_info.json", info)
    batch = {"image": np.zeros((1, 32, 32, 3), np.uint8), "row": np.zeros(1, np.int32)}
    info_lib.save_batch(tmp_path / "checkpoints" / "batch.json", batch)
    embed.run(config, tmp_path)
    vectors = [Embeddings.load(tmp_path / "embeddings" / name / "query").block(0, 12) for name in config.embed.models]
    np.testing.assert_allclose(*vectors, atol=1e-5)


def test_predicted_fields_are_written_block_after_block_with_their_ids(tmp_path, monkeypatch):
    catalog = loading.load({"source": "synthetic", "kwargs": {"num_train": 40, "num_val": 5, "num_query": 4,
                                                              "num_gallery": 12, "image_size": 16}})  # fmt: skip
    info = fields.learned({"colour": fields.read(catalog.train, "colour")}, 1, (), 0)
    labels, sizes = len(info.label_names), []

    def predict(function, params, columns, rows, **kwargs):
        sizes.append(len(rows))
        chances = (rows[:, None] + np.arange(labels)) % labels / labels
        return {"chosen": chances > 0.5, "probabilities": chances.astype(np.float32)}

    monkeypatch.setattr(embedders.inference, "predict", predict)
    monkeypatch.setattr(embedders.inference, "columns", lambda *args: {})
    monkeypatch.setattr(embedders.inference, "test_arguments", lambda config: {})
    monkeypatch.setattr(embedders, "PREDICTED", 5 * labels)
    networks = object.__new__(embedders.Networks)
    networks._workdir, networks._config, networks._mesh = tmp_path, None, None
    networks._own = SimpleNamespace(predict_fns={"attributes": None}), info
    networks._loaded = {(tmp_path, 0, "ema"): (SimpleNamespace(params=None),)}
    networks.save_fields(catalog)
    assert sizes == [5, 4, 5, 5, 2]
    file, ids = tmp_path / "embeddings" / "trained" / "fields" / "gallery.npz", Ids.of(catalog.gallery.ids)
    chosen, chances = saved_fields.load(file, info, ids.sha256())
    want = predict(None, None, None, np.arange(12))
    np.testing.assert_array_equal(chosen, want["chosen"])
    np.testing.assert_array_equal(chances, want["probabilities"] * want["chosen"])


def test_appearance_is_the_signs_of_a_middle_stage_of_public_weights(weights, tmp_path):
    config = make_config(weights)
    config.embed.models = ("appearance", "colour")
    config.search.join = config.embed.models
    config.search.steps = (("ensemble", {"weights": (0.7, 0.3)}),)
    config.embed.appearance.bands = (2, 1)
    run.run(config, tmp_path)
    made = Embeddings.load(tmp_path / "embeddings" / "appearance" / "gallery")
    assert made.vectors.shape == (24, 2 * 8) and made.meta["space"].endswith(":signs")
    np.testing.assert_allclose(np.abs(made.vectors[:]), 1 / 4)
    assert len(np.unique(made.vectors[:])) == 2
    stages = json.loads((tmp_path / "metrics.json").read_text())["stages"]
    assert {(stage["model"], stage["stage"]) for stage in stages} == {
        ("appearance", "cosine"), ("colour", "cosine"), ("ensemble", "ensemble")}  # fmt: skip


def test_appearance_of_a_stage_that_was_not_learned_is_refused(tmp_path):
    config = base.defaults()
    config.embed.models = ("appearance",)
    config.train.model.kwargs.pool_stages = (1, 3)
    with pytest.raises(InputError, match=r"appearance.stage is 2, which .*pool_stages \(1, 3\)"):
        embed.run(config, tmp_path)
