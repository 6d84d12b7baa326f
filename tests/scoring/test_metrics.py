"""Metrics against plain loops over lists."""

import math
import time
import tracemalloc

import numpy as np
import pytest

from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import bootstrap, metrics
from retrieval_jax.scoring.ranking import Ranking, Truth


def naive(found, relevant, k):
    """Scores one query: `found` is a list of ids, `relevant` a set of ids."""
    hits, precisions, gain, seen = 0, 0.0, 0.0, set()
    for place, item in enumerate(found[:k], start=1):
        if item in relevant and item not in seen:
            hits += 1
            precisions += hits / place
            gain += 1 / math.log2(place + 1)
        seen.add(item)
    best = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(relevant)) + 1))
    return (
        hits / len(relevant),
        hits / min(k, len(relevant)),
        precisions / min(k, len(relevant)),
        hits / k,
        gain / best,
    )


def names(k):
    return f"mar@{k}", f"mar@{k}_capped", f"map@{k}", f"precision@{k}", f"ndcg@{k}"


@pytest.fixture
def catalogue():
    rng = np.random.default_rng(0)
    query_ids, gallery_ids = [f"q{n}" for n in range(40)], [f"g{n}" for n in range(60)] + ["q3", "q5"]
    relevant = [rng.choice(gallery_ids, rng.integers(0, 25), replace=True).tolist() for _ in query_ids]
    relevant[3] += ["q3"]  # the query itself
    relevant[5] = ["q5"]  # only the query itself, so no relevant listing
    rows = rng.integers(0, 62, (40, 15))  # with repeats
    rows[3, 0] = gallery_ids.index("q3")
    rows[7, 4:] = -1
    scores = np.where(rows >= 0, -np.arange(15.0), -np.inf)
    return Ranking(query_ids, rows, scores), Truth.from_lists(query_ids, gallery_ids, relevant), relevant, gallery_ids


def test_equals_naive_loops(catalogue):
    ranking, truth, relevant, gallery_ids = catalogue
    ks = (1, 3, 10, 20)
    scored = {name: [] for k in ks for name in names(k)} | {"recall@1": []}
    each = metrics.per_query(ranking, truth, ks)
    for number, query in enumerate(ranking.query_ids):
        wanted = set(relevant[number]) - {query}
        found = [gallery_ids[row] for row in ranking.item_rows[number] if row >= 0]
        if not wanted:
            assert all(np.isnan(values[number]) for values in each.values())
            continue
        for k in ks:
            scores = naive(found, wanted, k)
            for name, value in zip(names(k), scores, strict=True):
                assert each[name][number] == pytest.approx(value, abs=1e-12)
                scored[name].append(value)
        scored["recall@1"].append(float(found[0] in wanted))
        assert each["recall@1"][number] == scored["recall@1"][-1]
    result = metrics.evaluate(ranking, truth, ks)
    for name, values in scored.items():
        assert result[name] == pytest.approx(np.mean(values), abs=1e-12)
        assert result[f"{name}_se"] == pytest.approx(np.std(values, ddof=1) / len(values) ** 0.5, abs=1e-12)
    assert result["num_queries"] == 40 and result["num_scored"] == len(scored["recall@1"])
    assert result["num_scored"] + result["num_without_relevant"] == 40 and np.isnan(each["mar@10"][5])


def test_the_two_denominators_by_hand():
    gallery_ids = [f"g{n}" for n in range(30)]
    truth = Truth.from_lists(["a", "b"], gallery_ids, [gallery_ids[:20], gallery_ids[:2]])
    ranking = Ranking(["a", "b"], [[*range(10)], [29, 0, *range(10, 18)]], [[*range(10, 0, -1)]] * 2)
    result = metrics.evaluate(ranking, truth)
    assert result["mar@10"] == pytest.approx((0.5 + 0.5) / 2) and result["mar@10_capped"] == pytest.approx(
        (1 + 0.5) / 2
    )
    assert result["recall@1"] == 0.5 and result["map@10"] == pytest.approx((1 + 0.25) / 2)


