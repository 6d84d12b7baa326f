"""A catalogue: listings of four splits, their categories, and which gallery listings are right for which query.

eProduct calls the listings that are searched its "index" split. Here they are the *gallery*; an index is the structure
that searches them.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import remote
from retrieval_jax.errors import InputError

SPLITS = ("train", "val", "query", "gallery")
SOURCES = ("synthetic", "eproduct", "table", "tfds", "joined")


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


@dataclasses.dataclass
class DataInfo:
    """What a task has to know about the training listings before it sees one.

    Attributes:
        label_names: V pseudo-attributes, sorted; empty without a vocabulary.
        label_counts: int64 [V], listings that have the label, among `num_listings`.
        num_listings: listings that `label_counts` were counted over (train and val); without a vocabulary, the split's.
        category_names: names per level, coarse to fine.
        category_counts: int64 [names of the level] per level, listings of the split in each category.
        vocabulary_hash: hex digest of the vocabulary, "" without one.
    """

    label_names: list[str]
    label_counts: np.ndarray
    num_listings: int
    category_names: tuple[list[str], ...]
    category_counts: tuple[np.ndarray, ...]
    vocabulary_hash: str


def load(
    config_data: Mapping, *, set_aside_path: str | pathlib.Path | None = None, leave_out: Sequence = ()
) -> Catalog:
    """Loads the catalogue that a config's data block describes.

    Args:
        config_data: has `source` ("synthetic", "eproduct", "table", "tfds" or "joined"), `kwargs`, its arguments, and
            `leave_out`, a CSV of listings that stay out ("" for none).
        set_aside_path: CSV (file, row, id, reason, sentence) of the rows that were left out; None writes none.
        leave_out: further listings that stay out, `left_out.Listed`.

    Returns:
        The `Catalog`.

    Raises:
        InputError: unknown source or argument, unreadable file, missing column, or more bad rows than max_bad_share.
    """
    source = config_data["source"]
    kwargs = _plain(config_data.get("kwargs") or {})
    if isinstance(kwargs.get("root"), str) and "://" in kwargs["root"]:
        url, kwargs["root"] = kwargs["root"], str(remote.local_folder(kwargs["root"]))
        remote.pull(kwargs["root"])  # all of it, once: later only what changed there
        if not any(not child.name.startswith(".") for child in pathlib.Path(kwargs["root"]).iterdir()):
            raise InputError(f"config.data.kwargs.root: {url} holds no files; correct the address")
    if source not in SOURCES:
        raise InputError(f"config.data.source is {source!r}; there are {', '.join(SOURCES)}")
    # Imported here: these modules need the classes above.
    if file := config_data.get("leave_out"):
        leave_out = [*importlib.import_module("retrieval_jax.data.left_out").read(file), *leave_out]
    if source == "synthetic":
        if leave_out:
            raise InputError("config.data.leave_out: the embedded catalogue has no rows of files; set it to ''")
        return importlib.import_module("retrieval_jax.data.synthetic").load(**kwargs)
    module = {"joined": "joined", "tfds": "tfds_datasets"}.get(source, "tables")
    loader = getattr(importlib.import_module(f"retrieval_jax.data.{module}"), f"load_{source}")
    takes = inspect.signature(loader).parameters
    ours = ("leave_out", "set_aside_path")  # not of kwargs
    listed = f"the {source} source takes {', '.join(name for name in takes if name not in ours)}"
    if unknown := [name for name in kwargs if name not in takes or name in ours]:
        raise InputError(f"config.data.kwargs has {unknown[0]!r}; {listed}")
    if missing := [name for name, one in takes.items() if one.default is one.empty and name not in kwargs]:
        raise InputError(f"config.data.kwargs has no {missing[0]!r}; {listed}")
    return loader(**kwargs, leave_out=leave_out, set_aside_path=set_aside_path)


def data_info(split: Split, vocabulary: Any = None) -> DataInfo:
    """Collects what a task has to know.

    Args:
        split: the training split of a `Catalog`.
        vocabulary: an `attributes.vocabulary.Vocabulary`, or None for tasks without pseudo-attributes.

    Returns:
        The `DataInfo`.
    """
    names = split.category_names if split.categories is not None else ()
    counts = []
    for level, level_names in enumerate(names):
        column = split.categories[:, level]
        counts.append(np.bincount(column[column >= 0], minlength=len(level_names)).astype(np.int64))
    if vocabulary is None:
        return DataInfo([], np.zeros(0, np.int64), len(split), names, tuple(counts), "")
    return DataInfo(vocabulary.tokens, vocabulary.counts, vocabulary.num_titles, names, tuple(counts), vocabulary.hash)


def _plain(block: Any) -> Any:
    """Turns nested ConfigDicts into dicts: loaders take plain keyword arguments."""
    return {key: _plain(value) for key, value in block.items()} if hasattr(block, "items") else block
