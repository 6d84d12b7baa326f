"""Finds a model without training that scores better than the trained one, by more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_jax.scoring import bootstrap

MAIN = ("ensemble", "trained")  # the model that a run is about: the first of these that it has


def better(rows: Sequence[Mapping], metric: str, each) -> dict:
    """Returns the best model that is not trained, where it is better than the trained one; {} otherwise.

    Args:
      rows: scores with model, stage and the metric; the best stage of each side counts.
      metric: what is compared.
      each: (model, stage) -> the metric of every query, [Q] with NaN where a query has no relevant listing.

    Returns:
      "metric", "model" and "stage", "than" (its model and stage), "score" and "than_score" in [0, 1], and the interval
      of `bootstrap.paired_bootstrap`.
    """
    scored = [row for row in rows if row.get(metric) is not None and np.isfinite(row[metric])]
    main = next((name for name in MAIN if any(row["model"] == name for row in scored)), None)
    others = [row for row in scored if row["model"] not in MAIN]
    if main is None or not others:
        return {}
    own = max((row for row in scored if row["model"] == main), key=lambda row: row[metric])
    best = max(others, key=lambda row: row[metric])
    if best[metric] <= own[metric]:
        return {}
    compared = bootstrap.paired_bootstrap(*(each((row["model"], row["stage"])) for row in (own, best)))
    if compared["low"] <= 0 or compared["p"] >= 0.05:
        return {}
    return {
        "metric": metric,
        "model": best["model"],
        "stage": best["stage"],
        "than": [own["model"], own["stage"]],
        "score": best[metric],
        "than_score": own[metric],
        **{name: compared[name] for name in ("difference", "low", "high")},
    }


def sentence(found: Mapping) -> str:
    """Returns a sentence about a model without training that is better, and what to do; "" for nothing.

    Args:
      found: of `better`.
    """
    if not found:
        return ""
    gain, low, high = (100 * found[name] for name in ("difference", "low", "high"))
    remedies = [] if found["model"] == "pretrained" else ["start from public weights (docs/fine_tuning.md)"]
    remedies.append("train for more epochs")
    if found["than"][0] == "trained" and found["model"] != "untrained":
        remedies.append(f"search with both: config.search.join = ('trained', '{found['model']}') (docs/using.md)")
    advice = f"{', '.join(remedies[:-1])}, or {remedies[-1]}" if len(remedies) > 1 else remedies[0]
    return (
        f"{found['model']}/{found['stage']}, which is not trained here, scores better than {'/'.join(found['than'])}: "
        f"{found['metric']} {100 * found['score']:.2f} against {100 * found['than_score']:.2f}, {gain:+.2f} "
        f"(95 %: {low:+.2f} to {high:+.2f}). What helps: {advice}"
    )
