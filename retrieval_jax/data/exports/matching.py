"""Finds the file of every picture that a table names, by name, whatever address or path the table has for it."""

from __future__ import annotations

import collections
import dataclasses

from retrieval_jax.data.exports.folders import Folder
from retrieval_jax.data.exports.products import Named, Table

SHARED = "picture of several products"


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

    Returns:
      `Matched`: every picture that is named is a listing, lost, or repeated.
    """
    found, lost = [], []
    for one in table.named:
        path, reason, detail = folder.find(one.reference)
        if path:
            found.append((one, path))
        else:
            lost.append((one, reason, detail))
    products_of = collections.defaultdict(set)
    for one, path in found:
        products_of[path].add(one.product)
    listings, seen, repeated = [], set(), 0
    for one, path in sorted(found, key=lambda pair: pair[0].product):  # stable: a product's pictures keep their order
        if len(products_of[path]) > 1:
            count = len(products_of[path])
            lost.append((one, SHARED, f"{path} is named by {count:,} products, so it shows none of them in particular"))
        elif (one.product, path) in seen:
            repeated += 1
        else:
            seen.add((one.product, path))
            listings.append(Listing(one.product, one.row, path))
    return Matched(folder, listings, lost, repeated, len(folder) - len(products_of))
