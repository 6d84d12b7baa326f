"""Scores of a ranking against the truth: pure functions, macro-averaged over the queries that have a relevant listing.

The query itself (a gallery row with the query's id) is never relevant and never a hit: `Truth` drops it. A gallery row
that a ranking repeats counts at its first place only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.bootstrap import bootstrap_means
from retrieval_jax.scoring.ranking import Ranking, Truth


def hash_shares(ids: Sequence[str]) -> np.ndarray:
    """Returns [n] numbers in [0, 1), one per id, the same on every machine: below s lies a fixed share s of all ids."""
    numbers = [int.from_bytes(hashlib.sha256(str(item).encode()).digest()[:8], "big") for item in ids]
    return np.array(numbers, np.float64) / 2.0**64


def selection_half(query_ids: Sequence[str], share: float = 0.5) -> np.ndarray:
    """Returns [Q] bool: does the query belong to the half that choices are made on?

    Args:
      query_ids: Q ids; only the id decides, not the order or the other ids.
      share: of the queries, 0 to 1.

    Raises:
      InputError: a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise InputError(f"evaluate.selection_share is {share}: it is a share of the queries, 0 to 1")
    return hash_shares(query_ids) < share


def check(ranking: Ranking, truth: Truth) -> None:
    """Checks that ranking and truth are about the same queries, in the same order, and one gallery.

    Args:
      ranking: [Q, k] results.
      truth: what they are to be scored against.

    Raises:
      InputError: they are not, with what differs.
    """
    if ranking.query_ids != Ids.of(truth.query_ids):
        raise InputError(
            f"the ranking's {len(ranking)} queries are not the truth's {len(truth)}, or stand in another order: "
            "embed and search the catalogue that the truth belongs to"
        )
    if ranking.gallery_sha256 and ranking.gallery_sha256 != Ids.of(truth.gallery_ids).sha256():
        raise InputError(
            "the ranking was made with another gallery than the truth's (ids or their order differ): embed and "
            "search again"
        )
    if ranking.item_rows.size and ranking.item_rows.max() >= len(truth.gallery_ids):
        raise InputError(
            f"the ranking names gallery row {ranking.item_rows.max()}, but the truth's gallery has "
            f"{len(truth.gallery_ids)} rows"
        )


def hits(ranking: Ranking, truth: Truth) -> np.ndarray:
    """Finds the results that count.

    Args:
      ranking: [Q, k] results.
      truth: of the same queries and gallery (see `check`).

    Returns:
      [Q, k] bool: is the result relevant, and at its first place in the list?
    """
    rows, size = ranking.item_rows, max(1, len(truth.gallery_ids))
    queries = np.repeat(np.arange(len(truth)), truth.num_relevant)
    keys = queries * size + truth.rows  # ascending, as Truth keeps them
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
      ranking: [Q, k] results; where k is below one of `ks`, the missing ones are no hits.
      truth: of the same queries.
      ks: depths.

    Returns:
      {name: [Q] float64, nan where a query has no relevant listing}, for every K of ks:
      "recall@1": 1 if the first result is relevant, else 0 (also called precision@1 or top-1 accuracy);
      "mar@K": share of the relevant listings found among the first K (eProduct's recall, denominator |relevant|);
      "mar@K_capped": the same with the denominator min(K, |relevant|), so that 1 can always be reached;
      "map@K": average precision of the first K: sum of the precisions at the hits, over min(K, |relevant|);
      "precision@K": share of the first K that are relevant, missing ones counted as not;
      "ndcg@K": normalised discounted cumulative gain: a hit at place p counts 1 / log2(p + 1), over what the best
      ranking of the same listings would get.

    Raises:
      InputError: ranking and truth do not belong together, or a K below 1.

    Source: nDCG, Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4), 2002.
    """
    check(ranking, truth)
    if any(k < 1 for k in ks):
        raise InputError(f"evaluate.ks is {tuple(ks)}: depths are 1 or more")
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
      truth: of the same queries.
      ks: depths.
      chosen: [Q] bool, score these queries only; default all.
      draws: see `summary`.

    Returns:
      See `summary`.

    Raises:
      InputError: ranking and truth do not belong together.
    """
    return summary(per_query(ranking, truth, ks), chosen, draws=draws)


def summary(
    each: dict[str, np.ndarray], chosen: np.ndarray | None = None, *, draws: int = 0, seed: int = 0
) -> dict[str, float | int | None]:
    """Averages scores over the queries that have one.

    Args:
      each: {name: [Q]} of `per_query`, nan in all of them where a query has no relevant listing.
      chosen: [Q] bool, these queries only; default all.
      draws: bootstrap draws of the queries for the confidence intervals; 0 for no intervals.
      seed: of the draws.

    Returns:
      The means under the names of `each`; for each the standard error of the mean over queries, "<name>_se", and with
      draws its 95 % percentile interval, "<name>_low" and "<name>_high"; "num_queries", of which "num_scored" have a
      relevant listing and "num_without_relevant" have none. Means are None where nothing could be scored, errors and
      intervals where fewer than two queries were.
    """
    table = np.stack(list(each.values()), 1)
    chosen = np.ones(len(table), bool) if chosen is None else np.asarray(chosen, bool)
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
