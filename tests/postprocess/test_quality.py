"""The last stage: permutes the first results and nothing else, keeps to its cost, and says what it lacks."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, quality, walk
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Ranking, Truth

QUERIES, GALLERY, K, DEPTH = 120, 400, 30, 12


def made(seed=0, harm=0.0):
    """Returns a state: half of the first results are relevant, and shoppers click them by price, cheap ones more.

    Args:
      seed: of all.
      harm: how much more they like what is not relevant.
    """
    rng = np.random.default_rng(seed)
    price = rng.normal(size=GALLERY).astype(np.float32)
    noise = rng.normal(size=GALLERY).astype(np.float32)
    noise[::7] = np.nan
    rows = np.stack([rng.permutation(GALLERY)[:K] for _ in range(QUERIES)])
    scores = np.sort(rng.random((QUERIES, K)))[:, ::-1].astype(np.float32)
    relevant = rng.random((QUERIES, K)) < 0.2 + 0.6 * scores
    chance = np.where(relevant, 0.8 - harm, 0.1 + harm) / (1 + np.exp(2 * price[rows]))
    sides = [Embeddings([f"{name}{row}" for row in range(n)], np.ones((n, 2))) for name, n in
             (("query", QUERIES), ("gallery", GALLERY))]  # fmt: skip
    ids = [side.ids for side in sides]
    ranking = Ranking(ids[0], rows, scores)
    counts = relevant.sum(1)
    judged = Truth(*ids, np.append(0, np.cumsum(counts)), rows[relevant])
    clicked = Truth(*ids, np.arange(QUERIES + 1) * K, rows.ravel(), chance.ravel(), np.zeros((0, 2), int))
    return State(
        [tuple(sides)], ranking, ("trained",), judged=judged, clicked=clicked, listed={"price": price, "noise": noise}
    )


STATE = made()
KWARGS = {"columns": ("price", "noise"), "depth": DEPTH}


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    return quality.step(dataclasses.replace(STATE, folder=folder), **KWARGS), folder


def liked(ranking, clicked):
    return np.nanmean(metrics.per_query(ranking, clicked, (), ("ndcg@10",), gain="linear")["ndcg@10"])


def test_only_the_first_results_move(after):
    new, old = after[0].ranking, STATE.ranking
    for query in range(QUERIES):
        assert sorted(new.item_rows[query, :DEPTH]) == sorted(old.item_rows[query, :DEPTH])
        assert new.item_rows[query, DEPTH:].tolist() == old.item_rows[query, DEPTH:].tolist()
    assert (np.diff(new.scores, axis=1) <= 0).all()
    assert after[0].members is STATE.members and not np.array_equal(new.item_rows, old.item_rows)


def test_it_is_liked_more_within_the_cost(after):
    assert liked(after[0].ranking, STATE.clicked) > liked(STATE.ranking, STATE.clicked) + 0.03
    about = json.loads((after[1] / "quality.json").read_text())
    chosen = next(one for one in about["tried"] if one["weight"] == about["weight"])
    assert about["weight"] > 0 and chosen["cost_at_most"] <= about["cost"] == 0.01
    assert about["tried"][0] == {"weight": 0, "gain": 0, "gain_error": 0, "cost": 0, "cost_at_most": 0}


def test_a_smaller_cost_is_kept_to():
    state = made(harm=0.35)  # shoppers like what is not relevant as much
    weights = []
    for cost in (0.0, 0.02, 1.0):
        new = quality.step(state, cost=cost, **KWARGS).ranking
        relevant = [metrics.per_query(one, state.judged, (), ("ndcg@10",))["ndcg@10"] for one in (state.ranking, new)]
        lost = np.nanmean(relevant[0] - relevant[1])
        assert lost <= cost  # measured in the order that the choice was made by
        weights.append(lost)
    assert weights[0] <= weights[1] < weights[2]


def test_equal_runs_are_equal_and_the_seed_is_of_the_folds(after):
    again = quality.step(STATE, **KWARGS).ranking
    assert np.array_equal(again.item_rows, after[0].ranking.item_rows)
    assert np.array_equal(again.scores, after[0].ranking.scores)


def test_a_saved_ranker_gives_the_same_order(after, tmp_path):
    loaded = quality.load(after[1])
    assert loaded.columns == ("price", "noise") and loaded.depth == DEPTH
    asked = np.arange(QUERIES) < 60
    clicked = STATE.clicked.moved(STATE.clicked.query_ids, STATE.clicked.gallery_ids, asked)
    new = quality.step(dataclasses.replace(STATE, clicked=clicked, folder=tmp_path), **KWARGS).ranking
    again = quality.load(tmp_path).apply(STATE.ranking, STATE.listed)
    assert np.array_equal(again.item_rows[60:], new.item_rows[60:])
    assert not np.array_equal(again.item_rows[:60], new.item_rows[:60])  # by trees that have not seen these queries


def test_trees_never_order_the_queries_they_have_seen():
    rng = np.random.default_rng(5)  # clicks that nothing explains: whoever has seen them gains, others do not
    clicked = dataclasses.replace(STATE.clicked, grades=rng.random(QUERIES * K).astype(np.float32))
    new = quality.step(dataclasses.replace(STATE, clicked=clicked), weight=1.0, **KWARGS).ranking
    assert liked(new, clicked) < liked(STATE.ranking, clicked) + 0.01


def test_tiers_keep_their_order():
    rows = np.array([[5, 3, 8, 1, 2, 0]])
    ranking = Ranking(["a"], rows, np.array([[0.4, 0.3, 0.9, 0.2, 0.8, 0.7]], np.float32))  # two tiers, and the rest
    scores = np.array([[0, 0, 0, 0.0]])
    for weight in (0.0, 0.5):
        assert quality.reordered(ranking, scores, weight).item_rows.tolist() == rows.tolist()
    assert quality.reordered(ranking, scores, 0.0) is ranking
    new = quality.reordered(ranking, np.array([[0, 0, 0, 1.0]]), 0.9)
    assert new.item_rows.tolist() == [[1, 5, 3, 8, 2, 0]] and new.scores[0, 3] > new.scores[0, 4] == np.float32(0.8)
    (seen,) = quality.features(ranking, np.zeros((0, 9)))
    np.testing.assert_allclose(seen[:, 0], [0.4, 0.3, 0.3, 0.2, 0.2, 0.2], rtol=1e-6)
    assert (seen[:, 1] >= 0).all()


def test_ties_keep_the_order_and_padding_stays_last():
    rows = np.array([[4, 2, 7, -1], [1, 0, 3, 2]])
    scores = np.array([[0.9, 0.5, 0.5, -np.inf], [0.4, 0.4, 0.4, 0.1]], np.float32)
    ranking = Ranking(["a", "b"], rows, scores)
    same = quality.reordered(ranking, np.zeros((2, 3)), 1.0)
    assert same.item_rows.tolist() == rows.tolist()
    new = quality.reordered(ranking, np.array([[0, 0, 1.0], [0, np.nan, 5]]), 1.0)
    assert new.item_rows.tolist() == [[7, 4, 2, -1], [1, 0, 3, 2]]
    assert np.isneginf(new.scores[0, 3]) and (np.diff(new.scores[1]) <= 0).all() and new.scores[1, 3] == np.float32(0.1)
    everything = quality.reordered(ranking, np.array([[0, 1, 2, 9.0], [0, 1, 2, 3]]), 1.0)
    assert everything.item_rows.tolist() == [[7, 2, 4, -1], [2, 3, 0, 1]]


def test_features_equal_a_loop():
    rows = np.array([[4, 2, 0, -1]])
    head = Ranking(["a"], rows, np.array([[0.9, 0.5, 0.25, -np.inf]], np.float32))
    price = np.array([5, 0, 5, 0, 1], np.float32)
    new = np.array([np.nan, 0, np.nan, 0, 3], np.float32)
    (seen,) = quality.features(head, np.stack([price, new]))
    assert quality.names(["price", "new"]) == [
        *("similarity", "behind the best", "place", "price", "new", "price among the results", "new among the results")
    ]  # fmt: skip
    nan = np.nan
    expected = [[0.9, 0, 0, 1, 3, 0, 0.5], [0.5, 0.4, 1, 5, nan, 0.75, nan], [0.25, 0.65, 2, 5, nan, 0.75, nan]]
    np.testing.assert_allclose(seen[:3], expected, rtol=1e-6, atol=1e-7)
    assert np.isnan(np.delete(seen[3], 2)).all()


def test_nothing_to_gain_leaves_the_order():
    rng = np.random.default_rng(1)
    clicked = dataclasses.replace(STATE.clicked, grades=rng.random(QUERIES * K).astype(np.float32) + 0.01)
    state = dataclasses.replace(STATE, clicked=clicked, listed={"noise": STATE.listed["noise"]})
    new = quality.step(state, columns=("noise",), depth=DEPTH, cost=0.0).ranking
    assert np.array_equal(new.item_rows, STATE.ranking.item_rows)


@pytest.mark.parametrize(
    "change, kwargs, message",
    [
        ({}, {"columns": ("prise",)}, "no numbers 'prise'; did you mean price"),
        ({"listed": {}}, {}, "no numbers 'price'"),
        ({"listed": {"price": np.zeros(3), "noise": np.zeros(3)}}, {}, "the columns have 3 listings"),
        ({"clicked": None}, {}, "learns from clicks, and this state has no log: see"),
        ({"judged": None}, {}, "0 queries of the selection half are judged"),
        ({"ranking": None}, {}, "quality needs a ranking"),
        ({}, {"cost": 2}, "cost=2"),
        ({}, {"weight": "best"}, "weight='best'"),
        ({}, {"depth": 50}, "search.k is 30"),
    ],
)
def test_what_is_missing_is_said(change, kwargs, message):
    with pytest.raises(InputError, match=message):
        quality.step(dataclasses.replace(STATE, **change), **{**KWARGS, **kwargs})


def test_few_clicks_are_refused_and_a_given_weight_needs_no_truth():
    few = STATE.clicked.moved(STATE.clicked.query_ids, STATE.clicked.gallery_ids, np.arange(QUERIES) < 5)
    with pytest.raises(InputError, match="5 queries have two listings or more"):
        quality.step(dataclasses.replace(STATE, clicked=few), **KWARGS)
    new = quality.step(dataclasses.replace(STATE, judged=None), weight=0.5, **KWARGS).ranking
    assert liked(new, STATE.clicked) > liked(STATE.ranking, STATE.clicked)


def test_a_ranker_of_other_features_or_a_changed_file_is_refused(after, tmp_path):
    for name in (quality.TEXT, quality.FILE):
        (tmp_path / name).write_text((after[1] / name).read_text())
    about = json.loads((tmp_path / quality.FILE).read_text())
    for columns in (["price"], ["noise", "price"]):
        changed = {**about, "columns": columns, "features": quality.names(columns)}
        (tmp_path / quality.FILE).write_text(json.dumps(changed))
        with pytest.raises(InputError, match="was fitted on the features 0_similarity"):
            quality.load(tmp_path)
    (tmp_path / quality.FILE).write_text(json.dumps(about))
    (tmp_path / quality.TEXT).write_text((tmp_path / quality.TEXT).read_text()[:-100])
    with pytest.raises(InputError, match="has changed since it was written: run search again"):
        quality.load(tmp_path)
    (tmp_path / quality.TEXT).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        quality.load(tmp_path)


def test_without_lightgbm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(InputError, match="pip install -r requirements-ranking.txt"):
        quality.library()

    def lacks_libgomp(name, *rest):
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("builtins.__import__", lacks_libgomp)
    with pytest.raises(InputError, match="libgomp.so.1"):
        quality.library()


def test_any_name_of_a_column_will_do_once():
    columns = ('price "EUR":net, [a]', "a b", "a_b")
    state = dataclasses.replace(STATE, listed=dict.fromkeys(columns, STATE.listed["price"]))
    quality.step(state, columns=columns, depth=DEPTH, weight=0.5)
    with pytest.raises(InputError, match="columns names 'price' more than once"):
        quality.step(STATE, columns=("price", "noise", "price"), depth=DEPTH)


def test_places_among_the_results_in_blocks(monkeypatch):
    values = np.random.default_rng(0).normal(size=(9, 4))
    whole = quality._among(values)
    monkeypatch.setattr(quality, "PAIRS", 40)  # two queries at once
    assert np.array_equal(quality._among(values), whole)


def test_it_is_a_step():
    assert walk.parse((("quality", {"cost": 0.02}),))[0].name == "quality"
    with pytest.raises(InputError, match="costs"):
        walk.parse((("quality", {"costs": 0.02}),))
