"""What a step that trusts neighbours does to the scores: told when it is likely to hurt, and measured.

Re-ranking, expansion, augmentation and diffusion take a listing's nearest ones for the same product. Where a product
has one picture in the gallery, its neighbours are other products, and the one right listing loses its place to them.
Nothing in the vectors says which case it is (the share of mutual neighbours does not), the truth does.
"""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np

from retrieval_jax.scoring import bootstrap, metrics
from retrieval_jax.scoring.ranking import Ranking, Truth

TRUST_NEIGHBOURS = ("reranking", "global_reranking", "query_expansion", "database_augmentation", "diffusion")
METRIC = "mar@10_capped"


def pairs(workdir: str | os.PathLike) -> list[dict]:
    """Returns the stages that a step which trusts neighbours made, and what to compare them with.

    Args:
      workdir: the work directory, with rankings.

    Returns:
      Dicts of model, stage, step, and before: the same model's last stage without the step.
    """
    stages = json.loads((pathlib.Path(workdir) / "rankings" / "rankings.json").read_text())["stages"]
    out, last = [], {}
    for entry in stages:
        model, stage, step = entry["model"], entry["stage"], entry.get("step")
        if step in TRUST_NEIGHBOURS and model in last:
            out.append({"model": model, "before": last[model], "stage": stage, "step": step})
        last[model] = stage
    return out


def effect(before: Ranking, after: Ranking, truth: Truth) -> dict:
    """Measures what a step changed, query by query, over all and by how many listings are relevant.

    Args:
      before: the ranking without the step.
      after: the ranking with it.
      truth: of the same queries.

    Returns:
      "metric"; of "all" queries, those with "one" relevant listing and those with "more": before, after, and the
      result of `bootstrap.paired_bootstrap`; None where there are no such queries.
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
    """Returns in words what a step did, or that nobody knows.

    Args:
      entry: of `pairs`, with what `effect` found where there is a truth.
    """
    name, before, whole = f"{entry['model']}/{entry['stage']}", entry["before"], entry.get("all")
    if whole is None:
        return (
            f"what {name} changes over {before} is not known here; it helps where products have several pictures in "
            "the gallery, and hurts where they have one"
        )
    gain, low, high = (100 * whole[key] for key in ("difference", "low", "high"))
    verdict = "no more than chance" if low <= 0 <= high else "it helps" if gain > 0 else "it hurts: take it out"
    scores = f"{100 * whole['before']:.2f} -> {100 * whole['after']:.2f}"
    text = f"{name}: {entry['metric']} {scores} over {before}, {gain:+.2f} (95 %: {low:+.2f} to {high:+.2f}), {verdict}"
    if entry["one"] is not None:
        share, change = 100 * entry["one"]["num_scored"] / whole["num_scored"], 100 * entry["one"]["difference"]
        text += f". {share:.0f} % of the queries have a single relevant listing: {change:+.2f}"
        if entry["more"] is not None:
            text += f", the others {100 * entry['more']['difference']:+.2f}"
        if share >= 50:
            text += ". With so many, a step that trusts neighbours is likely to hurt"
    return text
