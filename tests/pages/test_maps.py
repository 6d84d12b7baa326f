"""Maps of embeddings by UMAP: only where it is installed, the same every time, beside the plane of PCA."""

import importlib.util
import sys
import types

import numpy as np
import pytest

from retrieval_jax.pages import maps


def test_without_the_library_there_is_no_layout(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert maps.umap(np.eye(40)) is None


def test_an_unrelated_or_broken_library_makes_no_layout(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "umap", types.ModuleType("umap"))  # another package of that name
    assert maps.umap(np.eye(40)) is None
    monkeypatch.setitem(sys.modules, "umap", None)  # its import fails
    assert maps.umap(np.eye(40)) is None


def test_the_library_gets_a_seed_and_few_vectors_have_no_layout(monkeypatch):
    given = {}

    class Layout:
        def __init__(self, **kwargs):
            given.update(kwargs)

        def fit_transform(self, vectors):
            assert vectors.dtype == np.float32
            return vectors[:, :2]

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Layout))
    found = maps.umap(np.eye(40))
    assert found.dtype == np.float64 and np.array_equal(found, np.eye(40)[:, :2])
    assert given["random_state"] == 0 and given["metric"] == "cosine"
    assert maps.umap(np.eye(maps.LEAST - 1)) is None


def test_two_groups_lie_apart():
    pytest.importorskip("umap")
    vectors = np.random.default_rng(0).normal(0, 0.1, (60, 8))
    vectors[:30, 0] += 1
    vectors[30:, 1] += 1
    found = maps.umap(vectors)
    assert np.array_equal(found, maps.umap(vectors))
    centres = found[:30].mean(0), found[30:].mean(0)
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * found[:30].std()
