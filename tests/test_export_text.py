"""Exported networks of text: typed words and edits of pictures are answered as the run answers them."""

import json
import shutil

import cv2
import jax
import numpy as np
import pytest

import tiny
from retrieval_jax import embed, export, exported, inference, mine, search, tasks, workdir
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading, pipeline
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.files.arrays import file_sha256
from retrieval_jax.server import runs, searching
from retrieval_jax.settings import tasks as options
from retrieval_jax.training import checkpoints

WORDS = {"depth": 1, "width": 16, "heads": 2, "dropout": 0.0}
TEXTS = ["red shirt", "", "blue dress -striped", "shoes " * 40]
PICTURES = list(np.random.default_rng(0).integers(0, 256, (4, 40, 30, 3), dtype=np.uint8))
pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant", "unchecked")


@pytest.fixture(scope="module")
def unchecked():
    """Leaves out the check of programs, a process of its own for every folder that is loaded; it has its own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported.program_check, "check", lambda files: None)
        yield


def save(config, folder):
    """Writes the work directory of a training that has taken no step, embedded and searched."""
    config.embed.models = ("trained",)
    workdir.write_settings(config, folder)
    if config.train.task == "multilabel":
        mine.run(config, folder)
    examples, info = inference.examples(config, loading.load(config.data), folder)
    batch = pipeline.zeros(examples, config.data.image_size)
    params = jax.jit(tasks.get(config.train.task).make(config.train, info).init)(jax.random.key(1), batch)
    store = checkpoints.Checkpoints(folder / "checkpoints")
    meta = {"vocabulary_hash": info.vocabulary_hash, "num_steps": 3, "run": folder.name}
    store.save(3, {"params": params, "ema": params}, meta)
    store.close()
    info_lib.save(folder / "checkpoints" / "data_info.json", info)
    info_lib.save_batch(folder / "checkpoints" / "batch.json", batch)
    embed.run(config, folder)
    search.run(config, folder)
    workdir.record(config, folder, "search", seconds=1.0, cpu_seconds=1.0)
    return folder


@pytest.fixture(scope="module")
def served(typed, tmp_path_factory):
    """The folder of the exported run `typed`."""
    folder = tmp_path_factory.mktemp("served") / "typed"
    export.run(typed, folder, platforms=("cpu",))
    return folder


def edits():
    config = tiny.tiny_config()
    config.data.kwargs.update({"queries": "edits", "num_edits": 20, "num_train": 80})
    config.search.steps = (("whitening", {"power": 0.25, "relative_ridge": 0.01}),)  # a full one magnifies rounding
    return config


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A run whose network reads typed queries and titles."""
    config = tiny.tiny_config()
    config.data.kwargs.update({"queries": "typed", "num_typed": 30, "num_val": 0})
    config.train.task, config.train.task_kwargs = "text_query", options.text_query()
    config.train.task_kwargs.update({"vocabulary": 400, "length": 16, "same_product": "product"})
    config.train.model.update({"name": "transformer", "variant": "mini", "projection": 16})
    with config.unlocked():
        config.train.model.kwargs = WORDS
    config.search.query_from.predict_fn, config.search.gallery_from.predict_fn = "embed_query", "embed_product"
    config.search.steps = ()
    return save(config, tmp_path_factory.mktemp("runs") / "typed")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A run whose network reads pictures."""
    return save(edits(), tmp_path_factory.mktemp("runs") / "seen")


@pytest.fixture(scope="module")
def pictured(seen):
    """A run that learns words into the space of another run's pictures."""
    config = tiny.tiny_config()
    config.data.kwargs.update({"queries": "typed", "num_typed": 20, "num_train": 60, "num_gallery": 60})
    config.train.task, config.train.task_kwargs = "text_picture", options.text_picture()
    config.train.task_kwargs.update({"vocabulary": 400, "words": ("transformer", "mini"), "words_kwargs": WORDS})
    config.train.task_kwargs.update({"attributes": ("leaf", "colour"), "attribute_texts": 1, "pictures": str(seen)})
    config.search.query_from.predict_fn, config.search.steps = "embed_text", ()
    config.search.gallery_from.run, config.search.gallery_from.predict_fn = str(seen), "embed_image"
    return save(config, seen.parent / "pictured")


@pytest.fixture(scope="module")
def edited(seen):
    """A run that composes words with the vectors of another run's pictures."""
    config = edits()
    config.train.task, config.train.task_kwargs = "edit", options.edit()
    config.train.task_kwargs.update({"vocabulary": 400, "words_kwargs": WORDS, "words_dim": 16, "targets": 2})
    config.train.task_kwargs.update({"pictures": str(seen), "joint_kwargs": {"hidden": 16}})
    config.embed.predict_fn, config.search.query_from.predict_fn = "embed_reference", "embed_edit"
    config.search.gallery_from.run, config.search.gallery_from.predict_fn = str(seen), "embed_image"
    return save(config, seen.parent / "edited")


