"""Finds the file of every picture that a table names, by name, whatever address or path the table has for it."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable

from retrieval_jax.data.exports import facts, likeness
from retrieval_jax.data.exports.folders import Folder
from retrieval_jax.data.exports.products import Named, Table

SHARED = "picture of several products"
_PLACEHOLDER = 3  # different titles: two products with equal files may be one product, listed twice
_MOST_COMPARED = 100_000  # files; of more, reading those of equal sizes takes longer than loading a catalogue should
_TAIL = 4096  # bytes at the end, where pictures of equal sizes differ


@dataclasses.dataclass(frozen=True)
class Listing:
    """A picture of a product that is there.

    Attributes:
      product: number of the product.
      row: the row that names the picture first, from 0.
      path: of its file, below the folder of the pictures.
    """

    product: int
    row: int
    path: str


@dataclasses.dataclass(frozen=True)
class Matched:
    """What became of the pictures that a table names.

    Attributes:
      folder: that was looked in.
      listings: the pictures that are there, once per product, by product.
      lost: [(picture, reason, detail)] of the others: no file, several files, of several products.
      repeated: pictures whose file is also that of another name of the same product.
      extra: files of the folder that belong to no listing.
    """

    folder: Folder
    listings: list[Listing]
    lost: list[tuple[Named, str, str]]
    repeated: int
    extra: int


def match(table: Table, folder: Folder) -> Matched:
    """Finds the files of the pictures that a table names.

    Args:
      table: the products and their pictures.
      folder: to look in.

    A file that several products name, or whose bytes several products of different titles have under other names, such
    as a placeholder, is a listing of none of them.

    Returns:
      `Matched`: every picture that is named is a listing, lost, or repeated.
    """
    found, lost = [], []
    parts = table.recognised.roles
    keys = [table.sheet.columns[name] for name in dict.fromkeys((parts.product, parts.id)) if name]
    for one in table.named:
        own = (table.products[one.product].key, *(facts.clean(column[one.row]) for column in keys))
        path, reason, detail = folder.find(one.reference, own)
        if path:
            found.append((one, path))
        else:
            lost.append((one, reason, detail))
    products_of = collections.defaultdict(set)
    for one, path in found:
        products_of[path].add(one.product)
    placeholders = _placeholders(table, folder, products_of)
    listings, seen, repeated = [], set(), 0
    for one, path in sorted(found, key=lambda pair: pair[0].product):  # stable: a product's pictures keep their order
        if len(products_of[path]) > 1:
            count = len(products_of[path])
            lost.append((one, SHARED, f"{path} is named by {count:,} products, so it shows none of them in particular"))
        elif path in placeholders:
            detail = f"{path} has the bytes of the pictures of {placeholders[path]:,} products, such as a placeholder"
            lost.append((one, SHARED, detail))
        elif (one.product, path) in seen:
            repeated += 1
        else:
            seen.add((one.product, path))
            listings.append(Listing(one.product, one.row, path))
    return Matched(folder, listings, lost, repeated, len(folder) - len(products_of))


def _placeholders(table: Table, folder: Folder, products_of: dict[str, set[int]]) -> dict[str, int]:
    """Returns {path: number of products} of files of equal bytes that products of different titles have.

    Only files of equal sizes are read, and only those that also end alike are read whole.
    """
    alike = [list(products_of)] if len(products_of) <= _MOST_COMPARED else []
    try:
        for key in (_size, _tail, _digest):
            alike = [same for paths in alike for same in _equal(paths, lambda path, key=key: key(folder.root / path))]
    except OSError:
        return {}  # the checks of the catalogue name the file
    out = {}
    for paths in alike:
        owners = set().union(*(products_of[path] for path in paths))
        titles: list[str] = []
        for owner in owners:
            title = table.products[owner].title
            if len(titles) < _PLACEHOLDER and title and not any(likeness.agree(title, one) for one in titles):
                titles.append(title)
        if len(titles) >= _PLACEHOLDER:
            out |= dict.fromkeys(paths, len(owners))
    return out


def _equal(paths: Iterable[str], key) -> list[list[str]]:
    """Returns the paths with a common key, where several have it."""
    of = collections.defaultdict(list)
    for path in paths:
        of[key(path)].append(path)
    return [same for same in of.values() if len(same) > 1]


def _size(path) -> int:
    return path.stat().st_size


def _tail(path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return hashlib.sha256(file.read()).digest()


def _digest(path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
