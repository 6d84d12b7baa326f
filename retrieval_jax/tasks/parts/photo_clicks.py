"""Pairs of a shopper's photo and a listing that was clicked after it, and unclicked listings of the same page.

Clicks are unclean: people click by mistake, and a product may be on a page twice. A clicked listing whose category is
not the one that the page and its clicks agree on teaches nothing and is left out. A listing of the same product as one
that was clicked for the photo, on any page, is never a negative.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data.catalog import Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError

_SHOWN = 0.5  # vote of a listing that was shown for the category of a photo; one of a click is 1


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Photos with a clicked listing each.

    Attributes:
      photo: int64 [n], rows of the photos.
      clicked: int64 [n], rows of the listings.
      unclicked: int64 [n, m], rows of listings of the same page, -1 past the last.
      forbidden: for every photo the products that were clicked for it, ascending.
      counts: {"read", "used", "other category", "no listing": number of clicks}; read is the sum of the others.
    """

    photo: np.ndarray
    clicked: np.ndarray
    unclicked: np.ndarray
    forbidden: Ragged
    counts: dict[str, int]

    __repr__ = brief.line


def pairs(table: Table, product: np.ndarray, group: np.ndarray | None, photos: int, negatives: int, seed: int) -> Pairs:
    """Returns the pairs of a table "clicks".

    Args:
      table: with photo, clicked and unclicked.
      product: int [listings], equal for listings of one product, see `clicks.products`.
      group: int [listings], the category of each, -1 where unknown; None to leave no click out.
      photos: number of photos.
      negatives: unclicked listings of each pair.
      seed: of the choice among a page's unclicked listings.

    Raises:
      InputError: a column is missing, or no click is left.
    """
    if missing := [name for name in ("photo", "clicked", "unclicked") if name not in table.columns]:
        raise InputError(
            f"the table 'clicks' has no column {missing[0]!r}: it needs the photo, and the listings of the page that "
            "were clicked and that were not"
        )
    photo = np.asarray(table.columns["photo"], np.int64)
    clicked, unclicked = table.columns["clicked"], table.columns["unclicked"]
    page = np.repeat(np.arange(len(table)), np.diff(clicked.indptr))
    row = clicked.values.astype(np.int64)
    counts, there = {"read": len(row)}, (row >= 0) & (photo[page] >= 0)
    counts["no listing"] = int((~there).sum())
    fits = there
    if group is not None:
        fits = there & _agrees(photo, clicked, unclicked, group, photos)[page, np.maximum(row, 0)]
    counts["other category"] = int((there & ~fits).sum())
    counts["used"] = int(fits.sum())
    if not fits.any():
        raise InputError(
            "the table 'clicks' has no click to learn from: its pages need clicked listings, of the category that most "
            "of the page has (docs/clicked_search.md)"
        )
    page, row = page[fits], row[fits]
    keys = np.unique(photo[page] * (int(product.max()) + 1) + product[row])
    of_photo, of_product = np.divmod(keys, int(product.max()) + 1)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(of_photo, minlength=photos))])
    forbidden = Ragged(indptr, of_product.astype(np.int32))
    beside = _beside(photo, unclicked, product, keys, page, negatives, seed)
    return Pairs(photo[page], row, beside, forbidden, counts)


class _Agreement:
    """Which listings have the category of a page: agreement[pages, listings], bool."""

    def __init__(self, of_page: np.ndarray, group: np.ndarray):
        self.of_page, self.group = of_page, group

    def __getitem__(self, at) -> np.ndarray:
        page, row = at
        return (self.of_page[page] < 0) | (self.group[row] < 0) | (self.group[row] == self.of_page[page])


def _agrees(photo, clicked, unclicked, group, photos) -> _Agreement:
    """Votes on the category of each photo by what was shown and clicked for it on all of its pages."""
    owners, groups, votes = [], [], []
    for column, vote in ((clicked, 1.0 + _SHOWN), (unclicked, _SHOWN)):
        page, row = np.repeat(np.arange(len(photo)), np.diff(column.indptr)), column.values
        known = (row >= 0) & (photo[page] >= 0)
        known[known] &= group[row[known]] >= 0
        owners.append(photo[page[known]])
        groups.append(group[row[known]])
        votes.append(np.full(int(known.sum()), vote))
    width = int(group.max(initial=0)) + 1
    keys, back = np.unique(np.concatenate(owners) * width + np.concatenate(groups), return_inverse=True)
    weight = np.bincount(back, np.concatenate(votes), minlength=len(keys))
    owner, of = np.divmod(keys, width)
    order = np.lexsort((of, -weight, owner))  # of equal votes the lower number
    first = order[np.unique(owner[order], return_index=True)[1]]
    best = np.full(photos, -1, np.int64)
    best[owner[first]] = of[first]
    return _Agreement(np.where(photo >= 0, best[np.maximum(photo, 0)], -1), group)


def _beside(photo, unclicked, product, keys, page, negatives, seed) -> np.ndarray:
    """Returns listings of each pair's page that may be negatives, int64 [n, negatives], in random order."""
    of_page = np.repeat(np.arange(len(photo)), np.diff(unclicked.indptr))
    row = unclicked.values.astype(np.int64)
    there = (row >= 0) & (photo[of_page] >= 0)
    of_page, row = of_page[there], row[there]
    allowed = ~np.isin(photo[of_page] * (int(product.max()) + 1) + product[row], keys)
    of_page, row = of_page[allowed], row[allowed]
    starts = np.searchsorted(of_page, np.arange(len(photo) + 1))
    count = np.diff(starts)[page]
    # A rotation of the page that differs from pair to pair: no listing twice, and no loop.
    turn = (np.random.default_rng((seed, 5)).random(len(page)) * np.maximum(count, 1)).astype(np.int64)
    out = np.full((len(page), negatives), -1, np.int64)
    for place in range(negatives):
        has = count > place
        at = starts[page[has]] + (turn[has] + place) % count[has]
        out[has, place] = row[at]
    return out
