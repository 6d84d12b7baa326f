"""Backbones, heads and the embedder; backbones are looked up by the name of their file in `models.backbones`."""

import types

from retrieval_jax import pairs
from retrieval_jax.models import backbones


def names() -> list[str]:
    """Returns the names of all backbones."""
    return pairs.names(backbones)


def get(name: str) -> types.ModuleType:
    """Returns the module of a backbone, which has `Model(variant, ...)` and `VARIANTS`.

    Args:
      name: file name without extension, such as "convnext".

    Raises:
      InputError: there is no such backbone.
    """
    return pairs.module(backbones, name, "backbone (config.train.model.name)")
