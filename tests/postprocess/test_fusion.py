"""Rank fusion against plain loops, and the sum of scores against a search over concatenated vectors."""

import numpy as np
import pytest

from retrieval_jax import index, postprocess
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, ensemble, fusion
from retrieval_jax.scoring.ranking import Ranking

ITEMS = [f"g{row:03d}" for row in range(50)]


@pytest.fixture
def members():
    rng = np.random.default_rng(0)
    out = []
    for dim in (4, 7, 3):
        sides = (rng.normal(size=(6, dim)), rng.normal(size=(50, dim)))
        out.append(tuple(Embeddings([f"{name}{row:03d}" for row in range(len(side))], side, {"space": str(dim)})
                         for name, side in zip("qg", sides, strict=True)))  # fmt: skip
    return out


def search(members, k):
    return [index.get("exact").Index(gallery).search(queries, k) for queries, gallery in members]


def naive(rankings, score_of, k, ids):
    """Fuses query by query with a dict of scores; ties go by id."""
    rows, scores = [], []
    for query in range(len(rankings[0])):
        union = {int(row) for ranking in rankings for row in ranking.item_rows[query] if row >= 0}
        scored = sorted((-float(np.float32(score_of(query, row))), ids[row], row) for row in union)[:k]
        rows.append([row for _, _, row in scored] + [-1] * (k - len(scored)))
        scores.append([-score for score, _, _ in scored] + [-np.inf] * (k - len(scored)))
    return np.array(rows), np.array(scores)


@pytest.mark.parametrize("weights", [None, (1, 2, 0.5)])
@pytest.mark.parametrize("k, found", [(5, 8), (40, 8)])
def test_reciprocal_rank_equals_naive(members, weights, k, found):
    rankings = search(members, found)
    rankings[1].item_rows[2, 3:] = -1  # a member that found fewer
    rankings[1].scores[2, 3:] = -np.inf
    share = np.array(weights or (1, 1, 1)) / sum(weights or (1, 1, 1))

    def score_of(query, row):
        total = 0.0
        for number, ranking in enumerate(rankings):
            for place, other in enumerate(ranking.item_rows[query].tolist(), start=1):
                total += share[number] / (60 + place) if other == row else 0.0
        return total

    fused = fusion.reciprocal_rank(rankings, k, weights=weights, gallery_ids=members[0][1].ids)
    rows, scores = naive(rankings, score_of, k, ITEMS)
    assert np.array_equal(fused.item_rows, rows) and fused.gallery_sha256 == rankings[0].gallery_sha256
    np.testing.assert_allclose(fused.scores, scores, rtol=1e-6)


def test_ties_go_by_id_or_by_row_without_ids():
    ids = Embeddings(["z", "a", "m"], np.eye(3)).ids
    one, other = (Ranking(["q"], np.array([rows]), np.array([[2.0, 1.0]])) for rows in ([0, 1], [1, 0]))
    assert fusion.reciprocal_rank([one, other], 3, gallery_ids=ids).item_rows.tolist() == [[1, 0, -1]]
    assert fusion.reciprocal_rank([one, other], 3).item_rows.tolist() == [[0, 1, -1]]


@pytest.mark.parametrize("weights", [None, (1, 2, 0.5)])
def test_the_sum_of_scores_equals_a_search_over_concatenated_vectors(members, weights, monkeypatch):
    monkeypatch.setattr(fusion, "PAIRS", 40)  # several rounds
    queries, gallery = (ensemble.concatenate(side, weights) for side in zip(*members, strict=True))
    expected = index.get("exact").Index(gallery).search(queries, 50)
    whole = fusion.sum_of_scores(search(members, 50), members, 50, weights=weights)
    assert np.array_equal(whole.item_rows, expected.item_rows)
    np.testing.assert_allclose(whole.scores, expected.scores, atol=1e-6)
    # truncated lists: the same scores, for listings that some member found
    cut = fusion.sum_of_scores(search(members, 9), members, 9, weights=weights)
    for query in range(6):
        there = expected.item_rows[query].tolist()
        np.testing.assert_allclose(
            cut.scores[query], [expected.scores[query][there.index(row)] for row in cut.item_rows[query]], atol=1e-6
        )
        listed = {row for ranking in search(members, 9) for row in ranking.item_rows[query].tolist()}
        assert cut.item_rows[query].tolist() == [row for row in there if row in listed][:9]


def test_the_step_fuses_and_leaves_concatenated_vectors(members):
    rankings = search(members, 9)
    state = State(members, None, ("one", "two", "three"), None, tuple(rankings))
    fused = postprocess.get("fusion").step(state, weights=(1, 2, 3))
    expected = fusion.reciprocal_rank(rankings, 9, weights=(1, 2, 3), gallery_ids=members[0][1].ids)
    assert np.array_equal(fused.ranking.item_rows, expected.item_rows) and fused.names == ("ensemble",)
    joined = ensemble.concatenate([gallery for _, gallery in members], (1, 2, 3))
    assert np.array_equal(fused.members[0][1].vectors, joined.vectors)
    summed = postprocess.get("fusion").step(state, method="scores", k=4).ranking
    assert np.array_equal(summed.item_rows, fusion.sum_of_scores(rankings, members, 4).item_rows)
    with pytest.raises(InputError, match="each of the 3 members, but there are 2"):
        fusion.step(State(members, None, (), None, tuple(rankings[:2])))
    with pytest.raises(InputError, match="search.members"):
        fusion.step(State(members[:1], rankings[0]))
    with pytest.raises(InputError, match="reciprocal_rank, scores"):
        fusion.step(state, method="borda")


def test_mismatched_rankings_are_rejected(members):
    one, two, _ = search(members, 5)
    other = Ranking(two.query_ids, two.item_rows, two.scores, "another gallery")
    for rankings in ([one, other], [one, Ranking(["x"], [[0]], [[1.0]], one.gallery_sha256)]):
        with pytest.raises(InputError, match="0 and 1"):
            fusion.reciprocal_rank(rankings, 5)
    for arguments in ({"k": 0}, {"k": 5, "constant": -1}, {"k": 5, "weights": (1,)}):
        with pytest.raises(InputError):
            fusion.reciprocal_rank([one, two], **arguments)
