"""Two sides of a search: texts against pictures, other checkpoints and other runs, embedded and searched."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

import tiny
from retrieval_jax import embed, index, inference, search, tasks
from retrieval_jax.attributes.vocabulary import Vocabulary
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.catalog import Lazy, Split
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.tasks import parts
from retrieval_jax.training import checkpoints
from retrieval_jax.workdir import sides
from tiny_linear import INFO, make_catalog, make_task, pictures

WORDS = 9


def make(config=None, info=INFO):
    """The tiny linear task with a sum of word vectors in the same space, and a mixture of both."""
    task = make_task(config, info)

    def text(params, batch):
        vectors = params["words"][batch["words"]]
        return {"embedding": (vectors * batch["words_mask"][..., None]).sum(1)}

    def both(params, batch):
        return {
            "embedding": text(params, batch)["embedding"] + task.predict_fns["embed_image"](params, batch)["embedding"]
        }

    def elsewhere(params, batch):
        return {**text(params, batch), "space": "another"}

    further = {
        "embed_text": tasks.Predict(text, ("words",)),
        "embed_both": tasks.Predict(both, ("image", "words")),
        "elsewhere": tasks.Predict(elsewhere, ("words",)),
        "no_vectors": tasks.Predict(lambda params, batch: {"sizes": batch["words"].sum(1)}, ("words",)),
    }
    return dataclasses.replace(task, predict_fns={**task.predict_fns, **further})


def columns(config, split, workdir):
    texts = split.columns["text"]
    return {
        "image": lambda: Pictures(split.images),
        "words": lambda: Ragged.of([[len(word) % WORDS for word in text.split()] for text in texts]),
    }


def catalog():
    found = make_catalog(num_query=6, num_gallery=20)
    found.query.columns = {"text": [f"{'a' * row} bb {'c' * (3 * row + 1)}" for row in range(6)]}
    found.gallery.columns = found.val.columns = {"text": ["long words here"] * 20}
    return found


def weights(seed):
    keys = jax.random.split(jax.random.key(seed))
    return {"w": jax.random.normal(keys[0], (48, 6)), "words": jax.random.normal(keys[1], (WORDS, 6))}


def make_config(**search_settings):
    return tiny.embedding_config(search=search_settings)


def trained(folder, run, seeds=((3, 3), (5, 5))):
    """Makes a work directory as train leaves it, with a checkpoint per (step, seed)."""
    folder.mkdir()
    (folder / "config.json").write_text(make_config().to_json())
    info_lib.save(folder / "checkpoints" / "data_info.json", INFO)
    store = checkpoints.Checkpoints(folder / "checkpoints", keep=9)
    for step, seed in seeds:
        params = weights(seed)
        state = {"params": params, "ema": jax.tree.map(lambda leaf: 2 * leaf, params)}
        store.save(step, state, {"vocabulary_hash": "abc", "run": run})
    store.close()
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    module = types.SimpleNamespace(make=make, columns=columns)
    monkeypatch.setattr(tasks, "get", lambda name: module)
    monkeypatch.setattr("retrieval_jax.data.loading.load", lambda block: catalog())
    return trained(tmp_path / "run", "one")


def load(folder, name, split):
    return Embeddings.load(folder / "embeddings" / name / split)


def text_vectors(params, scale=2):
    words = columns(None, catalog().query, None)["words"]()
    return scale * np.stack([np.asarray(params["words"])[words[row]].sum(0) for row in range(6)])


def image_vectors(params, scale=2):
    images = np.stack(list(catalog().gallery.images)).reshape(20, -1) / 255.0
    return scale * images @ np.asarray(params["w"])


def test_texts_against_pictures(run, capsys):
    config = make_config(query_from={"predict_fn": "embed_text"})
    summary = embed.run(config, run)["embeddings"]["trained"]
    assert summary["query"]["new"] == 6 and summary["gallery"]["new"] == 20
    queries, gallery = load(run, "trained-predict_fn=embed_text", "query"), load(run, "trained", "gallery")
    np.testing.assert_allclose(queries.block(0, 6), text_vectors(weights(5)), rtol=1e-5)
    np.testing.assert_allclose(gallery.block(0, 20), image_vectors(weights(5)), rtol=1e-4, atol=1e-4)
    assert queries.meta["space"] == gallery.meta["space"] == "tiny:one/5/ema"
    assert queries.meta["predict_fn"] == "embed_text" and queries.meta["recipe"] != gallery.meta["recipe"]
    search.run(config, run)
    found = Ranking.load(run / "rankings" / "trained" / "cosine")
    assert np.array_equal(found.item_rows, index.get("exact").Index(gallery).search(queries, 5).item_rows)
    embed.run(config, run)
    assert "6 listings = 6 kept" in capsys.readouterr().out
    # what is set on one side overwrites nothing of what was there
    embed.run(make_config(), run)
    assert load(run, "trained", "query").meta["predict_fn"] == "embed_image"
    assert load(run, "trained-predict_fn=embed_text", "query").meta["predict_fn"] == "embed_text"


def test_only_changed_texts_are_embedded_again(run, monkeypatch, capsys):
    config = make_config(query_from={"predict_fn": "embed_text"})
    embed.run(config, run)
    capsys.readouterr()
    changed = catalog()
    changed.query.columns["text"][4] = "quite another text"
    monkeypatch.setattr("retrieval_jax.data.loading.load", lambda block: changed)
    seen, real = [], inference.predict

    def predict(predict_fn, params, columns, *, rows, **kwargs):
        seen.append((predict_fn.reads, list(rows)))
        return real(predict_fn, params, columns, rows=rows, **kwargs)

    monkeypatch.setattr(inference, "predict", predict)
    embed.run(config, run)
    assert seen[0] == (("words",), [4]) and all(reads == ("image",) for reads, _ in seen[1:])
    assert "query: 6 listings = 5 kept + 0 new + 1 changed" in capsys.readouterr().out


def test_a_picture_and_a_text_together(run):
    config = make_config(query_from={"predict_fn": "embed_both"})
    config.embed.views = (("flip", {}),)
    embed.run(config, run)
    queries = load(run, "trained-predict_fn=embed_both", "query")
    images = np.stack(list(catalog().query.images))
    params, looks = weights(5), []
    for look in (images, images[:, :, ::-1]):
        vectors = 2 * (look.reshape(6, -1) / 255.0 @ np.asarray(params["w"])) + text_vectors(params)
        looks.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    np.testing.assert_allclose(queries.block(0, 6), np.mean(looks, 0), rtol=1e-4, atol=1e-5)
    fingerprints = np.load(run / "embeddings" / "trained-predict_fn=embed_both" / "query" / "00000.fingerprints.npy")
    assert fingerprints.shape == (6, 5)


def test_another_checkpoint_of_this_run_is_another_space(run):
    config = make_config(query_from={"step": 3, "which": "params"})
    embed.run(config, run)
    name = sides.of(config)["query"].folder
    queries = load(run, name, "query")
    assert name == "trained-step=3-which=params" and queries.meta["space"] == "tiny:one/3/params"
    images = np.stack(list(catalog().query.images)).reshape(6, -1) / 255.0
    np.testing.assert_allclose(queries.block(0, 6), images @ np.asarray(weights(3)["w"]), rtol=1e-4, atol=1e-4)
    words = (
        r"queries \(this run at step 3 \(params\)\) in the space 'tiny:one/3/params'.*gallery \(this run at the latest"
    )
    with pytest.raises(InputError, match=words):
        search.run(config, run)
    embed.run(make_config(query_from={"step": 3}, gallery_from={"step": 3}), run)
    assert search.run(make_config(query_from={"step": 3}, gallery_from={"step": 3}), run)["queries"] == 6


def test_the_gallery_of_another_run(run, tmp_path):
    config = make_config(
        query_from={"predict_fn": "elsewhere"}, gallery_from={"run": "large:seed=2", "predict_fn": "elsewhere"}
    )
    words = (
        r"gallery_from: nothing is trained in .*large-seed=2: run `retrieval-jax run --config=large:seed=2 --workdir="
    )
    with pytest.raises(InputError, match=words):
        embed.run(config, run)
    other = trained(tmp_path / "large-seed=2", "two", seeds=((8, 8),))
    embed.run(config, run)
    gallery = load(run, sides.of(config)["gallery"].folder, "gallery")
    assert gallery.meta["space"] == "another" and gallery.meta["checkpoint"].endswith("/8")
    np.testing.assert_allclose(gallery.block(0, 1)[0], 2 * np.asarray(weights(8)["words"])[[4, 5, 4]].sum(0), rtol=1e-5)
    assert search.run(config, run)["gallery"] == 20  # the predict functions name a space of their own
    # by its folder it is the same, and a space of its own is refused
    by_folder = make_config(gallery_from={"run": str(other)})
    embed.run(by_folder, run)
    with pytest.raises(InputError, match="tiny:one/5/ema.*tiny:two/8/ema"):
        search.run(by_folder, run)
    assert not (other / "embeddings").exists()


def test_functions_and_columns_that_are_not_there(run):
    for given, words in (
        ("embed_txt", "no predict function 'embed_txt'; did you mean embed_text"),
        ("no_vectors", "the predict function returns sizes, not an embedding"),
    ):
        with pytest.raises(InputError, match=words):
            embed.run(make_config(query_from={"predict_fn": given}), run)
    tasks.get("tiny").columns = parts.columns
    with pytest.raises(InputError, match="'embed_text' reads the column 'words', which the query split does not have"):
        embed.run(make_config(query_from={"predict_fn": "embed_text"}), run)


def test_the_untrained_network_takes_the_predict_functions_of_the_sides(run):
    config = make_config(query_from={"predict_fn": "embed_text"})
    config.embed.models = ("untrained",)
    module = tasks.get("tiny")
    task = dataclasses.replace(make(), init=lambda rng, batch: {**weights(1), "seen": batch["words_mask"].sum()})
    module.make = lambda config, info: task
    with pytest.raises(InputError, match=r"batch\.json not found: train first"):
        embed.run(config, run)
    batch = {"image": np.zeros((1, 4, 4, 3), np.uint8), "words_mask": np.zeros((1, 3), bool)}
    info_lib.save_batch(run / "checkpoints" / "batch.json", batch)
    embed.run(config, run)
    np.testing.assert_allclose(load(run, "untrained", "query").block(0, 6), text_vectors(weights(1), 1), rtol=1e-5)
    assert load(run, "untrained", "query").meta["space"] == load(run, "untrained", "gallery").meta["space"]


def test_a_loaded_model_embeds_texts_too(run):
    model = inference.load(run)
    words = columns(None, catalog().query, None)["words"]()
    np.testing.assert_allclose(model.embed({"words": words}, "embed_text"), text_vectors(weights(5)), rtol=1e-5)
    both = model.embed({"words": words, "image": list(pictures(6))}, "embed_both")
    np.testing.assert_allclose(both, text_vectors(weights(5)) + model.embed(list(pictures(6))), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="reads the column 'words'"):
        model.embed(list(pictures(6)), "embed_text")


def test_titles_are_read_with_the_vocabulary_of_the_run(tmp_path):
    titles = ["Red dress", "black RED shoe", "nothing"]
    split = Split("query", ["a", "b", "c"], titles, np.array([[0, 1], [0, -1], [0, 0]], np.int32), pictures(3))
    split.columns = {"brand": np.array([3, 4, -1]), "words": Ragged.of([[1], [], [2, 2]]), "text": titles}
    assert sorted(parts.columns(None, split)) == ["brand", "category", "image", "words"]
    split.columns = Lazy({"boxes": pytest.fail, "brand": lambda: np.array([3, 4, -1])}, "a seed")
    assert parts.columns(None, split)["brand"]().tolist() == [3, 4, -1]  # and no other is computed
    split.columns = {"brand": np.array([3, 4, -1])}
    vocabulary = Vocabulary(["black", "dress", "red"], np.array([1, 1, 2]), 3, 0)
    vocabulary.save(tmp_path / "attributes" / "vocabulary.json")
    there = parts.columns(None, split, tmp_path)
    info_lib.save(
        tmp_path / "checkpoints" / "data_info.json", dataclasses.replace(INFO, vocabulary_hash=vocabulary.hash)
    )
    found = there["label_ids"]()
    assert [found[row].tolist() for row in range(3)] == [[1, 2], [0, 2], []]
    assert there["category"]().tolist() == [1, -1, 0] and there["brand"]() is split.columns["brand"]
    info_lib.save(tmp_path / "checkpoints" / "data_info.json", INFO)
    with pytest.raises(InputError, match="not the vocabulary that the network was trained with"):
        there["label_ids"]()
    assert json.loads((tmp_path / "attributes" / "vocabulary.json").read_text())["tokens"] == vocabulary.tokens
