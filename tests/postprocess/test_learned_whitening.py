"""Whitening learned from pairs against plain loops, and pair mining."""

import numpy as np
import pytest

from retrieval_jax import postprocess
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, learned_whitening, whitening


def embeddings(vectors, name="item"):
    return Embeddings([f"{name}{row:03d}" for row in range(len(vectors))], vectors, {"space": "s"})


def products(rng, count=60, each=3, dim=6):
    """Returns vectors: products differ in the first half of the dimensions, pictures of a product in the second."""
    centres = rng.normal(size=(count, dim)) * ([1.0] * (dim // 2) + [0.3] * (dim // 2))
    noise = rng.normal(size=(count * each, dim)) * ([0.1] * (dim // 2) + [2.0] * (dim // 2))
    product = np.repeat(np.arange(count), each)
    return (centres[product] + noise).astype(np.float32), product


def naive_mutual(vectors, neighbours):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = []
    for i in range(len(unit)):
        others = sorted((j for j in range(len(unit)) if j != i), key=lambda j, i=i: -float(unit[i] @ unit[j]))
        near.append(set(others[:neighbours]))
    return [[i, j] for i in range(len(unit)) for j in sorted(near[i]) if i < j and i in near[j]]


@pytest.mark.parametrize("neighbours", [1, 3])
def test_mined_pairs_are_mutual_neighbours(neighbours):
    vectors, _ = products(np.random.default_rng(0))
    gallery = embeddings(vectors.astype(np.float64))
    expected = naive_mutual(vectors.astype(np.float64), neighbours)
    assert learned_whitening.mine_pairs(gallery, neighbours=neighbours).tolist() == expected
    some = learned_whitening.mine_pairs(gallery, neighbours=neighbours, rows=40)
    assert 0 < len(some) < len(expected) and all(pair in expected for pair in some.tolist())
    again = learned_whitening.mine_pairs(gallery, neighbours=neighbours, rows=40)
    assert np.array_equal(some, again)  # the same seed samples the same rows
    drawn = set(np.random.default_rng(0).choice(180, 40, replace=False).tolist())
    assert [pair for pair in expected if drawn & set(pair)] == [pair for pair in some.tolist() if drawn & set(pair)]


def test_fit_matches_the_source():
    rng = np.random.default_rng(1)
    vectors, product = products(rng)
    pairs = np.array([[i, j] for i in range(180) for j in range(i) if product[i] == product[j]])
    fitted = learned_whitening.fit(vectors, pairs, shrinkage=0.0, ridge=0.0, dim=4)
    # the source's own steps, pair by pair: inverse Cholesky factor of the pairs' covariance, then PCA of the result
    wide = vectors.astype(np.float64)
    within = sum(np.outer(wide[i] - wide[j], wide[i] - wide[j]) for i, j in pairs) / len(pairs)
    root = np.linalg.inv(np.linalg.cholesky(within))
    mean = wide.mean(0)
    moved = (wide - mean) @ root.T
    variance, directions = np.linalg.eigh(moved.T @ moved)
    expected = moved @ directions[:, np.argsort(-variance)[:4]]
    found = fitted.apply(vectors)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)  # equal up to signs
    difference = found[pairs[:, 0]] - found[pairs[:, 1]]
    np.testing.assert_allclose(difference.T @ difference / len(pairs), np.eye(4), atol=1e-4)
    spread = found.var(0)
    assert (np.diff(spread) <= 1e-6).all()  # largest first
    assert fitted.info["method"] == "learned" and fitted.info["pairs"] == len(pairs)


def test_it_finds_products_that_plain_whitening_misses():
    vectors, product = products(np.random.default_rng(2), count=100)
    pairs = np.array([[i, i + 1] for i in range(299) if product[i] == product[i + 1]])[::2]
    hits = []
    for fitted in (whitening.fit(vectors), learned_whitening.fit(vectors, pairs, shrinkage=0.1)):
        found = fitted.apply(vectors)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        scores = found @ found.T - 9 * np.eye(300)
        hits.append((product[scores.argmax(1)] == product).mean())
    assert hits[1] > hits[0] + 0.2


def test_full_shrinkage_equals_plain_whitening():
    vectors, _ = products(np.random.default_rng(3))
    plain = whitening.fit(vectors, ridge=0.0).apply(vectors)
    learned = learned_whitening.fit(vectors, [[0, 1], [4, 5]], shrinkage=1.0, ridge=0.0).apply(vectors)
    plain, learned = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (plain, learned))
    np.testing.assert_allclose(learned @ learned.T, plain @ plain.T, atol=1e-5)


def test_few_pairs_and_pairs_of_duplicates_do_not_blow_up():
    vectors, _ = products(np.random.default_rng(4))
    vectors[1] = vectors[0]
    for shrinkage in (0.0, 0.5):
        with pytest.raises(InputError, match="both vectors of each of the 1 pairs are the same"):
            learned_whitening.fit(vectors, [[0, 1]], shrinkage=shrinkage)
        for pairs in ([[0, 1], [2, 3]], [[2, 3]]):
            fitted = learned_whitening.fit(vectors, pairs, shrinkage=shrinkage)
            assert np.isfinite(fitted.matrix).all() and np.abs(fitted.apply(vectors)).max() < 1e4


def test_bad_input_is_rejected():
    vectors, _ = products(np.random.default_rng(5))
    for pairs, settings, words in (
        ([], {}, "pairs of rows"),
        ([[0, 180]], {}, "180 rows"),
        ([[0, 1]], {"shrinkage": 2}, "shrinkage=2"),
        ([[0, 1]], {"dim": 7}, "dim=7"),
    ):
        with pytest.raises(InputError, match=words):
            learned_whitening.fit(vectors, pairs, **settings)
    with pytest.raises(InputError, match="neighbours=0"):
        learned_whitening.mine_pairs(embeddings(vectors), neighbours=0)


def test_the_step_mines_fits_and_applies(tmp_path):
    vectors, _ = products(np.random.default_rng(6))
    gallery, queries = embeddings(vectors), embeddings(vectors[:4] + 1, "query")
    state = postprocess.get("learned_whitening").step(State([(queries, gallery)], None, ("one",), tmp_path), dim=3)
    fitted = learned_whitening.fit(gallery, learned_whitening.mine_pairs(gallery), dim=3)
    for side, before in zip(state.members[0], (queries, gallery), strict=True):
        expected = fitted.apply(before.vectors)
        np.testing.assert_allclose(side.vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert whitening.Whitening.load(tmp_path / "whitening_one.npz").version() == fitted.version()
