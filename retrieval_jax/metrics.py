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
from retrieval_jax.ranking import Ranking, Truth


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


def bootstrap_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Returns the means of the columns over rows drawn again with replacement, [draws, columns].

    Args:
      values: [n, columns] float64; all columns get the same rows.
      draws: how often.
      seed: of the draws.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    rng, count = np.random.default_rng(seed), len(values)
    means = np.empty((draws, values.shape[1]))
    for start in range(0, draws, 64):  # how often each row was drawn: memory of 64 draws, whatever their number
        part = range(start, min(start + 64, draws))
        times = np.stack([np.bincount(rng.integers(count, size=count), minlength=count) for _ in part])
        means[part.start : part.stop] = np.einsum("dn,nc->dc", times, values) / count  # no BLAS: whatever its threads
    return means


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, *, draws: int = 10_000, seed: int = 0
) -> dict[str, float | int]:
    """Compares two runs query by query: how much better is the second, and could that be chance?

    The queries are drawn again with replacement, always the same ones for both runs, so what makes a query hard for
    either cancels. It says how the difference would vary over other queries, not over other training seeds: average
    the scores of several seeds first.

    Args:
      first: [Q] scores of the first run, from `per_query`; nan where a query has no relevant listing.
      second: [Q] scores of the second run for the same queries.
      draws: number of bootstrap draws.
      seed: of the draws.

    Returns:
      "difference" (mean of second - first), "low" and "high" (its 95 % percentile interval), "p" (two-sided: twice the
      smaller share of draws on one side of 0, with one draw added to each), "wins", "losses" and "ties" (queries on
      which the second is better, worse, equal), "num_scored".

    Raises:
      InputError: different lengths, different queries left out, or none left.

    Source: `bootstrap_means`; paired over test items: Koehn, "Statistical Significance Tests for Machine Translation
    Evaluation", 2004.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or (np.isnan(first) != np.isnan(second)).any():
        raise InputError(
            f"the two runs were not scored on the same queries ({first.shape} and {second.shape} scores): "
            "compare runs of one catalogue"
        )
    gains = (second - first)[~np.isnan(first)]
    if not len(gains):
        raise InputError("no query has a relevant listing: there is nothing to compare")
    means = bootstrap_means(gains[:, None], draws, seed)[:, 0]
    low, high = np.percentile(means, (2.5, 97.5))
    below, above = ((means <= 0).sum() + 1) / (draws + 1), ((means >= 0).sum() + 1) / (draws + 1)
    return {
        "difference": float(gains.mean()),
        "low": float(low),
        "high": float(high),
        "p": float(min(1.0, 2 * min(below, above))),
        "wins": int((gains > 0).sum()),
        "losses": int((gains < 0).sum()),
        "ties": int((gains == 0).sum()),
        "num_scored": len(gains),
    }
