"""Graded truth: nDCG, MRR, MAP, precision and recall as trec_eval computes them, ties included; unrated rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_jax.errors import InputError
from retrieval_jax.scoring import metrics, trec
from retrieval_jax.scoring.ranking import Ranking, Truth

GALLERY = [f"g{n}" for n in range(12)]
NAMES = ("mrr", "map", "ndcg", "ndcg@3", "ndcg@10", "precision@5", "recall@5")


@st.composite
def judged_rankings(draw):
    """Returns (truth, ranking) of a few queries, with grades 0 to 3, unrated rows and equal scores."""
    queries, triples, rows, scores = draw(st.integers(1, 3)), [], [], []
    k = draw(st.integers(1, len(GALLERY)))
    for query in range(queries):
        rated = draw(st.dictionaries(st.integers(0, len(GALLERY) - 1), st.integers(0, 3), max_size=10))
        triples += [(query, row, grade) for row, grade in rated.items()]
        rows.append(draw(st.permutations(range(len(GALLERY))))[:k])
        scores.append(sorted(draw(st.lists(st.integers(-2, 2), min_size=k, max_size=k)), reverse=True))
    ids = [f"q{n}" for n in range(queries)]
    truth = trec.of_triples(ids, GALLERY, np.array(triples, np.float64).reshape(-1, 3))
    return truth, Ranking(ids, np.array(rows), np.array(scores, np.float64))


def oracle(measures, folder, ranking, truth):
    """Returns {measure: {query: value}} of trec_eval, from the files that we write."""
    ir_measures = pytest.importorskip("ir_measures")
    trec.write_run(folder / "run.txt", ranking, GALLERY)
    trec.write_qrels(folder / "truth.qrels", truth)
    qrels = list(ir_measures.read_trec_qrels(str(folder / "truth.qrels")))
    run = list(ir_measures.read_trec_run(str(folder / "run.txt")))
    found = {}
    for one in ir_measures.iter_calc([ir_measures.parse_measure(name) for name in measures], qrels, run):
        found.setdefault(str(one.measure), {})[one.query_id] = one.value
    return found


@given(judged_rankings())
@settings(max_examples=60, deadline=None)
def test_equals_trec_eval(tmp_path_factory, made):
    truth, ranking = made
    if not len(truth.rows):
        return
    measures = {
        "mrr": "RR",
        "map": "AP",
        "ndcg": "nDCG",
        "ndcg@3": "nDCG@3",
        "ndcg@10": "nDCG@10",
        "precision@5": "P@5",
        "recall@5": "R@5",
    }
    found = oracle(measures.values(), tmp_path_factory.mktemp("trec"), ranking, truth)
    each = metrics.per_query(ranking, truth, (), NAMES, gain="linear")
    for ours, theirs in measures.items():
        for number, query in enumerate(truth.query_ids):
            if truth.num_relevant[number]:
                assert each[ours][number] == pytest.approx(found[theirs][query], abs=1e-6), ours
            else:
                assert np.isnan(each[ours][number])


def test_gains_by_hand():
    truth = Truth(["q"], GALLERY, [0, 3], [0, 1, 2], [3, 1, 2])
    ranking = Ranking(["q"], [[1, 5, 0]], [[3.0, 2.0, 1.0]])
    (linear,) = metrics.per_query(ranking, truth, (), ["ndcg@3"], gain="linear")["ndcg@3"]
    (doubled,) = metrics.per_query(ranking, truth, (), ["ndcg@3"])["ndcg@3"]
    log3 = 1 / np.log2(3)
    assert linear == pytest.approx((1 + 3 / 2) / (3 + 2 * log3 + 1 / 2))
    assert doubled == pytest.approx((1 + 7 / 2) / (7 + 3 * log3 + 1 / 2))


def test_without_grades_both_gains_are_the_old_scores():
    rng = np.random.default_rng(0)
    lists = [rng.choice(GALLERY, 4).tolist() for _ in range(5)]
    truth = Truth.from_lists(list("abcde"), GALLERY, lists)
    rows = np.stack([rng.permutation(12)[:10] for _ in range(5)])
    ranking = Ranking(list("abcde"), rows, np.tile(-np.arange(10.0), (5, 1)))
    ones = Truth(truth.query_ids, GALLERY, truth.indptr, truth.rows, np.ones(len(truth.rows)))
    for gain in metrics.GAINS:
        old, new = metrics.per_query(ranking, truth, gain=gain), metrics.per_query(ranking, ones, gain=gain)
        for name, values in old.items():
            np.testing.assert_allclose(new[name], values, rtol=1e-12)


def test_condensed_lists_leave_out_what_nobody_rated():
    truth = Truth(["q"], GALLERY, [0, 3], [0, 1, 2], [1, 0, 2])
    assert truth.rows.tolist() == [0, 2] and truth.rated_zero.tolist() == [[0, 1]]
    ranking = Ranking(["q"], [[5, 1, 6, 2]], [[4.0, 3.0, 2.0, 1.0]])
    assert metrics.condensed(ranking, truth).item_rows.tolist() == [[1, 2, -1, -1]]
    zero = metrics.per_query(ranking, truth, (), ["mrr"])["mrr"]
    rated = metrics.per_query(ranking, truth, (), ["mrr"], unrated="condensed")["mrr"]
    assert (zero[0], rated[0]) == (1 / 4, 1 / 2)
    with pytest.raises(InputError, match="ratings of 0"):
        metrics.condensed(ranking, Truth.from_lists(["q"], GALLERY, [["g0"]]))


def test_names_and_grades_that_cannot_be():
    truth, ranking = Truth(["q"], GALLERY, [0, 1], [0], [100]), Ranking(["q"], [[0]], [[1.0]])
    with pytest.raises(InputError, match="'linear'"):
        metrics.per_query(ranking, truth)
    for name in ("dcg@10", "ndcg@0", "mrr_capped", "recall", "ndcg@99999999"):
        with pytest.raises(InputError, match="no score named"):
            metrics.per_query(ranking, truth, (), [name], gain="linear")
    with pytest.raises(InputError, match="finite grades"):
        Truth(["q"], GALLERY, [0, 1], [0], [np.nan])
    with pytest.raises(InputError, match="outside"):
        Truth(["q"], GALLERY, [0, 0], [], None, [[1, 0]])


def test_the_highest_of_several_grades_counts_and_the_query_itself_never():
    truth = Truth(["g1"], GALLERY, [0, 4], [0, 0, 1, 2], [1, 3, 2, 0], [[0, 0]])
    assert truth.rows.tolist() == [0] and truth.grades.tolist() == [3] and truth.rated_zero.tolist() == [[0, 2]]
    moved = truth.moved(["x", "g1"], GALLERY[::-1])
    assert moved.rows.tolist() == [11] and moved.indptr.tolist() == [0, 0, 1] and moved.rated_zero.tolist() == [[1, 9]]
    assert not truth.moved(["g1"], GALLERY, np.array([False])).num_relevant.any()


@given(judged_rankings())
@settings(max_examples=30, deadline=None)
def test_files_are_read_back(tmp_path_factory, made):
    truth, ranking = made
    folder = tmp_path_factory.mktemp("trec")
    trec.write_qrels(folder / "t.qrels", truth)
    read, counts = trec.read_qrels(folder / "t.qrels", truth.query_ids, GALLERY)
    assert counts["read"] == counts["used"] and np.array_equal(read.rows, truth.rows)
    assert np.array_equal(read.grades, truth.grades)
    trec.write_run(folder / "run.txt", ranking, GALLERY)
    again = trec.read_run(folder / "run.txt", ranking.query_ids, GALLERY)
    assert np.array_equal(again.item_rows, ranking.item_rows)
    assert (np.diff(again.scores, axis=1) < 0).all()  # so every tool has our order
    np.testing.assert_allclose(again.scores, ranking.scores, atol=1e-4)


@pytest.mark.parametrize(
    "text, words",
    [
        ("q0 0 g1\n", "line 1 has 3 fields"),
        ("q0 0 g1 x\n", "the grade is 'x'"),
        (b"q0 0 \xff 1\n", "not UTF-8"),
    ],
)
def test_damaged_judgements_name_their_line(tmp_path, text, words):
    (tmp_path / "t.qrels").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words):
        trec.read_qrels(tmp_path / "t.qrels", ["q0"], GALLERY)
    with pytest.raises(InputError):
        trec.read_run(tmp_path / "t.qrels", ["q0"], GALLERY)


def test_unknown_ids_of_judgements_are_counted_and_those_of_runs_refused(tmp_path):
    (tmp_path / "t.qrels").write_text("q0 0 g1 2\n\nq9 0 g1 1\nq0 0 lost 1\nq0 0 g2 -1\n")
    truth, counts = trec.read_qrels(tmp_path / "t.qrels", ["q0"], GALLERY)
    assert counts == {"read": 4, "used": 2, "unknown query": 1, "unknown listing": 1}
    assert truth.grades.tolist() == [2] and truth.rated_zero.tolist() == [[0, 2]]
    (tmp_path / "run.txt").write_text("q0 Q0 lost 1 0.5 tag\n")
    with pytest.raises(InputError, match="no listing 'lost'"):
        trec.read_run(tmp_path / "run.txt", ["q0"], GALLERY)
    (tmp_path / "run.txt").write_text("q0 Q0 g1 1 inf tag\n")
    with pytest.raises(InputError, match="finite"):
        trec.read_run(tmp_path / "run.txt", ["q0"], GALLERY)
    with pytest.raises(InputError, match="rename it"):
        trec.write_run(tmp_path / "run.txt", Ranking(["a b"], [[0]], [[1.0]]), GALLERY)
