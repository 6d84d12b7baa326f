"""Indexes, looked up by name: `index.get(kind).Index(gallery, ids=None, **kwargs).search(queries, k) -> Ranking`."""

import sys
import types
from collections.abc import Mapping

import numpy as np

from retrieval_jax import arguments, pairs


def names() -> list[str]:
    """Returns the names of the available indexes."""
    return pairs.names(sys.modules[__name__])


def get(name: str) -> types.ModuleType:
    """Returns the module of an index, with its class `Index`.

    Raises:
      InputError: there is no such index; the message lists the available ones.
    """
    return pairs.module(sys.modules[__name__], name, "index (config.search.index)")


def make(name: str, gallery, kwargs: Mapping | None, where: str, ids=None):
    """Returns an index of a gallery by the names that a step or a config gives.

    Args:
      name: kind of index.
      gallery: see its `Index`.
      kwargs: its arguments, or None.
      where: whose setting it is, for messages.
      ids: of the gallery, for arrays.

    Raises:
      InputError: there is no such index, it has no such argument, or it cannot be made.
    """
    kwargs, kind = arguments.mapping(kwargs, "index_kwargs", where), get(name).Index
    pairs.check_arguments(name, kwargs, pairs.arguments(kind, skip=2), f"{where}: index_kwargs", "index")
    return kind(gallery, ids, **kwargs)


def nearest_rows(engine, vectors, k: int, block: int = 16384) -> tuple[np.ndarray, np.ndarray]:
    """Searches for many vectors, block by block, such as a whole gallery against itself for a neighbour graph.

    Args:
      engine: an Index made without ids, so that a row finds itself too and ties go by row.
      vectors: [n, dim], read in slices.
      k: results per vector.
      block: vectors per search.

    Returns:
      Rows [n, k] int32 and cosines [n, k] float32, best first; -1 and -inf where the index found fewer.
    """
    rows, cosines = np.empty((len(vectors), k), np.int32), np.empty((len(vectors), k), np.float32)
    for start in range(0, len(vectors), block):
        found = engine.search(np.asarray(vectors[start : start + block]), k)
        rows[start : start + block], cosines[start : start + block] = found.item_rows, found.scores
    return rows, cosines
