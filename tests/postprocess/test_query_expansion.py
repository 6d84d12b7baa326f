"""Query expansion and database augmentation against plain loops over vectors."""

import numpy as np
import pytest

from retrieval_jax import embeddings
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.vectors import Computed
from retrieval_jax.errors import InputError
from retrieval_jax.index.exact import Index
from retrieval_jax.postprocess import State, database_augmentation, query_expansion


def unit(vector):
    return np.asarray(vector, np.float64) / np.linalg.norm(np.asarray(vector, np.float64))


def naive(vector, others, alpha):
    total = unit(vector)
    for other in others:
        total = total + max(unit(vector) @ unit(other), 0.0) ** alpha * unit(other)
    return unit(total)


def sides(seed, queries=7, gallery=60, dim=12):
    rng = np.random.default_rng(seed)
    return tuple(
        Embeddings([f"{name}{row}" for row in range(count)], rng.normal(size=(count, dim)).astype(np.float32) + 0.3)
        for name, count in (("q", queries), ("g", gallery))
    )


@pytest.mark.parametrize("alpha", [0, 3.0, 2.5])
def test_expansion_equals_plain_loops_for_any_chunk_size(alpha, monkeypatch):
    query, gallery = sides(0)
    found = Index(gallery).search(query, 9)
    found.item_rows[2, 4:], found.item_rows[3] = -1, -1
    found.scores[2, 4:], found.scores[3] = -np.inf, -np.inf
    whole = query_expansion.step(State([(query, gallery)], found), depth=5, alpha=alpha)
    assert whole.ranking is None and whole.members[0][1] is gallery and whole.members[0][0].ids == query.ids
    new = whole.members[0][0].vectors
    for number in range(7):
        rows = [row for row in found.item_rows[number, :5] if row >= 0]
        expected = naive(query.vectors[number], [gallery.vectors[row] for row in rows], alpha)
        np.testing.assert_allclose(new[number], expected, atol=2e-7)
    np.testing.assert_allclose(new[3], unit(query.vectors[3]), atol=2e-7)  # nothing found: unchanged
    monkeypatch.setattr(query_expansion, "CHUNK_BYTES", 1)
    again = query_expansion.step(State([(query, gallery)], found), depth=5, alpha=alpha)
    assert np.array_equal(again.members[0][0].vectors, new)


def test_expansion_pulls_a_query_towards_its_product():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(20, 32))
    product = np.repeat(np.arange(20), 8)
    gallery = Embeddings(
        [str(row) for row in range(160)], (centres[product] + 0.9 * rng.normal(size=(160, 32))).astype(np.float32)
    )
    query = Embeddings([f"q{row}" for row in range(20)], (centres + 1.2 * rng.normal(size=(20, 32))).astype(np.float32))

    def right(state):
        found = Index(state.members[0][1]).search(state.members[0][0], 8).item_rows
        return (product[found] == np.arange(20)[:, None]).mean()

    state = State([(query, gallery)], Index(gallery).search(query, 8))
    expanded = query_expansion.step(state, depth=4)
    augmented = database_augmentation.step(state, depth=4)
    assert right(expanded) > right(state) + 0.03 and right(augmented) > right(state) + 0.03


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_augmentation_equals_plain_loops_in_memory_or_on_read(kept, monkeypatch):
    monkeypatch.setattr(embeddings.folder, "KEPT_BYTES", kept)
    query, gallery = sides(2)
    gallery.vectors[[10, 11, 12, 13]] = gallery.vectors[4]  # more duplicates than neighbours: a row still omits itself
    before = Index(gallery).search(query, 3)
    state = database_augmentation.step(State([(query, gallery), (query, gallery)], before), depth=3, alpha=2)
    assert state.ranking is None and len(state.members) == 2 and state.members[1][0] is query
    new = state.members[1][1].vectors
    assert isinstance(new, Computed) == (kept == 0) and state.members[1][1].ids == gallery.ids
    units = np.stack([unit(vector) for vector in gallery.vectors])
    cosines = units @ units.T
    expected = []
    for row in range(60):
        near = sorted((j for j in range(60) if j != row), key=lambda j, row=row: (-np.float32(cosines[row, j]), j))[:3]
        expected.append(naive(units[row], units[near], 2))
    np.testing.assert_allclose(new[:], expected, atol=3e-7)
    np.testing.assert_allclose(new[np.array([50, 3, 10])], np.array(expected)[[50, 3, 10]], atol=3e-7)


def test_bad_settings_are_rejected():
    query, gallery = sides(3)
    found = Index(gallery).search(query, 9)
    with pytest.raises(InputError, match="query_expansion: depth=10 needs"):
        query_expansion.step(State([(query, gallery)], found))
    with pytest.raises(InputError, match="alpha=-1"):
        query_expansion.step(State([(query, gallery)], found), depth=3, alpha=-1)
    with pytest.raises(InputError, match="add the stage before it to search.stages"):
        query_expansion.step(State([(query, gallery)]))
    with pytest.raises(InputError, match="depth=0"):
        database_augmentation.step(State([(query, gallery)]), depth=0)
