"""Section of the report about the training: losses and scores by step, and every other value that was logged."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from retrieval_jax.pages import charts
from retrieval_jax.pages.parts import Section, absent, joined, note, side_by_side

_UNKNOWN = "model_flops_utilisation"  # earlier versions logged it as null where it is unknown, as on a CPU
_NOT_VALUES = ("step", "time", "epoch")
Curves = dict[str, list[tuple[int, float]]]


def series(logged: Iterable[Mapping[str, Any]]) -> tuple[Curves, collections.Counter]:
    """Returns {name: [(step, value), ...]} of finite values, and how many were not finite, by name.

    Args:
      logged: the records of metrics.jsonl; the metric writer logs non-finite values as null.
    """
    found: dict[str, dict[int, float]] = {}
    not_finite = collections.Counter()
    for record in logged:
        if not isinstance(step := record.get("step"), int):
            continue
        for name, value in record.items():
            if name in _NOT_VALUES or not isinstance(value, (int, float, type(None))):
                continue
            if value is None or not math.isfinite(value):
                not_finite[name] += name != _UNKNOWN
            else:
                found.setdefault(name, {})[step] = value
    return {name: sorted(points.items()) for name, points in sorted(found.items())}, not_finite


def losses(curves: Curves) -> Curves:
    """Returns the losses among curves."""
    return {name: points for name, points in curves.items() if "loss" in name}


def scores(curves: Curves) -> Curves:
    """Returns the scores among curves, in percent."""
    return {
        name: [(step, 100 * value) for step, value in points]
        for name, points in curves.items()
        if "loss" not in name and re.search("@|accuracy|precision|recall", name) and "_se" not in name
    }


def section(logged: Iterable[Mapping[str, Any]] | None, of: Sequence[str], missing: str) -> Section:
    """Returns the section.

    Args:
      logged: see `series`; None where nothing was logged.
      of: what the scores while training are of.
      missing: why nothing may have been logged, for the reader.
    """
    title = "Training curves"
    if logged is None:
        return Section(title, absent(f"there is no metrics.jsonl; {missing}."))
    curves, not_finite = series(logged)
    chosen = losses(curves), scores(curves)
    drawn = charts.curves("Loss", chosen[0], "step", "loss")
    drawn += charts.curves("Scores while training", chosen[1], "step", "percent")
    body = [side_by_side(drawn) if drawn else absent("metrics.jsonl has neither losses nor scores.")]
    if chosen[1]:
        what = "; ".join(of) or "a part of the queries and of the gallery"
        body.append(
            note(
                f"Scores while training are of {what}. They show how the training went; they are not those of the "
                "table, which are of all queries and the whole gallery."
            )
        )
    if not_finite.total():
        listed = ", ".join(f"{count:,} of {name}" for name, count in not_finite.items() if count)
        body.append(note(f"Non-finite values, which are not drawn: {listed}."))
    rest = [
        charts.curves(name, {name: points}, "step", "")
        for name, points in curves.items()
        if not any(name in found for found in chosen)
    ]
    if rest:
        text = Markup("<details><summary>More logged values: {}</summary>{}</details>")
        body.append(text.format(len(rest), side_by_side(*rest)))
    return Section(title, joined(*body))
