"""The last stage: orders the first results by similarity and by the listings' quality, as shoppers' clicks teach.

Several listings may show what was meant: shoppers click the cheaper, the better rated, the sharper one. A ranker of
regression trees (LightGBM's LambdaMART) learns it from clicks that are corrected for places (`State.clicked`), out of
the similarity of a result, its distance from the best, its place, and numbers of the catalogue (`State.listed`), each
as it is and as its place among the results of the query. It sees and moves the first `depth` results only.

The new score of a result is (1 - weight) x similarity + weight x ranker, both from 0 to 1 within the query. The weight
is chosen on the judged queries of the selection half, by rankers that have not seen the query they score: the one with
the best nDCG by clicks among those whose cost in nDCG@10 by relevance is at most `cost`, at the upper end of a 95 %
interval (one-sided). Where nothing is gained by more than a standard error it is 0, and the order stays. The same
rankers order these queries in the end, so that their scores are not those of trees that know their clicks.

Source: Burges, "From RankNet to LambdaRank to LambdaMART: An Overview", MSR-TR-2010-82; the idea of a last stage by
quality: Zhang et al., "Visual Search at Alibaba", KDD 2018 (arXiv 2102.04674).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from retrieval_jax import arguments, brief, pairs
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess._quality_weight import LEAST, choose, descending, reordered
from retrieval_jax.postprocess.reranking import check_depth
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Ranking, Truth

COLUMNS = ("price", "rating", "sales", "sharpness")
CHOSEN = "chosen"
TEXT, FILE = "quality.txt", "quality.json"
FOLDS = 5  # rankers that choose the weight, each of four fifths of the queries
GRADES = 30  # steps of the probability of a click, which LightGBM wants as whole numbers
ROUNDS = 100  # trees
PAIRS = 2**24  # of results compared at once, a byte each
# Few leaves, since quality is a smooth thing; more similar is never worse.
PARAMS = {
    "objective": "lambdarank",
    "label_gain": list(range(GRADES + 1)),
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,  # the same bits on every machine
    "verbosity": -1,
}
_OF_SIMILARITY = ("similarity", "behind the best", "place")


class _File(TypedDict):
    """quality.json."""

    columns: list[str]
    features: list[str]
    depth: int
    weight: float
    cost: float
    why: str
    tried: list[dict]
    sha256: str


@dataclasses.dataclass(frozen=True, eq=False)
class Ranker:
    """A fitted last stage.

    Attributes:
      columns: names of the listings' numbers.
      depth: first results that it orders.
      weight: of the trees' scores, 0 (the order stays) to 1.
      trees: a LightGBM Booster.
    """

    columns: tuple[str, ...]
    depth: int
    weight: float
    trees: Any

    __repr__ = brief.line

    def apply(self, ranking: Ranking, listed: Mapping[str, np.ndarray]) -> Ranking:
        """Returns a ranking with the first `depth` results of each query in another order, those after them as before.

        Args:
          ranking: by similarity.
          listed: {column: float32 [G]}, NaN where unknown.

        Raises:
          InputError: a column is missing, or has another number of listings.
        """
        numbers = _numbers(listed, self.columns, ranking)
        seen = features(_head(ranking, self.depth), numbers)
        return reordered(ranking, _scores(self.trees, seen), self.weight)


def library() -> Any:
    """Returns the module lightgbm; raises InputError that says how to install it where it is missing."""
    try:
        import lightgbm
    except (ImportError, OSError) as error:  # the latter where its own library lacks one, such as libgomp
        raise InputError(
            f"the search step 'quality' needs LightGBM, which cannot be imported ({error}): pip install -r "
            "requirements-ranking.txt"
        ) from None
    return lightgbm


def step(
    state: State,
    *,
    columns: Sequence[str] = COLUMNS,
    depth: int | None = None,
    cost: float = 0.01,
    weight: float | str = CHOSEN,
    seed: int = 0,
) -> State:
    """Reorders the first `depth` results of the current ranking; which results they are does not change.

    Args:
      state: one member and its ranking, `listed` and `clicked`, and `judged` unless a weight is given. quality.txt and
        quality.json are saved if it has a folder.
      columns: which of `state.listed` the ranker may use.
      depth: results per query; min(100, search.k) by default.
      cost: how much nDCG@10 by relevance the last stage may cost, 0 to 1: .01 is one point.
      weight: of the ranker's scores, 0 to 1; "chosen": see the module.
      seed: of the folds.

    Returns:
      The state with the new ranking; queries with clicks are ordered by rankers that have not seen them.

    Raises:
      InputError: no ranking, columns or clicks; too few clicks or judged queries; values out of range.
    """
    depth = check_depth(state, depth, "quality")
    columns = checked(columns)
    cost = arguments.number(cost, "cost", "quality", low=0, high=1)
    seed = arguments.integer(seed, "seed", "quality", low=0)
    if weight != CHOSEN:
        weight = arguments.number(weight, "weight", "quality", low=0, high=1)
    ranking = state.ranking
    numbers = _numbers(state.listed, columns, ranking)
    if state.clicked is None:
        raise InputError(
            "quality learns from clicks, and this state has no log: see docs/clicked_search.md#the-last-stage-quality"
        )
    head = _head(ranking, depth)
    seen, found = features(head, numbers), _grades(head, state.clicked)
    learned = (found >= 0).sum(1) > 1
    if learned.sum() < LEAST:
        raise InputError(
            f"quality: {learned.sum()} queries have two listings or more that were shown to shoppers among their first "
            f"{depth} results, and {LEAST} are needed: log more searches, or leave the step out of search.steps"
        )
    tried: list[dict] = []
    why, unseen = f"weight {weight}, as given", _unseen(seen, found, learned, seed)
    if weight == CHOSEN:
        weight, tried, why = choose(ranking, unseen, state.judged, state.clicked, cost)
    trees = _fit(seen, found, learned, columns)
    ranker = Ranker(columns, depth, weight, trees)
    unknown = {name: f"{np.isnan(values).mean():.0%}" for name, values in zip(columns, numbers, strict=True)}
    missing = "".join(f", {name} unknown for {share}" for name, share in unknown.items() if share != "0%")
    print(
        f"quality: {(found >= 0).sum():,} results of {learned.sum():,} queries with clicks{missing}; {why}", flush=True
    )
    if state.folder is not None:
        save(state.folder, ranker, cost=cost, why=why, tried=tried)
    scores = np.where(learned[:, None], unseen, _scores(trees, seen))
    return dataclasses.replace(state, ranking=reordered(ranking, scores, weight))


def checked(columns: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of columns; raises InputError for anything else, and for a name given twice."""
    found = [arguments.text(name, "columns", "quality") for name in arguments.sequence(columns, "columns", "quality")]
    if twice := next((name for name in found if found.count(name) > 1), None):
        raise InputError(f"quality: columns names {twice!r} more than once: remove one of them")
    return tuple(found)


