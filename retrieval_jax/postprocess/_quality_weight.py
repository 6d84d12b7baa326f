"""Chooses the weight of the last stage: what shoppers like most, among what costs no more relevance than allowed.

The queries are those of the selection half, and they are scored by rankers that have not seen them; the report half is
not looked at.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax.errors import InputError
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Ranking, Truth

GRID = tuple(step / 20 for step in range(21))  # weights
SURE = 1.645  # standard errors above the mean: 95 % of a normal distribution are below
METRIC = "ndcg@10"
ABOVE = 1e-3  # how much more the least of the new scores is than those of the results that stay
LEAST = 20  # queries with clicks, and judged ones; fewer show nothing


def choose(
    ranking: Ranking, scores: np.ndarray, judged: Truth | None, clicked: Truth, cost: float
) -> tuple[float, list[dict], str]:
    """Chooses the weight of the ranker's scores.

    Args:
      ranking: by similarity.
      scores: [Q, depth] of rankers that have not seen the query; NaN for queries without clicks.
      judged: relevant rows of the queries of the selection half.
      clicked: see `State`.
      cost: see `step`.

    Returns:
      The weight; what was tried, [{"weight", "gain", "gain_error", "cost", "cost_at_most"}]; and why, in words.

    Raises:
      InputError: too few queries are judged.
    """
    known = 0 if judged is None else int((judged.num_relevant > 0).sum())
    if judged is None or known < LEAST:
        raise InputError(
            f"quality: {known} queries of the selection half are judged, and {LEAST} are needed to see what relevance "
            "it costs: give a ground truth, or the step a weight such as .2"
        )
    scored = ~np.isnan(scores).all(1)
    tried, before = [], None
    for weight in GRID:
        made = reordered(ranking, scores, weight)
        relevant = metrics.per_query(made, judged, (), (METRIC,))[METRIC]
        liked = metrics.per_query(made, clicked, (), (METRIC,), gain="linear", unrated="condensed")[METRIC]
        before = (relevant, liked) if before is None else before  # weight 0: the ranking itself
        lost, won = before[0] - relevant, liked - before[1]
        lost, won = lost[scored & ~np.isnan(lost)], won[scored & ~np.isnan(won)]
        (loss, loss_error), (gain, gain_error) = _mean(lost), _mean(won)
        at_most = loss + SURE * loss_error
        tried.append(
            {"weight": weight, "gain": gain, "gain_error": gain_error, "cost": loss, "cost_at_most": at_most}
        )  # fmt: skip
    allowed = [tried[0], *(one for one in tried[1:] if one["cost_at_most"] <= cost)]
    best = max(allowed, key=lambda one: one["gain"])
    said = (
        f"nDCG@10 by clicks {100 * best['gain']:+.1f} points (standard error {100 * best['gain_error']:.1f}) for "
        f"{100 * best['cost']:.1f} points of nDCG@10 by relevance, at most {100 * best['cost_at_most']:.1f} of the "
        f"{100 * cost:.1f} allowed"
    )
    rounded = [{name: round(value, 5) for name, value in one.items()} for one in tried]
    if best["gain"] <= best["gain_error"]:
        return 0.0, rounded, "weight 0, the order stays: no weight within the cost gains more than its standard error"
    return best["weight"], rounded, f"weight {best['weight']:g}: {said}, on {len(won):,} queries"


def reordered(ranking: Ranking, scores: np.ndarray, weight: float) -> Ranking:
    """Returns a ranking with its first results in the order of similarity and other scores; ties as before.

    Args:
      ranking: by similarity, or in tiers: a result counts as no more similar than those before it.
      scores: [Q, depth] of the first results; queries with a NaN keep their order.
      weight: of these scores, 0 to 1; both are put on a scale from 0 to 1 within the query.

    Returns:
      The ranking, the same with the weight 0; new scores are above those of the results after the first `depth`, which
      stay, and so up to 1.001 more than a cosine.
    """
    if not weight:
        return ranking
    depth = scores.shape[1]
    rows, there = ranking.item_rows[:, :depth], ranking.item_rows[:, :depth] >= 0
    mixed = _scaled(np.where(there, descending(ranking.scores[:, :depth]), 0.0), there)
    known = ~(np.isnan(scores) & there).any(1, keepdims=True)
    mixed = np.where(known, (1 - weight) * mixed + weight * _scaled(np.nan_to_num(scores), there), mixed)
    order = np.argsort(np.where(there, -mixed, np.inf), axis=1, kind="stable")
    tail = ranking.scores[:, depth:]
    after = tail.max(1, keepdims=True, initial=-np.inf)
    above = np.where(np.isfinite(after), after + ABOVE, 0.0)
    new = np.take_along_axis(np.where(there, above + mixed, -np.inf), order, 1).astype(np.float32)
    rows = np.concatenate([np.take_along_axis(rows, order, 1), ranking.item_rows[:, depth:]], 1)
    return dataclasses.replace(ranking, item_rows=rows, scores=np.concatenate([new, tail], 1))


def descending(scores: np.ndarray) -> np.ndarray:
    """Returns the least of each score and those before it, float64 [Q, n]: a ranking's own order, as similarities.

    The results of an index with preferred conditions are in tiers, each by cosine, which an order by cosine would lose.

    Args:
      scores: [Q, n] of a ranking, -inf for no result.
    """
    return np.minimum.accumulate(scores.astype(np.float64), axis=1)


def _scaled(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Returns scores [Q, n] from 0, the least of a query, to 1; 1 where all are equal."""
    low = np.where(there, scores, np.inf).min(1, keepdims=True, initial=np.inf)
    high = np.where(there, scores, -np.inf).max(1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore"):
        width = high - low
        return np.where(width > 0, (scores - low) / np.where(width > 0, width, 1), 1.0)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Returns the mean and its standard error."""
    if len(values) < 2:
        return (float(values.mean()) if len(values) else 0.0), float("inf")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
