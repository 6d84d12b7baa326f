"""Which rows of a table are one product: rows of equal keys, variants and their parents, rows that continue another."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence

from retrieval_jax.data.exports import facts, likeness, words
from retrieval_jax.data.exports.roles import Roles

_GENERIC = 20  # rows: a title that more rows share, such as "T-shirt", names no product


class Rows:
    """The columns of a table that decide which rows are one product.

    Args:
      columns: {name of the column: n texts}.
      roles: which column is what.
      size: n.

    Attributes:
      keys, ids, parents, kinds, groups: n texts each, cleaned, "" where empty.
      titles: n texts, to be filled in: "" where a row has none that counts.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], roles: Roles, size: int):
        def of(name: str) -> list[str]:
            return [facts.clean(value, placeholders=True) for value in columns[name]] if name else [""] * size

        self.size = size
        self.keys, self.ids = of(roles.product), of(roles.id)
        self.titles = [""] * size
        self.parents, self.groups = of(roles.parent), of(roles.group)
        self.kinds = [kind(value) for value in columns[roles.kind]] if roles.kind else [""] * size
        self.children = list(columns[roles.children]) if roles.children else [""] * size


@dataclasses.dataclass(frozen=True)
class Products:
    """Which rows are one product.

    Attributes:
      of_row: n product numbers in the order of the rows, -1 for a row of none.
      refused: keys of groups whose rows were not joined because their titles differ.
      apart: keys whose rows have titles without anything in common: rows that probably got a key by mistake.
      orphans: rows that say they are variants, of a product that the table does not have.
    """

    of_row: list[int]
    refused: list[str]
    apart: list[str]
    orphans: list[int]


def kind(value: str) -> str:
    """Returns "child", "joining" (a product that has variants), "product", or "" for a kind that is unknown."""
    word = re.split(r"[\s,;]+", value.strip().casefold())[0] if value.strip() else ""
    if word in words.values("child"):
        return "child"
    return "joining" if word in words.values("joining") else "product" if word in words.values("product") else ""


def group(rows: Rows, pictures: Sequence[Sequence[str]]) -> Products:
    """Decides which rows are one product.

    Rows are joined by equal keys; by the parent that they name, or that names them; a row without key and title
    continues the row above it; a variant without a parent belongs to the product whose key and title begin its own, or
    that stands above it. A group, or a picture that several rows name, joins rows with agreeing titles only: feeds use
    groups for whole families, and pictures for whatever has none of its own.

    Args:
      rows: the columns.
      pictures: n, the pictures that a row names; a row with neither key, title nor picture belongs to no product.

    Returns:
      The `Products`.
    """
    joined = _Union(rows.size)
    first: dict[str, int] = {}  # the first row of every key
    apart: dict[str, list[int]] = {}  # further first rows of a key, each with a title of its own
    above = -1
    for row in range(rows.size):
        key = rows.keys[row]
        continues = not rows.titles[row] and not key and (not rows.parents[row])
        if continues and above >= 0 and (pictures[row] or rows.kinds[row] == "child" or rows.ids[row]):
            joined.join(row, above)
        elif key:
            heads = [first.setdefault(key, row), *apart.get(key, ())]
            near = next((one for one in heads if likeness.related(rows.titles[row], rows.titles[one])), None)
            if near is None:
                apart.setdefault(key, []).append(row)
            else:
                joined.join(row, near)
        if rows.kinds[row] != "child" or above < 0:
            above = row if (key or rows.titles[row]) else above
    by_id: dict[str, int] = {}
    for row in range(rows.size):
        if rows.ids[row]:
            by_id.setdefault(rows.ids[row], row)
    orphans = _join_relatives(rows, joined, first, by_id)
    _join_titles(rows, joined)
    refused = _join_groups(rows, joined, rows.groups)
    _join_groups(rows, joined, pictures, of_untitled=False)
    numbers: dict[int, int] = {}
    of_row = []
    for row in range(rows.size):
        alone = not (rows.keys[row] or rows.titles[row] or rows.ids[row] or pictures[row])
        of_row.append(-1 if alone and joined.root(row) == row else numbers.setdefault(joined.root(row), len(numbers)))
    return Products(of_row, refused, list(apart), orphans)


