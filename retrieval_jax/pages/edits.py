"""Section of the report about edits, "this shirt, but in denim": did the edit happen, and did the rest stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from retrieval_jax.pages import parts
from retrieval_jax.pages.score_table import label
from retrieval_jax.scoring import edits

_NAMES = {
    "right": "right value",
    "kept": "kept",
    "both": "right and kept",
    "similarity": "similarity",
    "similarity_distinct": "similarity, distinct",
    "near_duplicates": "duplicates",
}
_MOST = 12  # slices of one kind in the page; metrics.json has all


def sections(found: Mapping[str, Any]) -> list[parts.Section]:
    """Returns the section of edits; nothing where queries are not edits.

    Args:
      found: `scoring.written.edits`.
    """
    if not found:
        return []
    last, names, random = found["stages"][-1], found["names"], found.get("chance", {})
    sentence = edits.sentence(found["counts"])
    stages = [(f"{label(row['model'])}, {label(row['stage'])}", row) for row in found["stages"]]
    body = [
        parts.reading(f"{sentence[0].upper()}{sentence[1:]}."),
        _table("Model and stage", [*stages, ("Random order", random)], names),
    ]
    for kind, slices in last.get("slices", {}).items():
        if 1 < len(slices) <= _MOST:
            body.append(parts.heading(f"{label(last['model'])}, {label(last['stage'])}, by {kind}"))
            by_chance = random.get("slices", {}).get(kind, {})
            lines = [
                (text, row)
                for name in slices
                for text, row in ((name, slices[name]), (f"{name}, random order", by_chance.get(name)))
                if row
            ]
            body.append(_table(kind, lines, names))
    return [parts.Section("Edits", parts.joined(*body, parts.note(_note(found))))]


def score_name(name: str) -> str:
    """Returns "right value @10" for "right@10", and "kept type @10" for "kept_type@10"."""
    what, _, depth = name.partition("@")
    return f"{_NAMES.get(what) or what.replace('_', ' ', 1)} @{depth}"


def _table(first: str, rows: Sequence[tuple[str, Mapping]], names: Sequence[str]) -> Markup:
    cells = [[name, *(_percent(row.get(one), row.get(f"{one}_se")) for one in names)] for name, row in rows]
    return parts.table([first, *map(score_name, names)], cells, "Scores of edits", numbers=range(1, len(names) + 1))


def _percent(value: float | None, error: float | None) -> str | Markup:
    if value is None:
        return "–"
    return (
        f"{100 * value:.2f}"
        if error is None
        else Markup("{:.2f} <small>± {:.2f}</small>").format(100 * value, 100 * error)
    )


def _note(found: Mapping[str, Any]) -> str:
    text = (
        "Percent of the first results, mean over queries; ± is one standard error. Right value: the results have what "
        "the words ask for in the field that they edit. Kept: they have the same values as the listing that the query "
        "is about. Most listings lack a value that an edit excludes, whatever they are: compare with a random order. "
    )
    sentence = edits.likeness(found)
    return f"{text}{sentence[0].upper()}{sentence[1:]}."
