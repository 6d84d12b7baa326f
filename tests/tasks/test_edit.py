"""A query of a picture and words: what is right is never a negative, and a model serves a picture, words, and both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import embed, export, exported, inference, mine, tasks, train
from retrieval_jax.data import loading
from retrieval_jax.data.catalog import Table
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.data.pictures.sources import FileImages
from retrieval_jax.embeddings import read_info
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from retrieval_jax.settings import tasks as options
from retrieval_jax.tasks import edit
from retrieval_jax.tasks.parts import edits, vectors
from tiny import TINY, logged, tiny_config

WORDS = {"depth": 1, "width": 16, "heads": 2, "dropout": 0.0}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The network of `tiny_config` exists."""
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", TINY)


def settings(**task_kwargs):
    """Returns the config of a tiny training of edits."""
    config = tiny_config()
    config.data.kwargs.update(
        {"queries": "edits", "num_edits": 20, "num_train": 240, "num_gallery": 240, "num_query": 12}
    )
    config.train.task = "edit"
    config.train.task_kwargs = options.edit()
    config.train.task_kwargs.update({"vocabulary": 400, "words_kwargs": WORDS, "words_dim": 16, "targets": 2})
    config.train.task_kwargs.update({"joint_kwargs": {"hidden": 16}, **task_kwargs})
    config.train.epochs, config.train.warmup_epochs, config.train.batch_size = 1.0, 0.0, 16
    config.search.query_from.predict_fn = "embed_edit"
    config.embed.models = ("trained",)
    config.search.steps = ()
    return config


def test_queries_are_learned_into_the_space_of_another_run_which_stays_as_it_is(tmp_path):
    pictures, folder = tmp_path / "pictures", tmp_path / "edits"
    other = tiny_config()
    other.train.task, other.train.task_kwargs = "category", options.category()
    other.train.epochs, other.train.warmup_epochs = 0.3, 0.0
    mine.run(other, pictures)
    train.run(other, pictures)
    (pictures / "config.json").write_text(other.to_json())
    config = settings(pictures=str(pictures), titles=1)
    config.search.gallery_from.run, config.embed.predict_fn = str(pictures), "embed_reference"
    train.run(config, folder)
    assert all(np.isfinite(line["loss"]) for line in logged(folder))
    (folder / "config.json").write_text(config.to_json())
    model, drawn = inference.load(folder), inference.load(pictures)
    embed.run(config, folder)
    found = {}
    for split in ("query", "gallery"):
        side = next((folder / "embeddings").glob(f"*/{split}/embeddings.json")).parent
        assert read_info(side)["meta"]["space"] == drawn.space
        found[split] = np.load(side / "00000.npy")
    query = loading.load(config.data).query
    images = [query.images[row] for row in range(3)]
    vectors = model.embed(images, words=query.columns["words"][:3])
    np.testing.assert_allclose(vectors, found["query"][:3], atol=1e-5)
    pictures_alone = drawn.embed(images)
    pictures_alone /= np.linalg.norm(pictures_alone, axis=1, keepdims=True)
    np.testing.assert_allclose(model.embed(images, words=[""] * 3, weight=0.0), pictures_alone, atol=1e-5)
    assert not np.allclose(vectors, model.embed(images, words=["without stripes", "", "x"]), atol=1e-4)
    assert model.embed_text(["red"]).shape == (1, vectors.shape[1])
    # What is served brings the other run's network of pictures along.
    export.run(folder, tmp_path / "served", platforms=("cpu",))
    tokens = model._tokens(query.columns["words"][:3], "query_length")
    served = exported.load(tmp_path / "served").run("embed_edit", {"image": images, "words": tokens})
    np.testing.assert_allclose(served["embedding"], vectors, atol=1e-4)


def test_the_picture_network_learns_along_after_it_has_stood_still(tmp_path):
    config = settings(still=2, siblings=0)
    config.train.epochs = 0.5
    train.run(config, tmp_path)
    (tmp_path / "config.json").write_text(config.to_json())
    model = inference.load(tmp_path)
    images = [np.full((16, 16, 3), shade, np.uint8) for shade in (0, 200)]
    both = model.embed(images, words=["in red", "in blue"])
    assert both.shape == model.embed(images, predict_fn="embed_image").shape
    assert both.shape == model.embed(images, predict_fn="embed_reference").shape