def _join_relatives(rows: Rows, joined: _Union, by_key: Mapping[str, int], by_id: Mapping[str, int]) -> list[int]:
    """Joins variants to the products that they name, or that name them; returns the rows of variants left alone."""
    missing: dict[str, int] = {}
    orphans, above = [], -1
    joining = "joining" in rows.kinds
    for row in range(rows.size):
        if parent := rows.parents[row]:
            bare = parent.partition(":")[2].strip() if re.match(r"id:\s*\d", parent) else parent
            found = by_id.get(bare, by_key.get(bare)) if bare != parent else by_key.get(parent, by_id.get(parent))
            if found is None:  # the product itself is not in the table: its variants still belong together
                found = missing.setdefault(parent, row)
            joined.join(row, found)
        for child in re.findall(r"sku\s*=\s*([^,|;]+)", rows.children[row]) or (
            re.split(r"[,|;\s]+", rows.children[row]) if rows.children[row] and "=" not in rows.children[row] else ()
        ):
            found = by_key.get(child.strip(), by_id.get(child.strip()))
            if found is not None:
                joined.join(found, row)
        is_child = rows.kinds[row] == "child"
        if not parent and (is_child or (joining and rows.kinds[row] == "product")):
            found = _by_prefix(rows, row, by_key, by_id)
            if found is None and is_child and above >= 0 and likeness.agree(rows.titles[row], rows.titles[above]):
                found = above
            if found is not None:
                joined.join(row, found)
            elif is_child and joined.root(row) == row:
                orphans.append(row)
        if not is_child:
            above = row
    return orphans


def _by_prefix(rows: Rows, row: int, by_key: Mapping[str, int], by_id: Mapping[str, int]) -> int | None:
    """Returns the product with variants whose key begins this row's key and whose title agrees with this row's."""
    for own, known in ((rows.keys[row], by_key), (rows.ids[row], by_id)):
        parts = re.split(r"([-_./ ])", own)
        for end in range(len(parts) - 2, 0, -2):
            found = known.get("".join(parts[:end]))
            if (
                found is not None
                and rows.kinds[found] == "joining"
                and likeness.agree(rows.titles[row], rows.titles[found])
            ):
                return found
    return None


def _join_titles(rows: Rows, joined: _Union) -> None:
    """Joins rows without a key that have equal titles, where few rows share them."""
    same = collections.defaultdict(list)
    for row, title in enumerate(rows.titles):
        if title and not rows.keys[row] and not rows.parents[row]:
            same[likeness.plain(title) or title].append(row)
    for found in same.values():
        for row in found[1:] if len(found) <= _GENERIC else ():
            joined.join(row, found[0])


def _join_groups(
    rows: Rows, joined: _Union, keys: Sequence[str] | Sequence[Sequence[str]], of_untitled: bool = True
) -> list[str]:
    """Joins rows that share a key and whose titles agree; returns the keys of rows whose titles do not.

    Args:
      rows: the columns.
      joined: what is joined so far.
      keys: n keys, or n lists of keys.
      of_untitled: whether a row without a title agrees with any.
    """
    of_key = collections.defaultdict(list)
    for row, own in enumerate(keys):
        for key in (own,) if isinstance(own, str) else own:
            if key and (rows.titles[row] or of_untitled):
                of_key[key].append(row)
    refused = []
    for key, found in of_key.items():
        heads: list[int] = []
        for row in found:
            near = next((head for head in heads if likeness.agree(rows.titles[row], rows.titles[head])), None)
            if near is not None:
                joined.join(row, near)
            elif len(heads) < _GENERIC:
                heads.append(row)
        if len(heads) > 1:
            refused.append(key)
    return refused


class _Union:
    """Sets of rows that are joined; the root of a set is its first row."""

    def __init__(self, size: int):
        self.above = list(range(size))

    def root(self, row: int) -> int:
        while self.above[row] != row:
            self.above[row] = self.above[self.above[row]]
            row = self.above[row]
        return row

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self.above[second] = first


def joins(keys: Sequence[str], titles: Sequence[str]) -> tuple[int, int, int, int]:
    """Tries a column as the key of products.

    Args:
      keys: n values, cleaned.
      titles: n titles, "" where a row has none.

    Returns:
      (rows that share their key with another, keys of several rows, those of them whose titles differ, those of them
      that have at most one title and rows that do not follow each other).
    """
    rows_of = collections.defaultdict(list)
    for row, key in enumerate(keys):
        if key:
            rows_of[key].append(row)
    shared = [found for found in rows_of.values() if len(found) > 1]
    different = scattered = 0
    for found in shared:
        named = [titles[row] for row in found if titles[row]]
        if len(named) > 1:
            different += not all(likeness.agree(named[0], title) for title in named[1:50])
        else:
            scattered += found[-1] - found[0] >= len(found)
    return sum(map(len, shared)), len(shared), different, scattered
