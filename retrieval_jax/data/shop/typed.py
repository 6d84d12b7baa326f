"""Typed queries as the queries of the embedded catalogue: words in place of photos, with combinations kept for scoring.

Some combinations of two attribute values (a colour with a category, a brand with a category ...) are held out: no
shopper of train or val types both in one query, so a query with such a pair asks whether a model has understood the
two apart. Relevant is every gallery listing whose product has all attributes in the text.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data.shop import shoppers, synthetic, wording
from retrieval_jax.errors import InputError

HELD_OUT = 0.2  # share of the pairs of values
KINDS = ("broad", "narrow", "misspelt", "unseen")
_TRIES = 200  # draws for a query of one kind


@dataclasses.dataclass(frozen=True)
class Typed:
    """Typed queries with what is relevant: rows[indptr[i]:indptr[i + 1]], ascending.

    Attributes:
      texts: n strings, all different.
      kinds: int32 [n], rows of KINDS.
      names: the attributes in each text, n tuples.
      indptr: int64 [n + 1].
      rows: int64, gallery listings.
    """

    texts: list[str]
    kinds: np.ndarray
    names: list[tuple[str, ...]]
    indptr: np.ndarray
    rows: np.ndarray

    __repr__ = brief.line


def held_out(shop: synthetic.Shop, names: tuple[str, ...], values: dict[str, int]) -> bool:
    """Returns whether a query would put two values together that are kept for scoring.

    Args:
      shop: the catalogue.
      names: the attributes in the query.
      values: {attribute: value}, of one product.
    """
    for one, other in itertools.combinations(sorted(names), 2):
        number = np.array([int(values[one]) * 1000 + int(values[other])])
        if synthetic.uniform(shop.seed, f"held out {one} {other}", number, 1)[0, 0] < HELD_OUT:
            return True
    return False


def clicked(shop: synthetic.Shop, num: int, split: str) -> shoppers.TextQueries:
    """Simulates typed queries without held-out combinations, and the listings clicked after them.

    As `shoppers.text_queries`, except that queries with held-out combinations are left out, and that a click goes to
    any listing of a product, not always to its first.

    Args:
      shop: the catalogue.
      num: queries.
      split: "train" or "val".

    Returns:
      The `TextQueries`.

    Raises:
      InputError: the split is empty.
    """
    found = shoppers.text_queries(shop, num, split, accept=lambda names, values: not held_out(shop, names, values))
    numbers = np.searchsorted(
        synthetic.first_row(split, np.arange(synthetic.num_products(shop, split))), found.rows, side="right"
    ) - 1  # fmt: skip
    start = synthetic.first_row(split, numbers)
    size = np.minimum(synthetic.first_row(split, numbers + 1), shop.size(split)) - start
    which = synthetic.uniform(shop.seed, split + " clicked listing", np.arange(len(found.rows)), 1)[:, 0]
    return dataclasses.replace(found, rows=start + (which * size).astype(np.int64))


def queries(shop: synthetic.Shop) -> Typed:
    """Makes the typed queries to be scored: a quarter of each kind, as far as there are different texts.

    "broad" names a category alone; "narrow" two or three attributes that shoppers of train type together; "misspelt"
    is narrow with a typo; "unseen" has a held-out combination.

    Args:
      shop: the catalogue; num_query is the number of queries.

    Returns:
      The `Typed`.

    Raises:
      InputError: the gallery has too few products for that many different queries.
    """
    products = np.arange(synthetic.num_products(shop, "gallery"))
    first = synthetic.first_row("gallery", products)
    end = np.minimum(synthetic.first_row("gallery", products + 1), shop.num_gallery)
    truth = synthetic.attributes(shop, "gallery", first)
    several = [names for names in shoppers.QUERY_NAMES if len(names) > 1]
    texts: dict[str, None] = {}
    kinds, asked, found = [], [], []
    for number in range(shop.num_query):
        rng = synthetic.generator(shop.seed, "typed query", number)
        for attempt in range(_TRIES):
            kind = KINDS[number % len(KINDS)]
            if kind == "broad" and attempt >= _TRIES // 4:  # all names of categories are taken
                kind = "narrow"
            like = int(rng.random() * len(products))
            names = ("category",) if kind == "broad" else several[int(rng.random() * len(several))]
            values = {name: int(truth[name][like]) for name in names}
            text = wording.query_text(values, names, rng)
            if kind == "misspelt":
                text = wording.misspelt(text, rng)
            if held_out(shop, names, values) == (kind == "unseen") and text not in texts:
                break
        else:
            raise InputError(
                f"the gallery of the embedded catalogue has {len(products):,} products, too few for {shop.num_query:,} "
                "different typed queries: lower num_query, or raise num_gallery"
            )
        texts[text] = None
        kinds.append(KINDS.index(kind))
        asked.append(names)
        match = np.flatnonzero(np.all([truth[name] == values[name] for name in names], axis=0))
        found.append(np.concatenate([np.arange(first[one], end[one]) for one in match]))
    indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in found])]).astype(np.int64)
    rows = np.concatenate([np.zeros(0, np.int64), *found])
    return Typed(list(texts), np.array(kinds, np.int32), asked, indptr, rows)