def batch_of(task_kwargs, rng, count=6, dim=8):
    """Returns a task that learns with given vectors, and a batch for it."""
    from retrieval_jax.data.info import DataInfo, Tokens

    config = settings(pictures="elsewhere", **task_kwargs).train
    info = DataInfo((), np.zeros(0, np.int64), 0, (), (), "")
    info.tokens, info.target_space = Tokens(20, pad=0, mask=1, start=2, end=3, unknown=4, hash=""), "space"
    tokens = rng.integers(5, 20, (count, 4)).astype(np.int32)
    tokens[:, 0], tokens[:, -1] = 2, 3
    batch = {
        "words": tokens,
        "words_mask": np.ones((count, 4), bool),
        "picture": rng.normal(size=(count, dim)).astype(np.float32),
        "picture_mask": np.ones((count, dim), bool),
        "target": rng.normal(size=(count, dim)).astype(np.float32),
        "negative": rng.normal(size=(count, 2, dim)).astype(np.float32),
        "negative_mask": np.ones((count, 2, dim), bool),
        "number": np.arange(count, dtype=np.int32),
        "forbidden": np.arange(count, dtype=np.int32)[:, None],
        "forbidden_mask": np.ones((count, 1), bool),
        "asked": np.arange(count, dtype=np.int32),
        "about": np.arange(count, dtype=np.int32),
        "weight": np.ones(count, np.float32),
        "_mask": np.ones(count, bool),
    }
    return edit.make(config, info), {name: jnp.asarray(value) for name, value in batch.items()}


@pytest.mark.parametrize("joint", ["residual", "concat", "film", "transformer"])
@pytest.mark.parametrize("loss", ["softmax", "siamese"])
def test_every_joint_network_learns_what_words_do_to_pictures(joint, loss):
    rng = np.random.default_rng(0)
    sizes = {"width": 16, "heads": 2, "depth": 1} if joint == "transformer" else {"hidden": 16}
    kwargs = {
        "joint": joint,
        "joint_kwargs": {**sizes, "dropout": 0.0},
        "loss": loss,
        "drop_picture": 0.0,
        "drop_words": 0.0,
    }
    task, batch = batch_of(kwargs, rng)
    params = task.init(jax.random.key(0), batch)

    def loss_of(params):
        return task.loss_fn(params, batch, rng=jax.random.key(1), step=0, ema=None, constants=None, train=True)[0]

    step = jax.jit(jax.value_and_grad(loss_of))
    first, _ = step(params)
    for _ in range(30):
        _, gradient = step(params)
        params = jax.tree.map(lambda p, g: p - 0.02 * g / (1e-6 + jnp.sqrt((g**2).mean())), params, gradient)
    assert step(params)[0] < 0.5 * first


def test_what_is_right_is_not_a_negative_whatever_its_vector():
    rng = np.random.default_rng(1)
    task, batch = batch_of({"drop_picture": 0.0, "drop_words": 0.0}, rng)
    batch |= {"forbidden": jnp.tile(jnp.arange(6), (6, 1)), "forbidden_mask": jnp.ones((6, 6), bool)}
    batch["negative_mask"] = jnp.zeros_like(batch["negative_mask"])
    params = task.init(jax.random.key(0), batch)
    loss, _ = task.loss_fn(params, batch, rng=jax.random.key(1), step=0, ema=None, constants=None, train=False)
    assert abs(float(loss)) < 1e-5  # nothing is left to be told from


def test_what_may_be_meant_without_the_picture_or_the_words_is_not_a_negative():
    facts = {name: jnp.arange(3) for name in ("number", "asked", "about")}
    facts["asked"] = jnp.array([7, 7, 8])
    facts["about"] = jnp.array([4, 5, 4])
    queries = {**facts, "forbidden": jnp.arange(3)[:, None], "mask": jnp.ones((3, 1), bool)}
    never = jnp.zeros(3, bool)

    def found(**lost):
        return np.asarray(edit.right({**queries, "no_picture": never, "no_words": never, **lost}, facts)).astype(int)

    np.testing.assert_array_equal(found(), np.eye(3))
    np.testing.assert_array_equal(found(no_picture=~never), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(found(no_words=~never), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])


