"""Several catalogues as one to train on: "mixed" of `sampling` then gives each its share of a run.

    config.data.source = "joined"
    config.data.kwargs = {
        "catalogs": {"shop": {"source": "eproduct", "kwargs": {"root": "data/shop"}},
                     "market": {"source": "table", "kwargs": {...}}},
        "search": "shop",
    }
    config.train.sampling = "mixed"
    config.train.sampling_kwargs = {"weights": (0.7, 0.3)}  # in the order of the names: market, shop
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from retrieval_jax.data import catalog, row_checks
from retrieval_jax.errors import InputError


class JoinedImages:
    """Pictures of several sources, one after the other.

    Args:
        parts: the sources.
    """

    def __init__(self, parts: list):
        self.parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> np.ndarray:
        part, row = self._place(row)
        return part[row]

    def _place(self, row: int) -> tuple[Any, int]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.parts[number], int(row - self._starts[number])


class JoinedEncoded(JoinedImages):
    """The same of sources that all hold encoded pictures, see `sources`."""

    def __init__(self, parts: list):
        super().__init__(parts)
        self.max_pixels = min(part.max_pixels for part in parts)

    def read(self, row: int) -> bytes:
        """Returns a picture's bytes."""
        part, row = self._place(row)
        return part.read(row)

    def decode(self, data: bytes, row: int) -> np.ndarray:
        """Returns the picture that `read` gave the bytes of."""
        part, row = self._place(row)
        return part.decode(data, row)


def load_joined(
    catalogs: Mapping, search: str, same_categories: bool = False, leave_out: str = "", set_aside_path: Any = None
) -> catalog.Catalog:
    """Loads several catalogues: train and val of all of them, query, gallery and truth of one.

    Listings of train and val get ids "name/id". A catalogue without categories has unknown ones, one without titles
    has empty ones.

    Args:
        catalogs: {name: {"source", "kwargs", "leave_out"}}, each as a config's data block.
        search: name of the catalogue whose queries and gallery are searched.
        same_categories: whether categories of the same name are the same in all catalogues; otherwise (two shops number
            theirs each in its own way) they are called "name/category".
        leave_out: refused: a list is of one catalogue, and stands in its block.
        set_aside_path: CSV of the rows that were left out, of all of them.

    Returns:
        The `Catalog`; `Split.sources` of train and val tells the catalogue, by its number in the order of the names.

    Raises:
        InputError: fewer than two catalogues, an unknown name, other numbers of category levels, or see `catalog.load`.
    """
    names = sorted(catalogs)  # of a config, whose order is not kept
    if len(names) < 2:
        raise InputError(f"config.data.kwargs.catalogs has {len(names)} catalogues: give two or more, by name")
    if search not in names:
        raise InputError(f"config.data.kwargs.search is {search!r}; there are {', '.join(names)}")
    if leave_out:
        raise InputError("config.data.leave_out: of several catalogues each has its own list, of its own ids: set "
                         f"config.data.kwargs.catalogs.{names[0]}.leave_out and the like")
    parts = {}
    for name in names:
        if unknown := [key for key in catalogs[name] if key not in ("source", "kwargs", "leave_out")]:
            raise InputError(f"config.data.kwargs.catalogs.{name} has {unknown[0]!r}; it takes source, kwargs, "
                             "leave_out")
        if "source" not in catalogs[name]:
            raise InputError(f"config.data.kwargs.catalogs.{name} has no source; there are "
                             + ", ".join(catalog.SOURCES))
        parts[name] = catalog.load(catalogs[name])
    depths = {name: len(part.category_levels) for name, part in parts.items() if part.category_levels}
    if len(set(depths.values())) > 1:
        raise InputError("config.data.kwargs.catalogs: they have different numbers of category levels: "
                         + ", ".join(f"{name} {depth}" for name, depth in depths.items())
                         + "; name as many category columns for each")
    if not same_categories:
        for name, part in parts.items():
            part.category_names = tuple([f"{name}/{category}" for category in names] for names in part.category_names)
    levels = parts[search if search in depths else next(iter(depths), search)].category_levels
    category_names = tuple(sorted({name for one in depths for name in parts[one].category_names[level]})
                           for level in range(len(levels)))
    found = parts[search]
    out = catalog.Catalog(
        "+".join(names), **{name: _joined(parts, name, levels, category_names) for name in ("train", "val")},
        **{name: _renamed(found, getattr(found, name), category_names) for name in ("query", "gallery")},
        truth=found.truth, category_levels=levels, category_names=category_names,
        counts={f"{name} {split}": counts for name, part in parts.items() for split, counts in part.counts.items()},
        set_aside=[{**row, "file": f"{name}: {row['file']}"} for name, part in parts.items() for row in part.set_aside])
    if set_aside_path is not None:
        row_checks.write_set_aside(set_aside_path, out.set_aside)
    return out


def _joined(parts: dict, split: str, levels: tuple, category_names: tuple) -> catalog.Split | None:
    there = [(number, name, part, getattr(part, split)) for number, (name, part) in enumerate(parts.items())
             if getattr(part, split) is not None]
    if not there:
        return None
    images = [one.images for *_, one in there]
    encoded = all(hasattr(source, "read") for source in images)
    titles = None
    if any(one.titles is not None for *_, one in there):
        titles = [title for *_, one in there for title in (one.titles if one.titles is not None else [""] * len(one))]
    return catalog.Split(
        split, [f"{name}/{listing}" for _, name, _, one in there for listing in one.ids], titles,
        np.concatenate([_codes(part, one, category_names) for *_, part, one in there]) if levels else None,
        (JoinedEncoded if encoded else JoinedImages)(images),
        sources=np.concatenate([np.full(len(one), number, np.int32) for number, *_, one in there]))


def _renamed(part: catalog.Catalog, split: catalog.Split | None, category_names: tuple) -> catalog.Split | None:
    if split is None or split.categories is None:
        return split
    return catalog.Split(split.name, split.ids, split.titles, _codes(part, split, category_names), split.images)


def _codes(part: catalog.Catalog, split: catalog.Split, category_names: tuple) -> np.ndarray:
    """Returns a split's categories as rows of the joined names, int32 [n, levels]."""
    out = np.full((len(split), len(category_names)), -1, np.int32)
    if split.categories is not None:
        for level, names in enumerate(category_names):
            row = {name: number for number, name in enumerate(names)}
            codes = np.array([*(row[name] for name in part.category_names[level]), -1], np.int32)
            out[:, level] = codes[split.categories[:, level]]  # -1, unknown, reads the last
    return out
