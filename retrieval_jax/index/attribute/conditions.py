"""Conditions of a search: attributes and numbers that a listing must have, should have, or must not have.

    {"required": [{"field": "material", "values": ["leather"]}, {"field": "price", "high": 100}],
     "preferred": [{"field": "colour", "values": ["black", "brown"]}],
     "excluded": [{"field": "brand", "values": ["Acme"]}]}

or the same as Python, in a config for instance:

    {"required": (("material", ("leather",)), ("price", None, 100)),
     "preferred": (("colour", ("black", "brown")),), "excluded": (("brand", ("Acme",)),)}

Values of one clause are alternatives; clauses add up. **Unknown is not "no"**: a listing without the attribute never
matches a required clause, and an excluded clause does not remove it, unless the clause says `"unknown": true`: then a
listing without the attribute counts as if it had one of the values. A value stands for its descendants too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from retrieval_jax import arguments, terms
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import documents

KINDS = ("required", "preferred", "excluded")
EXAMPLE = '{"required": [{"field": "colour", "values": ["red"]}, {"field": "price", "high": 100}]}'


class _Clause(TypedDict):
    """A clause as JSON."""

    field: str
    values: NotRequired[list[str]]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    unknown: NotRequired[bool]


class _Conditions(TypedDict):
    """Conditions as JSON."""

    required: NotRequired[list[_Clause]]
    preferred: NotRequired[list[_Clause]]
    excluded: NotRequired[list[_Clause]]


@dataclasses.dataclass(frozen=True)
class Clause:
    """One condition on one field.

    Attributes:
      field: name of the field.
      values: any of these, or of their descendants; empty for a range.
      low: smallest number that matches, included; None for any.
      high: largest number that matches, included; None for any.
      unknown: whether a listing without the attribute counts as if it had one of the values.
    """

    field: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    unknown: bool = False

    @property
    def is_range(self) -> bool:
        """Whether the clause is about a number."""
        return not self.values

    def __str__(self) -> str:
        if self.is_range:
            low, high = (
                "" if self.low is None else f"{self.low:g} <= ",
                "" if self.high is None else f" <= {self.high:g}",
            )
            text = f"{low}{self.field}{high}"
        else:
            text = f"{self.field}: {' or '.join(self.values)}"
        return f"{text} (or unknown)" if self.unknown else text

    def to_json(self) -> dict[str, Any]:
        """Returns the clause as JSON-able values, which `parse` reads."""
        out = {"field": self.field}
        out |= {"low": self.low, "high": self.high} if self.is_range else {"values": list(self.values)}
        return out | ({"unknown": True} if self.unknown else {})


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What a search asks for.

    Attributes:
      required: clauses that every result meets.
      preferred: clauses that results meet while enough listings do; the last one is relaxed first.
      excluded: clauses that no result meets.
    """

    required: tuple[Clause, ...] = ()
    preferred: tuple[Clause, ...] = ()
    excluded: tuple[Clause, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.required or self.preferred or self.excluded)

    def __str__(self) -> str:
        texts = [f"{kind} {clause}" for kind, clause in self.clauses()]
        return "; ".join(texts) or "no conditions"

    def clauses(self) -> list[tuple[str, Clause]]:
        """Returns (kind, clause) of all clauses, in their order."""
        return [(kind, clause) for kind in KINDS for clause in getattr(self, kind)]

    def to_json(self) -> dict[str, list[dict]]:
        """Returns the conditions as JSON-able values, which `parse` reads."""
        return {kind: [clause.to_json() for clause in getattr(self, kind)] for kind in KINDS if getattr(self, kind)}


def parse(given: Conditions | Mapping | str | bytes | None, where: str = "conditions") -> Conditions:
    """Returns conditions from JSON, or from the values that a config holds.

    Args:
      given: JSON text, what it parses to, the same with clauses as (field, values) or (field, low, high); None or a
        blank text for no conditions.
      where: names the conditions in messages.

    Raises:
      InputError: another shape, a clause without values, an empty range, or clauses that contradict each other.
    """
    if given is None or (isinstance(given, str) and not given.strip()):
        return Conditions()
    if isinstance(given, Conditions):
        given = {kind: getattr(given, kind) for kind in KINDS}
    if isinstance(given, (str, bytes)):
        given = documents.parse(given, _Conditions, name=where, remedy=f"write for example {EXAMPLE}")
    found = arguments.mapping(given, where, "attribute search")
    if unknown := [kind for kind in found if kind not in KINDS]:
        raise InputError(f"{where} has {short(repr(unknown[0]))}: give {', '.join(KINDS)}, such as {EXAMPLE}")
    made = {}
    for kind in KINDS:
        clauses = found.get(kind) or ()
        if isinstance(clauses, (str, Mapping)) or not isinstance(clauses, Iterable):
            raise InputError(f"{where}: {kind} is {short(repr(clauses))}: give a list of clauses, such as {EXAMPLE}")
        clauses = list(clauses)
        made[kind] = tuple(_clause(one, f"{where}: {kind}[{number}]") for number, one in enumerate(clauses))
    out = Conditions(**made)
    _check_contradictions(out, where)
    return out


def both(first: Conditions, second: Conditions, where: str = "conditions") -> Conditions:
    """Returns the conditions of two together, the first one's before the second one's.

    Args:
      first, second: the conditions.
      where: names them in messages.

    Raises:
      InputError: they contradict each other.
    """
    return parse(Conditions(*(getattr(first, kind) + getattr(second, kind) for kind in KINDS)), where)


