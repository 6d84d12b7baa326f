"""Whitening against plain loops, its streaming, its guard against rank deficiency, and the runner-up's numbers."""

import numpy as np
import pytest

import reference
from retrieval_jax import postprocess
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, whitening
from retrieval_jax.postprocess.whitening import Whitening


def naive_covariance(vectors):
    count, dim = vectors.shape
    mean = [sum(float(row[i]) for row in vectors) / count for i in range(dim)]
    centred = [[float(x) - m for x, m in zip(row, mean, strict=True)] for row in vectors]
    covariance = [[sum(row[i] * row[j] for row in centred) / count for j in range(dim)] for i in range(dim)]
    return np.array(mean), np.array(covariance)


def naive_inverse_root(matrix, rounds=60):
    """Newton's iteration (Denman & Beavers): another road to the inverse square root than eigenvectors."""
    root, inverse = matrix.copy(), np.eye(len(matrix))
    for _ in range(rounds):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    return inverse


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)).astype(np.float32)


def test_zca_equals_naive(vectors):
    mean, covariance = naive_covariance(vectors)
    fitted = whitening.fit(vectors, ridge=0.01)
    matrix = naive_inverse_root(covariance + 0.01 * np.eye(5))
    np.testing.assert_allclose(fitted.matrix, matrix, atol=1e-9)
    centred = [[float(x) - m for x, m in zip(row, mean, strict=True)] for row in vectors[:20]]
    expected = [[sum(x * matrix[i, j] for i, x in enumerate(row)) for j in range(5)] for row in centred]
    np.testing.assert_allclose(fitted.apply(vectors[:20]), expected, atol=1e-5)


def test_whitened_vectors_have_unit_covariance(vectors):
    for dim in (None, 5, 3):
        whitened = whitening.fit(vectors, dim=dim).apply(vectors).astype(np.float64)
        assert whitened.shape == (300, dim or 5)
        np.testing.assert_allclose(whitened.T @ whitened / 300, np.eye(dim or 5), atol=1e-4)


def test_pca_keeps_the_directions_of_largest_variance():
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(500, 3)) * [1, 30, 5]).astype(np.float32)
    fitted = whitening.fit(vectors, dim=2)
    assert np.abs(fitted.matrix).argmax(0).tolist() == [1, 2]
    assert (fitted.matrix[[1, 2], [0, 1]] > 0).all()  # signs are fixed
    scores = np.abs(np.corrcoef(fitted.apply(vectors).T, vectors.T)[:2, 2:])
    assert scores[0, 1] > 0.99 and scores[1, 2] > 0.99


def test_shards_and_blocks_give_the_same_fit(vectors, tmp_path, monkeypatch):
    whole = whitening.fit(vectors)
    ids = [str(row) for row in range(300)]
    Embeddings(ids, vectors).save(tmp_path / "e", shard_rows=77)
    monkeypatch.setattr(whitening, "BLOCK_ROWS", 32)
    streamed = whitening.fit(Embeddings.load(tmp_path / "e"))
    np.testing.assert_allclose(streamed.mean, whole.mean, atol=1e-12)
    np.testing.assert_allclose(streamed.matrix, whole.matrix, atol=1e-9)


@pytest.mark.parametrize("dim", [None, 4])
@pytest.mark.parametrize("ridge", [0.0, 1e-7])
def test_rank_deficiency_does_not_blow_up(ridge, dim):
    rng = np.random.default_rng(2)
    few = rng.normal(size=(4, 20)).astype(np.float32)  # fewer vectors than numbers
    constant = rng.normal(size=(50, 6)).astype(np.float32)
    constant[:, 2] = 7
    constant[:, 3] = constant[:, 0]
    large = 1e6 * rng.normal(size=(50, 2)).astype(np.float32) @ rng.normal(size=(2, 6)).astype(np.float32)
    for gallery in (few, constant, np.ones((5, 4), np.float32)):
        fitted = whitening.fit(gallery, ridge, dim)
        other = fitted.apply(gallery + rng.normal(size=gallery.shape).astype(np.float32))  # leaves the gallery's span
        assert np.isfinite(fitted.matrix).all() and np.abs(other).max() < 100
    assert np.isfinite(whitening.fit(large, ridge, dim).matrix).all()
    assert (whitening.fit(np.ones((5, 4), np.float32), ridge, dim).apply(np.zeros((2, 4))) == 0).all()


def test_it_survives_the_disk(vectors, tmp_path):
    fitted = whitening.fit(vectors, dim=3)
    fitted.save(tmp_path / "deep" / "whitening.npz")
    again = Whitening.load(tmp_path / "deep" / "whitening.npz")
    assert np.array_equal(again.apply(vectors), fitted.apply(vectors))
    (tmp_path / "bad.npz").write_bytes(b"no")
    for name in ("none.npz", "bad.npz"):
        with pytest.raises(InputError, match=name):
            Whitening.load(tmp_path / name)


def test_bad_input_is_refused(vectors):
    broken = vectors.copy()
    broken[17, 3] = np.nan
    with pytest.raises(InputError, match=r"row 17 \(item17\)"):
        whitening.fit(Embeddings([f"item{row}" for row in range(300)], broken))
    for arguments, word in (((vectors[:1],), "two vectors"), ((vectors, -1.0), "ridge"), ((vectors, 0.0, 6), "dim=6")):
        with pytest.raises(InputError, match=word):
            whitening.fit(*arguments)
    with pytest.raises(InputError, match="5 numbers"):
        whitening.fit(vectors).apply(np.zeros((2, 4)))


def test_the_step_fits_on_the_gallery_applies_to_both_and_normalises(vectors, tmp_path):
    gallery = Embeddings([str(row) for row in range(300)], vectors, {"space": "a"})
    queries = Embeddings(["q0", "q1"], vectors[:2] + 1, {"space": "a"})
    state = postprocess.get("whitening").step(State([(queries, gallery)], None, ("one/two",), tmp_path), dim=4)
    fitted = whitening.fit(vectors, dim=4)
    for side, before in zip(state.members[0], (queries, gallery), strict=True):
        expected = fitted.apply(before.vectors)
        np.testing.assert_allclose(side.vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
        assert side.ids == before.ids and side.meta == before.meta
    assert np.array_equal(Whitening.load(tmp_path / "whitening_one_two.npz").matrix, fitted.matrix)


def test_parity_with_the_runner_up():
    with np.load(reference.path("parity/postprocess.npz")) as file:
        fitted = whitening.fit(file["gallery_0"])
        for side in ("query", "gallery"):
            assert np.abs(fitted.apply(file[f"{side}_0"]) - file[f"whitened_{side}_0"]).max() <= 1e-3
