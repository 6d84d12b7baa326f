"""Retrieval metrics: pure functions of ranking and truth, averaged over the queries that have a relevant listing.

The query itself (a gallery row with the query's id) is never relevant and never a hit: `Truth` drops it. If a ranking
repeats a gallery row, only its first place counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.bootstrap import bootstrap_means
from retrieval_jax.scoring.ranking import Ranking, Truth

MOST_DEPTH = 1_000_000  # of a score: one discount per rank is kept in memory


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
    own = set(truth.query_ids) & set(truth.gallery_ids)
    relevant = np.asarray(truth.num_relevant, np.float64)
    others = len(truth.gallery_ids) - np.array([item in own for item in truth.query_ids], np.float64)
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
    rows, size = ranking.item_rows, max(1, len(truth.gallery_ids))
    queries = np.repeat(np.arange(len(truth)), truth.num_relevant)
    keys = queries * size + truth.rows  # ascending, since Truth keeps them sorted
    wanted = np.arange(len(rows))[:, None] * size + rows
    if len(keys):
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = (keys[place] == wanted) & (rows >= 0)
    else:
        found = np.zeros(rows.shape, bool)
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, 1)
    repeat = np.zeros(rows.shape, bool)
    np.put_along_axis(repeat, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return found & ~repeat


def per_query(ranking: Ranking, truth: Truth, ks: Sequence[int] = (1, 10)) -> dict[str, np.ndarray]:
    """Scores every query.

    Args:
      ranking: [Q, k] results; if k is below one of `ks`, missing results count as misses.
      truth: ground truth for the same queries.
      ks: depths.

    Returns:
      {name: [Q] float64, NaN for queries without a relevant listing}; for every K of ks:
      "recall@1": 1 if the first result is relevant, else 0 (also called precision@1 or top-1 accuracy);
      "mar@K": share of the relevant listings found among the first K (eProduct's recall, denominator |relevant|);
      "mar@K_capped": the same with denominator min(K, |relevant|), so that 1 is always attainable;
      "map@K": average precision of the first K: sum of the precisions at the hits, over min(K, |relevant|);
      "precision@K": share of the first K that are relevant, missing results counted as misses;
      "ndcg@K": normalised discounted cumulative gain: a hit at rank p counts 1 / log2(p + 1), relative to the best
      possible ranking.

    Raises:
      InputError: ranking and truth do not match, or a K below 1.

    Source: nDCG, Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4), 2002.
    """
    check(ranking, truth)
    ks = [arguments.integer(k, "ks", "evaluate", high=MOST_DEPTH) for k in arguments.sequence(ks, "ks", "evaluate")]
    hit, relevant = hits(ranking, truth), truth.num_relevant.astype(np.float64)
    relevant[relevant == 0] = np.nan
    out = {"recall@1": np.where(np.isnan(relevant), np.nan, hit[:, :1].any(1))}
    for k in ks:
        first = hit[:, :k]
        count = first.sum(1)
        precision = np.cumsum(first, 1) / np.arange(1, first.shape[1] + 1)
        out[f"mar@{k}"] = count / relevant
        out[f"mar@{k}_capped"] = count / np.minimum(k, relevant)
        out[f"map@{k}"] = (precision * first).sum(1) / np.minimum(k, relevant)
        out[f"precision@{k}"] = np.where(np.isnan(relevant), np.nan, count / k)
        discounts = 1 / np.log2(np.arange(2, k + 2))
        ideal = np.append(0.0, np.cumsum(discounts))[np.minimum(k, truth.num_relevant)]
        out[f"ndcg@{k}"] = first @ discounts[: first.shape[1]] / np.where(np.isnan(relevant), np.nan, ideal)
    return out


def evaluate(
    ranking: Ranking,
    truth: Truth,
    ks: Sequence[int] = (1, 10),
    *,
    chosen: np.ndarray | None = None,
    draws: int = 0,
) -> dict[str, float | int | None]:
    """Averages `per_query` over the queries that have a relevant listing.

    Args:
      ranking: [Q, k] results.
      truth: ground truth for the same queries.
      ks: depths.
      chosen: [Q] bool, which queries to score; all by default.
      draws: see `summary`.

    Returns:
      See `summary`.

    Raises:
      InputError: ranking and truth do not match.
    """
    return summary(per_query(ranking, truth, ks), chosen, draws=draws)


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
