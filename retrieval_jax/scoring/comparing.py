"""Compares runs query by query: paired differences with intervals, and whether they are more than noise.

The runs of one side are the same recipe with several seeds: their scores are averaged query by query. Both sides are
resampled with the same queries (`bootstrap.paired_bootstrap`), so that query difficulty cancels.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import bootstrap, edits, metrics
from retrieval_jax.scoring.ranking import Ranking, Truth, list_stages, matching_stages

METRICS = ("mar@10_capped", "recall@1", "map@10", "ndcg@10", "precision@10")
NOISE = 0.05  # a difference with this p or more is called noise


def scores(
    folder: pathlib.Path,
    stage: str,
    truth: Truth,
    names: Sequence[str],
    graded: Mapping[str, str] | None = None,
    asked: edits.Asked | None = None,
) -> tuple[str, dict[str, np.ndarray]]:
    """Scores one ranking of a work directory, query by query.

    Args:
      folder: the work directory.
      stage: "stage" or "model/stage", "" for the last.
      truth: ground truth of the catalogue.
      names: names of scores, see `metrics.per_query`, and those of edits, see `edits.per_query`.
      graded: its arguments gain and unrated.
      asked: what the queries ask for where they are edits, else None.

    Returns:
      "model/stage", and {name: [Q]}.

    Raises:
      InputError: no such ranking or score, or a ranking of a different catalogue.
    """
    found = matching_stages(list_stages(folder), stage, f"{folder}: --stage")[-1]
    names = [arguments.text(name, "names", "compare", "mar@10_capped") for name in names]
    of_edits = [name for name in names if asked is not None and edits.is_name(name)]
    others = [name for name in names if name not in of_edits]
    metrics.parse(others, "compare")
    ranking = Ranking.load(folder / "rankings" / found[0] / found[1])
    try:
        metrics.check(ranking, truth)
    except InputError as error:
        raise InputError(f"{folder}: {error}; runs can be compared on one catalogue only") from error
    each = metrics.per_query(ranking, truth, (), others, **(graded or {}))
    each |= edits.named(ranking, asked, of_edits) if of_edits else {}
    return "/".join(found), {name: each[name] for name in names}


def compare(
    new: Sequence[pathlib.Path],
    old: Sequence[pathlib.Path],
    truth: Truth,
    *,
    stage: str = "",
    old_stage: str | None = None,
    names: Sequence[str] = METRICS,
    chosen: np.ndarray | None = None,
    graded: Mapping[str, str] | None = None,
    asked: edits.Asked | None = None,
) -> dict:
    """Compares two recipes on the same queries.

    Args:
      new: work directories of one recipe, one per seed.
      old: work directories of the other recipe, the baseline of the difference.
      truth: ground truth of their catalogue.
      stage: which ranking, "stage" or "model/stage", "" for the last of each.
      old_stage: the same for `old`; None for `stage`.
      names: names of scores; the verdict is about the first.
      chosen: bool [Q], which queries to compare; all by default.
      graded: arguments gain and unrated of `metrics.per_query`.
      asked: see `scores`.

    Returns:
      "new" and "old": {"runs", "stages"}; "scores": {name: {"new", "old": means, "new_seeds", "old_seeds": the mean of
      each seed, and the result of `bootstrap.paired_bootstrap` for new - old}}; "noise": whether the first score's
      difference is within noise; "verdict": that in words.

    Raises:
      InputError: no such rankings or scores, or rankings of a different catalogue.
    """
    names, sides = arguments.sequence(names, "names", "compare"), {}
    if not len(new) or not len(old) or not len(names):
        raise InputError(
            f"compare: {len(new)} new and {len(old)} old runs, {len(names)} scores: give at least one of each"
        )
    if chosen is not None:
        chosen = arguments.array(chosen, "chosen", "compare", (len(truth),), kind="flags")
    check_scored(truth, chosen)
    for side, folders, wanted in (("new", new, stage), ("old", old, stage if old_stage is None else old_stage)):
        sides[side] = [scores(pathlib.Path(folder), wanted, truth, names, graded, asked) for folder in folders]
    chosen = np.ones(len(truth), bool) if chosen is None else chosen
    out = {
        side: {"runs": [str(folder) for folder in folders], "stages": [found for found, _ in sides[side]]}
        for side, folders in (("new", new), ("old", old))
    }
    out["scores"] = {}
    for name in names:
        seeds = {side: [each[name][chosen] for _, each in found] for side, found in sides.items()}
        mean = {side: np.mean(found, axis=0) for side, found in seeds.items()}
        out["scores"][name] = {
            **{side: float(np.nanmean(values)) if np.isfinite(values).any() else None for side, values in mean.items()},
            **{f"{side}_seeds": [float(np.nanmean(one)) for one in found] for side, found in seeds.items()},
            **bootstrap.paired_bootstrap(mean["old"], mean["new"]),
        }
    out["noise"], out["verdict"] = verdict(names[0], out["scores"][names[0]])
    return out


def check_scored(truth: Truth, chosen: np.ndarray | None) -> None:
    """Raises InputError if no query to compare has a relevant listing.

    Args:
      truth: ground truth of the catalogue.
      chosen: bool [Q], which queries to compare; None for all.
    """
    if not truth.num_relevant[slice(None) if chosen is None else chosen].any():
        raise InputError(
            "compare: none of the queries to compare has a relevant listing in the gallery: nothing can be compared "
            "(with --half, see config.evaluate.selection_share)"
        )


def verdict(name: str, found: dict) -> tuple[bool, str]:
    """Decides whether a difference is more than noise.

    Args:
      name: name of the score.
      found: one of the "scores" of `compare`.

    Returns:
      Whether it is noise, and an explanation.
    """
    points, seeds = f"{100 * found['difference']:+.2f} points of {name}", (found["new_seeds"], found["old_seeds"])
    interval = f"95 % interval {100 * found['low']:+.2f} to {100 * found['high']:+.2f}, p = {found['p']:.4f}"
    if found["wins"] == found["losses"] == 0:
        return True, f"No query is scored differently: {name} is the same on both sides."
    if found["p"] >= NOISE:
        return True, (
            f"{points} are within noise ({interval}): on other queries of the same kind the sign may flip. "
            "These runs do not show which side is better."
        )
    text = f"{points} exceed the noise of the queries ({interval})"
    better = "new" if found["difference"] > 0 else "old"
    if min(map(len, seeds)) < 2:
        return False, (
            f"{text}: the {better} side is better on queries like these. The interval does not cover variation over "
            "training seeds: give several seeds of each side to see it."
        )
    spread = " and ".join(f"{100 * min(one):.2f} to {100 * max(one):.2f}" for one in seeds)
    if max(map(min, seeds)) <= min(map(max, seeds)):
        return True, (
            f"{text}, but not the noise of training: the seeds of new and old score {spread}, ranges that overlap. "
            "More seeds can decide."
        )
    return False, f"{text}, and the seeds of new and old, {spread}, do not overlap: the {better} side is better."


def settings(config: Mapping[str, Any], catalog: Any, read: Callable, names: Sequence[str] = METRICS) -> dict[str, Any]:
    """Returns the arguments names, graded and asked of `compare` for runs of a config.

    Args:
      config: the whole config.
      catalog: its `Catalog`.
      read: `data.fields.read`.
      names: names of scores; the scores of edits join the default ones where queries are edits.
    """
    evaluate, asked, names = config.get("evaluate") or {}, None, list(names)
    if edits.there(catalog):
        asked = edits.of_catalog(catalog, tuple(edits.settings(config)["kept"]), read)
        names += ["hit@10", *edits.names(asked)] if names == list(METRICS) else []
    graded = {name: evaluate[name] for name in ("gain", "unrated") if name in evaluate}
    return {"names": names, "asked": asked, "graded": graded}


def queries_of(
    catalog: Any, config: Any, read: Callable, *, half: str = "all", names: Sequence[str] = METRICS
) -> dict[str, Any]:
    """Returns which queries of a catalogue to compare on, and how they are scored: arguments of `compare`.

    Args:
      catalog: `data.catalog.Catalog` of the runs.
      config: settings of a run, whose evaluate block counts.
      read: `data.fields.read`.
      half: "all", "selection" or "report".
      names: names of scores; where they are METRICS and the queries are edits, scores of edits are added.

    Returns:
      {"truth", "names", "chosen", "graded", "asked"}.

    Raises:
      InputError: the catalogue has no ground truth.
    """
    truth = catalog.truth
    if truth is None:
        raise InputError(f"the catalogue {catalog.name} has no ground truth, so nothing can be compared")
    share = (config.get("evaluate") or {}).get("selection_share", 0.5)
    selection = metrics.selection_half(truth.query_ids, share)
    chosen = {"all": None, "selection": selection, "report": ~selection}[half]
    return {"truth": truth, "chosen": chosen, **settings(config, catalog, read, names)}
