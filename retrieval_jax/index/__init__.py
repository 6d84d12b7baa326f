"""Indexes, by module name: `index.get(kind).Index(gallery, ids=None, **kwargs).search(queries, k) -> Ranking`."""

import importlib
import pkgutil
import types

import numpy as np

from retrieval_jax.errors import InputError


def names() -> list[str]:
    """Returns the kinds of index that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> types.ModuleType:
    """Returns the index's module.

    Raises:
      InputError: no index of that name; the message lists those that exist.
    """
    if name not in names():
        raise InputError(f"no index {name!r}: there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def nearest_rows(engine, vectors, k: int, block: int = 16384) -> tuple[np.ndarray, np.ndarray]:
    """Searches for many vectors, block by block: the lists of a neighbour graph, where the gallery searches itself.

    Args:
      engine: an Index made without ids, so that a row finds itself too and ties go by row.
      vectors: [n, dim], read by slices.
      k: how many.
      block: vectors of one search.

    Returns:
      Rows [n, k] int32 and cosines [n, k] float32, best first; -1 and -inf where the index found fewer.
    """
    rows, cosines = np.empty((len(vectors), k), np.int32), np.empty((len(vectors), k), np.float32)
    for start in range(0, len(vectors), block):
        found = engine.search(np.asarray(vectors[start : start + block]), k)
        rows[start : start + block], cosines[start : start + block] = found.item_rows, found.scores
    return rows, cosines
