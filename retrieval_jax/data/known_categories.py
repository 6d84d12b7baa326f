"""Listings by which categories of photos are predicted: those of train and val whose finest category is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.errors import InputError


def rows(catalog: Catalog, most: int) -> dict[str, np.ndarray]:
    """Returns the rows to embed, ascending, {"train": some of train, "val": all of val}.

    Args:
      catalog: the catalogue.
      most: listings of train, drawn evenly where it has more.

    Raises:
      InputError: train or val is missing, or has no listing of known category.
    """
    found = {}
    for name in ("train", "val"):
        split = getattr(catalog, name)
        known = split is not None and split.categories is not None and split.categories.shape[1] > 0
        found[name] = np.flatnonzero(split.categories[:, -1] >= 0) if known else np.zeros(0, np.int64)
        if not len(found[name]):
            raise InputError(
                f"config.search.categories.mass is set, and the {name} split of the catalogue {catalog.name} has no "
                "listings of known category: set mass = 0, or give categories"
            )
    found["train"] = np.sort(np.random.default_rng(0).permutation(found["train"])[:most])
    return found


def of(split: Split, ids: Sequence[str]) -> np.ndarray:
    """Returns the finest category of some listings, int32 [n], rows of `split.category_names[-1]`.

    Args:
      split: their split, with categories.
      ids: theirs, in the order wanted.

    Raises:
      InputError: a listing that the split does not have.
    """
    return split.categories[split.rows(ids), -1]
