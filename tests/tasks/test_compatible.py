"""Networks that search the gallery of another: what is learned, in which space, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import embed, export, exported, inference, mine, propose_index, search, train, workdir
from retrieval_jax.data import loading
from retrieval_jax.embeddings import read_info
from retrieval_jax.errors import InputError
from retrieval_jax.losses import compatible as losses
from retrieval_jax.losses import multilabel
from retrieval_jax.models.backbones import convnext
from retrieval_jax.postprocess import new_queries
from retrieval_jax.server import networks
from retrieval_jax.settings import tasks as options
from retrieval_jax.sharing import exportable
from retrieval_jax.tasks import compatible
from retrieval_jax.tasks.parts import classifiers
from tiny import INFO, TINY, logged, tiny_batch, tiny_config

DIM = 6
GALLERY = np.random.default_rng(1).normal(size=(8, DIM)).astype(np.float32)
CLASSIFIERS = {
    "titles": {
        "kernel": np.random.default_rng(2).normal(size=(DIM, 5)).astype(np.float32),
        "bias": np.arange(5, dtype=np.float32),
    },
    "category": {
        "kernel": np.random.default_rng(3).normal(size=(DIM, 3)).astype(np.float32),
        "log_scale": np.float32(1.5),
    },
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The network of `tiny_config` exists."""
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", TINY)


def made(frozen=(CLASSIFIERS, "softmax"), **task_kwargs):
    """Returns a task with these options and nothing else that is learned."""
    config = tiny_config().train
    config.task, config.task_kwargs = "compatible", options.compatible()
    config.task_kwargs.update({"pictures": "gallery", "regression_weight": 0.0, **task_kwargs})
    return compatible.make(config, dataclasses.replace(INFO, target_space="gallery space", frozen=frozen))


def lost(**task_kwargs):
    """Returns (loss, values, query vectors) of a first batch."""
    task, batch = made(**task_kwargs), {**tiny_batch(), "picture": GALLERY}
    params = task.init(jax.random.key(0), batch)
    loss, values = task.loss_fn(
        params, batch, rng=jax.random.key(1), step=0, ema=params, constants=task.constants, train=False
    )
    return float(loss), values, task.predict_fns["embed_image"](params, batch)


def test_each_loss_is_off_by_0_and_adds_up_by_its_weight():
    batch, where = tiny_batch(), tiny_batch()["_mask"]
    loss, values, found = lost(regression_weight=2.0, rank_weight=0.5, relation_weight=1.0, logits_weight=0.0)
    assert found["space"] == "gallery space" and found["embedding"].shape == (8, DIM)
    query = found["embedding"]
    wanted = {
        "regression_loss": losses.cosine(query, GALLERY, where=where).sum() / 7,
        "rank_loss": losses.rank_preserving(query, GALLERY, where=where).sum() / 7,
        "relation_loss": losses.relational(query, GALLERY, where=where).sum() / 7,
    }
    assert set(values) == {*wanted, "cosine"}
    for name, value in wanted.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-4)
    total = 2.0 * wanted["regression_loss"] + 0.5 * wanted["rank_loss"] + wanted["relation_loss"]
    np.testing.assert_allclose(loss, total, rtol=1e-4)
    _, values, _ = lost(classifier_weight=1.0, logits_weight=1.0, contrast_weight=1.0, own_length=True)
    unit_kernel = CLASSIFIERS["category"]["kernel"] / np.linalg.norm(CLASSIFIERS["category"]["kernel"], axis=0)
    unit_query = query / np.linalg.norm(query, axis=1, keepdims=True)
    titles = multilabel.softmax_poly1(
        query @ CLASSIFIERS["titles"]["kernel"] + CLASSIFIERS["titles"]["bias"],
        batch["label_ids"],
        batch["label_ids_mask"],
        where=where,
    )
    category = multilabel.softmax_cross_entropy(
        np.exp(1.5) * unit_query @ unit_kernel, jnp.asarray(batch["category"]), where=where
    )
    np.testing.assert_allclose(values["classifier_loss"], (titles + category).sum() / 7, rtol=1e-4)
    assert {"logits_loss", "contrast_loss"} < set(values)
    unit = GALLERY / np.linalg.norm(GALLERY, axis=1, keepdims=True)
    sharp = np.asarray(unit_query @ unit.T, np.float64)[where][:, where] / 0.07
    alone = np.log(np.exp(sharp).sum(1)) - np.diag(sharp)
    _, values, _ = lost(contrast_weight=1.0, contrast_temperature=0.07)
    np.testing.assert_allclose(values["contrast_loss"], alone.mean(), rtol=1e-3)
    loss, values, found = lost(regression_weight=3.0, regression="squared")
    squared = losses.squared(found["embedding"], GALLERY, where=where).sum() / 7
    np.testing.assert_allclose([values["regression_loss"], loss], [squared, 3 * squared], rtol=1e-4)
    # Without a length of its own, a vector is read as long as the gallery network's.
    _, values, _ = lost(classifier_weight=1.0)
    scaled = unit_query * np.linalg.norm(GALLERY, axis=1, keepdims=True)
    titles = multilabel.softmax_poly1(
        scaled @ CLASSIFIERS["titles"]["kernel"] + CLASSIFIERS["titles"]["bias"],
        batch["label_ids"],
        batch["label_ids_mask"],
        where=where,
    )
    np.testing.assert_allclose(values["classifier_loss"], (titles + category).sum() / 7, rtol=1e-4)