def found(version, stage, raw, weight=1.0):
    """Returns what a served run finds for a query that its networks embedded, {id: score}."""
    way = next(one for one in version.gallery.stages if one.name == stage)
    parts = tuple(searching.of_networks(way, raw, weight))
    query = searching.Query(searching.Conditions((), (), ()), 20, parts=parts)
    (answer,) = searching.run((version.gallery, way), [query])
    return {version.gallery.embeddings.ids[hit.row]: hit.score for hit in answer.hits}


def same(ours, theirs):
    assert sorted(ours) == sorted(theirs) and len(ours) == 20
    assert np.allclose([ours[name] for name in theirs], list(theirs.values()), atol=1e-5)


def test_typed_words_are_answered_as_by_the_run(typed, served):
    about = json.loads((served / "config.json").read_text())
    assert sorted(about["programs"]) == ["embed", "embed_query"] and about["compared"]["difference"] < 1e-5
    assert about["sides"] == {"query": "embed_query", "gallery": "embed"}
    ours, model = exported.load(served), inference.load(typed)
    assert np.allclose(ours.embed_text(TEXTS), model.embed_text(TEXTS), atol=1e-5)
    assert np.allclose(ours.embed_text("-striped"), ours.embed_text(""))  # a condition, not a word
    unit = ours.for_search(TEXTS)
    assert np.allclose(np.linalg.norm(unit, axis=1), 1) and np.allclose(
        ours.for_search(TEXTS, program="embed_query"), unit
    )
    run, ours = (runs.Run("x", folder).get() for folder in (typed, served))
    assert ours.networks.pictures is None and ours.networks.edited is None
    for text in TEXTS[:3]:
        same(*(found(one, "cosine", {"words": one.networks.words([text])[0]}) for one in (ours, run)))


def test_edits_are_answered_as_by_the_run_without_the_run_of_the_pictures(edited, tmp_path):
    about = export.run(edited, tmp_path / "served", platforms=("cpu",))
    assert sorted(about["programs"]) == ["attributes", "embed", "embed_edit", "embed_text"]
    assert about["compared"]["difference"] < 1e-5 and about["sides"] == {"query": "embed", "gallery": "embed"}
    model, run = inference.load(edited), runs.Run("x", edited).get()
    wanted = [model.embed(PICTURES, words=TEXTS, weight=weight) for weight in (0.0, 0.7)]
    there = [found(run, "whitening", {"edited": run.networks.edited([(PICTURES[0], "in red")])[0]}, 0.7)]
    there.append(found(run, "whitening", {"picture": run.networks.pictures(PICTURES[:1])[0]}))
    there.append(found(run, "cosine", {"words": run.networks.words(["in red"])[0]}))
    shutil.move(edited.parent / "seen", tmp_path / "elsewhere")
    try:
        served, ours = exported.load(tmp_path / "served"), runs.Run("x", tmp_path / "served").get()
    finally:
        shutil.move(tmp_path / "elsewhere", edited.parent / "seen")
    for weight, vectors in zip((0.0, 0.7), wanted, strict=True):
        assert np.allclose(served.embed(PICTURES, words=TEXTS, weight=weight), vectors, atol=1e-5)
    assert [stage.name for stage in ours.gallery.stages] == ["cosine", "whitening"]
    same(found(ours, "whitening", {"edited": ours.networks.edited([(PICTURES[0], "in red")])[0]}, 0.7), there[0])
    same(found(ours, "whitening", {"picture": ours.networks.pictures(PICTURES[:1])[0]}), there[1])
    same(found(ours, "cosine", {"words": ours.networks.words(["in red"])[0]}), there[2])
    with pytest.raises(InputError, match="4 pictures and 1 texts"):
        served.embed(PICTURES, words="red")


def test_words_in_the_space_of_pictures_are_exported_with_the_network_of_the_pictures(pictured, seen, tmp_path):
    about = export.run(pictured, tmp_path / "served", platforms=("cpu",))
    assert sorted(about["programs"]) == ["attributes", "embed", "embed_text"]
    assert about["sides"] == {"query": "embed_text", "gallery": "embed"} and about["compared"]["difference"] < 1e-5
    served, trained, pictures = exported.load(tmp_path / "served"), inference.load(pictured), inference.load(seen)
    assert about["space"] == pictures.space
    assert np.allclose(served.embed_text(TEXTS), trained.embed_text(TEXTS), atol=1e-5)
    wanted = pictures.embed(PICTURES)
    assert np.allclose(served.embed(PICTURES), wanted, atol=1e-5)
    cv2.imwrite(str(tmp_path / "one.png"), PICTURES[0][..., ::-1])
    for model in (served, pictures):
        for alone in (PICTURES[0], tmp_path / "one.png", str(tmp_path / "one.png")):
            assert np.allclose(model.embed(alone), wanted[:1], atol=1e-5)


