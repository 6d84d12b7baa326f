"""Indexes, by module name: `index.get(kind).Index(gallery, ids=None, **kwargs).search(queries, k) -> Ranking`."""

import importlib
import pkgutil
import types

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
