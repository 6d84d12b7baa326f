"""Pairs of a typed query and a clicked product, their weights, and what may never be a negative of a query.

The same product, its duplicates (listings of equal title) and every product that was clicked after a query are kept
from its negatives: they have the numbers of products in `Pairs.forbidden`. Listings that people judged wrong for a
query, and that nobody clicked after it, are its first negatives.
"""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data.catalog import Split, Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError

LEAST_GROUP = 10  # listings of a group that can make a query broad: one click covers a smaller one
NONE = np.iinfo(np.int32).max  # behind the numbers of a row of products, so that the row stays ascending
_TRIES = 20  # draws of a negative

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Typed queries with their clicks.

    Attributes:
      texts: Q different texts.
      query: int64 [n], row of `texts` of every pair.
      listing: int64 [n], row of the split, clicked after that query.
      weight: float32 [n], log(1 + clicks) or the table's own weights, with a mean of 1.
      product: int32 [listings], equal for listings of one product and for duplicates.
      forbidden: Q rows of products, ascending: those clicked after the query.
      wrong: Q rows of listings that were judged wrong for the query, the most often first; their products were not
        clicked after it.
    """

    texts: list[str]
    query: np.ndarray
    listing: np.ndarray
    weight: np.ndarray
    product: np.ndarray
    forbidden: Ragged
    wrong: Ragged

    __repr__ = brief.line


def products(split: Split, same_product: str = "") -> np.ndarray:
    """Numbers the products of a split, int32 [n]: listings of one product, or with equal titles, have one number.

    Args:
      split: of a catalogue.
      same_product: a column of text whose equal values are one product; "" where only titles tell.

    Raises:
      InputError: there is no such column of text.
    """
    names = []
    if same_product:
        names.append(list(split.texts(same_product)))
    if split.titles is not None:
        names.append([" ".join(title.casefold().split()) for title in split.titles])
    number = np.arange(len(split))
    keys = []
    for column in names:
        _, key = np.unique(np.array(column), return_inverse=True)
        empty = np.array([not value for value in column])
        key[empty] = key.max(initial=0) + 1 + np.arange(empty.sum())  # unknown: none of them is the same
        keys.append(key)
    before = None
    while before is None or (number != before).any():  # the least number goes round until nothing changes
        before = number
        for key in keys:
            least = np.full(key.max(initial=0) + 1, len(split))
            np.minimum.at(least, key, number)
            number = least[key]
    return np.unique(number, return_inverse=True)[1].astype(np.int32)


def pairs(table: Table, product: np.ndarray, most: int) -> Pairs:
    """Returns the pairs of a table "queries".

    Queries of equal text (apart from case and blanks) are one, and their clicks are added up.

    Args:
      table: with text and clicked; count, weight and wrong, where it has them, one value per clicked listing.
      product: of `products`.
      most: listings of a query, at most: the most clicked ones.

    Raises:
      InputError: nobody clicked anything.
    """
    names = [" ".join(text.split()) for text in table.columns["text"]]
    number = {}
    own = np.array([number.setdefault(name.casefold(), len(number)) for name in names], np.int64)
    texts = [""] * len(number)
    for name, at in zip(reversed(names), own[::-1].tolist(), strict=True):
        texts[at] = name
    clicked = table.columns["clicked"]
    query, listing = np.repeat(own, np.diff(clicked.indptr)), clicked.values.astype(np.int64)
    count = _values(table, "count", len(listing), 1.0)
    weight = _values(table, "weight", len(listing), np.nan)
    asked = np.array([bool(text) for text in texts], bool)[query]
    judged = (_values(table, "wrong", len(listing), 0.0) * asked, query, listing)
    there = (count > 0) & (listing >= 0) & asked
    if not there.any():
        raise InputError(
            "the table 'queries' has no clicks: training on typed queries needs queries with the listings that were "
            "clicked after them (docs/clicks.md)"
        )
    keys, first, back = np.unique(
        query[there] * len(product) + listing[there], return_index=True, return_inverse=True
    )  # ascending: by query, then listing
    summed = np.bincount(back, count[there])
    own_weight = np.bincount(back, np.nan_to_num(weight[there]))
    query, listing = np.divmod(keys, len(product))
    found = own_weight if "weight" in table.columns else np.log1p(summed)
    order = np.lexsort((listing, -summed, query))
    query, listing, found = query[order], listing[order], found[order]
    starts = np.searchsorted(query, np.arange(len(texts)))
    kept = (np.arange(len(query)) - starts[query] < most) & (found > 0)
    clicks = np.unique(query * (product.max() + 1) + product[listing])
    of_query, of_product = np.divmod(clicks, product.max() + 1)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(of_query, minlength=len(texts)))])
    forbidden = Ragged(indptr, of_product.astype(np.int32))
    weight = (found[kept] / found[kept].mean()).astype(np.float32)
    wrong = _wrong(*judged, clicks, product, len(texts))
    return Pairs(texts, query[kept], listing[kept], weight, product, forbidden, wrong)


def _wrong(count, query, listing, clicks, product, queries) -> Ragged:
    """Returns the listings judged wrong for each query, see `Pairs`.

    Args:
      count: [m], how often each row was judged wrong.
      query: int [m].
      listing: int [m], -1 where it was set aside.
      clicks: int, ascending: query * products + product, of those that were clicked.
      product: of `products`.
      queries: their number.
    """
    there = (count > 0) & (listing >= 0)
    keys, back = np.unique(query[there] * len(product) + listing[there], return_inverse=True)
    times = np.bincount(back, count[there], minlength=len(keys))
    query, listing = np.divmod(keys, len(product))
    kept = ~np.isin(query * (product.max() + 1) + product[listing], clicks)
    query, listing, times = query[kept], listing[kept], times[kept]
    order = np.lexsort((listing, -times, query))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=queries))])
    return Ragged(indptr, listing[order])


def with_title_queries(found: Pairs | None, texts: list[str], product: np.ndarray, count: int, seed: int) -> Pairs:
    """Returns pairs with queries made of the listings' own words added: what can be learned without any click.

    A query is one to four words of a listing's text in their order, or a piece of a text without blanks.

    Args:
      found: pairs of clicks; None without any.
      texts: of all listings of the split.
      product: of `products`.
      count: queries of each listing.
      seed: of the choice.
    """
    rng, made, rows = np.random.default_rng((seed, 3)), [], []
    for row, text in enumerate(texts):
        words = text.split()
        for _ in range(count if words else 0):
            if len(words) > 1:
                chosen = rng.permutation(len(words))[: rng.integers(1, min(4, len(words)) + 1)]
                made.append(" ".join(words[at] for at in np.sort(chosen)))
            else:
                size = int(rng.integers(min(2, len(text)), max(2, len(text) // 2) + 1))
                start = int(rng.integers(len(text) - min(size, len(text)) + 1))
                made.append(text[start : start + size])
            rows.append(row)
    if not made:
        raise InputError("no listing has a text to make queries of: give titles, or clicks in the table 'queries'")
    listing = np.array(rows, np.int64)
    own = Pairs(
        made,
        np.arange(len(made)),
        listing,
        np.ones(len(made), np.float32),
        product,
        Ragged(np.arange(len(made) + 1), product[listing]),
        Ragged(np.zeros(len(made) + 1, np.int64), np.zeros(0, np.int64)),
    )
    if found is None:
        return own
    return Pairs(
        [*found.texts, *made],
        np.append(found.query, len(found.texts) + own.query),
        np.append(found.listing, own.listing),
        np.append(found.weight, own.weight),
        product,
        Ragged(
            np.append(found.forbidden.indptr, found.forbidden.indptr[-1] + own.forbidden.indptr[1:]),
            np.append(found.forbidden.values, own.forbidden.values),
        ),
        Ragged(np.append(found.wrong.indptr, found.wrong.indptr[-1] + own.wrong.indptr[1:]), found.wrong.values),
    )


def _values(table: Table, name: str, count: int, default: float) -> np.ndarray:
    column = table.columns.get(name)
    return np.full(count, default) if column is None else np.asarray(column.values, np.float64)


def broad(found: Pairs, group: np.ndarray, share: float) -> np.ndarray:
    """Returns which queries are broad: their clicks cover more than a share of a group of products.

    Args:
      found: the pairs.
      group: int [listings], the product group of every listing, -1 where unknown.
      share: of the listings of a group; groups of fewer than LEAST_GROUP listings make no query broad.

    Returns:
      bool [Q].

    Source: arXiv 2107.08291.
    """
    known = group[found.listing] >= 0
    size = np.bincount(group[group >= 0], minlength=1)
    keys, counts = np.unique(found.query[known] * len(size) + group[found.listing[known]], return_counts=True)
    query, of = np.divmod(keys, len(size))
    out = np.zeros(len(found.texts), bool)
    out[query[(counts > share * size[of]) & (size[of] >= LEAST_GROUP)]] = True
    return out


def negatives(found: Pairs, group: np.ndarray, share: float, count: int, seed: int) -> np.ndarray:
    """Draws listings that nobody clicked after a query, by the published rule.

    The listings that were judged wrong for the query come first. Of the others, a broad query takes them from other
    groups than its product's; a narrow one takes half of them from the same group.

    Args:
      found, group, share: see `broad`.
      count: negatives of each pair.
      seed: of the draws.

    Returns:
      int64 [n, count], rows of the split; -1 where _TRIES draws found nothing that is allowed.

    Source: arXiv 2107.08291.
    """
    rng = np.random.default_rng(seed)
    own = group[found.listing]
    is_broad = broad(found, group, share)[found.query]
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    low, high = np.searchsorted(ordered, own), np.searchsorted(ordered, own, side="right")
    out = np.full((len(own), count), -1, np.int64)
    judged = np.minimum(np.diff(found.wrong.indptr), count)[found.query]
    for place in range(count):
        known = judged > place
        out[known, place] = found.wrong.values[found.wrong.indptr[found.query[known]] + place]
        same = ~is_broad & (own >= 0) & (place % 2 == 0)
        open_ = np.flatnonzero(~known)
        for _ in range(_TRIES):
            if not len(open_):
                break
            u = rng.random(len(open_))
            anywhere = (u * len(group)).astype(np.int64)
            inside = order[np.minimum(low[open_] + (u * (high - low)[open_]).astype(np.int64), len(order) - 1)]
            row = np.where(same[open_], inside, anywhere)
            fits = ~is_forbidden(found, found.query[open_], found.product[row])
            fits &= same[open_] | ~is_broad[open_] | (group[row] != own[open_]) | (own[open_] < 0)
            out[open_[fits], place] = row[fits]
            open_ = open_[~fits]
    if short := int((out < 0).all(axis=1).sum()):
        _log.warning("%s pairs of a query and a product have no negative: nearly everything was clicked", f"{short:,}")
    return out


def is_forbidden(found: Pairs, query: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Returns which products may not be negatives of queries, bool [m].

    Args:
      found: the pairs.
      query: int [m], rows of `found.texts`.
      product: int [m].
    """
    width = int(found.product.max()) + 1
    owner = np.repeat(np.arange(len(found.forbidden)), np.diff(found.forbidden.indptr))
    keys = owner * width + found.forbidden.values
    asked = query * width + product
    at = np.searchsorted(keys, asked)
    return keys[np.minimum(at, len(keys) - 1)] == asked
