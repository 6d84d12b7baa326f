"""Effects of steps that trust neighbours: measured by number of relevant listings, and reported correctly."""

import json

import numpy as np
import pytest

from retrieval_jax.scoring import metrics, step_effects
from retrieval_jax.scoring.ranking import Ranking, Truth


def rankings():
    """Returns rankings of 40 queries: 30 lose their one relevant listing from the top 10, 10 gain their second."""
    before = np.tile(np.arange(20), (40, 1))
    after = before.copy()
    after[:30, [9, 10]] = [10, 9]
    after[30:, [1, 15]] = [15, 1]
    relevant = [[9]] * 30 + [[0, 15]] * 10
    indptr = np.cumsum([0] + [len(rows) for rows in relevant])
    truth = Truth([f"q{i}" for i in range(40)], [f"g{i}" for i in range(20)], indptr, np.concatenate(relevant))
    scores = np.tile(-np.arange(20.0), (40, 1))
    return *(Ranking(truth.query_ids, rows, scores) for rows in (before, after)), truth


def sentence(found):
    entry = {"model": "trained", "before": "whitening", "stage": "reranking", "step": "reranking"}
    return step_effects.sentence({**entry, **found})


def test_gains_by_number_of_relevant_listings():
    before, after, truth = rankings()
    found = step_effects.effect(before, after, truth)
    assert found["all"]["before"] == pytest.approx((30 + 10 * 0.5) / 40)
    assert found["one"]["before"] == 1 and found["one"]["after"] == 0 and found["one"]["num_scored"] == 30
    assert found["more"]["difference"] == pytest.approx(0.5) and found["more"]["wins"] == 10
    assert found["all"]["difference"] == pytest.approx(
        np.diff([metrics.evaluate(ranking, truth)["mar@10_capped"] for ranking in (before, after)])[0]
    )
    text = sentence(found)
    assert "87.50 -> 25.00 over whitening, -62.50" in text and "it hurts: remove it" in text
    assert "75 % of the queries have a single relevant listing: -100.00, the others +50.00" in text
    assert "likely to hurt" in text


def test_gains_within_noise_and_unscored_steps_are_reported_as_such():
    before, after, truth = rankings()
    assert "within noise" in sentence(step_effects.effect(before, before, truth))
    better = sentence(step_effects.effect(after, before, truth))
    assert "+62.50" in better and "it helps" in better
    empty = Truth(truth.query_ids, truth.gallery_ids, np.zeros(41, np.int64), np.zeros(0, np.int64))
    assert "unknown" in sentence(step_effects.effect(before, after, empty)) and "unknown" in sentence({})


def test_pairs_are_a_models_stage_and_the_one_before(tmp_path):
    (tmp_path / "rankings").mkdir()
    entries = [("untrained", "cosine", None), ("trained", "cosine", None), ("trained", "whitening", "whitening"),
               ("trained", "local", "reranking"), ("ensemble", "ensemble", "ensemble"),
               ("ensemble", "diffusion", "diffusion")]  # fmt: skip
    stages = [dict(zip(("model", "stage", "step"), entry, strict=True)) for entry in entries]
    (tmp_path / "rankings" / "rankings.json").write_text(json.dumps({"stages": stages}))
    assert [tuple(entry.values()) for entry in step_effects.pairs(tmp_path)] == [
        ("trained", "whitening", "local", "reranking"),
        ("ensemble", "ensemble", "diffusion", "diffusion"),
    ]
