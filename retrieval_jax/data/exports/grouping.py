"""Which rows of a table are one product: rows of equal keys, variants and their parents, rows that continue another."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from retrieval_jax.data.exports import facts, likeness, words
from retrieval_jax.data.exports.roles import Roles

_GENERIC = 20  # rows: a title that more share, such as "T-shirt", names no product; nor does a group of more titles
_VARIANT_KEYS = 3  # keys: a title that so many have may name a variant


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
      refused: keys of groups, and parents that the table does not have, whose rows were not joined because their
        titles differ.
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
    above, variants = -1, variant_titles(rows.keys, rows.titles)
    for row in range(rows.size):
        key = rows.keys[row]
        continues = not rows.titles[row] and not key and (not rows.parents[row])
        if continues and above >= 0 and (pictures[row] or rows.kinds[row] == "child" or rows.ids[row]):
            joined.join(row, above)
        elif key:
            heads = [first.setdefault(key, row), *apart.get(key, ())]
            title = rows.titles[row]
            near = next((o for o in heads if title in variants or likeness.related(title, rows.titles[o])), None)
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
    orphans, missing = _join_relatives(rows, joined, first, by_id)
    _join_titles(rows, joined)
    refused = _join_groups(rows, joined, missing) + _join_groups(rows, joined, rows.groups)
    _join_pictures(rows, joined, pictures)
    numbers: dict[int, int] = {}
    of_row = []
    for row in range(rows.size):
        alone = not (rows.keys[row] or rows.titles[row] or rows.ids[row] or pictures[row])
        of_row.append(-1 if alone and joined.root(row) == row else numbers.setdefault(joined.root(row), len(numbers)))
    return Products(of_row, refused, list(apart), orphans)


def _join_relatives(
    rows: Rows, joined: _Union, by_key: Mapping[str, int], by_id: Mapping[str, int]
) -> tuple[list[int], list[str]]:
    """Joins variants to the products that they name, or that name them.

    Returns:
      (rows of variants left alone, n parents that rows name and the table does not have, "" for other rows).
    """
    missing = [""] * rows.size
    orphans, above = [], -1
    joining = "joining" in rows.kinds
    for row in range(rows.size):
        if parent := rows.parents[row]:
            bare = parent.partition(":")[2].strip() if re.match(r"id:\s*\d", parent) else parent
            found = by_id.get(bare, by_key.get(bare)) if bare != parent else by_key.get(parent, by_id.get(parent))
            if found is None:  # perhaps the product itself is not in the table, perhaps the column names something else
                missing[row] = parent
            else:
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
    return orphans, missing


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


def _join_groups(rows: Rows, joined: _Union, keys: Sequence[str]) -> list[str]:
    """Joins rows that share a key and whose titles agree; returns the keys of rows whose titles do not."""

    def agree(row: int, other: int) -> bool:
        return likeness.agree(rows.titles[row], rows.titles[other])

    return [key for key, found in _rows_of(keys).items() if _join_alike(joined, found, agree) > 1]


def _join_pictures(rows: Rows, joined: _Union, pictures: Sequence[Sequence[str]]) -> None:
    """Joins rows that name the same picture and whose titles agree.

    Rows with different keys, or with different numbers in their titles, must name the same pictures from the first on:
    different models share a size chart, variants of one model what shows the model.
    """
    of_picture = collections.defaultdict(list)
    for row, own in enumerate(pictures):
        for picture in own if rows.titles[row] else ():
            of_picture[picture].append(row)

    def one_product(row: int, other: int) -> bool:
        if not likeness.agree(rows.titles[row], rows.titles[other]):
            return False
        differ = rows.keys[row] and rows.keys[other] and rows.keys[row] != rows.keys[other]
        if not differ and likeness.numbers(rows.titles[row]) == likeness.numbers(rows.titles[other]):
            return True
        return all(one == two for one, two in zip(pictures[row], pictures[other], strict=False))

    for found in of_picture.values():
        _join_alike(joined, found, one_product)


def _join_alike(joined: _Union, found: Sequence[int], alike: Callable[[int, int], bool]) -> int:
    """Joins rows that are alike, unless they are too many different ones to be a group; returns how many differ."""
    heads: list[int] = []
    near = []
    for row in found:
        head = next((head for head in heads if alike(row, head)), None)
        if head is not None:
            near.append((row, head))
        elif len(heads) == _GENERIC:
            return len(heads) + 1
        else:
            heads.append(row)
    for row, head in near:
        joined.join(row, head)
    return len(heads)


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


@dataclasses.dataclass(frozen=True)
class Tried:
    """What a column does as the key of products.

    Attributes:
      rows: that share their key with another.
      keys: of several rows.
      apart: keys of them whose titles differ.
      rows_apart: the rows of those.
      scattered: keys of several rows that do not follow each other.
      scattered_untitled: those of them that have at most one title.
    """

    rows: int
    keys: int
    apart: int
    rows_apart: int
    scattered: int
    scattered_untitled: int


def joins(keys: Sequence[str], titles: Sequence[str]) -> Tried:
    """Tries a column as the key of products.

    Args:
      keys: n values, cleaned.
      titles: n titles, "" where a row has none.

    Returns:
      `Tried`.
    """
    shared = [found for found in _rows_of(keys).values() if len(found) > 1]
    variants = variant_titles(keys, titles)
    apart = rows_apart = scattered = untitled = 0
    for found in shared:
        named = [titles[row] for row in found if titles[row] and titles[row] not in variants]
        if not all(likeness.agree(named[0], title) for title in named[1:50]):
            apart, rows_apart = apart + 1, rows_apart + len(found)
        if found[-1] - found[0] >= len(found):
            scattered, untitled = scattered + 1, untitled + (sum(bool(titles[row]) for row in found) <= 1)
    return Tried(sum(map(len, shared)), len(shared), apart, rows_apart, scattered, untitled)


def variant_titles(keys: Sequence[str], titles: Sequence[str]) -> set[str]:
    """Returns titles that name variants, such as "Midnight" and "Ocean" of every scarf, and so tell no products apart.

    The rows of each key follow each other, and most keys of several titles have only titles that other keys have too.

    Args:
      keys: n values, cleaned.
      titles: n titles, "" where a row has none.
    """
    keys_of = collections.defaultdict(set)
    for key, title in zip(keys, titles, strict=True):
        if key and title:
            keys_of[title].add(key)
    generic = {title for title, own in keys_of.items() if len(own) >= _VARIANT_KEYS}
    several = [
        (found, own)
        for found in _rows_of(keys).values()
        if len(own := {titles[row] for row in found if titles[row]}) > 1
    ]
    named = sum(own <= generic for _, own in several)
    runs = all(found[-1] - found[0] < len(found) for found, _ in several)
    return generic if generic and runs and len(several) >= _VARIANT_KEYS and named > 0.5 * len(several) else set()


def _rows_of(keys: Sequence[str]) -> dict[str, list[int]]:
    """Returns {key: its rows}, without rows that have none."""
    rows_of = collections.defaultdict(list)
    for row, key in enumerate(keys):
        if key:
            rows_of[key].append(row)
    return rows_of
