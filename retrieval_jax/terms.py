"""Terms of a query that are conditions, -striped or colour:red, apart from the words that are searched for.

The rule:

    -value             excludes the value in every field that has it
    -field:value       excludes it in one field
    field:value        requires it, where the index has the field
    anything else      stays a word: "10:30", "https://...", "t-shirt", and also "not" and "without", whose meaning a
                       network has to learn

A value with spaces is quoted (-"navy blue"); letter case does not matter. A term with a minus is always a condition,
and so is one whose field is a near miss of a known one ("color:red"): where field or value do not exist they are
refused, rather than searched for as words that find the opposite.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence

from retrieval_jax import arguments, pairs
from retrieval_jax.errors import InputError, short

NEAR = 0.75  # similarity (difflib) from which an unknown field is a near miss of a known one
MOST = 20  # values that a message lists
# Other signs for minus are what phones and word processors make of it.
_TERM = re.compile(
    r"""(?<!\S)(?:(?P<minus>[-\u2212\u2013])|(?=[^\s:"]+:\S))(?:(?P<field>[^\s:"]+):(?=\S))?"""
    r"""(?P<value>"[^"]*"[,.;!?]*|\S+)"""
)
_PUNCTUATION = ",.;!?"


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of a query, with its conditions apart.

    Attributes:
      rest: the words that are left for a network or for BM25.
      required: (field, value) that every result has.
      excluded: (field, value) that no result has.
    """

    rest: str
    required: tuple[tuple[str, str], ...] = ()
    excluded: tuple[tuple[str, str], ...] = ()


def split(words: str, fields: Mapping[str, Sequence[str]]) -> Words:
    """Returns the words of a query with its conditions apart, by the rule of the module.

    Args:
      words: of one query.
      fields: {field: names of its values} of what is searched, such as `Table.values()` of an attribute index; without
        values for a field of numbers.

    Raises:
      InputError: an unknown value, an unknown field in a condition, with near names; a value that is asked for and
        excluded; or a quotation mark that is not closed.
    """
    words = arguments.text(words, "words", "terms")
    terms = list(_TERM.finditer(words))
    if not terms:
        return Words(" ".join(words.split()))
    folded = {name.casefold(): name for name in fields}
    values = {name: {str(value).casefold(): str(value) for value in fields[name]} for name in fields}
    about, required, excluded, rest, end = f"the words {short(repr(words))}", [], [], [], 0
    for term in terms:
        text, field, value = term[0], term["field"], term["value"].rstrip(_PUNCTUATION)
        if field is not None and field.casefold() not in folded:
            near = difflib.get_close_matches(field.casefold(), folded, n=1, cutoff=NEAR)
            if not term["minus"] and (not near or value.startswith("//")):
                continue
            raise InputError(
                f"{about}: {text!r} names the field {field!r}, which does not exist"
                f"{pairs.near(field.casefold(), fields)}; write the words without a colon to search for them"
            )
        if value.startswith('"') and (len(value) < 2 or not value.endswith('"')):
            raise InputError(f"{about}: {text!r} has a quotation mark that is not closed: add one")
        value = value.strip('"').strip()
        among = list(fields) if field is None else [folded[field.casefold()]]
        if field is not None and not values[among[0]]:
            raise InputError(
                f"{about}: {text!r} names a value of {among[0]!r}, which holds numbers or nothing: give a range, as "
                f'in {{"required": [{{"field": "{among[0]}", "high": 100}}]}}'
            )
        found = [(name, values[name][value.casefold()]) for name in among if value.casefold() in values[name]]
        if not found:
            known = sorted({value for name in among for value in values[name].values()})
            near = pairs.near(value, known) if len(known) <= MOST else pairs.near(value, known).split(" (")[0]
            raise InputError(
                f"{about}: {text!r} names the value {value!r}, which does not exist{near}; without the "
                f"{'minus' if term['minus'] else 'field'} it would be searched for as a word"
            )
        (excluded if term["minus"] else required).extend(found)
        rest.append(words[end : term.start()])
        end = term.end()
    left = " ".join(" ".join([*rest, words[end:]]).split())
    _check_contradictions(about, left, required, excluded, {value for name in values for value in values[name]})
    return Words(left, tuple(dict.fromkeys(required)), tuple(dict.fromkeys(excluded)))


def spoken(words: str) -> str:
    """Returns the words without the terms that exclude, such as -striped, which are conditions whatever searches.

    A network or BM25 would find the opposite: both read "striped". What field:value asks for stays, and so do numbers
    and dashes ("size -10", "black --- white").

    Args:
      words: of one query.

    Raises:
      InputError: they are not text.
    """
    words = arguments.text(words, "words", "terms")
    parts, end = [], 0
    for term in _TERM.finditer(words):
        if term["minus"] and any(letter.isalpha() for letter in term["value"]):
            parts.append(words[end : term.start()])
            end = term.end()
    return " ".join(" ".join([*parts, words[end:]]).split()) if end else words


def _check_contradictions(about: str, rest: str, required: list, excluded: list, every: set[str]) -> None:
    """Raises InputError where a value is asked for, as a condition or in the words that are left, and excluded."""
    spoken = f" {' '.join(word.strip(_PUNCTUATION) for word in rest.casefold().split())} "
    padded = [f" {value} " for value in every]
    for field, value in excluded:
        if (field, value) in required:
            raise InputError(f"{about}: {field} {value!r} is required and excluded: remove it from one of them")
        wanted, text = f" {value.casefold()} ", spoken
        for longer in sorted((one for one in padded if wanted in one and one != wanted), key=len, reverse=True):
            text = text.replace(longer, " | ")  # "navy blue" does not ask for blue
        if wanted in text:
            raise InputError(f"{about} ask for {value!r} and exclude it: remove one of the two")
