"""Why a result is where it is: the conditions that it meets, and what each part of its score gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.index.attribute.conditions import Clause, Conditions
from retrieval_jax.index.attribute.finding import Found
from retrieval_jax.index.attribute.table import Table

WHERE = "explain"


@dataclasses.dataclass(frozen=True)
class Reason:
    """What one clause is to one result.

    Attributes:
      kind: "required", "preferred" or "excluded".
      clause: the clause.
      state: "matched": the listing is known to meet it (an excluded clause: to be something else); "predicted": it
        does so by a prediction; "relaxed": a preferred clause that it does not meet; "unmet": a required clause that it
        does not meet, or an excluded one that applies to it, which no search of this index returns; "unknown": the
        listing has no value there, which the clause lets pass.
      values: the listing's values that meet it, or its number as text; of an excluded clause, what it is predicted to
        be instead.
      probability: of the likeliest of these values, 1 where it is known; None without such values.
    """

    kind: str
    clause: Clause
    state: str
    values: tuple[str, ...] = ()
    probability: float | None = None

    def to_json(self) -> dict:
        """Returns JSON-able values."""
        return {
            "kind": self.kind,
            "clause": self.clause.to_json(),
            "text": str(self.clause),
            "state": self.state,
            "values": list(self.values),
            "probability": self.probability,
        }


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why a listing is among the results of a query.

    Attributes:
      id: of the listing.
      row: of the gallery.
      score: cosine.
      reasons: one per clause.
      parts: {name: (similarity, weight, share of the weighted sum)}; empty where no parts were given.
    """

    id: str
    row: int
    score: float
    reasons: tuple[Reason, ...]
    parts: dict[str, tuple[float, float, float]]

    def to_json(self) -> dict:
        """Returns JSON-able values."""
        names = ("similarity", "weight", "share")
        return {
            "id": self.id,
            "row": self.row,
            "score": self.score,
            "reasons": [reason.to_json() for reason in self.reasons],
            "parts": {name: dict(zip(names, part, strict=True)) for name, part in self.parts.items()},
        }


def _reason(table: Table, kind: str, clause: Clause, wanted: set[int], meets: bool, row: int, of_row) -> Reason:
    if clause.is_range:
        number = float(table.columns[table.numbers.index(clause.field)].array[row, 0])
        known, values, chance = not np.isnan(number), (f"{number:g}",), 1.0
    else:
        has, fields, parents, chances = of_row
        field = table.fields.index(clause.field)
        known = field in fields
        if kind == "excluded":  # what it is instead, without the ancestors of its own values
            here = [at for at, value in enumerate(has) if fields[at] == field and value not in parents]
        else:
            here = [at for at, value in enumerate(has) if value in wanted]
        values = tuple(table.names[has[at]] for at in here)
        chance = (1.0 if chances is None else max(chances[at] for at in here)) if here else None
    if meets == (kind == "excluded"):
        return Reason(kind, clause, "relaxed" if kind == "preferred" else "unmet")
    if not known:
        return Reason(kind, clause, "unknown")
    if kind == "excluded" and chance == 1:
        return Reason(kind, clause, "matched")
    return Reason(kind, clause, "matched" if chance == 1 else "predicted", values, chance)


def reasons(table: Table, given: Conditions, rows: np.ndarray) -> list[tuple[Reason, ...]]:
    """Returns what every clause is to each of some rows.

    Args:
      table: the attributes.
      given: checked conditions.
      rows: [n] rows, such as those of a ranking.
    """
    clauses = [
        (kind, clause, {table.number(clause.field, value) for value in clause.values}, table.of_clause(clause))
        for kind, clause in given.clauses()
    ]
    if not clauses:
        return [() for _ in rows]
    of_rows = {
        row: (has.tolist(), table.field_of[has].tolist(), set(table.parent[has].tolist()),
              None if chances is None else chances.tolist())
        for row, has, chances in table.values_of(np.unique(rows))
    }  # fmt: skip
    return [
        tuple(
            _reason(table, kind, clause, wanted, row in matching, row, of_rows[row])
            for kind, clause, wanted, matching in clauses
        )
        for row in rows.tolist()
    ]


def explain(
    table: Table,
    found: Found,
    query: int,
    names: Callable[[np.ndarray], list[str]],
    parts: Mapping[str, np.ndarray] | None = None,
    weights: Mapping[str, float] | None = None,
) -> list[Explanation]:
    """Explains the results of a query.

    Args:
      table: the attributes.
      found: what a search returned.
      query: number of the query.
      names: returns the ids of rows.
      parts: {name: [k] similarities of its results}, such as those of appearance, colour and embedding.
      weights: {name: weight of the part in the score}; 1 for a part that is not named.

    Returns:
      One explanation per result, best first. A part's share is |weight x similarity| over the sum of these.

    Raises:
      InputError: there is no such query, or parts that do not match the results.
    """
    query = arguments.integer(query, "query", WHERE, low=0, high=len(found.ranking) - 1)
    parts, weights = arguments.mapping(parts, "parts", WHERE), arguments.mapping(weights, "weights", WHERE)
    if extra := [name for name in weights if name not in parts]:
        raise InputError(f"{WHERE}: a weight for {extra[0]!r}, but parts has {', '.join(parts) or 'nothing'}")
    rows, scores = found.ranking.item_rows[query], found.ranking.scores[query]
    values = {}
    for name, part in parts.items():
        part = arguments.array(part, f"parts[{name!r}]", WHERE, ("k",))
        if part.shape != rows.shape:
            raise InputError(
                f"{WHERE}: parts[{name!r}] has shape {part.shape}, expected one number per result, {rows.shape}"
            )
        values[name] = part, arguments.number(weights.get(name, 1.0), f"weights[{name!r}]", WHERE)
    out = []
    there = rows[rows >= 0]
    because, named = reasons(table, found.conditions[query], there), names(there)
    for place in np.flatnonzero(rows >= 0).tolist():
        row = int(rows[place])
        given = {name: (float(part[place]), weight) for name, (part, weight) in values.items()}
        total = sum(abs(part * weight) for part, weight in given.values())
        shares = {
            name: (part, weight, abs(part * weight) / total if total else 0.0) for name, (part, weight) in given.items()
        }
        out.append(Explanation(named[place], row, float(scores[place]), because[place], shares))
    return out
