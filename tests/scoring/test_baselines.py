"""A model without training that is better than the trained one is found, and reported with what to do."""

import numpy as np
import pytest

from retrieval_jax.scoring import baselines

RNG = np.random.default_rng(0)
HARD, EASY = RNG.random(60) < 0.3, RNG.random(60) < 0.9
EACH = {
    ("colour_and_edges", "cosine"): EASY.astype(float),
    ("histogram", "cosine"): HARD.astype(float),
    ("trained", "cosine"): HARD.astype(float),
    ("trained", "chosen"): np.where(np.arange(60) < 2, 1.0, HARD),
}


def _better(stages):
    rows = [{"model": model, "stage": stage, "mar@10_capped": EACH[model, stage].mean()} for model, stage in stages]
    return baselines.better(rows, "mar@10_capped", EACH.__getitem__)


def test_a_better_model_without_training_is_named_with_its_gain_and_a_remedy():
    found = _better(EACH)
    assert (found["model"], found["than"]) == ("colour_and_edges", ["trained", "chosen"])
    assert found["difference"] == pytest.approx(found["score"] - found["than_score"]) and found["low"] > 0
    text = baselines.sentence(found)
    scores = f"{100 * found['score']:.2f} against {100 * found['than_score']:.2f}"
    assert "colour_and_edges/cosine, which is not trained here, scores better than trained/chosen" in text
    assert scores in text and "docs/fine_tuning.md" in text and "('trained', 'colour_and_edges')" in text


def test_nothing_is_said_where_training_helped_or_nothing_was_trained():
    assert _better([("histogram", "cosine"), ("trained", "chosen")]) == {}  # within chance, or worse
    assert _better([("histogram", "cosine"), ("colour_and_edges", "cosine")]) == {}
    assert _better([("trained", "cosine")]) == {} and baselines.sentence({}) == ""
    assert (
        baselines.better([{"model": "trained", "stage": "cosine", "mar@10_capped": None}], "mar@10_capped", None) == {}
    )
