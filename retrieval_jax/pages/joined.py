"""The report's section about a fusion: the members' weights, and what each gave to some results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from retrieval_jax.pages import parts, score_table

SHOWN = 5  # results per query
NOTE = "A share is what a member gave to the score of a result: its weight times its part, over the sum of these."


def sections(
    weights: Mapping[str, float],
    why: str,
    found: Sequence[tuple[str, Sequence[dict]]],
    name_of: Callable[[int], str],
) -> list[parts.Section]:
    """Returns the section.

    Args:
      weights: {member: weight}.
      why: how they were chosen; "" where they were given.
      found: for each query its text and its explained results, as of `Explanation.to_json`, best first.
      name_of: returns the name of a row of the gallery.
    """
    listed = ", ".join(f"{score_table.label(name)} {weight:.2f}" for name, weight in weights.items())
    body, rows, first = [parts.reading(f"Weights: {listed}" + (f"; {why}" if why else "") + ".")], [], []
    for query, results in found:
        first.append(len(rows))
        for place, result in enumerate(results):
            shares = (f"{100 * result['parts'][name]['share']:.0f} %" for name in weights)
            rows.append([query if not place else "", f"{place + 1}. {name_of(result['row'])}", *shares])
    if rows:
        head = ["Query", "Result", *map(score_table.label, weights)]
        numbers = range(2, len(head))
        body.append(parts.table(head, rows, "Shares of the members", numbers=numbers, words=(1,), first=first[1:]))
    return [parts.Section("Joined rankings", parts.joined(*body, parts.note(NOTE)))]
