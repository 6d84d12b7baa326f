"""Retrieval metrics: pure functions of ranking and truth, averaged over the queries that have a relevant listing.

The listing that a query is about, and the gallery row with the query's own id, are never relevant and never a hit:
`Truth` drops them. If a ranking repeats a gallery row, only its first place counts.

Where a truth has grades, nDCG uses them, and every other score counts a row with any grade above 0 as relevant. A row
that nobody rated counts as not relevant ("zero"), or is left out before places are counted ("condensed").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments, pairs
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.bootstrap import bootstrap_means
from retrieval_jax.scoring.ranking import Ranking, Truth

MOST_DEPTH = 1_000_000  # of a score: one discount per rank is kept in memory
GAINS = ("exponential", "linear")
UNRATED = ("zero", "condensed")
# Scores by name; K is a depth. Without one, a score is of the whole list that was retrieved.
NAMES = ("mrr", "mrr@K", "map", "map@K", "ndcg", "ndcg@K", "precision@K", "recall@K", "hit@K", "mar@K", "mar@K_capped")
MOST_GRADE = 64  # with the exponential gain, which doubles with each grade


def hash_shares(ids: Sequence[str]) -> np.ndarray:
    """Returns one hash per id, [n] float64 in [0, 1), the same on every machine; about a share s of them is below s."""
    numbers = [int.from_bytes(hashlib.sha256(item.encode()).digest()[:8], "big") for item in Ids.of(ids)]
    return np.array(numbers, np.float64) / 2.0**64


def selection_half(query_ids: Sequence[str], share: float = 0.5) -> np.ndarray:
    """Returns which queries belong to the selection half, on which choices are made, [Q] bool.

    Args:
      query_ids: Q ids; membership depends on the id alone, not on order or the other ids.
      share: share of the queries to select, 0 to 1.

    Raises:
      InputError: a share outside 0 to 1.
    """
    arguments.number(share, "selection_share", "evaluate", low=0, high=1)
    return hash_shares(query_ids) < share


def chance(truth: Truth) -> dict[str, float]:
    """Returns the expected scores of a gallery in random order, over the queries that have a relevant listing.

    Args:
      truth: the ground truth.

    Returns:
      {"mar@10", "mar@10_capped", "recall@1"}; empty where no query has a relevant listing.
    """
    gallery = set(truth.gallery_ids)
    relevant = np.asarray(truth.num_relevant, np.float64)
    left_out = [sum(item in gallery for item in items) for items in Ids.of(truth.query_ids).left_out()]
    others = len(truth.gallery_ids) - np.array(left_out, np.float64)
    relevant, others = relevant[relevant > 0], others[relevant > 0]
    if not len(relevant):
        return {}
    hits = np.minimum(10, others) * relevant / others  # among the first 10, expected
    found = {"mar@10": hits / relevant, "mar@10_capped": hits / np.minimum(10, relevant), "recall@1": relevant / others}
    return {name: float(values.mean()) for name, values in found.items()}


def check(ranking: Ranking, truth: Truth) -> None:
    """Checks that ranking and truth have the same queries, in the same order, and the same gallery.

    Args:
      ranking: [Q, k] results.
      truth: the ground truth to score against.

    Raises:
      InputError: they do not match; the message says how they differ.
    """
    if not isinstance(ranking, Ranking) or not isinstance(truth, Truth):
        what = f"a {type(ranking).__name__} and a {type(truth).__name__}"
        raise InputError(f"scoring takes a Ranking and a Truth, got {what}")
    if ranking.query_ids != Ids.of(truth.query_ids):
        if list(ranking.query_ids) == list(truth.query_ids):
            raise InputError(
                "the ranking's queries are about other listings than the truth's, so that other rows were left out: "
                "embed and search again"
            )
        raise InputError(
            f"the ranking's {len(ranking)} queries differ from the truth's {len(truth)} or are in a different order: "
            "embed and search the catalogue that the truth belongs to"
        )
    if ranking.gallery_sha256 and ranking.gallery_sha256 != Ids.of(truth.gallery_ids).sha256():
        raise InputError(
            "the ranking was made from a different gallery than the truth's (ids or their order differ): embed and "
            "search again"
        )
    if ranking.item_rows.size and ranking.item_rows.max() >= len(truth.gallery_ids):
        raise InputError(
            f"the ranking refers to gallery row {ranking.item_rows.max()}, but the truth's gallery has "
            f"{len(truth.gallery_ids)} rows"
        )


def hits(ranking: Ranking, truth: Truth) -> np.ndarray:
    """Returns which results count as hits.

    Args:
      ranking: [Q, k] results.
      truth: ground truth for the same queries and gallery (see `check`).

    Returns:
      [Q, k] bool: whether the result is relevant and at its first place in the list.
    """
    return _found(ranking, truth)[0]


def _found(ranking: Ranking, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Returns `hits`, and where each result would be in truth.rows, [Q, k] int64, to be read where it is a hit."""
    rows = ranking.item_rows
    queries = np.repeat(np.arange(len(truth)), truth.num_relevant)
    found, place = _among(rows, queries, truth.rows, len(truth.gallery_ids))
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, 1)
    repeat = np.zeros(rows.shape, bool)
    np.put_along_axis(repeat, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return found & ~repeat, place


def _among(rows: np.ndarray, query: np.ndarray, row: np.ndarray, gallery: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which results [Q, k] are among (query, row) pairs in ascending order, and at which place there."""
    size = max(1, gallery)
    keys = query * size + row
    if not len(keys):
        return np.zeros(rows.shape, bool), np.zeros(rows.shape, np.int64)
    wanted = np.arange(len(rows))[:, None] * size + rows
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return (keys[place] == wanted) & (rows >= 0), place


def condensed(ranking: Ranking, truth: Truth) -> Ranking:
    """Returns a ranking without the rows that nobody rated; those after them move up.

    Args:
      ranking: [Q, k] results.
      truth: ground truth for the same queries, with rows that were judged not relevant.

    Raises:
      InputError: the truth knows relevant rows only, so that what is left would be perfect.

    Source: Sakai, "Alternatives to Bpref", SIGIR 2007.
    """
    check(ranking, truth)
    if truth.rated_zero is None:
        raise InputError(
            "condensed lists leave out rows that nobody rated, and the truth has relevant rows only: give ratings of 0 "
            "too, or set config.evaluate.unrated to 'zero'"
        )
    relevant = np.repeat(np.arange(len(truth)), truth.num_relevant), truth.rows
    zero = truth.rated_zero[:, 0], truth.rated_zero[:, 1]
    rated = np.zeros(ranking.item_rows.shape, bool)
    for query, row in (relevant, zero):
        rated |= _among(ranking.item_rows, query, row, len(truth.gallery_ids))[0]
    order = np.argsort(~rated, axis=1, kind="stable")
    there = np.take_along_axis(rated, order, 1)
    rows = np.where(there, np.take_along_axis(ranking.item_rows, order, 1), -1)
    scores = np.where(there, np.take_along_axis(ranking.scores, order, 1), -np.inf)
    return Ranking(ranking.query_ids, rows, scores, ranking.gallery_sha256)


def parse(names: Sequence[str], where: str = "evaluate") -> list[tuple[str, int | None]]:
    """Checks names of scores; returns (name without its depth, depth or None) of each.

    Args:
      names: such as "mrr", "ndcg@10"; see `NAMES`.
      where: whose argument it is, for messages.

    Raises:
      InputError: there is no such score, or a depth below 1.
    """
    out = []
    for name in arguments.sequence(names, "metrics", where):
        name = arguments.text(name, "metrics", where, "ndcg@10")
        match = re.fullmatch(r"([a-z]+)(?:@([0-9]{1,7}))?(_capped)?", name)
        general = match and match[1] + ("@K" if match[2] else "") + (match[3] or "")
        if general not in NAMES or match[2] and not 1 <= int(match[2]) <= MOST_DEPTH:
            raise InputError(f"{where}: there is no score named {name!r}{pairs.near(name, NAMES)}")
        out.append((general.replace("@K", ""), int(match[2]) if match[2] else None))
    return out


def per_query(
    ranking: Ranking,
    truth: Truth,
    ks: Sequence[int] = (1, 10),
    names: Sequence[str] = (),
    *,
    gain: str = "exponential",
    unrated: str = "zero",
) -> dict[str, np.ndarray]:
    """Scores every query.

    Args:
      ranking: [Q, k] results; if k is below one of `ks`, missing results count as misses.
      truth: ground truth for the same queries.
      ks: depths.
      names: further scores, see `NAMES`.
      gain: of a grade g in nDCG, "exponential" (2 ** g - 1) or "linear" (g); both are 1 where there are no grades.
      unrated: rows that nobody rated count as not relevant ("zero"), or are left out first ("condensed").

    Returns:
      {name: [Q] float64, NaN for queries without a relevant listing}; for every K of ks:
      "recall@1": 1 if the first result is relevant, else 0 (also called precision@1 or top-1 accuracy);
      "mar@K": share of the relevant listings found among the first K (eProduct's recall, denominator |relevant|);
      "mar@K_capped": the same with denominator min(K, |relevant|), so that 1 is always attainable;
      "map@K": average precision of the first K: sum of the precisions at the hits, over min(K, |relevant|);
      "precision@K": share of the first K that are relevant, missing results counted as misses;
      "ndcg@K": normalised discounted cumulative gain: the gain at rank p counts 1 / log2(p + 1), relative to the best
      possible ranking.
      And those of `names`: "mrr", "mrr@K": 1 / rank of the first relevant result, 0 without one; "recall@K" with K
      above 1: "mar@K" under the name that text retrieval uses; "hit@K": 1 if any of the first K is relevant, else 0
      (R@K of composed retrieval); "map": average precision of the whole list over |relevant|, as trec_eval has it;
      "ndcg": of the whole list.

    Raises:
      InputError: ranking and truth do not match, a K below 1, or an unknown name.

    Source: nDCG, Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4), 2002; its
    exponential gain, Burges et al., "Learning to Rank using Gradient Descent", ICML 2005.
    """
    check(ranking, truth)
    ks = [arguments.integer(k, "ks", "evaluate", high=MOST_DEPTH) for k in arguments.sequence(ks, "ks", "evaluate")]
    wanted = parse(names)
    if arguments.choice(unrated, "unrated", "evaluate", UNRATED) == "condensed":
        ranking = condensed(ranking, truth)
    (hit, place), relevant = _found(ranking, truth), truth.num_relevant.astype(np.float64)
    relevant[relevant == 0] = np.nan
    none = np.isnan(relevant)
    gained = _gains(truth, arguments.choice(gain, "gain", "evaluate", GAINS))
    value = hit if gained is None else np.where(hit, gained[place] if len(gained) else 0.0, 0.0)
    precision = np.cumsum(hit, 1) / np.arange(1, hit.shape[1] + 1)

    def score(name: str, k: int | None) -> np.ndarray:
        depth = hit.shape[1] if k is None else k
        first = hit[:, :depth]
        if name == "mrr":
            rank = first.argmax(1) + 1.0 if first.shape[1] else np.ones(len(first))
            return np.where(none, np.nan, first.any(1) / rank)
        if name == "hit" or (name == "recall" and k == 1):
            return np.where(none, np.nan, first.any(1))
        if name in ("mar", "recall"):
            return first.sum(1) / relevant
        if name == "mar_capped":
            return first.sum(1) / np.minimum(k, relevant)
        if name == "map":
            return (precision[:, :depth] * first).sum(1) / (relevant if k is None else np.minimum(k, relevant))
        if name == "precision":
            return np.where(none, np.nan, first.sum(1) / k)
        deep = max(depth, int(truth.num_relevant.max(initial=0))) if k is None else k
        discounts = 1 / np.log2(np.arange(2, deep + 2))
        ideal = _ideal(truth, gained, discounts)
        return value[:, :depth] @ discounts[: first.shape[1]] / np.where(none, np.nan, ideal)

    out = {"recall@1": score("recall", 1)}
    for k in ks:
        for name in ("mar", "mar_capped", "map", "precision", "ndcg"):
            out[f"{name.removesuffix('_capped')}@{k}{'_capped' if name == 'mar_capped' else ''}"] = score(name, k)
    return out | {key: score(*parsed) for key, parsed in zip(names, wanted, strict=True) if key not in out}


def _gains(truth: Truth, gain: str) -> np.ndarray | None:
    """Returns the gain of each of truth.rows, float64; None where there are no grades."""
    if truth.grades is None:
        return None
    grades = truth.grades.astype(np.float64)
    if gain == "linear":
        return grades
    if grades.max(initial=0) > MOST_GRADE:
        raise InputError(
            f"evaluate: a grade is {grades.max():g}, and the exponential gain takes grades up to {MOST_GRADE}: set "
            "config.evaluate.gain to 'linear'"
        )
    return np.exp2(grades) - 1


def _ideal(truth: Truth, gained: np.ndarray | None, discounts: np.ndarray) -> np.ndarray:
    """Returns the discounted gain of the best possible ranking as deep as there are discounts, [Q] float64."""
    if gained is None:
        return np.append(0.0, np.cumsum(discounts))[np.minimum(len(discounts), truth.num_relevant)]
    query = np.repeat(np.arange(len(truth)), truth.num_relevant)
    order = np.lexsort((-gained, query))
    rank = np.arange(len(query)) - truth.indptr[query[order]]
    counted = rank < len(discounts)
    weights = gained[order][counted] * discounts[rank[counted]]
    return np.bincount(query[order][counted], weights, minlength=len(truth))


def evaluate(
    ranking: Ranking,
    truth: Truth,
    ks: Sequence[int] = (1, 10),
    names: Sequence[str] = (),
    *,
    chosen: np.ndarray | None = None,
    draws: int = 0,
    gain: str = "exponential",
    unrated: str = "zero",
) -> dict[str, float | int | None]:
    """Averages `per_query` over the queries that have a relevant listing.

    Args:
      ranking: [Q, k] results.
      truth: ground truth for the same queries.
      ks: depths.
      names, gain, unrated: see `per_query`.
      chosen: [Q] bool, which queries to score; all by default.
      draws: see `summary`.

    Returns:
      See `summary`.

    Raises:
      InputError: ranking and truth do not match.
    """
    each = per_query(ranking, truth, ks, names, gain=gain, unrated=unrated)
    return summary(each, chosen, draws=draws)


def summary(
    each: dict[str, np.ndarray], chosen: np.ndarray | None = None, *, draws: int = 0, seed: int = 0
) -> dict[str, float | int | None]:
    """Averages scores over the queries that have one.

    Args:
      each: {name: [Q]} from `per_query`, NaN in all of them for queries without a relevant listing.
      chosen: [Q] bool, which queries to average; all by default.
      draws: bootstrap draws for the confidence intervals; 0 for no intervals.
      seed: seed of the draws.

    Returns:
      The means under the names of `each`; for each the standard error of the mean over queries, "<name>_se", and with
      draws its 95 % percentile interval, "<name>_low" and "<name>_high"; "num_queries", split into "num_scored" with
      and "num_without_relevant" without a relevant listing. Means are None if no query was scored; errors and
      intervals are None with fewer than two.
    """
    if not arguments.mapping(each, "each", "summary"):
        raise InputError("summary: there are no scores to average: give those of per_query")
    arrays = [arguments.array(values, name, "summary", ("Q",)) for name, values in each.items()]
    if len({len(values) for values in arrays}) > 1:
        raise InputError(f"summary: the scores have different numbers of queries: {[len(values) for values in arrays]}")
    table = np.stack(arrays, 1)
    if chosen is not None:
        chosen = arguments.array(chosen, "chosen", "summary", (len(table),), kind="flags")
    chosen = np.ones(len(table), bool) if chosen is None else chosen
    draws = arguments.integer(draws, "draws", "summary", low=0)
    values = np.asfortranarray(table[chosen & ~np.isnan(table).any(1)])
    count, out = len(values), {}
    several = count > 1
    if draws and several:
        limits = np.percentile(bootstrap_means(values, draws, seed), (2.5, 97.5), axis=0)
    for column, name in enumerate(each):
        out[name] = float(values[:, column].mean()) if count else None
        out[f"{name}_se"] = float(values[:, column].std(ddof=1) / np.sqrt(count)) if several else None
        if draws:
            out[f"{name}_low"], out[f"{name}_high"] = limits[:, column].tolist() if several else (None, None)
    total = int(chosen.sum())
    return {
        **out,
        "num_queries": total,
        "num_scored": count,
        "num_without_relevant": total - count,
    }
