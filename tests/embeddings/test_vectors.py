"""Rows that are computed when they are read: like an array, in bounded pieces, the same however they are read."""

import numpy as np
import pytest

from retrieval_jax import embeddings
from retrieval_jax.embeddings import Embeddings, vectors
from retrieval_jax.embeddings.vectors import Computed, Shards

WHOLE = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)


@pytest.fixture(params=["shards", "computed"])
def readable(request, monkeypatch):
    monkeypatch.setattr(vectors, "CHUNK_ROWS", 4)
    shards = Shards([WHOLE[:7], WHOLE[7:7], WHOLE[7:]], 3)
    return shards if request.param == "shards" else Computed(lambda key: shards[key], (23, 3))


@pytest.mark.parametrize("key", [
    slice(None), slice(3, 15), slice(5, 5), slice(9, 2), slice(-4, 99), slice(None, None, -3), 0, -1, np.int64(22),
    np.arange(22, -1, -1), np.array([], int), [], [3, 3, -23], np.array([[1, 2], [0, 22]]), WHOLE[:, 0] > 0,
])  # fmt: skip
def test_it_is_read_like_an_array(readable, key):
    found = readable[key]
    expected = WHOLE[np.asarray(key, int) if isinstance(key, list) else key]
    assert found.dtype == np.float32 and found.shape == expected.shape and np.array_equal(found, expected)


def test_rows_that_are_not_there(readable):
    assert len(readable) == 23 and readable.shape == (23, 3) and np.array_equal(np.asarray(readable), WHOLE)
    for key in (23, -24, np.array([0, 23])):
        with pytest.raises(IndexError):
            readable[key]


def test_no_call_is_longer_than_a_chunk(monkeypatch):
    monkeypatch.setattr(vectors, "CHUNK_ROWS", 5)
    calls = []

    def read(key):
        calls.append(len(WHOLE[key]))
        return WHOLE[key]

    rows = Computed(read, WHOLE.shape)
    assert not calls  # nothing until it is read
    rows[2:20], rows[np.arange(11)]
    assert calls == [5, 5, 5, 3, 5, 5, 1]


@pytest.mark.parametrize("kept", [0, embeddings.folder.KEPT_BYTES])
def test_map_and_take_give_the_same_kept_or_computed(kept, monkeypatch):
    monkeypatch.setattr(embeddings.folder, "KEPT_BYTES", kept)
    made = Embeddings([f"item{row}" for row in range(23)], Shards([WHOLE[:9], WHOLE[9:]], 3), {"space": "s"})
    mapped = made.map(lambda block: np.concatenate([2 * block, block], 1), 6).map(lambda block: block[:, 2:5], 3)
    rows = np.array([5, 22, 0, 5])
    taken = mapped.take(rows)
    expected = np.concatenate([2 * WHOLE, WHOLE], 1)[:, 2:5]
    assert isinstance(mapped.vectors, Computed) == isinstance(taken.vectors, Computed) == (kept == 0)
    assert np.array_equal(np.asarray(mapped.vectors), expected) and mapped.ids is made.ids and mapped.meta == made.meta
    assert np.array_equal(mapped.block(20, 99), expected[20:])
    assert np.array_equal(np.asarray(taken.vectors), expected[rows])
    assert np.array_equal(taken.vectors[1:3], expected[[22, 0]])
    assert taken.ids == ["item5", "item22", "item0", "item5"]


def test_float16_stays_as_it_is_and_reads_as_float32():
    narrow = WHOLE.astype(np.float16)
    made = Embeddings([str(row) for row in range(23)], narrow)
    assert made.vectors.arrays[0] is narrow and made.block(0, 23).dtype == np.float32
    assert np.array_equal(made.block(3, 9), narrow[3:9].astype(np.float32))


def test_computed_vectors_can_be_saved(monkeypatch, tmp_path):
    monkeypatch.setattr(embeddings.folder, "KEPT_BYTES", 0)
    made = Embeddings([str(row) for row in range(23)], WHOLE).map(lambda block: block * 2)
    made.save(tmp_path / "e", shard_rows=10)
    assert np.array_equal(np.asarray(Embeddings.load(tmp_path / "e").vectors), 2 * WHOLE)
