"""Which stages of a search apply to a query that was not in it, for the service and for exported models alike."""

import json

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.postprocess import new_queries, whitening

COSINE = ("cosine", None)


@pytest.fixture
def ranked(tmp_path):
    """A function of the stages' (name, step) that writes rankings.json, and returns what applies of the steps."""
    vectors = np.random.default_rng(0).normal(2, 1, (50, 4)).astype(np.float32)
    fitted = whitening.fit(Embeddings([str(row) for row in range(50)], vectors))
    own = tmp_path / "rankings" / "trained"
    fitted.save(own / "whitening_trained.npz")

    def of(made, steps, chosen=None):
        listed = [{"model": "trained", "stage": stage, "step": step, "kwargs": {}} for stage, step in made]
        (tmp_path / "rankings" / "rankings.json").write_text(json.dumps({"stages": listed}))
        if chosen is not None:
            (own / "chosen_steps.json").write_text(json.dumps({"steps": chosen, "why": "it helped"}))
        return new_queries.of_run(tmp_path, {"search": {"steps": steps}})

    of.fitted = fitted
    return of


def exported(found, fitted):
    """Returns the stages of an exported model, written as `sharing.facts` writes them."""
    listed = [{"stage": one.name, "steps": [list(step) for step in one.steps]} for one in found[1:]]
    return new_queries.of_export(json.loads(json.dumps({"stages": listed})), fitted)


@pytest.mark.parametrize(
    ("made", "steps", "chosen", "wanted"),
    [
        ([], [], None, ["cosine"]),
        ([("whitening", "whitening")], [("whitening", {})], None, ["cosine", "whitening"]),
        ([("last", "reranking")], [("l2", {}), ("whitening", {}), ("reranking", {"stage": "last"})], None,
         ["cosine", "last"]),
        ([("chosen", "chosen")], [("chosen", {})], [["whitening", {}], ["reranking", {}]], ["cosine", "chosen"]),
        ([("chosen", "chosen")], [("chosen", {})], [], ["cosine", "chosen"]),
        ([("whitening", "whitening"), ("diffusion", "diffusion"), ("l2", "l2")],
         [("whitening", {}), ("diffusion", {}), ("l2", {})], None, ["cosine", "whitening"]),
    ],
)  # fmt: skip
def test_an_exported_model_has_the_stages_of_its_run(ranked, made, steps, chosen, wanted):
    found, note = ranked([COSINE, *made], steps, chosen)
    assert [one.name for one in found] == wanted and bool(note) == ("diffusion" in dict(made))
    ours = exported(found, ranked.fitted)
    assert [(one.name, one.l2_first, one.reranking, one.steps) for one in ours] == [
        (one.name, one.l2_first, one.reranking, one.steps) for one in found
    ]
    vectors = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    for one, other in zip(ours, found, strict=True):
        assert np.array_equal(one.vectors(vectors, "query"), other.vectors(vectors, "query"))


def test_a_run_that_whitens_twice_has_kept_the_last_map_alone(ranked):
    made = [COSINE, ("first", "whitening"), ("second", "whitening")]
    steps = [("whitening", {"stage": "first"}), ("whitening", {"stage": "second"})]
    found, note = ranked(made, steps)
    assert [one.name for one in found] == ["cosine"]
    assert "'first' is not served" in note and "only the last whitening was kept" in note
    # A whitening after the models were joined has a file of its own.
    made, steps = [COSINE, ("first", "whitening")], [*steps[:1], ("ensemble", {}), ("whitening", {})]
    assert [one.name for one in ranked(made, steps)[0]] == ["cosine", "first"]


@pytest.mark.parametrize("step", ["l2", "whitening"])
def test_what_ranks_anew_after_re_ranking_is_left_out(ranked, step):
    made = [COSINE, ("reranking", "reranking"), ("last", step)]
    found, note = ranked(made, [("reranking", {}), (step, {"stage": "last"})])
    assert [one.name for one in found] == ["cosine", "reranking"]
    assert "'last' is not served" in note and f"its step {step!r} follows re-ranking" in note


def test_exports_of_before_stages_were_written_are_searched_by_their_steps(ranked):
    search = {"steps": [["l2", {}], ["whitening", {}], ["diffusion", {}]]}
    found = new_queries.of_export(search, ranked.fitted)
    assert [one.name for one in found] == ["cosine", "l2", "whitening"] and found[-1].l2_first
    assert [one.name for one in new_queries.of_export(search, None)] == ["cosine", "l2"]
    assert [one.name for one in new_queries.of_export({}, None)] == ["cosine"]
