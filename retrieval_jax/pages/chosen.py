"""The section of the report about which search steps were chosen, what else was tried, and why."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_jax.pages import parts, score_table

NOTE = "MAR@10 (capped) in percent over stand-ins for the queries, not over the queries, whose products are unknown."


def sections(found: Sequence[tuple[str, Sequence[Sequence[str]], str, Sequence[str]]]) -> list[parts.Section]:
    """Returns the section; nothing where no steps were chosen.

    Args:
      found: for each model its name, the table of what was tried (header first), why, and notes.
    """
    body = []
    for model, (head, *rows), why, notes in found:
        body.append(parts.reading(f"{score_table.label(model)}: {why}."))
        if rows:  # all columns but the first and the last hold numbers
            body.append(parts.table(head, rows, "Steps that were tried", numbers=range(1, len(head) - 1)))
        body += map(parts.note, notes)
    return [parts.Section("Chosen steps", parts.joined(*body, parts.note(NOTE)))] if body else []
