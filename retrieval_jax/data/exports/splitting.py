"""Splits the listings of one table by product: what is trained on, what is validated with, and what is searched with.

Every listing but the queries is in the gallery: what is trained on may be searched. No product of a query or of the
validation is trained on.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Hashable, Sequence

TEST_SHARE, VAL_SHARE = 0.2, 0.1  # of the products
LEAST_TEST = 30  # products, so that a score is more than noise; at most a third of those with several pictures
MOST_TEST = 5_000
MOST_QUERIES = 2_000  # listings that are searched with where nothing is known to be relevant


@dataclasses.dataclass(frozen=True)
class Splits:
    """Numbers of listings, ascending.

    Attributes:
      train, val, query, gallery: of every split. Without products of several listings, `query` is part of `gallery`.
      scored: whether the queries have relevant listings in the gallery.
    """

    train: list[int]
    val: list[int]
    query: list[int]
    gallery: list[int]
    scored: bool


def split(
    products: Sequence[Hashable],
    usable: Sequence[bool],
    *,
    test_share: float = TEST_SHARE,
    val_share: float = VAL_SHARE,
    seed: int = 0,
) -> Splits:
    """Splits listings by product. A product's part is decided by a hash of its key, so new products move few others.

    Args:
      products: n keys of products, one per listing.
      usable: n, whether a listing can be trained on: it has what the titles or categories must teach.
      test_share: share of the products with several listings that give a query each; at least LEAST_TEST, but not more
        than a third.
      val_share: share of all products that are validated with.
      seed: of the choice.

    Returns:
      The `Splits`.
    """
    of_product = collections.defaultdict(list)
    for number, product in enumerate(products):
        of_product[product].append(number)
    ordered = sorted(of_product, key=lambda product: _hash(seed, product))
    several = [product for product in ordered if len(of_product[product]) > 1]
    count = round(test_share * len(several))
    if test_share > 0:
        count = min(max(count, min(LEAST_TEST, len(several) // 3), 1), MOST_TEST, max(0, len(ordered) - 1))
    test = set(several[:count])
    rest = [product for product in ordered if product not in test]
    of_val = round(val_share * len(ordered))
    val = set(rest[: min(of_val, len(rest) - 1)]) if val_share > 0 and len(rest) > 1 else set()
    queries = {of_product[product][_hash(seed, product, "query") % len(of_product[product])] for product in test}
    everything = range(len(products))
    chosen = sorted(queries)
    if not queries:  # whatever is found is shown, and nothing can be scored
        chosen = sorted(sorted(everything, key=lambda number: _hash(seed, number))[:MOST_QUERIES])
    return Splits(
        train=[n for n in everything if usable[n] and products[n] not in test and products[n] not in val],
        val=[n for n in everything if usable[n] and products[n] in val],
        query=chosen,
        gallery=[n for n in everything if n not in queries],
        scored=bool(queries),
    )


def _hash(*parts: Hashable) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest())
