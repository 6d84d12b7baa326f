"""Linear classifier: its loss is at the minimum, it separates what can be separated, files, mistakes."""

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import linear_classifier
from retrieval_jax.postprocess.l2 import normalize

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, 5))
LABELS = RNG.integers(3, size=200)
VECTORS = (CENTRES[LABELS] + RNG.normal(size=(200, 5)) * 0.8).astype(np.float32)
SCALE = normalize(VECTORS).std(0)


def loss(weights, bias, penalty):
    """Returns the penalised loss by plain loops."""
    total = 0.0
    for unit, label in zip(normalize(VECTORS).astype(np.float64), LABELS, strict=True):
        logits = unit @ weights + bias
        total += np.log(np.exp(logits).sum()) - logits[label]
    return total / len(LABELS) + penalty / 2 * ((weights * SCALE[:, None]) ** 2).sum()


def test_no_other_weights_have_a_smaller_loss():
    found = linear_classifier.fit(VECTORS, LABELS, 3, penalty=0.01, iterations=500)
    least = loss(found.weights, found.bias, 0.01)
    for _ in range(20):
        away = RNG.normal(size=(5, 3)) * 0.02, RNG.normal(size=3) * 0.02
        assert loss(found.weights + away[0], found.bias + away[1], 0.01) > least
    assert (found.logits(VECTORS).argmax(1) == LABELS).mean() > 0.8


def test_length_does_not_count_and_unknown_categories_are_left_out():
    lengths = RNG.uniform(0.1, 10, (200, 1)).astype(np.float32)
    labels, more = np.append(LABELS, -1), np.append(VECTORS * lengths, RNG.normal(size=(1, 5)), 0)
    one = linear_classifier.fit(VECTORS, LABELS, 4, iterations=500)
    other = linear_classifier.fit(Embeddings([str(row) for row in range(201)], more), labels, 4, iterations=500)
    np.testing.assert_allclose(one.logits(VECTORS), other.logits(VECTORS * 3), atol=0.05)
    assert not (one.logits(VECTORS).argmax(1) == 3).any()  # no listing has it


def test_what_is_saved_is_loaded(tmp_path):
    found = linear_classifier.fit(VECTORS, LABELS, 3)
    found.save(tmp_path / "categories.npz")
    loaded = linear_classifier.load(tmp_path / "categories.npz")
    np.testing.assert_array_equal(found.logits(VECTORS), loaded.logits(VECTORS))
    np.savez(tmp_path / "other.npz", weights=found.weights, bias=found.bias[:2])
    with pytest.raises(InputError, match="of different numbers of categories: fit the classifier again"):
        linear_classifier.load(tmp_path / "other.npz")


def test_mistakes_are_named():
    with pytest.raises(InputError, match="have 1 of them: give listings of at least two"):
        linear_classifier.fit(VECTORS, np.zeros(200, int), 3)
    with pytest.raises(InputError, match="categories"):
        linear_classifier.fit(VECTORS, LABELS[:5], 3)
    bad = VECTORS.copy()
    bad[7, 2] = np.inf
    with pytest.raises(InputError, match=r"vectors: 1 of 200 vectors is non-finite .* first row 7"):
        linear_classifier.fit(bad, LABELS, 3)
    with pytest.raises(InputError, match="penalty=-1"):
        linear_classifier.fit(VECTORS, LABELS, 3, penalty=-1)
    with pytest.raises(InputError, match=r"expected \[n, 5\]"):
        linear_classifier.fit(VECTORS, LABELS, 3).logits(VECTORS[:, :4])
