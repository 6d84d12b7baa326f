"""A catalogue: listings of four splits, their categories, and which gallery listings are right for which query.

eProduct calls the listings that are searched its "index" split. Here they are the *gallery*; an index is the structure
that searches them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval_jax.errors import InputError

SPLITS = ("train", "val", "query", "gallery")


@dataclasses.dataclass
class Split:
    """Listings of one split, column by column; row i of every column is the same listing.

    Attributes:
      name: "train", "val", "query" or "gallery".
      ids: listing ids, n strings; a list or a lazy sequence.
      titles: n strings, or None where the split has no titles.
      categories: int32 [n, levels], rows of `Catalog.category_names[level]`, -1 where unknown; or None.
      images: random access, `images[row]` is uint8 [H, W, 3] RGB at the picture's own size.
      category_names: those of the catalogue; it fills them in.
      sources: int32 [n], the number of the catalogue that a listing is from, where several are joined; or None.
    """

    name: str
    ids: Sequence[str]
    titles: Sequence[str] | None
    categories: np.ndarray | None
    images: Any
    category_names: tuple[list[str], ...] = ()
    sources: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass
class Catalog:
    """The four splits of a catalogue and what is known about them.

    Attributes:
      name: of the catalogue.
      train, val, query, gallery: a `Split`, or None where the catalogue has none.
      truth: `ranking.Truth`, the relevant gallery rows of every query, or None where nobody told.
      category_levels: names of the category levels, coarse to fine; the last is the leaf.
      category_names: for every level the names that `Split.categories` counts into.
      counts: {split: {"read": n, "kept": n, "set_aside": {reason: n}}}; read = kept + the sum of set_aside.
      set_aside: the rows that were left out: dict(file, row, id, reason, sentence).
    """

    name: str
    train: Split | None = None
    val: Split | None = None
    query: Split | None = None
    gallery: Split | None = None
    truth: Any = None
    category_levels: tuple[str, ...] = ()
    category_names: tuple[list[str], ...] = ()
    counts: dict = dataclasses.field(default_factory=dict)
    set_aside: list[dict] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        for split in (self.train, self.val, self.query, self.gallery):
            if split is not None:
                split.category_names = self.category_names

    def split(self, name: str) -> Split:
        """Returns the split of that name; raises InputError, naming the splits there are, if it is missing."""
        found = getattr(self, name, None) if name in SPLITS else None
        if found is None:
            there = [s for s in SPLITS if getattr(self, s) is not None]
            raise InputError(f"catalogue {self.name} has no split {name!r}; it has {', '.join(there) or 'none'}")
        return found
