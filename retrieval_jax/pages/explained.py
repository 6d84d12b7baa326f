"""The section of the report about the conditions of a search: what each result meets, and what was relaxed."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from retrieval_jax.pages.parts import section

escape = html.escape
STATES = {"matched": "yes", "predicted": "predicted", "relaxed": "no (relaxed)", "unmet": "no", "unknown": "unknown"}
EXCLUDED = {
    "matched": "not excluded",
    "predicted": "not excluded, predicted",
    "unmet": "excluded",
    "unknown": "unknown",
}


def explained_section(conditions: str, found: Sequence[tuple[str, Sequence[tuple[str, Sequence[Mapping]]]]]) -> str:
    """Returns the section; "" where there were no conditions.

    Args:
      conditions: what was asked for, as a sentence.
      found: per query its id and its results, best first: id and the reasons, as JSON (`index.attribute.reasons`).
    """
    parts = [f'<p class="reading">{escape(conditions)}.</p>']
    for query, results in found:
        if not results:
            parts.append(f'<h3>{escape(query)}</h3><p class="quiet">No listing meets what is required.</p>')
            continue
        head = "".join(f'<th scope="col">{escape(_title(reason))}</th>' for reason in results[0][1])
        lines = "".join(
            f"<tr><td>{escape(name)}</td>{''.join(f'<td>{escape(_state(one))}</td>' for one in reasons)}</tr>"
            for name, reasons in results
        )
        parts.append(
            f'<h3>{escape(query)}</h3><div class="scroll"><table><thead><tr><th scope="col">Listing</th>{head}</tr>'
            f"</thead><tbody>{lines}</tbody></table></div>"
        )
    return section("Conditions", "\n".join(parts)) if conditions else ""


def _title(reason: Mapping) -> str:
    return f"{reason['kind']}: {reason['text']}"


def _state(reason: Mapping) -> str:
    text = (EXCLUDED if reason["kind"] == "excluded" else STATES)[reason["state"]]
    if reason["values"]:
        text += f", {', '.join(reason['values'])}"
    return f"{text} ({reason['probability']:.0%})" if reason["state"] == "predicted" else text