def test_chance_is_the_mean_of_many_random_orders():
    queries, gallery = ["a", "g3"], [f"g{row}" for row in range(30)]  # one query is in the gallery
    truth = Truth.from_lists(queries, gallery, [["g0", "g1", "g2"], ["g4"]])
    rng, found = np.random.default_rng(0), []
    for _ in range(4000):
        rows = [rng.permutation(30), rng.permutation([row for row in range(30) if row != 3])]
        rows = np.stack([order[:10] for order in rows])
        ranking = Ranking(queries, rows, np.broadcast_to(np.linspace(1, 0, 10), rows.shape))
        found.append(metrics.evaluate(ranking, truth, ks=(1, 10)))
    chance = metrics.chance(truth)
    assert set(chance) == {"mar@10", "mar@10_capped", "recall@1"}
    for name, value in chance.items():
        assert value == pytest.approx(np.mean([scores[name] for scores in found]), abs=0.01)
    assert metrics.chance(Truth.from_lists(["a"], gallery, [[]])) == {}


def test_a_subset_of_the_queries_and_nothing_to_score(catalogue):
    ranking, truth, _, _ = catalogue
    chosen = np.arange(40) < 9
    part = metrics.evaluate(ranking, truth, chosen=chosen)
    each = metrics.per_query(ranking, truth)["mar@10"][:9]
    assert part["num_queries"] == 9 and part["mar@10"] == pytest.approx(np.nanmean(each))
    nothing = metrics.evaluate(ranking, Truth.from_lists(ranking.query_ids, truth.gallery_ids, [[]] * 40))
    assert nothing["mar@10"] is None and nothing["mar@10_se"] is None and nothing["num_without_relevant"] == 40


def test_mismatched_ranking_and_truth_are_rejected(catalogue):
    ranking, truth, _, gallery_ids = catalogue
    other = Truth.from_lists([*list(ranking.query_ids)[1:], "q0"], gallery_ids, [[]] * 40)
    with pytest.raises(InputError, match="a different order"):
        metrics.evaluate(ranking, other)
    with pytest.raises(InputError, match="a different gallery"):
        metrics.evaluate(Ranking(ranking.query_ids, ranking.item_rows, ranking.scores, "else"), truth)
    with pytest.raises(InputError, match="gallery row 61"):
        metrics.evaluate(ranking, Truth.from_lists(ranking.query_ids, gallery_ids[:50], [[]] * 40))
    with pytest.raises(InputError, match="ks=0, expected an integer"):
        metrics.evaluate(ranking, truth, (0,))


def test_the_paired_bootstrap_finds_a_difference_that_separate_scores_hide():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=400)  # query difficulty, shared by both runs: varies far more than the difference
    first = hard + 0.05 * rng.normal(size=400)
    second = hard + 0.02 + 0.05 * rng.normal(size=400)
    first[7] = second[7] = np.nan
    found = bootstrap.paired_bootstrap(first, second)
    gains = np.delete(second - first, 7)
    error = gains.std() / np.sqrt(len(gains))
    assert found["difference"] == pytest.approx(gains.mean()) and found["num_scored"] == 399
    assert found["low"] == pytest.approx(gains.mean() - 1.96 * error, abs=0.1 * error)
    assert found["high"] == pytest.approx(gains.mean() + 1.96 * error, abs=0.1 * error)
    assert found["p"] < 0.001 and found["wins"] == (gains > 0).sum() and found["losses"] == (gains < 0).sum()
    assert found == bootstrap.paired_bootstrap(first, second)
    swapped = bootstrap.paired_bootstrap(second, first)
    assert swapped["difference"] == -found["difference"] and swapped["wins"] == found["losses"]


