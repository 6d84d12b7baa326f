"""Public functions of the NumPy world, called with odd arguments: a right result or an InputError, nothing else.

Longer than 400 lines: half of it is the table of functions and the list of odd values, which belong together.
"""

import dataclasses
import datetime
import decimal
import fractions
import itertools
import pathlib
import tempfile
import warnings
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from retrieval_jax import arguments, propose_index
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError
from retrieval_jax.index import binary, exact, faiss_index
from retrieval_jax.index.binary import codes
from retrieval_jax.postprocess import (
    State,
    database_augmentation,
    diffusion,
    ensemble,
    fusion,
    global_reranking,
    l2,
    learned_whitening,
    query_expansion,
    reranking,
    whitening,
)
from retrieval_jax.scoring import bootstrap, comparing, metrics, slices, submission
from retrieval_jax.scoring.ranking import Ranking, Truth

Q, G, D, K = 5, 24, 6, 4
RNG = np.random.default_rng(0)
GALLERY = RNG.normal(size=(G, D)).astype(np.float32)
QUERIES = (GALLERY[:Q] + 0.3 * RNG.normal(size=(Q, D))).astype(np.float32)
QUERY_IDS, GALLERY_IDS = [f"q{row}" for row in range(Q)], [f"g{row:02d}" for row in range(G)]
SIDES = (Embeddings(QUERY_IDS, QUERIES), Embeddings(GALLERY_IDS, GALLERY))
RANKING = exact.Index(SIDES[1]).search(SIDES[0], K)
OTHER = exact.Index(SIDES[1]).search(Embeddings(QUERY_IDS, QUERIES[:, ::-1].copy()), K)
TRUTH = Truth(QUERY_IDS, GALLERY_IDS, np.array([0, 2, 3, 3, 4, 6]), np.array([0, 5, 1, 3, 4, 9]))
STATE = State([SIDES], RANKING)
EACH = metrics.per_query(RANKING, TRUTH)
GRAPH = diffusion.graph(GALLERY, 3)
WHITENING = whitening.fit(GALLERY)
KEPT = tempfile.TemporaryDirectory()  # removed when the process ends
FOLDER = pathlib.Path(KEPT.name)


def broken(value: float) -> np.ndarray:
    """Returns the gallery with one value replaced."""
    found = GALLERY.astype(np.float64)
    found[7, 2] = value
    return found


# Functions that make a fresh value, so that no call can spoil another's.
ODD = [
    *(lambda value=value: value for value in (
        None, True, False, "x", "", "mean", b"x", 0, 1, -1, 2, 3, G, G + 1, 100, 10**12, 2**63, -(2**63), 2**80, 0.0,
        0.5, 1.0, 2.5, -0.5, 1e300, float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.int8(3),
        np.uint64(2), np.float16(0.5), np.True_, fractions.Fraction(1, 2), decimal.Decimal("0.5"), 1j,
        datetime.date(2026, 1, 1), ..., int, print, pathlib.Path("no/such/file"), (), (1,), (1.0, 2.0),
        ("a",), ([1], [1, 2]), frozenset({1}),
    )),
    *(lambda made=made: made() for made in (
        object, list, dict, set, lambda: [None], lambda: [[]], lambda: {"x": 1}, lambda: {3: 1}, lambda: iter([1, 2]),
        lambda: range(G), lambda: [1, "a"], lambda: [float("nan")] * Q, lambda: [True] * Q, lambda: [1.5] * Q,
        lambda: ["a"] * Q, lambda: ["a"] * G, lambda: [1] * Q, lambda: list(range(Q)), lambda: list(range(G)),
        lambda: [b"a"] * Q, lambda: [None] * G, lambda: ["\ud800"] * Q, lambda: [10**30], lambda: [-1] * Q,
        lambda: np.array(3), lambda: np.array("a"), lambda: np.array([]), lambda: np.zeros((0, D)),
        lambda: np.zeros((Q, 0)), lambda: np.zeros((0, K), np.int64), lambda: np.ones(D), lambda: np.ones((2, Q, D)),
        lambda: np.ones((Q, D + 1)), lambda: np.zeros((Q, D)), lambda: np.zeros((G, D)), lambda: np.ones((G, D)),
        lambda: GALLERY.astype(np.float64), lambda: GALLERY.astype(np.float16), lambda: GALLERY.astype(">f4"),
        lambda: np.asfortranarray(GALLERY), lambda: np.repeat(GALLERY, 2, 0)[::2], lambda: GALLERY.T,
        lambda: (10 * GALLERY).astype(np.int8), lambda: GALLERY.astype(object), lambda: GALLERY.astype(str),
        lambda: GALLERY.astype(complex), lambda: GALLERY > 0, lambda: QUERIES.astype(">f8"), lambda: QUERIES.tolist(),
        lambda: QUERIES.astype(np.float16), lambda: (10 * QUERIES).astype(np.int64), lambda: QUERIES[::-1],
        lambda: broken(np.nan), lambda: broken(np.inf), lambda: broken(1e39), lambda: broken(1e300),
        lambda: broken(1e-300), lambda: broken(1e-42), lambda: broken(np.nan)[:Q], lambda: np.full((G, D), 1e-30),
        lambda: broken(1e39)[6:11], lambda: np.full((G, D), 1e300), lambda: np.full((Q, D), np.nan, np.float16),
        lambda: RANKING.item_rows.astype(float), lambda: RANKING.item_rows.astype(np.int8), lambda: -RANKING.item_rows,
        lambda: RANKING.item_rows.astype(">i4"), lambda: np.full((Q, K), G), lambda: np.full((Q, K), -1),
        lambda: RANKING.item_rows[:, ::-1], lambda: np.full((Q, K), -2), lambda: np.full((Q, K), np.nan),
        lambda: np.arange(Q, dtype=np.uint8), lambda: np.array([2**40] * Q), lambda: np.ones(Q, bool),
        lambda: np.full(Q, np.nan), lambda: np.ones(Q), lambda: np.array([0.5, 1, np.nan, 0, 1]),
        lambda: np.ones(Q, object),
        lambda: Embeddings(GALLERY_IDS, GALLERY), lambda: Embeddings(["a"] * G, GALLERY), lambda: SIDES[0],
        lambda: Embeddings([], np.zeros((0, D))), lambda: Ids.of(GALLERY_IDS), lambda: Ids.of(["a"] * Q),
        lambda: RANKING, lambda: TRUTH, lambda: STATE, lambda: WHITENING, lambda: GRAPH, lambda: [SIDES],
        lambda: [RANKING],
        lambda: [RANKING, OTHER], lambda: [SIDES[1]] * 2, lambda: Truth([], [], np.array([0]), np.array([], int)),
    )),
]  # fmt: skip


