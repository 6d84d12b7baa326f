"""Ids of queries about a listing: what they are about is kept, compared, saved and taken along."""

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError

IDS = ["é1", "q2", "", "q4"]


def test_queries_are_about_themselves_unless_others_are_given():
    plain = Ids.of(IDS)
    assert plain.about is plain
    about = plain.with_about(["g7", "", "gß", "g7"])
    assert list(about) == IDS and list(about.about) == ["g7", "q2", "gß", "g7"]  # "" is about no other listing
    assert list(plain.about) == IDS and about.with_about(IDS).about == IDS
    assert plain.with_about([""] * 4) == plain and plain.with_about(IDS).sha256() == plain.sha256()
    with pytest.raises(InputError, match=r"4 queries are about 3 listings: give one per query"):
        plain.with_about(["a", "b", "c"])


def test_equality_and_fingerprint_tell_what_queries_are_about():
    plain = Ids.of(IDS)
    one, other = (plain.with_about([name] * 4) for name in ("a", "b"))
    assert one != other and one != plain and plain != one and one == Ids.of(IDS).with_about(["a"] * 4)
    assert one == IDS and plain == IDS  # texts do not say what they are about
    assert len({ids.sha256() for ids in (plain, one, other)}) == 3


def test_rows_take_along_what_they_are_about():
    ids = Ids.of(IDS).with_about(["a", "bb", "", "d"])
    for rows in ([3, 0, 0], [], [1, 2]):
        taken = ids.take(np.array(rows, np.int64))
        assert list(taken) == [IDS[row] for row in rows]
        assert list(taken.about) == [["a", "bb", "", "d"][row] for row in rows]
    embeddings = Embeddings(ids, np.eye(4)).take([2, 1])
    assert list(embeddings.ids) == ["", "q2"] and list(embeddings.ids.about) == ["", "bb"]


@pytest.mark.parametrize("about", [None, ["a", "bb", "é", "d"], [""] * 4, ["x"] * 4])
def test_what_was_saved_is_loaded(tmp_path, about):
    ids = Ids.of(IDS) if about is None else Ids.of(IDS).with_about(about)
    ids.save(tmp_path, "query_")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["query_id_offsets.npy", "query_ids.npy"]
    found = Ids.load(tmp_path, "query_")
    assert found == ids and found.sha256() == ids.sha256() and list(found.about) == list(ids.about)
    folder = Embeddings(ids, np.eye(4)).save(tmp_path / "embeddings")
    assert list(Embeddings.load(folder).ids.about) == list(ids.about)


def test_ids_without_about_are_saved_as_before(tmp_path):
    Ids.of(IDS).save(tmp_path)
    assert np.load(tmp_path / "id_offsets.npy").tolist() == [0, 3, 5, 5, 7]
    assert np.load(tmp_path / "ids.npy").tobytes().decode() == "é1q2q4"


@pytest.mark.parametrize(
    "offsets", [[[0, 1, 2], [1, 2, 4]], [[0, 1, 2], [2, 3, 5]], [[[0]]], [[0, 1, 2]] * 3, [[], []]]
)
def test_offsets_that_do_not_match_are_refused(tmp_path, offsets):
    np.save(tmp_path / "ids.npy", np.frombuffer(b"abcd", np.uint8))
    np.save(tmp_path / "id_offsets.npy", np.array(offsets, np.int64))
    with pytest.raises(InputError, match="does not match its offsets"):
        Ids.load(tmp_path)
