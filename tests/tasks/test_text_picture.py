"""Words beside pictures: a tower learned into the space of another run, or with a picture network of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import embed, inference, mine, plans, tasks, train
from retrieval_jax.data import loading
from retrieval_jax.embeddings import read_info
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from retrieval_jax.settings import tasks as options
from retrieval_jax.tasks import text_picture
from retrieval_jax.tasks.parts.vectors import load as load_vectors
from tiny import INFO, TINY, logged, tiny_config

WORDS = {"depth": 1, "width": 16, "heads": 2, "dropout": 0.0}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The network of `tiny_config` exists."""
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", TINY)


def words(**task_kwargs):
    """Returns the config of a tiny training of words beside pictures."""
    config = tiny_config()
    config.data.kwargs.update(
        {"queries": "typed", "num_typed": 20, "num_train": 60, "num_gallery": 60, "num_query": 12}
    )
    config.train.task = "text_picture"
    config.train.task_kwargs = options.text_picture()
    config.train.task_kwargs.update({"vocabulary": 400, "words": ("transformer", "mini"), "words_kwargs": WORDS})
    config.train.task_kwargs.update({"attributes": ("leaf", "colour"), "attribute_texts": 1, **task_kwargs})
    config.train.epochs, config.train.warmup_epochs, config.train.batch_size = 0.5, 0.0, 16
    config.search.query_from.predict_fn = "embed_text"
    config.embed.models = ("trained",)
    config.search.steps = ()
    return config


def test_words_are_learned_into_the_space_of_another_run_which_stays_as_it_is(tmp_path):
    pictures, folder = tmp_path / "pictures", tmp_path / "words"
    other = tiny_config()
    other.train.task, other.train.task_kwargs = "category", options.category()
    other.train.epochs, other.train.warmup_epochs = 0.3, 0.0
    mine.run(other, pictures)
    train.run(other, pictures)
    (pictures / "config.json").write_text(other.to_json())
    config = words(pictures=str(pictures))
    config.search.gallery_from.run = str(pictures)
    assert plans.vectors_unknown(config, folder)
    plans.check_training(config, folder)  # nothing is known yet
    train.run(config, folder)
    (folder / "text" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    plans._last.key = ()
    plans.check_training(config, folder)  # as after a kill between the vectors and the tokenizer
    plans.check_embedding(config, folder, {"query": "embed_text"})
    (tmp_path / "tokenizer.json").rename(folder / "text" / "tokenizer.json")
    assert not plans.vectors_unknown(config, folder) and all(np.isfinite(line["loss"]) for line in logged(folder))
    (folder / "config.json").write_text(config.to_json())
    model, drawn = inference.load(folder), inference.load(pictures)
    catalog = loading.load(config.data)
    vectors = load_vectors(folder, 60)[0].values.reshape(60, -1)
    np.testing.assert_allclose(vectors[:3], drawn.embed([catalog.train.images[row] for row in range(3)]), atol=1e-4)
    assert model.embed_text(["red tee"]).shape == (1, vectors.shape[1])
    embed.run(config, folder)
    sides = [next((folder / "embeddings").glob(f"*/{split}/embeddings.json")).parent for split in ("query", "gallery")]
    spaces = {read_info(side)["meta"]["space"] for side in sides}
    assert spaces == {drawn.space}


def test_a_run_that_is_not_there_is_named(tmp_path):
    config = words(pictures=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="nothing is trained in .*nothing.*gallery_from.run"):
        inference.examples(config, loading.load(config.data), tmp_path / "words")


def test_without_another_run_the_picture_network_learns_along(tmp_path):
    config = words(clicks=False, typos=0.0)
    config.search.gallery_from.predict_fn = "embed_image"
    train.run(config, tmp_path)
    (tmp_path / "config.json").write_text(config.to_json())
    model = inference.load(tmp_path)
    assert {"backbone", "words", "head_contrast"} <= set(model.params)
    images = loading.load(config.data).gallery.images
    assert model.embed([images[0]]).shape == model.embed_text(["red tee"]).shape
    pictures_only = inference.Model(
        tiny_config(), tasks.get("multilabel").make(tiny_config().train, INFO), {}, INFO, 0, None
    )
    with pytest.raises(InputError, match="the task 'multilabel' embeds no words"):
        pictures_only.embed_text(["red tee"])


def test_pictures_that_a_text_may_mean_are_not_negatives():
    texts = {
        "asked": jnp.array([[3, -1], [-1, -1]]),
        "number": jnp.array([0, 1]),
        "forbidden": jnp.array([[5], [2]]),
        "mask": jnp.array([[True], [False]]),
    }
    pictures = {"known": jnp.array([[9, 9], [3, 1], [4, 1], [9, 9]]), "number": jnp.array([0, 1, 2, 5])}
    expected = [[True, True, False, True], [False, True, False, False]]
    np.testing.assert_array_equal(jax.jit(text_picture.fits)(texts, pictures), expected)


def test_texts_of_attributes_name_what_the_listing_has(tmp_path):
    config = words(typos=0.0, clicks=False, attribute_texts=2)
    catalog = loading.load(config.data)
    examples, info = text_picture.examples(config, catalog, tmp_path)
    assert len(examples) == 60 * 3 and info.tokens is not None
    asked, known = examples.columns["asked"], examples.columns["known"]
    named = asked >= 0
    assert not named[:60].any() and named[60:].any(axis=1).all()
    assert (asked[named] == known[named]).all()
    with pytest.raises(InputError, match="no column 'colours'; did you mean colour"):
        text_picture.examples(words(attributes=("colours",)), catalog, tmp_path)
    none = words(clicks=False, attribute_texts=0)
    catalog.train.titles = None
    with pytest.raises(InputError, match="no texts to learn from|no column 'title'"):
        text_picture.examples(none, catalog, tmp_path)