def test_the_paired_bootstrap_is_calibrated_on_noise():
    rng = np.random.default_rng(1)
    shares = [bootstrap.paired_bootstrap(*rng.normal(size=(2, 50)), draws=400, seed=n)["p"] < 0.05 for n in range(200)]
    assert np.mean(shares) < 0.12
    assert bootstrap.paired_bootstrap(np.ones(5), np.ones(5))["p"] == 1.0
    with pytest.raises(InputError, match="one catalogue"):
        bootstrap.paired_bootstrap(np.ones(5), np.array([1, 1, np.nan, 1, 1]))
    with pytest.raises(InputError, match="nothing to compare"):
        bootstrap.paired_bootstrap(np.full(2, np.nan), np.full(2, np.nan))


def test_intervals_are_percentiles_of_means_over_resampled_queries(catalogue):
    ranking, truth, _, _ = catalogue
    chosen = np.arange(40) % 3 > 0
    found = metrics.evaluate(ranking, truth, (10,), chosen=chosen, draws=500)
    plain = metrics.evaluate(ranking, truth, (10,), chosen=chosen)
    assert plain == {name: value for name, value in found.items() if name.rpartition("_")[2] not in ("low", "high")}
    each = metrics.per_query(ranking, truth, (10,))
    scored = chosen & ~np.isnan(each["mar@10"])
    rng = np.random.default_rng(0)
    draws = [rng.integers(scored.sum(), size=scored.sum()) for _ in range(500)]
    for name, values in each.items():
        means = [values[scored][rows].mean() for rows in draws]
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(np.percentile(means, (2.5, 97.5)))
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    one = metrics.summary(each, np.arange(40) == int(np.flatnonzero(scored)[0]), draws=10)
    assert one["num_scored"] == 1 and one["mar@10_low"] is None and one["mar@10_se"] is None


def test_the_interval_covers_the_true_mean_about_as_often_as_stated():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        found = metrics.summary({"x": (rng.random(300) < 0.4).astype(float)}, draws=200, seed=seed)
        inside += found["x_low"] <= 0.4 <= found["x_high"]
    assert 0.89 <= inside / 200 <= 0.99


def test_ten_thousand_queries_are_scored_quickly_in_bounded_memory():
    rng = np.random.default_rng(0)
    queries, gallery, k = 10_000, 1_100_000, 100
    rows = rng.integers(0, gallery, (queries, k))
    indptr = np.arange(0, 10 * queries + 1, 10)
    relevant = rng.integers(0, gallery, (queries, 10))
    relevant[:, :5] = rows[:, :50:10]
    ids = Ids.of([f"q{row}" for row in range(queries)])
    items = Ids(np.frombuffer(b"g" * gallery, np.uint8), np.arange(gallery + 1))  # the ids are not used here
    truth = Truth(ids, items, indptr, relevant.reshape(-1))
    ranking = Ranking(ids, rows, -np.sort(rng.random(rows.shape)))
    naive = metrics.per_query(ranking, truth, (10,))["mar@10"]
    wanted = [len(set(rows[q, :10]) & set(truth.relevant(q))) / len(truth.relevant(q)) for q in range(200)]
    assert np.allclose(naive[:200], wanted)
    tracemalloc.start()
    start = time.process_time()
    found = metrics.evaluate(ranking, truth, (1, 10, 100), draws=1000)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["num_scored"] == queries and found["mar@100_low"] < found["mar@100"] < found["mar@100_high"]
    # measured: 0.3 s and 37 MB; a table of queries x gallery, or of draws x queries, would take gigabytes
    assert seconds < 10 and peak < 200e6, (seconds, peak)


@pytest.mark.parametrize("count, least", [(1, 1.0), (2, 0.5), (5, 0.0625)])
def test_a_handful_of_queries_is_not_evidence(count, least):
    found = bootstrap.paired_bootstrap(np.zeros(count), np.ones(count))
    assert found["p"] == least  # the sign test: n queries of one sign are as likely as n coins of one face
