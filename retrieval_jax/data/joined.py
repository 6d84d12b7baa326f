"""Joins several catalogues into one to train on; the sampling "mixed" gives each its share of a run.

In a config:

    config.data.source = "joined"
    config.data.kwargs = {
        "catalogs": {"shop": {"source": "eproduct", "kwargs": {"root": "data/shop"}},
                     "market": {"source": "table", "kwargs": {...}}},
        "search": "shop",
    }
    config.train.sampling = "mixed"
    config.train.sampling_kwargs = {"weights": (0.7, 0.3)}  # in the order of the names: market, shop
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import pairs
from retrieval_jax.data import catalog, joined_columns, loading
from retrieval_jax.data.tables import set_aside_file
from retrieval_jax.data.tables.left_out import Listed
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
    """Pictures of several sources that all hold encoded ones, see `sources`."""

    def __init__(self, parts: list):
        super().__init__(parts)
        self.max_pixels = min(part.max_pixels for part in parts)

    def read(self, row: int) -> bytes:
        """Returns a picture's bytes."""
        part, row = self._place(row)
        return part.read(row)

    def decode(self, data: bytes, row: int) -> np.ndarray:
        """Returns the picture whose bytes `read` returned."""
        part, row = self._place(row)
        return part.decode(data, row)


def load_joined(
    catalogs: Mapping,
    search: str,
    same_categories: bool = False,
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> catalog.Catalog:
    """Loads several catalogues: train and val of all of them, query, gallery and truth of one.

    Listings of train and val get ids "name/id". A catalogue without categories has unknown ones, one without titles
    has empty ones, and so with further columns. Tables follow their listings; what refers to queries or gallery of a
    catalogue that is not searched is left out.

    Args:
      catalogs: {name: {"source", "kwargs", "leave_out"}}, each as a config's data block.
      search: name of the catalogue whose queries and gallery are searched.
      same_categories: whether categories and attributes of the same name are the same in all catalogues; otherwise (two
        shops number theirs differently) they are called "name/category", those of one catalogue after those of
        another.
      leave_out: listings to leave out, by their joined ids; the lists in `catalogs` use the catalogues' own ids.
      set_aside_path: CSV that receives the bad rows of all catalogues.

    Returns:
      The `Catalog`; `Split.sources` of train and val is the catalogue's number in the order of the names.

    Raises:
      InputError: fewer than two catalogues, an unknown name, different numbers of category levels, columns of one name
        and different kinds, or see `loading.load`.
    """
    names = sorted(catalogs)  # a config does not keep their order
    if len(names) < 2:
        raise InputError(f"config.data.kwargs.catalogs has {len(names)} catalogues: give two or more, by name")
    if search not in names:
        raise InputError(f"config.data.kwargs.search: there is no catalogue {search!r}{pairs.near(search, names)}")
    listed, parts = _listed(leave_out, names, search), {}
    for name in names:
        if "/" in name:
            raise InputError(f"config.data.kwargs.catalogs has {name!r}; a name has no '/', which ends it in ids")
        pairs.check_arguments(
            name, catalogs[name], ("source", "kwargs", "leave_out"), "config.data.kwargs.catalogs", "catalogue"
        )
        if "source" not in catalogs[name]:
            raise InputError(
                f"config.data.kwargs.catalogs.{name} has no source; give one of " + ", ".join(loading.SOURCES)
            )
        parts[name] = loading.load(catalogs[name], leave_out=listed[name])
    depths = {name: len(part.category_levels) for name, part in parts.items() if part.category_levels}
    if len(set(depths.values())) > 1:
        raise InputError(
            "config.data.kwargs.catalogs: they have different numbers of category levels: "
            + ", ".join(f"{name} {depth}" for name, depth in depths.items())
            + "; name as many category columns for each"
        )
    levels = parts[search if search in depths else next(iter(depths), search)].category_levels
    category_names, places = _numbered(
        {name: parts[name].category_names for name in depths}, len(levels), same_categories
    )
    found, attributes = parts[search], joined_columns.Attributes(parts, same_categories)
    counts, set_aside = _accounts(parts, search)
    out = catalog.Catalog(
        "+".join(names),
        **{name: _joined(parts, name, places, len(levels), attributes) for name in ("train", "val", catalog.PHOTO)},
        **{
            name: _renumbered(split, places.get(search), len(levels), attributes.of_split(search, split))
            for name, split in found.splits().items()
            if name in ("query", "gallery")
        },
        truth=found.truth,
        category_levels=levels,
        category_names=category_names,
        counts=counts,
        set_aside=set_aside,
        column_names=attributes.names,
        tables=joined_columns.tables(parts, search),
        references=found.references,
    )
    if set_aside_path is not None:
        set_aside_file.write(set_aside_path, out.set_aside)
    return out


def _listed(leave_out: Sequence[Listed], names: list[str], search: str) -> dict[str, list[Listed]]:
    """Returns the listings that each catalogue leaves out, with their own ids."""
    found = {name: [] for name in names}
    for one in leave_out:
        name, _, own = one.id.partition("/") if one.split in ("train", "val") else (search, "", one.id)
        if name not in found:
            raise one.unknown()
        found[name].append(dataclasses.replace(one, id=own))
    return found


def _numbered(
    category_names: Mapping, depth: int, same: bool
) -> tuple[tuple[list[str], ...], dict[str, list[np.ndarray]]]:
    """Returns the joined names of every level, and for every catalogue and level where its categories stand among
    them, see `joined_columns.numbered`."""
    joined, places = [], {name: [] for name in category_names}
    for level in range(depth):
        names, place = joined_columns.numbered({name: own[level] for name, own in category_names.items()}, same)
        joined.append(names)
        for name in places:
            places[name].append(place[name])
    return tuple(joined), places


def _accounts(parts: dict, search: str) -> tuple[dict, list[dict]]:
    """Returns counts and rows set aside of everything in the joined catalogue: without queries, gallery and truth of
    catalogues that are not searched."""
    counts, set_aside = {}, []
    for name, part in parts.items():
        unused = {"query", "gallery", "ground_truth"} if name != search else set()
        files = {split: set(count.get("files", ())) | {f"split {split}"} for split, count in part.counts.items()}
        used = set().union(*(files[split] for split in files if split not in unused))
        gone = set().union(*(files[split] for split in files if split in unused)) - used
        counts |= {f"{name} {split}": count for split, count in part.counts.items() if split not in unused}
        set_aside += [{**row, "file": f"{name}: {row['file']}"} for row in part.set_aside if row["file"] not in gone]
    return counts, set_aside


def _joined(
    parts: dict, split: str, places: dict[str, list], depth: int, attributes: joined_columns.Attributes
) -> catalog.Split | None:
    there = [
        (number, name, getattr(part, split))
        for number, (name, part) in enumerate(parts.items())
        if getattr(part, split) is not None
    ]
    if not there:
        return None
    images = [one.images for *_, one in there]
    encoded = all(hasattr(source, "read") for source in images)
    titles = None
    if any(one.titles is not None for *_, one in there):
        titles = [title for *_, one in there for title in (one.titles if one.titles is not None else [""] * len(one))]
    return catalog.Split(
        split,
        [f"{name}/{listing}" for _, name, one in there for listing in one.ids],
        titles,
        np.concatenate([_codes(one, places.get(name), depth) for _, name, one in there]) if depth else None,
        (JoinedEncoded if encoded else JoinedImages)(images),
        sources=np.concatenate([np.full(len(one), number, np.int32) for number, *_, one in there]),
        columns=attributes.of_splits({name: one for _, name, one in there}),
    )


def _renumbered(split: catalog.Split, places: list | None, depth: int, columns: Mapping) -> catalog.Split:
    categories = None if split.categories is None else _codes(split, places, depth)
    return dataclasses.replace(split, categories=categories, columns=columns)


def _codes(split: catalog.Split, places: list | None, depth: int) -> np.ndarray:
    """Returns a split's categories as rows of the joined names, int32 [n, levels]."""
    out = np.full((len(split), depth), -1, np.int32)
    if split.categories is not None and places is not None:
        for level, rows in enumerate(places):
            out[:, level] = rows[split.categories[:, level]]  # -1, unknown, indexes the last
    return out
