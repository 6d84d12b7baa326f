"""Scores of outfits against plain loops, scikit-learn's AUC, and the published protocol on a generated file."""

import itertools
import json

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.scoring import outfits

RNG = np.random.default_rng(0)
N, K, D = 30, 5, 7
VECTORS = RNG.normal(size=(N * K, D)).astype(np.float32)
THERE = np.arange(K) < RNG.integers(2, K + 1, (N, 1))
ROWS = np.where(THERE, np.arange(N * K).reshape(N, K), -1)


def published(lines, points):
    """The protocol of Polyvore in plain Python: (scores of the outfits, answers chosen)."""

    def apart(one, other):
        return sum((a - b) ** 2 for a, b in zip(points[one], points[other], strict=True)) ** 0.5

    scores, chosen = [], []
    for line in lines["compatibility"]:
        pairs = list(itertools.combinations(line, 2))
        scores.append(1 - sum(apart(*pair) for pair in pairs) / len(pairs))
    for question in lines["questions"]:
        totals = [sum(apart(item, answer) for item in question["question"]) for answer in question["answers"]]
        chosen.append(totals.index(min(totals)))
    return scores, chosen


def test_scores_equal_the_published_protocol_on_a_generated_file(tmp_path):
    points = {f"item{row}": RNG.normal(size=D).tolist() for row in range(40)}
    names = list(points)
    made = {
        "compatibility": [RNG.choice(names, RNG.integers(2, 6), replace=False).tolist() for _ in range(25)],
        "questions": [
            {"question": both[:4], "answers": both[4:]}
            for both in (RNG.choice(names, 8, replace=False).tolist() for _ in range(25))
        ],
    }  # fmt: skip
    (tmp_path / "outfits.json").write_text(json.dumps(made))
    lines = json.loads((tmp_path / "outfits.json").read_text())
    scores, chosen = published(lines, points)
    vectors, rows = np.array(list(points.values())), np.full((25, 5), -1)
    for row, items in enumerate(lines["compatibility"]):
        rows[row, : len(items)] = [names.index(item) for item in items]
    np.testing.assert_allclose(outfits.compatibility(vectors, rows), scores, rtol=1e-12)
    asked, answers = (
        np.array([[names.index(item) for item in one[part]] for one in lines["questions"]])
        for part in ("question", "answers")
    )
    asked = np.insert(asked, 2, -1, axis=1)  # the blank
    totals = outfits.sums(vectors, asked, answers)
    assert totals.argmin(1).tolist() == chosen
    assert outfits.fill_in_the_blank(totals, np.array(chosen)).all()


def test_empty_places_do_not_count_and_a_long_outfit_widens_no_other():
    scores = outfits.compatibility(VECTORS, ROWS)
    wide = np.full((N + 1, 400), -1)
    wide[:N, 7 : 7 + K], wide[N, :130] = ROWS[:, ::-1], np.arange(130)
    found = outfits.compatibility(VECTORS, wide)
    np.testing.assert_allclose(found[:N], scores, rtol=1e-12)
    assert [some.shape for _, some in outfits._by_length(wide, D)][-1] == (1, 130)
    whole = np.linalg.norm(VECTORS[:130, None].astype(float) - VECTORS[:130], axis=2)
    assert found[N] == pytest.approx(1 - whole.sum() / (130 * 129))
    assert np.isnan(outfits.compatibility(VECTORS, [[3, -1], [-1, -1]])).all()
    assert outfits.sums(VECTORS, [[-1, -1]], [[0, 1]]).tolist() == [[0, 0]]
    for rows in ([[0, N * K]], [[0, -2]]):
        with pytest.raises(InputError, match="but there are 150 rows .-1 is padding."):
            outfits.compatibility(VECTORS, rows)
    with pytest.raises(InputError, match="answers refers to rows -1 to 0, but there are 150 rows"):
        outfits.sums(VECTORS, [[0, 1]], [[0, -1]])
    with pytest.raises(InputError, match="hidden refers to rows 150"):
        outfits.ranks(VECTORS, [[0, 1]], [150], np.zeros(150))


def test_equal_answers_share_the_point():
    assert outfits.fill_in_the_blank(np.array([[1.0, 1.0, 2.0], [1.0, 1.0, 1.0], [2.0, 1.0, 3.0]])).tolist() == [
        0.5,
        pytest.approx(1 / 3),
        0.0,
    ]
    with pytest.raises(InputError, match="give places from 0"):
        outfits.fill_in_the_blank(np.ones((2, 3)), np.array([0, 3]))


def test_auc_equals_scikit_learns_with_ties_and_weights():
    metrics = pytest.importorskip("sklearn.metrics")
    labels, scores = RNG.random(200) < 0.4, RNG.integers(0, 12, 200).astype(float)
    weights = RNG.integers(0, 4, 200)
    assert outfits.auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))
    weighted = metrics.roc_auc_score(labels, scores, sample_weight=weights)
    assert outfits.auc(labels, scores, weights) == pytest.approx(weighted)
    assert np.isnan(outfits.auc(np.ones(3, bool), np.arange(3.0)))
    with pytest.raises(InputError, match="non-finite"):
        outfits.auc(labels, np.where(labels, np.nan, 0.0))