def test_a_bank_has_other_pictures_vectors_and_never_ones_own():
    task, plain = made(contrast_weight=1.0, contrast_temperature=1.0, bank=3), {**tiny_batch(), "picture": GALLERY}
    plain["row"] = np.arange(8, dtype=np.int32)
    bank = {"bank_picture": GALLERY[:3], "bank_row": np.array([20, 21, 22], np.int32), "bank_mask": np.ones(3, bool)}
    params = task.init(jax.random.key(0), plain)

    def loss(batch):
        arguments = {"rng": jax.random.key(1), "step": 0, "ema": params, "constants": task.constants, "train": False}
        return float(task.loss_fn(params, batch, **arguments)[1]["contrast_loss"])

    alone, among = loss(plain), loss({**plain, **bank})
    assert among > alone + 0.1  # three more that it could be taken for
    gone = {**bank, "bank_mask": np.zeros(3, bool)}
    np.testing.assert_allclose(loss({**plain, **gone}), alone, rtol=1e-5)
    own = {**bank, "bank_row": np.arange(3, dtype=np.int32)}  # of the batch's first three pictures
    assert alone < loss({**plain, **own}) < among


def test_a_perceptron_and_own_classifiers_stand_beside_it():
    loss, values, found = lost(map_hidden=4, regression_weight=1.0, title_weight=1.0, loss="softmax")
    assert found["embedding"].shape == (8, DIM) and np.isfinite(loss) and "title_loss" in values
    task = made(title_weight=1.0, contrast_weight=1.0)
    assert task.couples_rows == "contrast_weight" and set(task.predict_fns) == {"embed_image", "attributes"}
    assert made(frozen=None, regression_weight=1.0).constants is None and made(title_weight=1.0).couples_rows == ""


def test_a_map_between_equal_widths_starts_as_the_identity():
    def head(width, **task_kwargs):
        batch = {**tiny_batch(), "picture": np.zeros((8, width), np.float32)}
        return made(regression_weight=1.0, **task_kwargs).init(jax.random.key(0), batch)["head_compatible"]

    width = len(head(DIM)["kernel"])
    assert width != DIM and set(head(width, map_hidden=4)) == {"hidden", "norm", "out"}
    np.testing.assert_array_equal(head(width)["kernel"], np.eye(width))
    batch = {**tiny_batch(), "picture": np.zeros((8, width), np.float32)}
    found = []
    for hidden in (0, 4):  # a perceptron that is added starts by adding nothing
        task = made(regression_weight=1.0, map_hidden=hidden, map_residual=hidden > 0)
        params = task.init(jax.random.key(0), batch)
        assert hidden == 0 or not params["head_compatible"]["out"]["kernel"].any()
        found.append(task.predict_fns["embed_image"](params, batch)["embedding"])
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="are all 0: nothing to learn"):
        made()
    with pytest.raises(InputError, match="bank is 9, and only contrast_weight and rank_weight compare with it"):
        made(regression_weight=1.0, bank=9)
    with pytest.raises(InputError, match="set map_hidden as well"):
        made(regression_weight=1.0, map_residual=True)
    with pytest.raises(InputError, match=f"which has .* numbers, and the gallery's have {DIM}"):
        made(regression_weight=1.0, map_hidden=4, map_residual=True).init(
            jax.random.key(0), {**tiny_batch(), "picture": GALLERY}
        )
    with pytest.raises(InputError, match="regression: there is no 'l2'"):
        made(regression="l2", regression_weight=1.0)
    config = tiny_config().train
    config.task, config.task_kwargs = "compatible", options.compatible()
    with pytest.raises(InputError, match="not trained with the vectors of another"):
        compatible.make(config, INFO)


