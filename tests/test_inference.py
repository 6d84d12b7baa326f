"""Prediction over padded batches, a loaded model, and embed, all with a tiny linear task."""

import functools
import json
import os
import subprocess
import sys
import types

import cv2
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from retrieval_jax import embed, inference, tasks
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.data.pictures import histogram
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.training import checkpoints
from tiny_linear import INFO, KW, RESIZE, make_catalog, make_task, pictures


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A work directory as train leaves it, with two checkpoints."""
    config = ml_collections.ConfigDict(
        {
            "name": "tiny",
            "data": {"source": "synthetic", "kwargs": {}, "image_size": (4, 4), "cache_bytes": 2**20},
            "mine": {},
            "train": {"task": "tiny", "seed": 1, "model": {"kwargs": {}}},
            "embed": {
                "models": ("histogram", "untrained", "trained"),
                "predict_fn": "embed_image",
                "batch_size": 8,
                "transforms": RESIZE,
                "dtype": "float32",
            },
        }
    )
    (tmp_path / "config.json").write_text(config.to_json())
    info_lib.save(tmp_path / "checkpoints" / "data_info.json", INFO)
    info_lib.save_batch(tmp_path / "checkpoints" / "batch.json", {"image": np.zeros((1, 4, 4, 3), np.uint8)})
    store = checkpoints.Checkpoints(tmp_path / "checkpoints")
    for step in (3, 5):
        params = {"w": jax.random.normal(jax.random.key(step), (48, 6))}
        store.save(step, {"params": params, "ema": {"w": params["w"] * 2}}, {"vocabulary_hash": "abc"})
    store.close()
    monkeypatch.setattr(tasks, "get", lambda name: types.SimpleNamespace(make=make_task))
    return tmp_path, config


@pytest.mark.parametrize("count", [1, 8, 21])
def test_predict_is_in_order_without_padding(count):
    params, images = {"w": jax.random.normal(jax.random.key(0), (48, 6))}, pictures(count)
    out = inference.predict(make_task().predict_fns["embed_image"], params, {"image": images}, **KW)
    assert out.keys() == {"embedding"} and out["embedding"].dtype == np.float32
    naive = images.reshape(count, -1) / 255.0 @ np.asarray(params["w"])
    assert np.allclose(out["embedding"], naive, atol=1e-4)
    rows = np.arange(count)[::-2]
    some = inference.predict(make_task().predict_fns["embed_image"], params, {"image": images}, rows=rows, **KW)
    assert np.allclose(some["embedding"], naive[rows], atol=1e-4)


def test_predict_passes_on_the_space_and_turns_bfloat16_into_float32():
    @tasks.Predict
    def predict_fn(params, batch):
        return {"embedding": batch["image"].mean((1, 2)).astype(jnp.bfloat16), "row": batch["row"], "space": "s"}

    for _ in range(2):  # the second time nothing is traced
        out = inference.predict(predict_fn, {}, {"image": pictures(5)}, **KW)
        assert out["space"] == "s" and out["embedding"].dtype == np.float32 and out["row"].tolist() == [0, 1, 2, 3, 4]


def test_columns_of_every_kind_reach_the_predict_function():
    words = Ragged.of([[1, 2], [], [5], [1, 1, 1], [7, 8]])
    scale = np.arange(5, dtype=np.float32)
    sets = Pictures(pictures(5), np.array([[0, 1], [2, -1], [3, 3], [-1, -1], [4, 0]]))

    def predict_fn(params, batch):
        assert sorted(batch) == ["_mask", "row", "scale", "sets", "sets_mask", "words", "words_mask"]
        summed = jnp.where(batch["words_mask"], batch["words"], 0).sum(1) * batch["scale"]
        seen = batch["sets"].sum((2, 3, 4)) * batch["sets_mask"]
        return {"embedding": jnp.concatenate([summed[:, None], seen], 1)}

    predict_fn = tasks.Predict(predict_fn, ("words", "scale", "sets"))
    columns = {"words": words, "scale": scale, "sets": sets, "image": pictures(5)}
    out = inference.predict(predict_fn, {}, columns, rows=[4, 0, 1], **KW)["embedding"]
    totals = pictures(5).sum((1, 2, 3))
    expected = [[60, totals[4], totals[0]], [0, totals[0], totals[1]], [0, totals[2], 0]]
    np.testing.assert_array_equal(out, expected)
    with pytest.raises(
        InputError, match=r"reads the column 'words'; did you mean word\? \(available: scale, sets, word"
    ):
        inference.predict(predict_fn, {}, {"word": words, "scale": scale, "sets": sets}, **KW)
    with pytest.raises(InputError, match="different numbers of rows: words 5, scale 4, sets 5"):
        inference.predict(predict_fn, {}, {**columns, "scale": scale[:4]}, **KW)


def test_texts_are_batched_by_length_and_come_back_in_order():
    """Few widths are compiled, and every result stands where its text stood."""
    rng, seen = np.random.default_rng(0), []
    texts = Ragged.of([rng.integers(1, 9, length) for length in rng.integers(0, 40, 57)])

    @functools.partial(tasks.Predict, reads=("text",))
    def summed(params, batch):
        seen.append(batch["text"].shape)  # once per compiled shape
        return {"sum": (batch["text"] * batch["text_mask"]).sum(1), "row": batch["row"]}

    rows = rng.permutation(57)[:50]
    for chosen in (None, rows):
        found = inference.predict(summed, {}, {"text": texts}, rows=chosen, **{**KW, "batch_size": 8})
        expected = np.arange(57) if chosen is None else chosen
        assert found["sum"].tolist() == [texts[row].sum() for row in expected.tolist()]
        assert found["row"].tolist() == expected.tolist()
    assert set(seen) <= {(8, width) for width in (8, 16, 24, 32, 48)} and len(set(seen)) > 3


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="no rows"):
        inference.predict(make_task().predict_fns["embed_image"], {}, {"image": pictures(0)}, **KW)


def test_views_are_compiled_once_and_read_larger_pictures():
    calls = []

    @tasks.Predict
    def predict_fn(params, batch):
        calls.append(batch["image"].shape)
        return {"embedding": batch["image"].mean((1, 2)) + params, "space": "s"}

    images = np.random.default_rng(0).integers(0, 256, (11, 1, 1, 3), dtype=np.uint8).repeat(16, 1).repeat(12, 2)
    kw = {
        "transform": RESIZE,
        "image_size": (8, 6),
        "batch_size": 8,
        "views": [["flip", {}], ["multi_scale", {"scales": [1.0, 2.0]}]],
    }
    out = inference.predict(predict_fn, np.ones(3), {"image": images}, **kw)
    traced = len(calls)
    again = inference.predict(predict_fn, np.ones(3), {"image": images[::-1]}, **kw)
    assert {shape[1:3] for shape in calls} == {(8, 6), (16, 12)} and len(calls) == traced
    assert out.keys() == {"embedding", "space"} and np.allclose(again["embedding"], out["embedding"][::-1], atol=1e-6)
    vectors = images[:, 0, 0] + 1.0  # of all four views: one colour is one colour at any size
    assert np.allclose(out["embedding"], vectors / np.linalg.norm(vectors, axis=1)[:, None], atol=1e-3)


def test_data_info_round_trip():
    back = info_lib.from_json(json.loads(json.dumps(info_lib.to_json(INFO))))
    assert back.label_names == INFO.label_names and back.category_names == INFO.category_names
    assert np.array_equal(back.label_counts, INFO.label_counts) and back.vocabulary_hash == "abc"
    assert np.array_equal(back.category_counts[0], [4, 5]) and back.num_listings == 9


def test_a_batch_of_zeros_from_the_shapes_of_a_batch(tmp_path):
    file = tmp_path / "checkpoints" / "batch.json"
    batch = {"image": np.ones((8, 4, 5, 3), np.uint8), "label_ids_mask": np.ones((8, 7), bool), "row": np.arange(8)}
    with pytest.raises(InputError, match=r"batch\.json not found: train first"):
        info_lib.zero_batch(file)
    info_lib.save_batch(file, batch)
    zeros = info_lib.zero_batch(file)
    assert {name: (value.shape, value.dtype) for name, value in zeros.items()} == {
        name: ((1, *value.shape[1:]), value.dtype) for name, value in batch.items()
    }
    assert not any(value.any() for value in zeros.values())
    for broken in ("[]", "{", '{"image": [[4], "colour"]}'):
        file.write_text(broken)
        with pytest.raises(InputError, match="is not readable|has an unexpected content"):
            info_lib.zero_batch(file)


def test_loaded_model_embeds_arrays_and_files(workdir, tmp_path):
    model = inference.load(workdir[0])
    images = pictures(3)
    cv2.imwrite(str(tmp_path / "p.png"), images[2][..., ::-1])
    vectors = model.embed([images[0], images[1], str(tmp_path / "p.png")])
    weights = 2 * np.asarray(jax.random.normal(jax.random.key(5), (48, 6)))
    assert np.allclose(vectors, images.reshape(3, -1) / 255.0 @ weights, atol=1e-4) and model.step == 5
    earlier = inference.load(workdir[0], "params", step=3).embed(images[:1])
    weights = np.asarray(jax.random.normal(jax.random.key(3), (48, 6)))
    assert np.allclose(earlier, images[:1].reshape(1, -1) / 255.0 @ weights, atol=1e-4)
    [attributes] = model.predict_attributes(images[:1], top=2)
    expected = 1 / (1 + np.exp(-vectors[0, :3]))
    assert [name for name, _ in attributes] == [INFO.label_names[i] for i in np.argsort(-expected)[:2]]
    assert len(model.predict_attributes(images[:1])[0]) == 3


def test_messages_of_loading_and_embedding(workdir, tmp_path):
    folder, _ = workdir
    model = inference.load(folder)
    with pytest.raises(InputError, match="picture 1 is float64"):
        model.embed([pictures(1)[0], np.zeros((4, 4, 3))])
    with pytest.raises(InputError, match="picture 0: .*none.png"):
        model.embed(["none.png"])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="picture 0: .*bad.png"):
        model.embed([tmp_path / "bad.png"])
    info = info_lib.to_json(INFO)
    (folder / "checkpoints" / "data_info.json").write_text(json.dumps({**info, "vocabulary_hash": "other"}))
    with pytest.raises(InputError, match="trained on a different vocabulary"):
        inference.load(folder)
    (folder / "checkpoints" / "data_info.json").unlink()
    with pytest.raises(InputError, match="train first"):
        inference.load(folder)


def test_embed_writes_every_model_and_split_with_its_provenance(workdir, monkeypatch):
    folder, config = workdir
    catalog = make_catalog()
    monkeypatch.setattr("retrieval_jax.data.loading.load", lambda block: catalog)
    summary = embed.run(config, folder)["embeddings"]
    spaces = set()
    for name in ("histogram", "untrained", "trained"):
        for split in ("query", "gallery"):
            saved = Embeddings.load(folder / "embeddings" / name / split)
            assert list(saved.ids) == catalog.split(split).ids and summary[name][split]["rows"] == len(saved)
            assert saved.meta["split"] == split and saved.meta["dim"] == saved.dim and saved.meta["config"]
            spaces.add(saved.meta["space"])
    assert len(spaces) == 3
    model = inference.load(folder)
    trained = Embeddings.load(folder / "embeddings" / "trained" / "query")
    assert np.allclose(trained.block(0, 99), model.embed(list(catalog.query.images)), atol=1e-4)
    assert trained.meta["checkpoint"].endswith("/5") and trained.meta["vocabulary_hash"] == "abc"
    colours = Embeddings.load(folder / "embeddings" / "histogram" / "gallery").block(0, 99)
    assert np.array_equal(colours, histogram.embed(catalog.gallery.images))
    with np.load(folder / "embeddings" / "trained" / "val_attributes.npz", allow_pickle=False) as arrays:
        assert arrays["rows"].tolist() == [0, 1, 2, 3, 4] and arrays["label_ids"].shape == (5, 3)
        assert (np.diff(arrays["probabilities"]) <= 0).all()
    config.embed.views, config.embed.models = (("flip", {}),), ("trained",)
    embed.run(config, folder)
    mirrored = model.embed([image[:, ::-1] for image in catalog.query.images])
    naive = sum(v / np.linalg.norm(v, axis=1)[:, None] for v in (mirrored, model.embed(list(catalog.query.images)))) / 2
    trained = Embeddings.load(folder / "embeddings" / "trained" / "query")
    assert np.allclose(trained.block(0, 99), naive, atol=1e-5)
    model.config.embed.views = config.embed.views
    assert np.allclose(model.embed(list(catalog.query.images)), naive, atol=1e-5)
    config.embed.models = ("best",)
    with pytest.raises(
        InputError, match="histogram, colour_and_edges, colour, lexical, pretrained, appearance, untrained, trained"
    ):
        embed.run(config, folder)


DEVICES = """
import sys, jax, numpy as np
from retrieval_jax import inference, tasks
images = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 3), dtype=np.uint8)
w = np.random.default_rng(1).normal(size=(48, 6)).astype(np.float32)
predict_fn = tasks.Predict(lambda p, b: {"embedding": b["image"].reshape(-1, 48) / 255.0 @ p})
out = inference.predict(predict_fn, w, {"image": images}, transform=(("resize", {}),), image_size=(4, 4), batch_size=5)
assert np.allclose(out["embedding"], images.reshape(21, 48) / 255.0 @ w, atol=1e-4)
print(jax.device_count())
"""


def test_several_devices_share_the_batch_and_change_nothing():
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", DEVICES], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "4\n", done.stderr