def names(columns: Sequence[str]) -> list[str]:
    """Returns the names of the features that a ranker of some columns sees."""
    return [*_OF_SIMILARITY, *columns, *(f"{name} among the results" for name in columns)]


def features(head: Ranking, numbers: np.ndarray) -> np.ndarray:
    """Returns what the ranker sees of every result, float64 [Q, depth, features], in the order of `names`.

    Args:
      head: the first results. In tiers, such as those of preferred conditions, a result is no more similar than those
        before it.
      numbers: [columns, G].
    """
    there = head.item_rows >= 0
    score = np.where(there, descending(head.scores), np.nan)
    best = score[:, :1] if score.shape[1] else score
    place = np.broadcast_to(np.arange(score.shape[1], dtype=np.float64), score.shape)
    own = np.where(there, numbers.astype(np.float64)[:, np.maximum(head.item_rows, 0)], np.nan)
    return np.stack([score, best - score, place, *own, *map(_among, own)], axis=-1)


def _among(values: np.ndarray) -> np.ndarray:
    """Returns the share of a query's other known values [Q, n] that are lower, ties counting half; NaN if unknown."""
    size = max(1, PAIRS // max(1, values.shape[1]) ** 2)
    if len(values) > size:
        return np.concatenate([_among(values[at : at + size]) for at in range(0, len(values), size)])
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        below = (values[:, :, None] > values[:, None, :]).sum(2)
        equal = (values[:, :, None] == values[:, None, :]).sum(2) - known
    others = np.maximum(known.sum(1, keepdims=True) - 1, 1)
    return np.where(known, np.where(known.sum(1, keepdims=True) > 1, (below + 0.5 * equal) / others, 0.5), np.nan)


def save(folder: str | os.PathLike, ranker: Ranker, *, cost: float, why: str, tried: Sequence[dict]) -> None:
    """Writes a ranker: quality.txt, LightGBM's own text format, and quality.json, which describes it.

    Args:
      folder: to write to.
      ranker: the ranker.
      cost, why, tried: how its weight was chosen, see `choose`.
    """
    text = ranker.trees.model_to_string()
    about = {"columns": list(ranker.columns), "features": names(ranker.columns), "depth": ranker.depth}
    about |= {"weight": ranker.weight, "cost": cost, "why": why, "tried": list(tried)}
    atomic.write_text(pathlib.Path(folder) / TEXT, text)
    atomic.write_json(pathlib.Path(folder) / FILE, {**about, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def load(folder: str | os.PathLike) -> Ranker:
    """Loads a ranker that `save` wrote.

    Raises:
      InputError: a file is missing or damaged, or the trees have other features.
    """
    file, remedy = pathlib.Path(folder) / FILE, "run search again"
    about = documents.read(file, _File, remedy=remedy)
    try:
        text = file.with_name(TEXT).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file.with_name(TEXT)} cannot be read ({error}): {remedy}") from None
    if hashlib.sha256(text.encode()).hexdigest() != about["sha256"]:
        raise InputError(f"{file.with_name(TEXT)} has changed since it was written: {remedy}")
    lightgbm = library()
    try:
        trees = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise InputError(f"{file.with_name(TEXT)} is not a LightGBM model ({error}): {remedy}") from None
    wanted = names(about["columns"])
    if about["features"] != wanted or trees.feature_name() != _plain(wanted):
        raise InputError(
            f"{file.with_name(TEXT)} was fitted on the features {', '.join(trees.feature_name())}, not on "
            f"{', '.join(_plain(wanted))}: {remedy}"
        )
    return Ranker(tuple(about["columns"]), about["depth"], about["weight"], trees)


# ----------------------------------------------------------------------------------------------------------- parts


def _plain(given: Sequence[str]) -> list[str]:
    """Returns names as LightGBM takes them: each once, and without blanks, commas, colons, quotes and brackets."""
    return [f"{number}_" + re.sub(r"\W", "_", name, flags=re.ASCII) for number, name in enumerate(given)]


def _numbers(listed: Mapping[str, np.ndarray], columns: Sequence[str], ranking: Ranking) -> np.ndarray:
    """Returns the columns [columns, G] that a ranker reads."""
    if missing := [name for name in columns if name not in listed]:
        raise InputError(
            f"quality: the listings have no numbers {missing[0]!r}{pairs.near(missing[0], list(listed))}: name a "
            "column of the kind 'number'"
        )
    found = [arguments.array(listed[name], name, "quality", ("G",)).astype(np.float32) for name in columns]
    if len({len(column) for column in found}) > 1:
        raise InputError(f"quality: the columns have different lengths, {[len(column) for column in found]}")
    last = int(ranking.item_rows.max(initial=-1))
    if found and last >= len(found[0]):
        raise InputError(f"quality: the ranking refers to row {last}, but the columns have {len(found[0])} listings")
    return np.stack(found) if found else np.zeros((0, last + 1), np.float32)


def _head(ranking: Ranking, depth: int) -> Ranking:
    return dataclasses.replace(ranking, item_rows=ranking.item_rows[:, :depth], scores=ranking.scores[:, :depth])


def _grades(head: Ranking, clicked: Truth) -> np.ndarray:
    """Returns the grades of the results [Q, depth] as `clicked` has them, -1 where nobody saw the listing."""
    metrics.check(head, clicked)
    size = max(1, len(clicked.gallery_ids))
    keys = np.repeat(np.arange(len(clicked)), clicked.num_relevant) * size + clicked.rows
    zeros = np.zeros((0, 2), np.int64) if clicked.rated_zero is None else clicked.rated_zero
    grades = np.ones(len(keys), np.float32) if clicked.grades is None else clicked.grades
    keys, grades = np.append(keys, zeros[:, 0] * size + zeros[:, 1]), np.append(grades, np.zeros(len(zeros)))
    order = np.argsort(keys)
    keys, grades = np.append(keys[order], -1), np.append(grades[order], -1)
    wanted = np.arange(len(head))[:, None] * size + head.item_rows
    place = np.searchsorted(keys[:-1], wanted)
    return np.where((keys[place] == wanted) & (head.item_rows >= 0), grades[place], -1)


def _fit(seen: np.ndarray, found: np.ndarray, learned: np.ndarray, columns: Sequence[str]) -> Any:
    """Returns trees fitted on the results with grades of the queries that are learned from."""
    lightgbm = library()
    used = (found >= 0) & learned[:, None]
    labels = np.clip(np.rint(found[used] * GRADES), 0, GRADES).astype(np.int32)
    given = _plain(names(columns))
    data = lightgbm.Dataset(seen[used], labels, group=used.sum(1)[learned], feature_name=given, free_raw_data=True)
    steady = [1, -1, -1, *[0] * (len(given) - len(_OF_SIMILARITY))]
    return lightgbm.train({**PARAMS, "monotone_constraints": steady}, data, ROUNDS)


def _scores(trees: Any, seen: np.ndarray) -> np.ndarray:
    """Returns the trees' scores of every result, [Q, depth]."""
    flat = seen.reshape(-1, seen.shape[-1])
    return trees.predict(flat, num_threads=1).reshape(seen.shape[:2]) if len(flat) else np.zeros(seen.shape[:2])


def _unseen(seen: np.ndarray, found: np.ndarray, learned: np.ndarray, seed: int) -> np.ndarray:
    """Returns scores [Q, depth] by rankers that were fitted on other queries; NaN where nothing is learned."""
    out = np.full(found.shape, np.nan)
    queries = np.flatnonzero(learned)
    fold = np.random.default_rng(seed).permutation(len(queries)) % FOLDS
    columns = [str(number) for number in range((seen.shape[-1] - len(_OF_SIMILARITY)) // 2)]
    for number in range(FOLDS):
        others = np.zeros(len(found), bool)
        others[queries[fold != number]] = True
        asked = queries[fold == number]
        out[asked] = _scores(_fit(seen, found, others, columns), seen[asked])
    return out
