"""The search page over runs that words matter to: edits of a picture, and typed queries without pictures."""

import jax
import pytest
from ml_collections import ConfigDict

import chromium
import tiny
from retrieval_jax import embed, search, train
from retrieval_jax.models.backbones import convnext
from retrieval_jax.settings import base, tasks
from search_page import SETTLED, TITLES, act, service

WORDS = {"depth": 1, "width": 16, "heads": 2, "dropout": 0.0}


def edits() -> ConfigDict:
    """Returns the settings of a run whose queries are a picture and words; its listings have no titles."""
    config = tiny.tiny_config()
    config.data.kwargs.update(
        {"queries": "edits", "num_edits": 20, "num_train": 240, "num_gallery": 240, "num_query": 12}
    )
    config.train.task, config.train.task_kwargs = "edit", tasks.edit()
    config.train.task_kwargs.update({"vocabulary": 400, "words_kwargs": WORDS, "words_dim": 16, "targets": 2})
    config.train.task_kwargs.joint_kwargs = {"hidden": 16}
    config.search.query_from.predict_fn = "embed_edit"
    return config


def typed() -> ConfigDict:
    """Returns the settings of a run that learns typed queries and product texts, and reads no pictures."""
    config = base.defaults()
    sizes = {"num_train": 160, "num_val": 0, "num_query": 24, "num_gallery": 120, "num_typed": 40, "image_size": 16}
    config.data.kwargs = ConfigDict({"seed": 0, "queries": "typed", **sizes})
    config.data.image_size = (16, 16)
    config.train.task, config.train.task_kwargs = "text_query", tasks.text_query()
    config.train.task_kwargs.update({"vocabulary": 400, "length": 16, "same_product": "product"})
    config.train.model.name, config.train.model.variant, config.train.model.projection = "transformer", "mini", 16
    config.train.model.kwargs = ConfigDict(WORDS)
    config.train.batch_size, config.train.eval_every_epochs = 16, 0.0
    config.search.query_from.predict_fn, config.search.gallery_from.predict_fn = "embed_query", "embed_product"
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of both runs, trained for less than an epoch."""
    chromium.found()
    jax.config.update("jax_disable_most_optimizations", True)
    convnext.VARIANTS["tiny test"] = tiny.TINY
    folders = []
    for name, config in (("edits", edits()), ("typed", typed())):
        folder = tmp_path_factory.mktemp("runs") / name
        folder.mkdir()
        config.train.epochs, config.train.warmup_epochs, config.train.evaluations = 0.3, 0.0, ()
        config.embed.models, config.search.steps = ("trained",), ()
        (folder / "config.json").write_text(config.to_json())
        for verb in (train, embed, search):
            verb.run(config, folder)
        folders.append(folder)
    yield folders
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.long
def test_edits_have_a_slider_typed_queries_no_pictures_and_neither_an_error(runs, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    with service(*runs) as address, chromium.page(tmp_path / "profile") as page:
        page.size(1280)
        page.open(address)
        page.wait("document.querySelectorAll('.hit').length === 24")
        page.wait("!file.disabled && !words.disabled")
        page.run("$('status').textContent = ''")
        page.choose("#file", tmp_path / "photo.png")
        page.wait(SETTLED)
        assert page.run("weight.hidden")
        by_picture = page.run(TITLES)
        act(page, "words.value = 'in red'; form.requestSubmit()")
        assert "cosine" in page.run("$('status').textContent") and not page.run("weight.hidden")
        why = page.run("document.querySelector('.hit .why').textContent")
        assert "picture:" in why and "words:" in why
        act(page, "weight.value = 3; weight.dispatchEvent(new Event('change'))")
        strongly = page.run("[...document.querySelectorAll('.hit .scored')].map(one => one.textContent)")
        act(page, "weight.value = 0; weight.dispatchEvent(new Event('change'))")
        assert page.run(TITLES) == by_picture  # the picture alone
        assert page.run("[...document.querySelectorAll('.hit .scored')].map(one => one.textContent)") != strongly
        act(page, "clear.click()")

        act(page, "run.value = 'typed'; run.dispatchEvent(new Event('change'))")
        page.wait("file.disabled && photo.disabled && !words.disabled")
        assert "reads words" in page.run("no_pictures.textContent") and not page.run("no_pictures.hidden")
        act(page, "words.value = 'red shirt'; form.requestSubmit()")
        assert "cosine" in page.run("$('status').textContent")
        page.run("take(new Blob(['x'], {type: 'image/png'}))")  # dropped or pasted
        assert "cannot be searched by a picture" in page.run("$('error').textContent")
        act(page, "form.requestSubmit()")
        assert page.run("$('error').hidden")
        act(page, "run_b.value = 'edits'; run_b.dispatchEvent(new Event('change'))")
        page.wait("$('verdict').textContent.includes('only runs of one catalogue can be compared')")
        assert not page.problems, page.problems
