"""Embeddings on disk: sharded, memory-mapped, verified, written whole or not at all."""

import json

import numpy as np
import pytest

from retrieval_jax import embeddings
from retrieval_jax.embeddings import Embeddings, Ids, Shards
from retrieval_jax.errors import InputError


@pytest.fixture
def made():
    vectors = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    return Embeddings([f"item-é{row}" for row in range(11)], vectors, {"space": "s", "split": "gallery"})


@pytest.mark.parametrize("shard_rows", [1, 4, 11, 100])
def test_shards_on_disk_read_as_one(made, tmp_path, shard_rows):
    made.save(tmp_path / "e", shard_rows=shard_rows)
    again = Embeddings.load(tmp_path / "e")
    assert again.ids == made.ids and again.ids == list(made.ids) and made.meta.items() <= again.meta.items()
    assert len(again) == 11 and again.dim == 3
    assert all(isinstance(array, np.memmap) for array in again.vectors.arrays)
    for start, stop in ((0, 11), (3, 9), (4, 4), (8, 99)):
        assert np.array_equal(again.block(start, stop), made.vectors[start:stop])
    rows = np.array([[10, 0, 4], [4, 3, -1]])
    assert np.array_equal(again.vectors[rows], made.vectors[rows])
    assert np.array_equal(again.vectors[7], made.vectors[7]) and np.array_equal(again.vectors[::-2], made.vectors[::-2])
    assert np.array_equal(np.asarray(again.vectors), made.vectors)
    with pytest.raises(IndexError):
        again.vectors[np.array([11])]
    assert Embeddings.load(tmp_path / "e", verify=True).ids == made.ids


def test_float16_halves_the_bytes_and_stays_float32_in_memory(made, tmp_path):
    made.save(tmp_path / "e", dtype="float16")
    again = Embeddings.load(tmp_path / "e")
    assert again.vectors.arrays[0].dtype == np.float16 and again.block(0, 11).dtype == np.float32
    np.testing.assert_allclose(again.block(0, 11), made.vectors, rtol=1e-3, atol=1e-4)
    large = Embeddings(["a", "b"], np.array([[1.0], [1e6]]))
    with pytest.raises(InputError, match=r"row 1 \(b\) holds a number beyond float16"):
        large.save(tmp_path / "e", dtype="float16")
    small = Embeddings(["a", "b"], np.array([[0.0, 0.0], [1e-9, 1e-9]]))  # the first is zero and stays so
    with pytest.raises(InputError, match=r"row 1 \(b\) .* becomes zero"):
        small.save(tmp_path / "e", dtype="float16")
    assert Embeddings.load(tmp_path / "e").ids == made.ids  # the older one is still whole
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    with pytest.raises(InputError, match="bfloat16"):
        made.save(tmp_path / "f", dtype="bfloat16")


def test_blocks_may_come_one_by_one(made, tmp_path):
    blocks = (made.block(start, start + 5) for start in (0, 5, 10))
    embeddings.write(tmp_path / "e", made.ids, blocks, made.meta, dim=3)
    assert np.array_equal(np.asarray(Embeddings.load(tmp_path / "e").vectors), made.vectors)
    with pytest.raises(InputError, match="11 ids but 5 vectors"):
        embeddings.write(tmp_path / "f", made.ids, [made.block(0, 5)], {}, dim=3)
    assert not (tmp_path / "f").exists()


def test_no_rows_at_all(tmp_path):
    Embeddings([], np.zeros((0, 4), np.float32)).save(tmp_path / "e")
    again = Embeddings.load(tmp_path / "e")
    assert len(again) == 0 and again.dim == 4 and again.block(0, 9).shape == (0, 4)


def test_what_was_damaged_is_named(made, tmp_path):
    folder = tmp_path / "e"

    def damage(name, change):
        made.save(folder, shard_rows=4)
        change(folder / name)
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            Embeddings.load(folder)

    damage("00001.npy", lambda file: file.write_bytes(file.read_bytes()[:-5]))
    damage("00002.npy", lambda file: file.unlink())
    damage("00000.npy", lambda file: np.save(file, np.zeros((4, 2), np.float32)))
    damage("ids.npy", lambda file: np.save(file, np.zeros(3, np.uint8)))
    damage("embeddings.json", lambda file: file.write_text("{"))
    damage("embeddings.json", lambda file: file.write_text(json.dumps({"format": 1})))
    damage("embeddings.json", lambda file: file.unlink())
    made.save(folder)
    file = folder / "00000.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    Embeddings.load(folder)  # sizes fit: only reading everything can tell
    with pytest.raises(InputError, match=r"00000\.npy has changed"):
        Embeddings.load(folder, verify=True)


def test_ids_stay_bytes_until_asked_for():
    ids = Ids.of(["a", "", "ñandú", "a"])
    assert len(ids) == 4 and ids[2] == "ñandú" and ids[-1] == "a" and ids[1:3] == ["", "ñandú"]
    assert list(ids) == ["a", "", "ñandú", "a"] and ids[np.array([3, 1])] == ["a", ""]
    assert ids == ["a", "", "ñandú", "a"] and ids != ["a"] and ids != Ids.of(["a", "ñ", "andú", "a"])
    assert ids.sha256() != Ids.of(["", "a", "ñandú", "a"]).sha256()
    with pytest.raises(IndexError):
        ids[4]


def test_ids_and_vectors_must_fit():
    with pytest.raises(InputError, match="2 ids but 3 vectors"):
        Embeddings(["a", "b"], np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"\[rows, dim\]"):
        Embeddings(["a", "b"], np.zeros(2))


def test_large_results_are_mapped_not_held(made, monkeypatch):
    doubled = made.map(lambda block: np.concatenate([block, block], 1), 6)
    assert np.array_equal(doubled.vectors[:, 3:], made.vectors) and doubled.ids is made.ids
    assert isinstance(embeddings.allocate((10, 10), max_bytes=100), np.memmap)
    assert (
        Embeddings(["a", "b"], [np.zeros((1, 2)), np.ones((1, 2))]).vectors.shape == Shards([np.zeros((2, 2))], 2).shape
    )
