"""Backbones, heads and the embedder; a backbone is looked up by the name of its file in `models.backbones`."""

import importlib
import pkgutil
import types

from retrieval_jax.errors import InputError
from retrieval_jax.models import backbones


def names() -> list[str]:
    """Returns the names of the backbones that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(backbones.__path__))


def get(name: str) -> types.ModuleType:
    """Returns the module of a backbone, which has `Model(variant, ...)` and `VARIANTS`.

    Args:
      name: file name without ending, such as "convnext".

    Raises:
      InputError: there is no such backbone.
    """
    if name not in names():
        raise InputError(f"unknown model {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"{backbones.__name__}.{name}")
