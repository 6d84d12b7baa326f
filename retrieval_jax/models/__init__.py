"""Backbones, heads and the embedder; a backbone is looked up by the name of its file."""

import importlib
import pkgutil
import types

from retrieval_jax.errors import InputError

_NOT_BACKBONES = ("attention", "blocks", "depthwise", "embedder", "heads", "linear", "pooling", "pretrained",
                  "relative_bias")  # nor what begins with timm_


def names() -> list[str]:
    """Returns the names of the backbones that exist."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__)
                  if m.name not in _NOT_BACKBONES and not m.name.startswith("timm_"))


def get(name: str) -> types.ModuleType:
    """Returns the module of a backbone, which has `Model(variant, ...)` and `VARIANTS`.

    Args:
      name: file name without ending, such as "convnext".

    Raises:
      InputError: there is no such backbone.
    """
    if name not in names():
        raise InputError(f"unknown model {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
