"""Numbers behind the report's sections of what is found, against plain loops."""

import base64

import cv2
import numpy as np
import pytest

from retrieval_jax.pages import retrieval, rows
from retrieval_jax.scoring.ranking import Ranking, Truth


def made(queries=7, gallery=20, k=12):
    rng = np.random.default_rng(3)
    ids = [f"q{i}" for i in range(queries)], [f"g{i}" for i in range(gallery)]
    relevant = [[ids[1][(2 * i + j) % gallery] for j in range(i % 4)] for i in range(queries)]  # some have none
    rows = np.stack([rng.permutation(gallery)[:k] for _ in range(queries)])
    scores = -np.sort(rng.random(rows.shape).astype(np.float32), axis=1)
    rows[2, 5:], scores[2, 5:] = -1, -np.inf
    return Ranking(ids[0], rows, scores), Truth.from_lists(*ids, relevant)


def test_recall_and_precision_by_depth():
    ranking, truth = made()
    recall, precision = retrieval.depth_curves(ranking, truth)
    assert [k for k, _ in recall] == list(range(1, 13)) and [x for x, _ in precision] == [y for _, y in recall]
    for k in (1, 4, 12):
        found, right = [], []
        for query in range(len(ranking)):
            wanted = set(truth.relevant(query).tolist())
            if wanted:
                hits = len(wanted & set(ranking.item_rows[query, :k].tolist()))
                found.append(hits / len(wanted))
                right.append(hits / k)
        assert recall[k - 1][1] == pytest.approx(100 * np.mean(found))
        assert precision[k - 1][1] == pytest.approx(100 * np.mean(right))


def test_equal_rankings_share_a_curve_and_without_truth_there_is_none():
    ranking, truth = made()
    (section,) = retrieval.curve_section({"one": ranking, "two": ranking}, truth)
    assert section.body.count("one = two") >= 2 and "stroke-s1" not in section.body
    nothing = Truth.from_lists(truth.query_ids, truth.gallery_ids, [[]] * len(truth))
    assert retrieval.curve_section({"one": ranking}, nothing) == [] == retrieval.curve_section({}, truth)


def test_occurrences_count_queries():
    ranking, _ = made()
    counts = retrieval.occurrences(ranking, 20, 5)
    assert counts.tolist() == [int((ranking.item_rows[:, :5] == row).any(1).sum()) for row in range(20)]


def test_the_plane_of_largest_variance():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 10)) * np.array([9, 5, *[0.1] * 8]) + 3
    points, share = retrieval.plane(vectors)
    assert share > 0.99 and np.allclose(points.mean(0), 0, atol=1e-9)
    for axis in (0, 1):
        centred = vectors[:, axis] - vectors[:, axis].mean()
        assert abs(np.corrcoef(points[:, axis], centred)[0, 1]) > 0.99
    assert np.array_equal(points, retrieval.plane(vectors)[0])


def test_only_the_worst_of_many_slices_are_shown():
    def one(value, count=50):
        return {"mar@10": value, "mar@10_low": value - 0.1, "mar@10_high": value + 0.1, "num_scored": count}

    slices = {f"s{i:02}": one(i / 100) for i in range(30)} | {"tiny": one(0.0, 3)}
    stage = {
        "model": "trained",
        "stage": "cosine",
        **one(0.5),
        "slices": {"category leaf": slices, "single": {"a": one(0)}},
    }
    (section,) = retrieval.slice_section(stage, "mar@10")
    assert "s11: 11.0 % (1.0 to 21.0), 50 queries" in section.body
    assert "s12" not in section.body and "tiny" not in section.body and "By single" not in section.body
    assert retrieval.slice_section(None, "mar@10") == []


def test_a_box_is_drawn_where_it_is():
    grey, box = np.full((100, 200, 3), 128, np.uint8), np.array([0.2, 0.1, 0.8, 0.6])
    plain, framed = (
        cv2.imdecode(np.frombuffer(base64.b64decode(rows.data_uri(grey, 200, 95, one).split(",")[1]), np.uint8), 1)
        for one in (None, box)
    )
    drawn = np.abs(framed.astype(int) - plain).max(-1) > 60
    y, x = np.nonzero(drawn)
    assert [y.min(), y.max(), x.min(), x.max()] == pytest.approx([20, 79, 20, 119], abs=2)
    assert not drawn[30:70, 30:110].any()