def finite(result, given) -> None:
    """Asserts that whatever arrays a result holds are finite; paddings are -1 with -inf, or inf."""
    del given
    waiting = [result]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Embeddings):
            one = one.vectors[:]
        elif isinstance(one, State):
            waiting += [part for member in one.members for part in member] + [one.ranking]
        elif isinstance(one, Ranking):
            assert np.isfinite(one.scores[one.item_rows >= 0]).all() and (one.item_rows >= -1).all()
        elif isinstance(one, whitening.Whitening):
            waiting += [one.mean, one.matrix]
        if isinstance(one, np.ndarray) and one.dtype.kind == "f":
            assert not np.isnan(one).any()


def cosines(queries, gallery) -> np.ndarray:
    """Returns all cosines in float64, by the definition."""
    sides = [side.vectors[:] if isinstance(side, Embeddings) else np.asarray(side) for side in (queries, gallery)]
    with np.errstate(over="ignore"):
        sides = [np.asarray(side, np.float32).astype(np.float64) for side in sides]
    lengths = [np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    return (sides[0] / np.where(lengths[0] > 0, lengths[0], 1)) @ (sides[1] / np.where(lengths[1] > 0, lengths[1], 1)).T


def best(result: Ranking, given) -> None:
    """Asserts that an exhaustive search found the k rows of highest cosine, ties by id."""
    wanted = cosines(given["queries"], given["gallery"])
    ids = given.get("ids")
    if ids is None and isinstance(given["gallery"], Embeddings):
        ids = given["gallery"].ids
    names = list(range(wanted.shape[1])) if ids is None else [str(item).encode() for item in ids]
    own = set()
    if isinstance(given["queries"], Embeddings) and ids is not None:
        own = {item.encode() for item in given["queries"].ids}
        own_of = [item.encode() for item in given["queries"].ids]
    assert result.item_rows.shape == (len(wanted), given["k"])
    for query, row in enumerate(wanted):
        allowed = [place for place in range(len(row)) if not own or names[place] != own_of[query]]
        scores = result.scores[query]
        count = min(given["k"], len(allowed))
        assert (result.item_rows[query] >= 0).sum() == count and set(result.item_rows[query][:count]) <= set(allowed)
        np.testing.assert_allclose(scores[:count], np.sort(row[allowed])[::-1][:count], atol=1e-6)
        np.testing.assert_allclose(scores[:count], row[result.item_rows[query][:count]], atol=1e-6)
        for first, second in itertools.pairwise(range(count)):
            places = result.item_rows[query][[first, second]]
            assert scores[first] > scores[second] or names[places[0]] <= names[places[1]]


def unit(result, given) -> None:
    """Asserts that a result of `l2.normalize` has the directions of its vectors."""
    vectors = np.asarray(given["vectors"]).astype(np.longdouble)
    length = np.sqrt((vectors**2).sum(1, keepdims=True))
    expected = np.where(length > 0, vectors / np.where(length > 0, length, 1), 0)
    np.testing.assert_allclose(result, expected.astype(np.float64), atol=1e-6)


def scored(result, given) -> None:
    """Asserts scores of queries by loops over sets."""
    ranking, truth = given["ranking"], given["truth"]
    for k in given["ks"]:
        for query in range(len(truth)):
            relevant, seen = set(truth.relevant(query).tolist()), []
            for row in ranking.item_rows[query][:k].tolist():
                seen.append(row) if row >= 0 and row not in seen else None
            value, hits = result[f"mar@{k}"][query], len(relevant & set(seen))
            assert np.isnan(value) if not relevant else value == hits / len(relevant)


@dataclasses.dataclass
class Case:
    """A public function with right arguments.

    Attributes:
      call: takes the arguments by name.
      given: right arguments.
      check: takes result and arguments; raises where the result is wrong.
    """

    call: Callable
    given: dict
    check: Callable = finite


def searched(make):
    """Returns a function that makes an index and searches it."""

    def search(gallery, queries, k, ids=None, **settings):
        return make(gallery, ids, **settings).search(queries, k)

    return search


def stored(training, ids, vectors, queries, k, **settings):
    """Creates a binary index on disk, fills and searches it."""
    with (
        tempfile.TemporaryDirectory(dir=FOLDER) as folder,
        binary.create(f"{folder}/new", training, **settings) as store,
    ):
        store.add(ids, vectors)
        assert len(store) == len(Ids.of(ids))
        found = store.search(queries, k)
        store.names(found.item_rows)
        return found


def saved(ids, vectors, meta, dtype, shard_rows):
    """Makes embeddings, saves and loads them."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        made = Embeddings(ids, vectors, meta)
        made.save(f"{folder}/e", shard_rows, dtype)
        again = Embeddings.load(f"{folder}/e")
        assert again.ids == made.ids
        np.testing.assert_allclose(again.vectors[:], made.vectors[:], rtol=1e-3, atol=1e-7)
        return again


SEARCH = {"gallery": GALLERY, "queries": QUERIES, "k": K, "ids": None}
CASES = {
    "Embeddings": Case(
        saved, {"ids": GALLERY_IDS, "vectors": GALLERY, "meta": {}, "dtype": "float32", "shard_rows": 9}
    ),
    "Embeddings.take": Case(lambda rows: SIDES[1].take(rows), {"rows": [3, 1]}),
    "exact": Case(searched(exact.Index), {**SEARCH, "query_block": 2, "gallery_block": 7, "margin": 1}, best),
    "faiss": Case(
        searched(faiss_index.Index),
        {**SEARCH, "factory": "Flat", "parameters": "", "candidates": G, "train_rows": 0, "threads": 1},
        finite,
    ),
    "faiss ivf": Case(
        searched(faiss_index.Index), {**SEARCH, "factory": "IVF2,Flat", "parameters": "nprobe=2", "threads": 1}
    ),
    "binary": Case(
        searched(binary.Index),
        {**SEARCH, "candidates": 1000, "bits": 16, "cells": 1, "probes": 1, "shards": 2, "rounds": 2, "seed": 0},
    ),
    "codes.fit": Case(codes.fit, {"vectors": GALLERY, "bits": 8, "cells": 2, "rounds": 1, "seed": 3}),
    "binary store": Case(
        stored,
        {"training": GALLERY, "ids": GALLERY_IDS, "vectors": GALLERY, "queries": QUERIES, "k": K,
         "dtype": "float32", "candidates": 1000, "rounds": 1},
    ),
    "l2": Case(l2.normalize, {"vectors": GALLERY}, unit),
    "whitening.fit": Case(whitening.fit, {"vectors": GALLERY, "ridge": 1e-7, "dim": 3}),
    "whitening.apply": Case(lambda vectors: WHITENING.apply(vectors), {"vectors": QUERIES}),
    "whitening.step": Case(whitening.step, {"state": STATE, "ridge": 1e-7, "dim": None}),
    "Whitening": Case(whitening.Whitening, {"mean": np.zeros(D), "matrix": np.eye(D), "info": {}}),
    "learned_whitening.fit": Case(
        learned_whitening.fit,
        {"vectors": GALLERY, "pairs": [[0, 1], [2, 9]], "shrinkage": 0.5, "ridge": 1e-7, "dim": 3},
    ),
    "mine_pairs": Case(
        learned_whitening.mine_pairs, {"gallery": SIDES[1], "neighbours": 2, "rows": 10, "seed": 0, "kind": "exact"}
    ),
    "expand": Case(
        query_expansion.expand, {"vectors": QUERIES, "gallery": GALLERY, "rows": RANKING.item_rows, "alpha": 3.0}
    ),
    "query_expansion": Case(query_expansion.step, {"state": STATE, "depth": 3, "alpha": 3.0}),
    "augment": Case(
        database_augmentation.augment,
        {"gallery": SIDES[1], "depth": 3, "alpha": 3.0, "index": "exact", "index_kwargs": {}},
    ),
    "diffusion.graph": Case(
        diffusion.graph, {"gallery": GALLERY, "k": 3, "gamma": 3.0, "index": "exact", "index_kwargs": None}
    ),
    "diffuse": Case(
        diffusion.diffuse,
        {"query": QUERIES, "gallery": GALLERY, "candidates": RANKING.item_rows, "affinities": GRAPH,
         "neighbours_of_query": 2, "alpha": 0.9, "gamma": 3.0},
    ),
    "diffusion": Case(diffusion.step, {"state": STATE, "depth": 3, "k": 3, "alpha": 0.9, "gamma": 3.0}),
    "reranking": Case(reranking.step, {"state": STATE, "k1": 3, "k2": 2, "lambda_value": 0.5, "depth": 3}),
    "local_k_reciprocal": Case(
        reranking.local_k_reciprocal,
        {"query": QUERIES, "gallery": GALLERY, "candidates": RANKING.item_rows, "k1": 3, "k2": 2, "lambda_value": 0.3,
         "threads": 1},
    ),
    "global_k_reciprocal": Case(
        global_reranking.global_k_reciprocal,
        {"query": QUERIES, "gallery": GALLERY, "candidates": RANKING.item_rows, "k1": 3, "k2": 2, "lambda_value": 0.3,
         "index": "exact", "index_kwargs": {}},
    ),
    "concatenate": Case(
        lambda members, weights: ensemble.concatenate(members, weights).vectors[:],
        {"members": [SIDES[1], SIDES[1]], "weights": (1, 2)},
    ),
    "reciprocal_rank": Case(
        fusion.reciprocal_rank,
        {"rankings": [RANKING, OTHER], "k": K, "constant": 60.0, "weights": (1, 2), "gallery_ids": None},
    ),
    "sum_of_scores": Case(
        fusion.sum_of_scores, {"rankings": [RANKING, OTHER], "members": [SIDES, SIDES], "k": K, "weights": None}
    ),
    "Ranking": Case(
        Ranking,
        {"query_ids": QUERY_IDS, "item_rows": RANKING.item_rows, "scores": RANKING.scores, "gallery_sha256": ""},
    ),
    "Truth": Case(
        Truth, {"query_ids": QUERY_IDS, "gallery_ids": GALLERY_IDS, "indptr": TRUTH.indptr, "rows": TRUTH.rows}
    ),
    "Truth.from_lists": Case(
        Truth.from_lists,
        {"query_ids": QUERY_IDS, "gallery_ids": GALLERY_IDS, "relevant": [["g01"], [], ["g02", "g03"], [], ["g01"]]},
    ),
    "per_query": Case(metrics.per_query, {"ranking": RANKING, "truth": TRUTH, "ks": (1, 3)}, scored),
    "evaluate": Case(
        metrics.evaluate, {"ranking": RANKING, "truth": TRUTH, "ks": (1, 3), "chosen": np.ones(Q, bool), "draws": 10}
    ),
    "summary": Case(metrics.summary, {"each": EACH, "chosen": np.ones(Q, bool), "draws": 10, "seed": 0}),
    "selection_half": Case(metrics.selection_half, {"query_ids": QUERY_IDS, "share": 0.5}),
    "bootstrap_means": Case(bootstrap.bootstrap_means, {"values": np.ones((Q, 2)), "draws": 5, "seed": 0}),
    "paired_bootstrap": Case(
        bootstrap.paired_bootstrap,
        {"first": EACH["mar@10"], "second": EACH["mar@10"] + 0.1, "draws": 20, "seed": 0},
    ),
    "by_relevant": Case(slices.by_relevant, {"num_relevant": TRUTH.num_relevant}),
    "by_category": Case(slices.by_category, {"codes": np.array([0, 1, -1, 0, 1]), "names": ["a", "b"], "most": 1}),
    "submission": Case(
        submission.write_submission,
        {"file": FOLDER / "out.csv", "ranking": RANKING, "gallery_ids": GALLERY_IDS, "depth": 3},
    ),
    "per_query_recall": Case(propose_index.per_query_recall, {"found": RANKING, "wanted": RANKING}),
    "verdict": Case(
        lambda chosen, names: comparing.compare([], [], TRUTH, names=names, chosen=chosen),
        {"chosen": np.ones(Q, bool), "names": ("recall@1",)},
    ),
}  # fmt: skip
NAMES = sorted(CASES)


def tried(name: str, odd: dict) -> bool:
    """Calls a function with some arguments replaced; returns whether it accepted them.

    Args:
      name: key of CASES.
      odd: {argument: its value}.
    """
    case = CASES[name]
    given = {**case.given, **odd}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = case.call(**given)
        except InputError as error:
            assert str(error) and len(str(error)) < 900
            return False
    case.check(result, given)
    return True


@pytest.mark.parametrize("name", NAMES)
def test_right_arguments_are_accepted(name):
    assert tried(name, {}) or name == "verdict"


def _property(count: int):
    @hypothesis.settings(max_examples=count, derandomize=True, deadline=None, database=None)
    @hypothesis.given(strategies.data())
    def run(data):
        name = data.draw(strategies.sampled_from(NAMES), "function")
        several = data.draw(strategies.integers(1, 2), "arguments")
        replaced = [data.draw(strategies.sampled_from(sorted(CASES[name].given)), "argument") for _ in range(several)]
        tried(name, {one: ODD[data.draw(strategies.integers(0, len(ODD) - 1), "value")]() for one in replaced})

    return run


def test_odd_arguments_give_a_right_result_or_a_sentence():
    _property(2000)()


@pytest.mark.long
def test_every_odd_value_of_every_argument():
    accepted = 0
    for name in NAMES:
        for argument in CASES[name].given:
            for number, make in enumerate(ODD):
                try:
                    accepted += tried(name, {argument: make()})
                except Exception as error:
                    raise AssertionError(f"{name}({argument}=ODD[{number}]): {error!r}") from error
    assert accepted > 500


def test_sentences_name_function_argument_and_expectation():
    for call, words in (
        (lambda: arguments.integer(True, "k", "search"), "search: k=True, expected an integer of at least 1"),
        (lambda: arguments.integer(9, "k", "search", low=0, high=3), "search: k=9, expected an integer from 0 to 3"),
        (lambda: arguments.number(np.nan, "ridge", "x", low=0), "ridge=nan, expected a finite number of at least 0"),
        (lambda: arguments.number(1, "a", "x", low=0, high=1, below=True), "a finite number from 0 to below 1"),
        (lambda: arguments.flag("no", "approximate", "x"), "approximate='no', expected True or False"),
        (lambda: arguments.choice("c", "dtype", "x", ("a", "b")), "dtype='c', expected one of a, b"),
        (lambda: arguments.array([[1], [1, 2]], "v", "x", ("n", 2)), r"x: v is not an array .* expected \[n, 2\]"),
        (lambda: arguments.rows([1.5], "rows", "x", ("n",), 3), "values of the type float64, expected integers"),
        (lambda: arguments.rows([-1, 3], "rows", "x", ("n",), 3), "refers to rows -1 to 3, but there are 3 rows"),
        (lambda: arguments.memory(1 << 60, "that", "x", "take less"), "that would take 1,073,741,824 GiB"),
        (lambda: Embeddings("ab", np.ones((2, 2))), "ids='ab': expected a list of ids"),
        (lambda: Embeddings([b"a", b"b"], np.ones((2, 2))), "the id in row 0 is b'a': ids are texts, or integers"),
        (lambda: Embeddings(["a", None], np.ones((2, 2))), "the id in row 1 is None"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            call()


@pytest.mark.parametrize("factor", [1.0, 1e30, 3e38])
def test_finite_vectors_pass_however_large(factor):
    vectors = np.full((40, 8), 0.9 * factor, np.float32)  # their sum overflows
    arguments.finite(vectors, "x")
    vectors[3], vectors[9, 0] = np.inf, np.nan
    with pytest.raises(InputError, match=r"x: 2 of 40 vectors are non-finite .* first row 13 \(c\)"):
        arguments.finite(vectors, "x", [*("a" * 13), "c", *("a" * 40)], slice(10, 50))
