"""The section of the report about the conditions of a search: what each result meets, and what was relaxed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retrieval_jax.pages import parts

STATES = {"matched": "yes", "predicted": "predicted", "relaxed": "no (relaxed)", "unmet": "no", "unknown": "unknown"}
EXCLUDED = {
    "matched": "not excluded",
    "predicted": "not excluded, predicted",
    "unmet": "excluded",
    "unknown": "unknown",
}


def sections(
    conditions: str, found: Sequence[tuple[str, Sequence[tuple[str, Sequence[Mapping]]]]]
) -> list[parts.Section]:
    """Returns the section; nothing where there were no conditions.

    Args:
      conditions: what was asked for, as a sentence.
      found: per query its id and its results, best first: id and the reasons, as JSON (`index.attribute.reasons`).
    """
    body = [parts.reading(f"{conditions}.")]
    for query, results in found:
        body.append(parts.heading(query))
        if not results:
            body.append(parts.note("No listing meets what is required."))
            continue
        head = ["Listing", *(_title(reason) for reason in results[0][1])]
        rows = [[name, *map(_state, reasons)] for name, reasons in results]
        body.append(parts.table(head, rows, f"Conditions, {query}"))
    return [parts.Section("Conditions", parts.joined(*body))] if conditions else []


def _title(reason: Mapping) -> str:
    return f"{reason['kind']}: {reason['text']}"


def _state(reason: Mapping) -> str:
    text = (EXCLUDED if reason["kind"] == "excluded" else STATES)[reason["state"]]
    if reason["values"]:
        text += f", {', '.join(reason['values'])}"
    return f"{text} ({reason['probability']:.0%})" if reason["state"] == "predicted" else text
