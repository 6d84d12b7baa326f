"""Confidence intervals and paired tests by resampling queries (bootstrap)."""

from __future__ import annotations

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError

MOST_DRAWS = 10_000_000  # a 95 % interval is stable with thousands


def bootstrap_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Returns the column means over rows resampled with replacement, [draws, columns].

    Args:
      values: [n, columns] float64; all columns share the same resampled rows.
      draws: number of bootstrap draws.
      seed: seed of the draws.

    Raises:
      InputError: no rows, a score that is non-finite, or settings out of range.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    values = arguments.array(values, "values", "bootstrap", ("n", "columns")).astype(np.float64, copy=False)
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"bootstrap: values of shape {list(values.shape)} must be finite, and at least one row")
    draws = arguments.integer(draws, "draws", "bootstrap", high=MOST_DRAWS)
    seed = arguments.integer(seed, "seed", "bootstrap", low=0)
    rng, count = np.random.default_rng(seed), len(values)
    means = np.empty((draws, values.shape[1]))
    for start in range(0, draws, 64):  # counts of each row, 64 draws at a time to bound memory
        part = range(start, min(start + 64, draws))
        times = np.stack([np.bincount(rng.integers(count, size=count), minlength=count) for _ in part])
        means[part.start : part.stop] = np.einsum("dn,nc->dc", times, values) / count  # not BLAS: thread-independent
    return means


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, *, draws: int = 10_000, seed: int = 0
) -> dict[str, float | int]:
    """Compares two runs query by query: how much better is the second, and could that be chance?

    Queries are resampled with replacement, the same ones for both runs, so that query difficulty cancels. The result
    covers variation over queries, not over training seeds: average the scores of several seeds first.

    Args:
      first: [Q] scores of the first run, from `per_query`; NaN for queries without a relevant listing.
      second: [Q] scores of the second run on the same queries.
      draws: number of bootstrap draws.
      seed: seed of the draws.

    Returns:
      "difference" (mean of second - first), "low" and "high" (its 95 % percentile interval), "p" (two-sided: twice the
      smaller share of draws on one side of 0, with one draw added to each; at least 2 ** (1 - n) for n queries),
      "wins", "losses" and "ties" (queries on which the second is better, worse, equal), "num_scored".

    Raises:
      InputError: the lengths or the scored queries differ, or no query was scored.

    Source: `bootstrap_means`; paired over test items: Koehn, "Statistical Significance Tests for Machine Translation
    Evaluation", 2004.
    """
    first, second = (
        arguments.array(side, name, "paired_bootstrap", ("Q",)).astype(np.float64, copy=False)
        for name, side in (("first", first), ("second", second))
    )
    if first.shape != second.shape or (np.isnan(first) != np.isnan(second)).any():
        raise InputError(
            f"the two runs were not scored on the same queries ({first.shape} and {second.shape} scores): "
            "compare runs on one catalogue"
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
        # Resampling a single query gives that query again and again: n queries of one sign are as likely as n coins.
        "p": float(min(1.0, max(2 * min(below, above), 2.0 ** (1 - min(len(gains), 1000))))),
        "wins": int((gains > 0).sum()),
        "losses": int((gains < 0).sum()),
        "ties": int((gains == 0).sum()),
        "num_scored": len(gains),
    }