def from_words(words: str, fields: Mapping[str, Sequence[str]]) -> tuple[str, Conditions]:
    """Returns what a query's words exclude and require exactly, and the words that are left for a network.

    The rule is that of `retrieval_jax.terms`: "-striped", "-colour:red" and "colour:red" are conditions.

    Args:
      words: of one query.
      fields: {field: names of its values} of the index, such as `Index.table.values()`.

    Returns:
      The rest of the words, and the conditions.

    Raises:
      InputError: see `terms.split`.
    """
    found = terms.split(words, fields)
    required, excluded = (
        [Clause(field, (value,)) for field, value in some] for some in (found.required, found.excluded)
    )
    return found.rest, Conditions(tuple(required), (), tuple(excluded))


def of_query(
    common: Conditions,
    given: Conditions | Mapping | str | None,
    words: str,
    fields: Mapping[str, Sequence[str]],
    where: str,
) -> Conditions:
    """Returns the conditions of one query: those of every query, its own, and those among its words.

    Args:
      common: those of every query.
      given: its own; see `parse`.
      words: see `from_words`.
      fields: see `from_words`; read where there are words.
      where: names the query's conditions in messages.

    Raises:
      InputError: see `parse` and `from_words`; or they contradict each other.
    """
    found = both(common, parse(given, where), where)
    if words:
        try:
            found = both(found, from_words(words, fields)[1], where)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return found


def _clause(given, where: str) -> Clause:
    if isinstance(given, Clause):
        return _checked(given, where)
    if isinstance(given, (tuple, list)):
        if len(given) == 2:
            given = {"field": given[0], "values": given[1]}
        elif len(given) == 3:
            given = {"field": given[0], "low": given[1], "high": given[2]}
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is {short(repr(given))}: write (field, values), or (field, low, high) for numbers")
    given = dict(given)
    if extra := [key for key in given if key not in _Clause.__annotations__]:
        raise InputError(
            f"{where} has {short(repr(extra[0]))}: a clause has field, values, low, high and unknown alone"
        )
    values = given.get("values", ())
    if isinstance(values, str):
        values = (values,)
    if not isinstance(values, Iterable) or isinstance(values, (Mapping, bytes)):
        raise InputError(f"{where}: values={short(repr(values))}, expected a list of texts")
    given["values"] = tuple(values)
    return _checked(Clause(**{"field": None, **given}), where)


def _checked(clause: Clause, where: str) -> Clause:
    arguments.text(clause.field, "field", where, "colour")
    for value in clause.values:
        arguments.text(value, "values", where, "red")
    arguments.flag(clause.unknown, "unknown", where)
    ends = []
    for name in ("low", "high"):
        end = getattr(clause, name)
        if end is not None and not (isinstance(end, float) and math.isinf(end)):
            end = arguments.number(end, name, where)
        ends.append(None if end in (-math.inf, math.inf) and (end < 0) == (name == "low") else end)
    low, high = ends
    if clause.values and (low is not None or high is not None):
        raise InputError(f"{where} ({clause.field}) has values and a range: give two clauses")
    if not clause.values and low is None and high is None:
        if clause.low is not None or clause.high is not None:
            raise InputError(f"{where}: the range of {clause.field} has no end, so it says nothing: give a finite one")
        raise InputError(f"{where} ({clause.field}) has neither values nor a range: nothing could match it")
    if low == math.inf or high == -math.inf:
        raise InputError(f"{where}: the range of {clause.field} lies at infinity, where no number is: give finite ends")
    if low is not None and high is not None and low > high:
        raise InputError(f"{where}: the range of {clause.field} is empty, from {low:g} to {high:g}: swap its ends")
    return Clause(clause.field, tuple(dict.fromkeys(clause.values)), low, high, clause.unknown)


def _check_contradictions(given: Conditions, where: str) -> None:
    """Raises InputError for clauses that no listing can meet, or that ask for what they exclude."""
    ranges: dict[str, tuple[float, float]] = {}
    for clause in given.required:
        if clause.is_range and not clause.unknown:
            low, high = ranges.get(clause.field, (-math.inf, math.inf))
            low = max(low, -math.inf if clause.low is None else clause.low)
            high = min(high, math.inf if clause.high is None else clause.high)
            if low > high:
                raise InputError(f"{where}: the required ranges of {clause.field} have no number in common")
            ranges[clause.field] = low, high
    for kind in ("required", "preferred"):
        for clause in getattr(given, kind):
            for out in given.excluded:
                if out.field != clause.field:
                    continue
                if both := [value for value in clause.values if value in out.values]:
                    raise InputError(
                        f"{where}: {clause.field} {both[0]!r} is {kind} and excluded: remove it from one of them"
                    )
                unknown_matches = clause.unknown and not out.unknown
                if clause.is_range and out.is_range and not unknown_matches and _inside(clause, out):
                    raise InputError(f"{where}: all numbers of '{clause}', which is {kind}, are excluded by '{out}'")


def _inside(inner: Clause, outer: Clause) -> bool:
    low = outer.low is None or (inner.low is not None and inner.low >= outer.low)
    return low and (outer.high is None or (inner.high is not None and inner.high <= outer.high))