def test_fillers_never_push_words_out(tmp_path):
    def fits(texts):
        return [len(text) <= 14 for text in texts]

    words = ["in red", "the same in blue"]
    texts = edits.varied(words, np.tile([0, 1], 50), 0.0, 1.0, 0.0, 0, fits)
    assert all("red" in text for text in texts[::2]) and all("blue" in text for text in texts[1::2])
    assert len(set(texts[::2])) > 10 and max(map(len, texts[::2])) <= 14 and set(texts[1::2]) == {"the same in blue"}


def test_words_are_turned_at_any_place_and_none_is_lost():
    texts = edits.varied(
        ["red and not blue", ""], np.tile([0, 1], 60), 0.0, 0.0, 0.5, 0, lambda texts: [True] * len(texts)
    )
    assert set(texts[1::2]) == {""}
    assert set(texts[::2]) == {"red and not blue", "and not blue red", "not blue red and", "blue red and not"}
    assert texts[::2].count("red and not blue") > 20


def test_pictures_of_queries_about_one_listing_are_embedded_once(tmp_path):
    columns = {"image": Pictures(FileImages(tmp_path, ["b.jpg", "a.jpg", "b.jpg"]))}
    found, at = vectors.once(columns)
    assert [found["image"].source.relative_paths[row] for row in found["image"].rows[at]] == ["b.jpg", "a.jpg", "b.jpg"]
    assert len(found["image"]) == 2
    for same in ({"image": Pictures(np.zeros((3, 4, 4, 3), np.uint8))}, {"words": Ragged.of([[1], [2], [1]], "int32")}):
        found, at = vectors.once(same)
        assert found is same and at.tolist() == [0, 1, 2]


def test_a_query_without_words_or_without_a_picture_does_not_depend_on_what_is_missing():
    rng = np.random.default_rng(2)
    task, batch = batch_of({}, rng)
    params = task.init(jax.random.key(0), batch)
    both = task.predict_fns["embed_edit"](params, batch)["embedding"]
    without = {
        **batch,
        "words": batch["words"].at[:, 1:3].set(3),
        "words_mask": batch["words_mask"].at[:, 1:].set(False),
    }
    alone = task.predict_fns["embed_reference"](params, batch)["embedding"]
    found = task.predict_fns["embed_edit"](params, without)["embedding"]
    np.testing.assert_allclose(found, alone / jnp.linalg.norm(alone, axis=1, keepdims=True), atol=1e-5)
    assert not np.allclose(both, found, atol=1e-3)
    assert np.ptp(np.asarray(task.predict_fns["embed_text"](params, batch)["embedding"]), axis=0).max() > 0


def test_the_weight_of_the_words_goes_from_the_picture_to_what_was_learned():
    rng = np.random.default_rng(3)
    task, batch = batch_of({}, rng)
    params = task.init(jax.random.key(0), batch)
    whole = task.predict_fns["embed_edit"](params, batch)
    for weight in (0.0, 0.5):
        mixed, _ = batch_of({"weight": weight}, np.random.default_rng(3))
        found = mixed.predict_fns["embed_edit"](params, batch)["embedding"]
        wanted = whole["reference"] + weight * (whole["embedding"] - whole["reference"])
        np.testing.assert_allclose(found, wanted / jnp.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)


def table(references, words, targets):
    indptr = np.concatenate([[0], np.cumsum([len(one) for one in targets])])
    values = np.concatenate([np.array(one, np.int64) for one in targets])
    columns = {"reference": np.array(references), "words": words, "targets": Ragged(indptr, values)}
    return Table(columns, {"reference": "train", "targets": "train"})


