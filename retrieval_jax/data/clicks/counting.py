"""Counts the clicks of a log's searches by query and listing, and corrects them for the places where they happened."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np

from retrieval_jax.data.clicks import propensity

# A search: its query, and {listing on its page: [place from 1, -1 where unknown; whether it was clicked]}.
Page = tuple[str, dict[str, list]]


@dataclasses.dataclass
class Clicked:
    """A listing that was shown for a query.

    Attributes:
      shown: searches in which it was shown.
      count: searches in which it was clicked.
      corrected: clicks over the propensities of their places.
      positions: where it was clicked, else shown; without unknown ones.
      wrong: searches in which it was judged to be no result of the query.
    """

    shown: int = 0
    count: int = 0
    corrected: float = 0.0
    positions: list[int] = dataclasses.field(default_factory=list)
    wrong: int = 0

    @property
    def position(self) -> int:
        """The middle place, from 1; -1 where it is unknown."""
        return sorted(self.positions)[len(self.positions) // 2] if self.positions else -1

    @property
    def weight(self) -> float:
        """log(1 + corrected clicks)."""
        return round(math.log1p(self.corrected), 6)


def counted(
    searches: Iterable[Page], wrong: Mapping[tuple[str, str], int], pages: bool
) -> tuple[dict[str, dict[str, Clicked]], propensity.Propensities | None]:
    """Adds up shows and clicks by query and listing, and corrects the clicks by the places where they happened.

    Args:
      searches: what was shown and clicked in each search.
      wrong: {(query, listing): searches in which it was judged wrong}; each was shown in one.
      pages: whether the log says what was shown and left alone.

    Returns:
      ({query: {listing: `Clicked`}}, propensities of places; None where no click has a place).
    """
    queries: dict[str, dict[str, Clicked]] = {}
    pairs: dict[tuple[str, str], int] = {}
    cells = []  # pair, place, clicked
    for text, listings in searches:
        own = queries.setdefault(text, {})
        for product, (place, clicked) in listings.items():
            one = own.setdefault(product, Clicked())
            one.shown += 1
            one.count += clicked
            one.corrected += clicked
            if place > 0:
                cells.append((pairs.setdefault((text, product), len(pairs)), place, clicked))
    for (text, product), count in wrong.items():
        queries[text].setdefault(product, Clicked()).wrong = count
    table = np.array(cells, np.int64).reshape(-1, 3)
    if not len(table):
        return queries, None
    if pages:
        found = propensity.estimate(table[:, 0], table[:, 1], np.ones(len(table)), table[:, 2])
    else:  # clicks alone say nothing about what was shown and left alone
        found = propensity.estimate(*(table[:0, column] for column in (0, 1, 2, 2)))
    looks = found.of(table[:, 1]).tolist()
    named = list(pairs)
    for (number, place, clicked), look in zip(table.tolist(), looks, strict=True):
        text, product = named[number]
        one = queries[text][product]
        if clicked:
            one.corrected += 1 / look - 1
        if clicked or not one.count:
            one.positions.append(place)
    return queries, found
