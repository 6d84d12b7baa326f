"""Section of the report about edits, "this shirt, but in denim": did the edit happen, and did the rest stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_jax.pages.parts import escape, section
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


def sections(found: Mapping[str, Any]) -> list[str]:
    """Returns the section of edits; nothing where queries are not edits.

    Args:
      found: `scoring.written.edits`.
    """
    if not found:
        return []
    last, names, random = found["stages"][-1], found["names"], found.get("chance", {})
    sentence = edits.sentence(found["counts"])
    parts = [
        f"<p>{escape(sentence[0].upper() + sentence[1:])}.</p>",
        _table(
            ("Model", "Stage"),
            [
                *(((label(row["model"]), label(row["stage"])), row) for row in found["stages"]),
                (("Random order", ""), random),
            ],
            names,
        ),
    ]
    for kind, slices in last.get("slices", {}).items():
        if 1 < len(slices) <= _MOST:
            title = f"{label(last['model'])}, {label(last['stage'])}, by {kind}"
            parts.append(f"<h3>{escape(title)}</h3>")
            by_chance = random.get("slices", {}).get(kind, {})
            lines = [
                ((name, text), row)
                for name in slices
                for text, row in (("", slices[name]), ("random order", by_chance.get(name)))
                if row
            ]
            parts.append(_table((kind, ""), lines, names))
    parts.append(f'<p class="note">{escape(_note(found))}</p>')
    return [section("Edits", "\n".join(parts))]


def score_name(name: str) -> str:
    """Returns "right value @10" for "right@10", and "kept type @10" for "kept_type@10"."""
    what, _, depth = name.partition("@")
    return f"{_NAMES.get(what) or what.replace('_', ' ', 1)} @{depth}"


def _table(heads: Sequence[str], rows: Sequence[tuple[Sequence[str], Mapping]], names: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    head += "".join(f'<th scope="col" class="number">{escape(score_name(name))}</th>' for name in names)
    lines = "".join(
        "<tr>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "".join(f'<td class="number">{_percent(row.get(name), row.get(f"{name}_se"))}</td>' for name in names)
        + "</tr>"
        for cells, row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _percent(value: float | None, error: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f}" + ("" if error is None else f" <small>± {100 * error:.2f}</small>")


def _note(found: Mapping[str, Any]) -> str:
    text = (
        "Percent of the first results, mean over queries; ± is one standard error. Right value: the results have what "
        "the words ask for in the field that they edit. Kept: they have the same values as the listing that the query "
        "is about. Most listings lack a value that an edit excludes, whatever they are: compare with a random order. "
    )
    sentence = edits.likeness(found)
    return f"{text}{sentence[0].upper()}{sentence[1:]}."