def test_negatives_are_the_reference_and_what_other_words_ask_for():
    given = table([0, 0, 5, 7, 8], ["red", "blue", "green", "nothing", "itself"], [[1, 2], [2, 3, 4], [6, 5], [], [8]])
    found = edits.pairs(given, 50, 2, 2, 0)
    assert found.words == ["red", "blue", "green"] and set(found.edit.tolist()) == {0, 1, 2}
    for number, (reference, target, negative) in enumerate(
        zip(found.reference, found.target, found.negative, strict=True)
    ):
        right = found.right.values[found.right.indptr[found.edit[number]] : found.right.indptr[found.edit[number] + 1]]
        assert target in right and not np.isin(negative, right).any()
        assert negative[0] == reference and reference not in right
    red = found.negative[found.edit == 0][:, 1:]
    assert set(red[red >= 0].tolist()) >= {3, 4}
    np.testing.assert_allclose(np.bincount(found.edit, found.weight), 1)
    with_titles = edits.with_titles(found, ["A shoe", "a  shoe", "", "hat"], 2)
    rows = with_titles.reference < 0
    assert rows.sum() == 6 and (with_titles.negative[rows] == -1).all()
    shoe = with_titles.edit[rows & (with_titles.target == 0)][0]
    indptr = with_titles.right.indptr
    assert with_titles.right.values[indptr[shoe] : indptr[shoe + 1]].tolist() == [0, 1]


def test_bad_input_is_named(tmp_path):
    with pytest.raises(InputError, match="no edit with a reference and a target"):
        edits.pairs(table([0], ["red"], [[]]), 3, 1, 1, 0)
    of_queries = table([0], ["red"], [[1]])
    with pytest.raises(InputError, match="refers to listings of query"):
        edits.pairs(Table(of_queries.columns, {"reference": "query", "targets": "train"}), 3, 1, 1, 0)
    with pytest.raises(InputError, match="sum to at most 1"):
        batch_of({"drop_picture": 0.7, "drop_words": 0.7}, np.random.default_rng(0))
    config = settings(joint="residul")
    catalog = loading.load(config.data)
    examples, info = edit.examples(config, catalog, tmp_path)
    assert set(examples.columns) >= {"image", "target_image", "words"}
    with pytest.raises(InputError, match="did you mean residual"):
        tasks.get("edit").make(config.train, info)
    config.train.task_kwargs.joint, config.train.task_kwargs.joint_kwargs.heads = "residual", 2
    with pytest.raises(InputError, match="has no argument 'heads'"):
        tasks.get("edit").make(config.train, info)
    del config.train.task_kwargs.joint_kwargs.heads
    task = tasks.get("edit").make(config.train, info)
    model = inference.Model(config, task, {}, info, 0, None, folder=str(tmp_path))
    with pytest.raises(InputError, match="1 pictures and 2 texts"):
        model.embed([np.zeros((16, 16, 3), np.uint8)], words=["red", "blue"])
    other = inference.Model(tiny_config(), tasks.Task(None, None, {}, ""), {}, info, 0, None)
    with pytest.raises(InputError, match="need a run of the task 'edit'"):
        other.embed([np.zeros((16, 16, 3), np.uint8)], words=["red"])


def test_neighbours_look_like_what_is_right_and_are_not(monkeypatch):
    monkeypatch.setattr(edits, "NEAREST", 5)
    vectors = np.eye(2, dtype=np.float32)[[0] * 6 + [1] * 30] + np.arange(72).reshape(36, 2).astype(np.float32) / 1000
    given = table([7, 8], ["red", "blue"], [[0, 1, 2], [9]])
    found = edits.pairs(given, 36, 3, 1, 0)
    more = edits.with_neighbours(found, vectors, 2, 0)
    assert more.negative.shape == (4, 4) and (more.negative[:, :2] == found.negative).all()
    for number, negative in zip(more.edit, more.negative[:, 2:], strict=True):
        right = more.right.values[more.right.indptr[number] : more.right.indptr[number + 1]]
        assert (negative >= 0).all() and not np.isin(negative, right).any() and len(set(negative.tolist())) == 2
        assert set(negative.tolist()) <= ({3, 4, 5} if number == 0 else set(range(6, 36)))
    few = edits.with_neighbours(edits.pairs(table([4], ["red"], [[0, 1, 2]]), 5, 3, 1, 0), vectors[:5], 4, 0)
    assert {tuple(sorted(row)) for row in few.negative[:, 2:].tolist()} == {(-1, -1, 3, 4)}
