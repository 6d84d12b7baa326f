"""The report's section about a fusion: the members' weights, and what each gave to some results."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

from retrieval_jax.pages import score_table
from retrieval_jax.pages.parts import section

SHOWN = 5  # results per query
escape = html.escape


def joined_section(
    weights: Mapping[str, float],
    why: str,
    found: Sequence[tuple[str, Sequence[dict]]],
    name_of: Callable[[int], str],
) -> str:
    """Returns the section.

    Args:
      weights: {member: weight}.
      why: how they were chosen; "" where they were given.
      found: for each query its text and its explained results, as of `Explanation.to_json`, best first.
      name_of: returns the name of a row of the gallery.
    """
    listed = ", ".join(f"{score_table.label(name)} {weight:.2f}" for name, weight in weights.items())
    text = f"Weights: {listed}" + (f"; {why}" if why else "") + "."
    head = "".join(f'<th scope="col" class="number">{escape(score_table.label(name))}</th>' for name in weights)
    lines = []
    for query, results in found:
        for place, result in enumerate(results):
            cells = "".join(f'<td class="number">{100 * result["parts"][name]["share"]:.0f} %</td>' for name in weights)
            asked = escape(query) if not place else ""
            first = ' class="first"' if not place and lines else ""
            lines.append(
                f"<tr{first}><td>{asked}</td><td>{place + 1}. {escape(name_of(result['row']))}</td>{cells}</tr>"
            )
    table = (
        '<div class="scroll"><table><thead><tr><th scope="col">Query</th><th scope="col">Result</th>'
        f"{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        if lines
        else ""
    )
    note = "A share is what a member gave to the score of a result: its weight times its part, over the sum of these."
    return section("Joined rankings", f'<p class="reading">{escape(text)}</p>{table}<p class="note">{note}</p>')
