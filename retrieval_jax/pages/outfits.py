"""Section of the report about outfits: blanks that were filled in, and looks that were completed, as pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from retrieval_jax.pages import parts, rows


def sections(judged, catalog, picture: Callable, settings: Mapping) -> list[parts.Section]:
    """Returns the section of outfits; nothing of a run that did not learn them.

    Args:
      judged: `looks.Judged`, or None.
      catalog: its `Catalog`.
      picture: (split name, row) -> data URI.
      settings: config.report: `rows` of each list, and the `seed` of their choice.
    """
    if judged is None:
        return []
    questions = judged.questions
    shown = parts.choose(range(len(questions)), settings["rows"], settings["seed"])
    text = (
        f"Fill in the blank: {parts.percent(judged.filled)} of {len(questions):,} questions, by chance "
        f"{100 / questions.answers.shape[1]:.1f} %. AUC of {judged.outfits:,} outfits: {judged.auc:.3f}, by chance "
        "0.500. Outfits are those of the gallery; distances are between vectors projected by type."
    )
    body = [
        parts.reading(text),
        parts.heading("Blanks"),
        parts.note(
            "An outfit without one of its items, and below it the answers, the nearest to the rest first. Tick: the "
            "item that was taken out. Sums of distances are in the tooltips."
        ),
        rows.rows([_question(judged, number, catalog, picture) for number in shown]),
        parts.heading("Completed looks"),
        parts.note(
            "From the item on the left: looks, the best first, and the outfit that the catalogue has. The score of a "
            "look is 1 less the mean distance of its pairs."
        ),
        rows.rows([_look(one, catalog, picture) for one in judged.completed]),
    ]
    return [parts.Section("Outfits", parts.joined(*body))]


def _question(judged, number: int, catalog, picture: Callable) -> dict:
    asked, sums = judged.questions, judged.sums[number]
    first, *others = (int(row) for row in asked.rows[number] if row >= 0)
    answers = []
    for place in np.argsort(sums, kind="stable").tolist():
        kind = "relevant" if place == asked.right[number] else "other"
        row = int(asked.answers[number, place])
        answers.append(rows.item(catalog, "gallery", row, picture, kind, f"sum of distances {sums[place]:.3f}"))
    strips = [_strip("Answers", answers)]
    if others:
        strips.insert(0, _strip("With", [rows.item(catalog, "gallery", row, picture) for row in others]))
    return {"query": rows.item(catalog, "gallery", first, picture), "strips": strips}


def _look(completed, catalog, picture: Callable) -> dict:
    first, others, looks = completed
    strips = [
        _strip(
            f"Look {place}, {look.score:.3f}",
            [rows.item(catalog, "gallery", row, picture) for row in look.rows.values()],
        )
        for place, look in enumerate(looks, 1)
    ]
    strips.append(
        _strip("The outfit of the catalogue", [rows.item(catalog, "gallery", row, picture) for row in others])
    )
    return {"query": rows.item(catalog, "gallery", first, picture, "query"), "strips": strips}


def _strip(label: str, entries: list[dict]) -> dict:
    return {"label": label, "few": True, "entries": entries}
