"""The section of the report about which search steps were chosen, what else was tried, and why."""

from __future__ import annotations

import html
from collections.abc import Sequence

from retrieval_jax.pages import score_table
from retrieval_jax.pages.parts import section

escape = html.escape


def chosen_section(found: Sequence[tuple[str, Sequence[Sequence[str]], str, Sequence[str]]]) -> str:
    """Returns the section; "" where no steps were chosen.

    Args:
      found: for each model its name, the table of what was tried (header first), why, and notes.
    """
    parts = []
    for model, (head, *rows), why, notes in found:
        parts.append(f'<p class="reading">{escape(f"{score_table.label(model)}: {why}.")}</p>')
        if rows:
            names = _cells("th", head)
            lines = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
            parts.append(
                f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'
            )
        parts.extend(f'<p class="note">{escape(note)}</p>' for note in notes)
    note = (
        "MAR@10 (capped) in percent over stand-ins for the queries, not over the queries, whose products are unknown."
    )
    return section("Chosen steps", "\n".join([*parts, f'<p class="note">{note}</p>'])) if parts else ""


def _cells(tag: str, texts: Sequence[str]) -> str:
    """Returns a row's cells; all but the first and the last hold numbers."""
    last = len(texts) - 1
    return "".join(
        f"<{tag}{' class=number' if 0 < place < last else ''}>{escape(text)}</{tag}>"
        for place, text in enumerate(texts)
    )
