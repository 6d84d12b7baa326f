"""Finds columns of a table that a search can be filtered by: few values ("category"), or numbers ("number").

They are declared beside the parts that columns play, so that `serve` and the index `attribute` know them. Nothing is
learned from them, and nothing is set aside for them: a column is one of numbers only where all of its values are.
"""

from __future__ import annotations

import collections
import keyword
import re
import unicodedata
from collections.abc import Mapping, Sequence

from retrieval_jax.data.exports import facts, roles, words
from retrieval_jax.data.tables import columns as columns_lib

MOST_VALUES = 200  # of a category; more than anybody looks through
_LEAST_EACH = 2.0  # rows that a value has, on average: fewer, and it is a name or a code
_LONGEST = 40  # characters, mean of a value: longer ones are text
_DIFFERING = 0.2  # share of the products with several rows whose rows may differ
# Columns by these names say nothing that people look for.
_NEVER = ("barcode", "description", "link", "parent", "picture", "position", "seo", "sku", "state", "thumbnail")
# Names of columns that mean something to a task or an evaluation, and of other fields.
_RESERVED = frozenset(
    {*roles.PARTS, "box", "category", "label_ids", "mined", "picture", "query", "reference", "text", "words"}
)


def find(columns: Mapping[str, Sequence[str]], of_row: Sequence[int]) -> tuple[dict[str, tuple[str, str]], dict]:
    """Returns the columns to filter by, and why the others are not.

    Args:
      columns: {header: n texts} of the columns that play no part.
      of_row: n numbers of products, -1 for a row of none.

    Returns:
      {our name: (header, kind)}, as config.data.kwargs.columns takes them; and {header: reason}, a part of a sentence.
    """
    found, reasons = {}, {}
    for header, column in columns.items():
        kind, reason = _kind(header, column, of_row)
        if kind:
            found[_name(header, found)] = (header, kind)
        elif reason:
            reasons[header] = reason
    return found, reasons


def _kind(header: str, column: Sequence[str], of_row: Sequence[int]) -> tuple[str, str]:
    """Returns the kind of a column, or "" and why it has none."""
    one = facts.of(column)
    if not one.count:
        return "", ""
    distinct = max(1, round(one.distinct * one.count))
    hints = words.roles(header)
    if distinct == 1:
        return "", "one value"
    if max((hints.get(name, 0.0) for name in _NEVER), default=0.0) >= 0.9 or max(one.barcodes, one.hexes) >= 0.5:
        return "", "a code, a link or the like"
    if max(one.addresses, one.pictures, one.html, one.dates) >= 0.3 or one.rounded:
        return "", "not values to choose from"
    if _differs(column, of_row):
        return "", "differs between rows of one product"
    if columns_lib.are_numbers(column):
        if one.decimals < 0.05 and one.distinct > 0.9:
            return "", "nearly every row has its own, as codes do"
        return "number", ""
    if one.numbers >= 0.5:
        return "", "not numbers alone, such as amounts with their currency"
    if one.length > _LONGEST:
        return "", "free text"
    if distinct > MOST_VALUES or one.count < _LEAST_EACH * distinct:
        return "", "too many different values"
    return "category", ""


def _differs(column: Sequence[str], of_row: Sequence[int]) -> bool:
    """Returns whether the rows of products differ in a column, as sizes of variants do: a listing shows one of them."""
    values = collections.defaultdict(list)
    for number, value in zip(of_row, column, strict=True):
        if number >= 0 and facts.clean(value):
            values[number].append(facts.clean(value))
    several = [own for own in values.values() if len(own) > 1]
    return bool(several) and sum(len(set(own)) > 1 for own in several) > _DIFFERING * len(several)


def _name(header: str, taken: Mapping[str, object]) -> str:
    """Returns a header as a word of Python that is not taken: the name of an argument in the config."""
    name = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", header)).strip("_")
    if not name.isidentifier() or keyword.iskeyword(name) or name.casefold() in _RESERVED:
        name = f"column_{name}".rstrip("_")
    base, number = name, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name
