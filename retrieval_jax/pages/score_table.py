"""The score table of the report, and the sentences that sum it up."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from retrieval_jax.pages import parts
from retrieval_jax.scoring import baselines

NAMES = {
    "histogram": "Colour histogram",
    "colour_and_edges": "Colour and edges",
    "untrained": "Untrained network",
    "trained": "Trained network",
    "pretrained": "Public weights",
    "ensemble": "Ensemble",
    "lexical": "Lexical search",
    "bm25": "BM25",
    "reranking": "re-ranking",
    "query_expansion": "query expansion",
    "whitening_by_parts": "whitening by parts",
}
MAIN = baselines.MAIN  # the model that a report is about: the first of these, else the last of the run


def label(name: str) -> str:
    """Returns the display name of a model or a stage."""
    return NAMES.get(name, name.replace("_", " "))


def metric_name(key: str) -> str:
    """Returns "MAR@10 (capped)" for "mar@10_capped"."""
    name, depth, suffix = re.fullmatch(r"([a-z]+)(@\d+)?_?(.*)", key).groups()
    known = {"mar": "MAR", "map": "mAP", "mrr": "MRR", "ndcg": "nDCG"}
    known |= {name: name.capitalize() for name in ("recall", "precision", "hit")}
    return known.get(name, name) + (depth or "") + (f" ({suffix})" if suffix else "")


def headline(scores: Sequence[dict], names: Sequence[str] = ()) -> str:
    """Returns the headline metric: the first that was chosen, else mar@10_capped, or the one of greatest depth if 10
    was not scored.

    Args:
      scores: the "stages" of metrics.json.
      names: its "metrics".
    """
    if names:
        return names[0]
    depths = {int(key[4:-7]) for stage in scores for key in stage if re.fullmatch(r"mar@\d+_capped", key)}
    return f"mar@{10 if 10 in depths else max(depths, default=10)}_capped"


def main_model(scores: Sequence[dict]) -> str | None:
    """Returns the model that the report is about: the ensemble, else the trained one, else the last."""
    models = [stage["model"] for stage in scores]
    return next((name for name in MAIN if name in models), models[-1] if models else None)


def best_stage(scores: Sequence[dict], names: Sequence[str] = ()) -> dict | None:
    """Returns the main model's entry with the best headline metric; None without scores; see `headline`."""
    key = headline(scores, names)
    own = [stage for stage in scores if stage["model"] == main_model(scores) and stage.get(key) is not None]
    return max(own, key=lambda stage: stage[key], default=None)


def table(scores: Sequence[dict], chance: dict[str, float] | None = None, names: Sequence[str] = ()) -> Markup:
    """Returns the score table, a row per model and stage with the best of each column marked, and its summary.

    Args:
      scores: the "stages" of metrics.json: dicts with model, stage, metrics in [0, 1], their standard errors
        ("..._se"), and report, the metrics over the report half of the queries.
      chance: the "chance" of metrics.json, {metric: value to expect of a random order}.
      names: the "metrics" of metrics.json, the columns to show; () for those of pictures.

    Returns:
      HTML; "" without scores.
    """
    if not scores:
        return Markup("")
    key, columns = (
        headline(scores, names),
        [(metric_name(name), [_value(stage, name) for stage in scores]) for name in names],
    )
    for name in () if names else dict.fromkeys([key, *(name for stage in scores for name in stage)]):
        # At depth 1 the other metrics equal recall@1 or divide one hit by all relevant listings, which says little.
        if re.fullmatch(r"[a-z]+@\d+(_capped)?", name) and (name == "recall@1" or not re.search(r"@1(_|$)", name)):
            columns.append((metric_name(name), [_value(stage, name) for stage in scores]))
    if any(stage.get("report", {}).get(key) is not None for stage in scores):
        columns.append((f"{metric_name(key)}, report half", [_value(stage.get("report", {}), key) for stage in scores]))
    cells, best = [], set()
    for i, stage in enumerate(scores):
        cells.append([_name(stage), *(_cell(*values[i]) for _, values in columns)])
    for place, (_, values) in enumerate(columns, 1):
        top = max((value for value, _ in values if value is not None), default=None)
        best |= {(i, place) for i, (value, _) in enumerate(values) if value is not None and value == top}
    for i, place in best:
        cells[i][place] = Markup("★ ") + cells[i][place]
    by_chance = ", ".join(f"{metric_name(name)} {100 * value:.1f} %" for name, value in (chance or {}).items())
    note = _note(scores) + (f" A gallery in random order would score {by_chance}." if by_chance else "")
    first = [i for i in range(1, len(scores)) if scores[i - 1]["model"] != scores[i]["model"]]
    head, numbers = ["Model and stage", *(name for name, _ in columns)], range(1, len(columns) + 1)
    return parts.joined(
        parts.table(head, cells, "Scores", numbers=numbers, best=best, first=first),
        parts.reading(reading(scores, names)),
        parts.note(note),
    )


def reading(scores: Sequence[dict], names: Sequence[str] = ()) -> str:
    """Returns what each step changed, such as "whitening: +8.2 points of MAR@10 (capped); re-ranking: −1.5 points".

    Args:
      scores: see `table`; in the order in which the stages ran.
      names: see `table`.

    Returns:
      One or two sentences; "" without scores.
    """
    key = headline(scores, names)
    by_model: dict[str, list[dict]] = {}
    for stage in scores:
        if stage.get(key) is not None:
            by_model.setdefault(stage["model"], []).append(stage)
    if not by_model:
        return ""
    main = main_model([stage for stages in by_model.values() for stage in stages])
    first, points = by_model[main][0], f"points of {metric_name(key)}"
    sentences = []
    others = [
        (model, stages[0])
        for model, stages in by_model.items()
        if model != main and stages[0]["stage"] == first["stage"]
    ]
    if others:
        gains = [
            f"{_signed(first[key] - other[key])} {'points' if i else points} against the {label(model).lower()}"
            for i, (model, other) in enumerate(others)
        ]
        sentences.append(f"{label(main)}, {label(first['stage'])}: {'; '.join(gains)}.")
    steps = [
        f"{label(after['stage'])}: {_signed(after[key] - before[key])} {'points' if i or others else points}"
        for i, (before, after) in enumerate(zip(by_model[main], by_model[main][1:], strict=False))
    ]
    if steps:
        sentences.append(("Then " if others else "") + "; ".join(steps) + ".")
    return " ".join(sentences) or f"{label(main)}: {100 * first[key]:.1f} % {metric_name(key)}."


def _value(entry: dict, name: str):
    return entry.get(name), entry.get(f"{name}_se")


def _name(stage: dict) -> Markup:
    return Markup("{} <small>{}</small>").format(label(stage["model"]), label(stage["stage"]))


def _cell(value, error) -> Markup:
    if value is None:
        return Markup("–")
    spread = "" if error is None else Markup(" <small>± {:.2f}</small>").format(100 * error)
    return Markup("{:.2f}{}").format(100 * value, spread)


def _note(scores) -> str:
    note = (
        "Percent; ★ marks the best of a column, ± is one standard error of the mean over queries. MAR divides by "
        "the number of relevant listings of a query, the capped variant by at most the depth."
    )
    scored, without = scores[0].get("num_scored"), scores[0].get("num_without_relevant")
    if scored:
        note += f" {scored:,} queries" + f"; {without:,} more have no relevant listing" * bool(without) + "."
    if scores[0].get("report"):
        note += " Choices are made on one half of the queries; the last column scores the other half."
    return note


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")
