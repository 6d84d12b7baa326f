"""Rankings and truths: what they accept, drop and reject."""

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.scoring.ranking import Ranking, Truth


def test_a_ranking_round_trips(tmp_path):
    ranking = Ranking(["q", "é"], [[2, 0, -1], [1, 1, 0]], [[0.5, 0.5, -np.inf], [3, 2, -1]], "abc")
    ranking.save(tmp_path / "r", step="whitening")
    ranking.save(tmp_path / "r")  # over an older one
    again = Ranking.load(tmp_path / "r")
    assert list(again.query_ids) == ["q", "é"] and again.gallery_sha256 == "abc" and again.k == 3 and len(again) == 2
    assert np.array_equal(again.item_rows, ranking.item_rows) and np.array_equal(again.scores, ranking.scores)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


@pytest.mark.parametrize(
    "rows, scores",
    [
        ([[-1, 0]], [[-np.inf, 1]]),  # padding before the end
        ([[0, -1]], [[1, 0]]),  # padding with a score
        ([[0, 1]], [[1, np.nan]]),
        ([[0, 1]], [[1]]),
    ],
)
def test_an_invalid_ranking_is_rejected(rows, scores):
    with pytest.raises(InputError):
        Ranking(["q"], rows, scores)


def test_a_missing_or_truncated_ranking_is_named(tmp_path):
    with pytest.raises(InputError, match="run search first"):
        Ranking.load(tmp_path / "none")
    Ranking(["q"], [[0]], [[1.0]]).save(tmp_path / "r")
    (tmp_path / "r" / "scores.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="scores.npy"):
        Ranking.load(tmp_path / "r")


def test_truth_sorts_and_drops_repeats_and_the_query_itself():
    truth = Truth.from_lists(["a", "b", "c"], ["x", "a", "y"], [["y", "a", "x", "y"], [], ["a"]])
    assert truth.indptr.tolist() == [0, 2, 2, 3]
    assert [truth.relevant(query).tolist() for query in range(3)] == [[0, 2], [], [1]]
    assert truth.num_relevant.tolist() == [2, 0, 1] and len(truth) == 3


def test_empty_truths():
    assert Truth.from_lists([], [], []).num_relevant.tolist() == []
    assert Truth.from_lists(["q"], [], [[]]).num_relevant.tolist() == [0]


def test_an_invalid_truth_says_where():
    with pytest.raises(InputError, match=r"query b \(row 1\) refers to 'z'"):
        Truth.from_lists(["a", "b"], ["x"], [["x"], ["z"]])
    with pytest.raises(InputError, match="repeats"):
        Truth.from_lists(["a"], ["x", "x"], [["x"]])
    with pytest.raises(InputError, match="2 queries, but 1 lists"):
        Truth.from_lists(["a", "b"], ["x"], [["x"]])
    with pytest.raises(InputError, match="query b refers to gallery row 7"):
        Truth(["a", "b"], ["x"], np.array([0, 1, 2]), np.array([0, 7]))
    with pytest.raises(InputError, match="ascending offsets"):
        Truth(["a", "b"], ["x"], np.array([0, 1]), np.array([0]))
