"""What a notebook shows of an object is one line, whatever it holds."""

import dataclasses
import importlib
import pkgutil

import numpy as np

import retrieval_jax
import tiny
from retrieval_jax import brief, tasks
from retrieval_jax.data import loading
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.ids import Ids
from retrieval_jax.index import binary, exact, faiss_index
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.whitening import Whitening
from retrieval_jax.scoring.ranking import Ranking, Truth

MANY = np.zeros((3000, 64), np.float32) + np.eye(1, 64, dtype=np.float32)
NAMES = [f"listing-{number}" for number in range(3000)]


def is_short(thing) -> bool:
    text = repr(thing)
    return "\n" not in text and 10 < len(text) <= 300 and "array(" not in text


def test_embeddings_rankings_and_indexes():
    embeddings = Embeddings(NAMES, MANY, {"space": "x" * 1000})
    ranking = Ranking(NAMES, np.zeros((3000, 1)), np.ones((3000, 1)))
    truth = Truth(NAMES, NAMES, np.arange(3001), np.zeros(3000))
    state = State([(embeddings, embeddings)] * 3, ranking)
    whitening = Whitening(np.zeros(64), np.eye(64), {"rows": 3000})
    for thing in (embeddings, ranking, truth, state, whitening, exact.Index(embeddings)):
        assert is_short(thing), repr(thing)
    assert repr(embeddings).startswith("Embeddings(ids=<Ids of 3,000>, vectors=float32[3000, 64], meta={space})")
    assert repr(exact.Index(embeddings)) == "exact.Index(3,000 vectors of 64 dimensions)"
    assert is_short(Ids.of(["a\nb" * 1000, "c"]))
    half = Embeddings(NAMES, MANY.astype(np.float16))
    assert repr(half.vectors) == "Shards(3,000 vectors of 64 dimensions)" and is_short(half)
    small = Embeddings(NAMES[:300], np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32))
    assert repr(faiss_index.Index(small, factory="Flat")) == "faiss_index.Index(300 vectors of 16 dimensions)"
    assert repr(binary.Index(small)) == "binary.Index(300 vectors of 16 dimensions)"


def test_catalogues_examples_and_tasks():
    config = tiny.tiny_config()
    catalog = loading.load(config.data)
    ragged = Ragged.of([[1, 2]] * 3000)
    examples = Examples({"image": Pictures(np.zeros((3000, 2, 2, 3), np.uint8)), "labels": ragged}, NAMES)
    task = tasks.get("multilabel").make(config.train, tiny.INFO)
    for thing in (catalog, catalog.train, catalog.truth, ragged, examples, examples.columns["image"], task, tiny.INFO):
        assert is_short(thing), repr(thing)


def test_a_line_says_of_what_is_large_its_type_and_size():
    @dataclasses.dataclass
    class Thing:
        array: np.ndarray
        names: list
        text: str
        mapping: dict
        number: float = 2.5

        __repr__ = brief.line

    thing = Thing(np.zeros((2, 3), np.int16), ["a"] * 1000, "x\n" * 100, dict.fromkeys("abcdef"))
    text = brief.line(thing)
    assert text == f"Thing(array=int16[2, 3], names=<list of 1,000>, text={thing.text[:40] + '...'!r}, " + (
        "mapping={a, b, c, d, ...}, number=2.5)"
    )
    assert len(brief.line(dataclasses.replace(thing, mapping={"k" * 40 + str(i): 0 for i in range(9)}))) <= 300


def dataclasses_of_the_package():
    for module in pkgutil.walk_packages(retrieval_jax.__path__, "retrieval_jax."):
        if module.name.rpartition(".")[2] in ("__main__", "beam"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if dataclasses.is_dataclass(value) and value.__module__ == module.name and not name.startswith("_"):
                yield value


def test_every_dataclass_with_arrays_or_tables_is_shown_in_one_line():
    large = ("ndarray", "DataFrame", "Embeddings", "params: ")
    for found in dataclasses_of_the_package():
        types = {field.name: str(field.type) for field in dataclasses.fields(found)}
        if any(word in f"{name}: {kind}" for name, kind in types.items() for word in large):
            shown = not hasattr(found.__repr__, "__wrapped__")  # the one that dataclasses make is wrapped
            assert shown, f"{found.__module__}.{found.__name__} holds much: add `__repr__ = brief.line`"
