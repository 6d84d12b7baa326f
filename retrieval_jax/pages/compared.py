"""The page of two runs: whether one is better or that is noise, what differs in settings, curves, cost and results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from retrieval_jax.pages import charts, cost, retrieval, score_table, templates, training
from retrieval_jax.pages.parts import Section, absent, duration, heading, joined, note, reading, side_by_side, table
from retrieval_jax.scoring.ranking import Ranking

FOOTER = "Written by retrieval_jax.report --compare. This page loads nothing from elsewhere and runs no scripts."


@dataclasses.dataclass(frozen=True)
class Side:
    """A run that is compared.

    Attributes:
      name: short, for legends.
      what: its work directory, model and stage.
      ranking: what is compared.
      settings: the whole config, as JSON holds it.
      logged: the records of metrics.jsonl; None where nothing was logged.
      records: the records of its finished verbs.
    """

    name: str
    what: str
    ranking: Ranking
    settings: Mapping[str, Any]
    logged: Sequence[Mapping[str, Any]] | None
    records: Sequence[Mapping[str, Any]]


def page(found: Mapping[str, Mapping[str, Any]], old: Side, new: Side, catalog, picture: Callable, count: int) -> str:
    """Returns the page.

    Args:
      found: {queries in words: the result of `scoring.comparing.compare`}.
      old, new: the two runs; differences are of the new one.
      catalog: the `Catalog` of both, with a truth.
      picture: (split name, row) -> data URI.
      count: rows of a list of queries.
    """
    names = [old.name, new.name] if old.name != new.name else [f"{old.name} (old)", f"{new.name} (new)"]
    old, new = (dataclasses.replace(side, name=name) for side, name in zip((old, new), names, strict=True))
    sections = [
        Section("Verdict", joined(*(_verdict(words, one) for words, one in found.items()))),
        *retrieval.curve_section({side.name: side.ranking for side in (old, new)}, catalog.truth),
        Section("Settings that differ", _settings(old, new)),
        Section("Training curves", _training(old, new)),
        Section("Cost", _cost(old, new)),
        retrieval.differing_section(catalog, (new.name, new.ranking), (old.name, old.ranking), picture, count),
    ]
    header = Markup('<header><h1>{} against {}</h1>\n<p class="facts">new: {}<br>old: {}</p></header>').format(
        new.name, old.name, new.what, old.what
    )
    return templates.page(f"{new.name} against {old.name}", header, sections, FOOTER)


def _verdict(words: str, found: Mapping[str, Any]) -> Markup:
    """Returns the verdict, the differences as a chart and as a table."""
    scores = {name: row for name, row in found["scores"].items() if row["new"] is not None}
    rows = [
        [
            score_table.metric_name(name) if "@" in name else name,
            *(f"{100 * row[key]:.2f}" for key in ("old", "new")),
            f"{100 * row['difference']:+.2f}",
            f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}",
            f"{row['p']:.4f}",
            *(f"{row[key]:,}" for key in ("wins", "losses", "ties")),
        ]
        for name, row in scores.items()
    ]
    marks = [
        (row[0], *(100 * one[key] for key in ("difference", "low", "high")), f"{row[0]}: {row[3]} ({row[4]})")
        for row, one in zip(rows, scores.values(), strict=True)
    ]
    count = next(iter(found["scores"].values()))["num_scored"]
    head = ["Score", "Old", "New", "Difference", "95 %", "p", "Wins", "Losses", "Ties"]
    return joined(
        heading(f"{words[0].upper()}{words[1:]}, {count:,} of them"),
        reading(found["verdict"]),
        table(head, rows, f"Differences, {words}", numbers=range(1, len(head))),
        side_by_side(charts.intervals("New − old, with 95 % intervals", marks, "points")),
        note(
            "Percent. Paired: both sides are resampled with the same queries. Wins are queries that the new run scores "
            "higher; p is the chance of a difference as large if there were none."
        ),
    )


def _flat(settings: Any, name: str = "") -> dict[str, Any]:
    """Returns settings by dotted names."""
    if not isinstance(settings, Mapping) or not settings:
        return {name: settings}
    return {
        key: value
        for child, inner in settings.items()
        for key, value in _flat(inner, f"{name}.{child}" if name else child).items()
    }


def _settings(old: Side, new: Side) -> Markup:
    flat = [_flat(side.settings) for side in (old, new)]
    names = [name for name in sorted(flat[0] | flat[1]) if flat[0].get(name) != flat[1].get(name)]
    if not names:
        return reading("Both runs have the same settings.")
    rows = [[name, *(_json(one[name]) if name in one else "–" for one in flat)] for name in names]
    return table(["Setting", old.name, new.name], rows, "Settings that differ", words=(1, 2))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _training(old: Side, new: Side) -> Markup:
    curves = {side.name: training.series(side.logged)[0] for side in (old, new) if side.logged}
    drawn = [
        charts.curves(
            title,
            {f"{name}, {key}": points for name, one in curves.items() for key, points in of(one).items()},
            "step",
            unit,
        )
        for title, of, unit in (
            ("Loss", training.losses, "loss"),
            ("Scores while training", training.scores, "percent"),
        )
    ]
    drawn = [one for one in drawn if one]
    return side_by_side(*drawn) if drawn else absent("neither run has logged losses or scores.")


def _cost(old: Side, new: Side) -> Markup:
    by_verb = [{record["verb"]: record for record in side.records} for side in (old, new)]
    verbs = list(dict.fromkeys(verb for one in by_verb for verb in one))
    rows = [
        [
            verb,
            *(duration(one[verb]["seconds"]) if verb in one else "–" for one in by_verb),
            *(cost.memory(one.get(verb, {})) for one in by_verb),
        ]
        for verb in verbs
    ]
    if not rows:
        return absent("neither run has a record of a finished verb.")
    head = ["Stage", f"Time, {old.name}", f"Time, {new.name}", f"Memory, {old.name}", f"Memory, {new.name}"]
    return table(head, rows, "Cost of the verbs", numbers=range(1, len(head)))