@pytest.mark.parametrize("run", ["pictured", "edited"])
def test_a_run_whose_pictures_were_trained_again_is_not_exported(run, seen, tmp_path, request):
    folder = request.getfixturevalue(run)
    shutil.move(seen, tmp_path / "aside")
    try:
        shutil.copytree(tmp_path / "aside", seen)
        params, meta, step = checkpoints.load_params(seen / "checkpoints")
        store = checkpoints.Checkpoints(seen / "checkpoints")
        store.save(step + 1, {"params": params, "ema": params}, {**meta, "num_steps": step + 1})
        store.close()
        with pytest.raises(InputError, match="has learned with vectors in the space .*, trained again since"):
            export.run(folder, tmp_path / "served", platforms=("cpu",))
    finally:
        shutil.rmtree(seen)
        shutil.move(tmp_path / "aside", seen)
    assert not (tmp_path / "served").exists()


def test_rows_that_are_neither_texts_nor_ids_of_the_vocabulary_are_refused(served):
    model = exported.load(served)
    size = model.tokenizer.size
    assert np.allclose(model.for_search("red shirt"), model.for_search(["red shirt"]))
    assert model.run("embed_query", "red shirt")["embedding"].shape == model.embed_text(["red shirt"]).shape
    ids = model.tokenizer.encode(["red shirt"], 16)
    for rows in (ids, [ids[0]], [ids[0].tolist()], [tuple(ids[0].tolist())]):
        assert np.allclose(model.embed({"query": rows}, "embed_query"), model.embed_text(["red shirt"]))
    for rows, message in (
        ([[3], [-4]], f"takes ids from 0 to {size - 1:,}, and row 1 has -4"),
        ([[], [3, size]], f"takes ids from 0 to {size - 1:,}, and row 1 has {size}"),
        ([[1 << 40]], "takes ids from 0 to"),
        (Ragged.of([[3], [-4]]), "and row 1 has -4"),
        (Ragged.of([[3.5]], np.float32), "takes ids, whole numbers"),
        ([[3], [1.7]], "takes texts or lists of ids, and row 1 is neither"),
        ([5], "row 0 is neither"),
        ([[True]], "row 0 is neither"),
        ([[3], None], "row 1 is neither"),
        ([[3, [4]]], "row 0 is neither"),
        (["red", [3]], "has texts, and row 1 is not one"),
        (["red", None], "has texts, and row 1 is not one"),
    ):
        with pytest.raises(InputError, match=message):
            model.embed({"query": rows}, "embed_query")


def test_a_folder_without_its_tokenizer_or_with_texts_of_no_program_is_refused(served, tmp_path):
    shutil.copytree(served, tmp_path / "served")
    file, about = tmp_path / "served" / "config.json", json.loads((tmp_path / "served" / "config.json").read_text())
    model = exported.load(tmp_path / "served")
    ids, wanted = model.tokenizer.encode(["red"], 16), model.embed(["red"], "embed_query")

    def change(**changed):
        file.write_text(json.dumps({key: value for key, value in {**about, **changed}.items() if value is not None}))
        return exported.load(tmp_path / "served")

    without = {name: digest for name, digest in about["sha256"].items() if name != "tokenizer.json"}
    with pytest.raises(InputError, match="tokenizer.json is missing, and programs read text"):
        change(sha256=without)
    with pytest.raises(InputError, match="no program takes ids of the text 'price'"):
        change(texts={"price": about["texts"]["query"]})
    with pytest.raises(InputError, match="unexpected content"):
        change(texts={"query": {**about["texts"]["query"], "length": 1}})
    older = change(texts=None)
    assert np.array_equal(older.embed({"query": [ids[0]]}, "embed_query"), wanted)
    with pytest.raises(InputError, match="takes ids: the folder has no tokenizer"):
        older.embed({"query": ["red"]}, "embed_query")
    with pytest.raises(InputError, match="takes texts or lists of ids, and row 0 is neither"):
        model.embed(PICTURES, "embed_query")
    tokens = tmp_path / "served" / "tokenizer.json"
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    slow = {**json.loads(tokens.read_text()), "normalizer": {"type": "Sequence", "normalizers": [double] * 35}}
    for content, message in (
        ({}, "cannot be read as a tokenizer"),
        (slow, "normalizer has the type 'Replace', and exported models have only"),
    ):
        tokens.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            change(sha256={**about["sha256"], "tokenizer.json": file_sha256(tokens)})
