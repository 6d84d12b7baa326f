"""Adapters: what they map, mixed galleries, and folders whose files do not belong together."""

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings, Ids, adapters
from retrieval_jax.embeddings import vectors as vectors_lib
from retrieval_jax.errors import InputError

RNG = np.random.default_rng(0)
OLD = Embeddings([f"item{row}" for row in range(30)], RNG.normal(size=(30, 4)), {"space": "old", "recipe": "r"})


def adapter(kind="linear", scale=1.0, renewed=None):
    """Returns an adapter from 4 to 6 dimensions; nothing lies in the direction aside."""
    draw = np.random.default_rng(1)
    shapes = {"centre": (4,), "kernel": (4, 6), "bias": (6,), "aside": (6,)}
    if kind == "residual":
        shapes |= {"hidden_kernel": (4, 5), "hidden_bias": (5,), "out_kernel": (5, 6)}
    weights = {name: (0.2 * draw.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    weights["aside"] = np.eye(6, dtype=np.float32)[0]
    for name in ("kernel", "bias", "out_kernel"):
        if name in weights:
            weights[name][..., 0] = 0.0  # nothing else lies in the direction aside
    facts = {"fitted_on": 10, "gallery": 30, "cosine": 0.9}
    return adapters.Adapter(kind, "old", "new", weights, 2.0, scale, renewed, facts)


@pytest.mark.parametrize("kind", adapters.KINDS)
def test_a_vector_is_mapped_as_plain_loops_do_it(kind):
    ours = adapter(kind)
    w, row = ours.weights, OLD.vectors[3]
    inputs = row / np.linalg.norm(row) - w["centre"]
    wanted = [sum(inputs[i] * w["kernel"][i, j] for i in range(4)) + w["bias"][j] for j in range(6)]
    if kind == "residual":
        hidden = [
            max(0, sum(inputs[i] * w["hidden_kernel"][i, h] for i in range(4)) + w["hidden_bias"][h]) for h in range(5)
        ]
        wanted = [wanted[j] + sum(hidden[h] * w["out_kernel"][h, j] for h in range(5)) for j in range(6)]
    wanted = np.array(wanted) / np.linalg.norm(wanted)
    np.testing.assert_allclose(ours(OLD.vectors[3:4])[0], 2.0 * wanted, rtol=1e-5)


def test_a_scale_multiplies_the_cosines_of_queries_and_nothing_else():
    plain, scaled = adapter(scale=1.0)(OLD.vectors), adapter(scale=0.9)(OLD.vectors)
    queries = np.random.default_rng(2).normal(size=(5, 6))
    queries[:, 0] = 0.0  # as all vectors of the new model have it
    np.testing.assert_allclose(0.9 * queries @ plain.T, queries @ scaled.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), np.linalg.norm(plain, axis=1), rtol=1e-5)


def test_renewed_listings_have_their_new_vectors_and_the_others_are_adapted(monkeypatch):
    renewed = Embeddings(["item4", "item9", "elsewhere"], RNG.normal(size=(3, 6)), {"space": "new"})
    ours = adapter(renewed=renewed)
    monkeypatch.setattr("retrieval_jax.embeddings.folder.KEPT_BYTES", 0)  # computed whenever it is read
    found = ours.upgraded(OLD)
    assert isinstance(found.vectors, vectors_lib.Computed)
    assert found.meta == {"space": "new", "recipe": "r", "upgraded": {"adapted": 28, "renewed": 2}}
    wanted = ours(OLD.vectors)
    wanted[[4, 9]] = renewed.vectors[:2]
    np.testing.assert_allclose(found.vectors[:], wanted, rtol=1e-6)
    np.testing.assert_allclose(found.vectors[np.array([9, 0, 4])], wanted[[9, 0, 4]], rtol=1e-6)


def test_vectors_of_another_space_are_refused():
    with pytest.raises(InputError, match="maps vectors of the space 'old' to 'new', and these are of 'other'"):
        adapter().upgraded(Embeddings(OLD.ids, OLD.vectors, {"space": "other"}))
    with pytest.raises(InputError, match="vectors"):
        adapter()(np.ones((2, 5)))


@pytest.mark.parametrize("kind", adapters.KINDS)
def test_what_is_saved_is_loaded(kind, tmp_path):
    renewed = Embeddings(["item4"], RNG.normal(size=(1, 6)), {"space": "new"})
    ours = adapter(kind, 0.5, renewed)
    loaded = adapters.Adapter.load(ours.save(tmp_path / "adapter"))
    np.testing.assert_array_equal(loaded.upgraded(OLD).vectors[:], ours.upgraded(OLD).vectors[:])
    assert (loaded.kind, loaded.scale, loaded.facts, loaded.dim) == (kind, 0.5, ours.facts, 6)
    assert "10 of 30 listings embedded again (33 %)" in loaded.sentence()


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    folder = adapter(renewed=Embeddings(["item4"], RNG.normal(size=(1, 6)), {"space": "new"})).save(tmp_path / "a")
    Embeddings(["item5"], RNG.normal(size=(1, 6)), {"space": "new"}).save(folder / adapters.RENEWED)
    with pytest.raises(InputError, match="not of one adapter: run `retrieval-jax upgrade` again"):
        adapters.Adapter.load(folder)
    with pytest.raises(InputError, match="run `retrieval-jax upgrade` first"):
        adapters.Adapter.load(tmp_path / "nothing")


def test_an_upgraded_gallery_is_written_in_the_order_that_is_wanted(tmp_path):
    OLD.save(tmp_path / "old")
    folder, ids = adapter().save(tmp_path / "adapter"), Ids.of(list(OLD.ids)[::-1])
    counts = adapters.write_upgraded(folder, tmp_path / "old", ids, tmp_path / "new", "float32", {"config": "c"})
    found = Embeddings.load(tmp_path / "new")
    assert counts == {"adapted": 30, "renewed": 0} and list(found.ids) == list(ids)
    assert found.meta["space"] == "new" and found.meta["config"] == "c"
    np.testing.assert_allclose(found.vectors[:], adapter()(OLD.vectors)[::-1], rtol=1e-6)
    with pytest.raises(InputError, match="holds 30 listings, of which 2 are among the 2 of this gallery"):
        adapters.write_upgraded(folder, tmp_path / "old", ids.take(np.arange(2)), tmp_path / "n", "float32", {})
