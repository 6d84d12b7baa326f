"""Columns of a split for prediction: pictures, the mined labels of titles, categories, and the split's own columns.

A task whose predict functions read anything else defines its own `columns`, with the same arguments and result as
`columns` here; it may extend this one: `{**parts.columns(config, split, workdir), "query": ...}`.
"""

import functools
import logging
import pathlib
from collections.abc import Callable

import numpy as np

from retrieval_jax.attributes.vocabulary import Vocabulary
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.catalog import Lazy
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.errors import InputError, short


def columns(config, split, workdir=None) -> dict[str, Callable]:
    """Returns what predict functions may read of a split.

    Args:
      config: the whole config of the run that the network is from.
      split: `data.catalog.Split`.
      workdir: the work directory of that run; None where there is none, as for public weights.

    Returns:
      {name: function without arguments that makes the column: `Pictures`, `Ragged` or array [n, ...]}, so that only
      what is read is made. "image"; "label_ids", the attributes that mine's vocabulary finds in the titles, where the
      split has titles and the run a vocabulary; "category", int32 [n], the leaf, -1 where unknown; and the numeric
      columns of the split.
    """
    del config
    found = {}
    own = getattr(split, "columns", None) or {}
    for name in own:  # not items(): what a lazy mapping computes on demand may take minutes, such as boxes
        if isinstance(own, Lazy) or _numeric(own[name]):
            found[name] = functools.partial(_read, own, name)
    found["image"] = lambda: Pictures(split.images)
    if split.categories is not None:
        found["category"] = lambda: split.categories[:, -1]
    if split.titles is not None and workdir is not None:
        if (pathlib.Path(workdir) / "attributes" / "vocabulary.json").exists():
            found["label_ids"] = lambda: _labels(split, workdir)
    return found


def _numeric(column) -> bool:
    return isinstance(column, Ragged) or (isinstance(column, np.ndarray) and column.dtype.kind in "biuf")


def _read(columns, name):
    if not _numeric(columns[name]):
        raise InputError(f"the column {name!r} is text; a task that reads it defines `columns` of its own")
    return columns[name]


def _labels(split, workdir) -> Ragged:
    without = [split.ids[row] for row, title in enumerate(split.titles) if not title]
    if without:
        raise InputError(
            f"{len(without):,} of {len(split):,} listings of the split {split.name} have no title, such as "
            f"{short(without[0])!r}, and titles are to be embedded: fill in their titles, or leave the listings out"
        )
    labels = title_labels(split.titles, workdir)
    if unknown := int((np.diff(labels.indptr) == 0).sum()):
        logging.getLogger(__name__).warning(
            "%s of %s titles of the split %s have no word that was mined, and all of these have one embedding",
            f"{unknown:,}",
            f"{len(split):,}",
            split.name,
        )
    return labels


def title_labels(titles, workdir) -> Ragged:
    """Returns the attributes of titles, ids in the vocabulary of a run.

    Args:
      titles: n texts.
      workdir: the work directory of the run.

    Raises:
      InputError: the vocabulary is not the one that the network was trained with.
    """
    vocabulary = Vocabulary.load(pathlib.Path(workdir) / "attributes" / "vocabulary.json")
    trained = info_lib.load(pathlib.Path(workdir) / "checkpoints" / "data_info.json").vocabulary_hash
    if vocabulary.hash != trained:
        raise InputError(
            f"{workdir}: attributes/vocabulary.json is not the vocabulary that the network was trained with: mine ran "
            "again since; train again in a new work directory"
        )
    indptr, ids = vocabulary.encode(titles)
    return Ragged(indptr, np.asarray(ids, np.int32))