def test_a_difference_in_auc_has_an_interval_that_holds_it():
    labels = np.arange(400) % 2 == 0
    good, better = (labels * gain + RNG.normal(size=(2, 400)) for gain in (0.5, 2.0))
    pairs = (np.arange(400) // 2)[:, None]
    difference, low, high = outfits.auc_difference(labels, good, better, pairs)
    first, second = (np.mean([outfits.auc(labels, one) for one in side]) for side in (good, better))
    assert difference == pytest.approx(second - first) and 0 < low < difference < high
    assert outfits.auc_difference(labels, good, good, pairs) == (0.0, 0.0, 0.0)
    assert np.isnan(outfits.auc_difference(np.ones(3), np.zeros(3), np.zeros(3), pairs[:3])).all()
    few = np.arange(400) < 5  # of one kind five, of the other many: the five decide, by 5 / 4
    found = outfits.auc_difference(few, 0 * good[0], good[0], np.arange(400)[:, None])
    places = (good[0, :5, None] > good[0, 5:]).mean(1)
    assert (found[2] - found[1]) / 3.92 == pytest.approx((places.var(ddof=1) / 5) ** 0.5, rel=0.05)
    alone = outfits.auc_difference(np.arange(400) < 1, 0 * good[0], good[0], np.arange(400)[:, None])
    assert np.isfinite(alone[0]) and np.isnan(alone[1:]).all()
    drawn = []  # as wide as a bootstrap of the pairs
    for _ in range(400):
        rows = (2 * RNG.integers(200, size=200)[:, None] + [0, 1]).ravel()
        gains = [np.mean([outfits.auc(labels[rows], one[rows]) for one in side]) for side in (good, better)]
        drawn.append(gains[1] - gains[0])
    assert 3.92 * np.std(drawn) == pytest.approx(high - low, rel=0.15)


def test_outfits_that_share_members_say_less():
    gain = RNG.normal(0.3, 1, 100)
    alone = outfits.mean_difference(np.zeros(100), gain, np.arange(100)[:, None])
    assert alone[2] - alone[0] == pytest.approx(1.96 * gain.std(ddof=1) / 10)
    members = np.stack([np.tile(np.arange(100), 9), np.full(900, -1)], 1)  # the same hundred, nine times
    again = outfits.mean_difference(np.zeros(900), np.tile(gain, 9), members)
    assert again == pytest.approx(alone)
    shared = RNG.normal(size=(300, 12)).argsort(1)[:, :3]  # triples of twelve, each with a gain of its own
    of_members = RNG.normal(size=(2000, 12))
    means = of_members[:, shared].mean(-1).mean(-1)
    widths = []
    for one in of_members[:200]:
        _, low, high = outfits.mean_difference(np.zeros(300), one[shared].mean(1), shared)
        widths.append((high - low) / 3.92)
    assert 0.8 * means.std() < np.median(widths) < 1.5 * means.std()
    one = outfits.mean_difference(np.zeros(100), gain, np.zeros((100, 1), int))  # all are of one product
    assert one[0] == pytest.approx(gain.mean()) and np.isnan(one[1:]).all()


def test_ranks_equal_a_plain_loop_and_ties_go_by_id():
    gallery = RNG.normal(size=(50, D))
    gallery[10:14] = gallery[10]  # equal sums
    types, products = RNG.integers(0, 3, 50), np.arange(50) // 2
    types[10:14] = 1
    ids = [f"{(7 * row) % 50:02d}" for row in range(50)]
    hidden = RNG.integers(0, 50, N)
    hidden[:4] = range(10, 14)
    left = np.where(THERE, RNG.integers(0, 50, THERE.shape), -1)
    left[left == hidden[:, None]] = -1
    for ours in (None, products):
        found = outfits.ranks(gallery, left, hidden, types, products=ours, ids=ids)
        for row in range(N):
            listed = [one for one in range(50) if types[one] == types[hidden[row]]]
            listed = [one for one in listed if one not in left[row]]
            there = left[row][left[row] >= 0]
            totals = {one: round(sum(np.linalg.norm(gallery[i] - gallery[one]) for i in there), 9) for one in listed}
            order = sorted(listed, key=lambda one: (totals[one], ids[one]))
            own = np.arange(50) if ours is None else ours
            right = [one for one in order if own[one] == own[hidden[row]]]
            assert found[row] == order.index(right[0]) + 1


def test_what_is_hidden_cannot_be_in_the_outfit():
    with pytest.raises(InputError, match="rows has the hidden item"):
        outfits.ranks(RNG.normal(size=(5, D)), np.full((1, 4), 3), [3], np.zeros(5))
