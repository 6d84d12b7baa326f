"""Measures what steps that trust neighbours do to the scores, and warns when they are likely to hurt.

Re-ranking, expansion, augmentation and diffusion assume that a listing's nearest neighbours show the same product. If a
product has a single picture in the gallery, its neighbours are other products, and the one right listing loses its
place to them. The vectors do not reveal which case applies (nor does the share of mutual neighbours); the truth does.
"""

from __future__ import annotations

import os

import numpy as np

from retrieval_jax.scoring import bootstrap, metrics
from retrieval_jax.scoring.ranking import Ranking, Truth, read_stages

TRUST_NEIGHBOURS = ("reranking", "global_reranking", "query_expansion", "database_augmentation", "diffusion")
METRIC = "mar@10_capped"


def pairs(workdir: str | os.PathLike) -> list[dict]:
    """Returns the stages made by steps that trust neighbours, each with the stage to compare it with.

    Args:
      workdir: the work directory, with rankings.

    Returns:
      Dicts with model, stage, step, and before: the same model's previous stage.
    """
    stages = read_stages(workdir)
    out, last = [], {}
    for entry in stages:
        model, stage, step = entry["model"], entry["stage"], entry.get("step")
        if step in TRUST_NEIGHBOURS and model in last:
            out.append({"model": model, "before": last[model], "stage": stage, "step": step})
        last[model] = stage
    return out


def effect(before: Ranking, after: Ranking, truth: Truth) -> dict:
    """Measures what a step changed, query by query, overall and by the number of relevant listings.

    Args:
      before: the ranking without the step.
      after: the ranking with it.
      truth: ground truth for the same queries.

    Returns:
      "metric"; and for "all" queries, for those with "one" relevant listing and those with "more": before, after, and
      the result of `bootstrap.paired_bootstrap`, or None if there are no such queries.
    """
    scores = [metrics.per_query(ranking, truth, (10,))[METRIC] for ranking in (before, after)]
    scored, one = ~np.isnan(scores[0]), np.diff(truth.indptr) == 1
    out = {"metric": METRIC}
    for name, chosen in (("all", scored), ("one", scored & one), ("more", scored & ~one)):
        out[name] = None
        if chosen.any():
            first, second = (score[chosen] for score in scores)
            compared = bootstrap.paired_bootstrap(first, second)
            out[name] = {"before": float(first.mean()), "after": float(second.mean()), **compared}
    return out


def sentence(entry: dict) -> str:
    """Returns a sentence about what a step did, or that it is unknown.

    Args:
      entry: from `pairs`, extended by the result of `effect` if there is a truth.
    """
    name, before, whole = f"{entry['model']}/{entry['stage']}", entry["before"], entry.get("all")
    if whole is None:
        return (
            f"the effect of {name} over {before} is unknown here; it helps if products have several pictures in the "
            "gallery, and hurts if they have one"
        )
    gain, low, high = (100 * whole[key] for key in ("difference", "low", "high"))
    noise = low <= 0 <= high or whole.get("p", 0.0) >= 0.05
    verdict = "within noise" if noise else "it helps" if gain > 0 else "it hurts: remove it"
    scores = f"{100 * whole['before']:.2f} -> {100 * whole['after']:.2f}"
    text = f"{name}: {entry['metric']} {scores} over {before}, {gain:+.2f} (95 %: {low:+.2f} to {high:+.2f}), {verdict}"
    if entry["one"] is not None:
        share, change = 100 * entry["one"]["num_scored"] / whole["num_scored"], 100 * entry["one"]["difference"]
        text += f". {share:.0f} % of the queries have a single relevant listing: {change:+.2f}"
        if entry["more"] is not None:
            text += f", the others {100 * entry['more']['difference']:+.2f}"
        if share >= 50:
            text += ". With so many of them, a step that trusts neighbours is likely to hurt"
    return text