def test_a_query_network_searches_the_gallery_of_another_run(tmp_path):
    pictures, folder = tmp_path / "pictures", tmp_path / "query"
    other = tiny_config()
    other.train.task, other.train.task_kwargs = "multilabel", options.multilabel()
    other.train.task_kwargs.update({"loss": "softmax", "category_weight": 1.0})
    other.train.epochs, other.train.warmup_epochs = 0.3, 0.0
    mine.run(other, pictures)
    train.run(other, pictures)
    (pictures / "config.json").write_text(other.to_json())
    config = tiny_config()
    config.train.task, config.train.task_kwargs = "compatible", options.compatible()
    config.train.task_kwargs.update(
        {"pictures": str(pictures), "classifier_weight": 1.0, "rank_weight": 1.0, "bank": 9}
    )
    config.train.epochs, config.train.warmup_epochs = 0.5, 0.0
    config.train.model.kwargs.pool_stages = (1,)  # another width than the gallery network's
    config.search.gallery_from.run, config.embed.models = str(pictures), ("trained",)
    config.search.steps = (("whitening", {}),)
    mine.run(config, folder)
    train.run(config, folder)
    (folder / "config.json").write_text(config.to_json())
    assert all(np.isfinite(line["loss"]) and "classifier_loss" in line for line in logged(folder) if "loss" in line)
    query, gallery, catalog = inference.load(folder), inference.load(pictures), loading.load(config.data)
    assert query.data_info.target_space == gallery.space and query.task.constants is None
    examples, info = inference.examples(config, catalog, folder)
    images = [catalog.train.images[row] for row in range(3)]
    np.testing.assert_allclose(examples.columns["picture"][:3], gallery.embed(images), atol=1e-4)
    bank = examples.beside["bank"]  # rows of both are those of train, so that a picture's own vector can be left out
    np.testing.assert_array_equal(bank.columns["picture"], examples.columns["picture"])
    assert bank.batch_size == 9
    frozen, loss = info.frozen
    assert loss == "softmax" and set(frozen) == {"titles", "category"}
    np.testing.assert_array_equal(frozen["titles"]["kernel"], gallery.params["heads_titles"]["kernel"])
    alone = exportable.with_pictures(query, gallery)  # an export for phones has the query network and nothing else
    assert alone.space == gallery.space and alone.task is query.task and alone.params is query.params
    embed.run(config, folder)
    found = [next((folder / "embeddings").glob(f"*/{split}/embeddings.json")).parent for split in ("query", "gallery")]
    assert {read_info(one)["meta"]["space"] for one in found} == {gallery.space}
    assert search.run(config, folder)["queries"] == 8
    assert networks.load(folder, workdir.read_config(folder)).space == gallery.space
    queries, listings = propose_index.load(folder, "", 4, False)
    assert len(queries) == 4 and listings.meta["space"] == gallery.space
    about = export.run(folder, tmp_path / "phone", platforms=("cpu",), weights="int8", whitened=True)
    assert about["space"] == gallery.space and about["sides"]["query"] == "embed"
    seen = exported.load(tmp_path / "phone").embed(images, "embed_whitened")
    wanted = new_queries.of_run(folder, workdir.read_config(folder))[0][-1].vectors(query.embed(images), "query")
    assert np.abs(seen - wanted).max() < 0.05  # of unit vectors, by weights of eight bits
    with pytest.raises(InputError, match="has other labels than this run"):
        classifiers.load(folder, dataclasses.replace(info, vocabulary_hash="another"), 20)
    with pytest.raises(InputError, match=r"reads 20 numbers, and the vectors that are searched have 7 \(pool_bands"):
        classifiers.load(folder, info, 7)
    again = pictures.with_name("again")  # the gallery's network, trained again since
    pictures.rename(again)
    other.train.seed += 1
    mine.run(other, pictures)
    train.run(other, pictures)
    (pictures / "config.json").write_text(other.to_json())
    with pytest.raises(InputError, match="the queries are embedded into the space .* trained again since"):
        networks.load(folder, workdir.read_config(folder))
    with pytest.raises(InputError, match="has learned with vectors in the space .* trained again since"):
        exportable.with_pictures(query, inference.load(pictures))
    config.train.task_kwargs.pictures = ""
    with pytest.raises(InputError, match="task_kwargs.pictures is empty"):
        inference.examples(config, catalog, folder)
