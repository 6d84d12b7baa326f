"""Networks of text, looked up by the name of their file: token ids in, an embedding out."""

import sys
import types

from retrieval_jax import pairs

_NOT_NETWORKS = ("hugging_face",)


def names() -> list[str]:
    """Returns the names of all networks of text."""
    return [name for name in pairs.names(sys.modules[__name__]) if name not in _NOT_NETWORKS]


def get(name: str) -> types.ModuleType:
    """Returns the module of a network of text, which has `Model(vocabulary=..., dim=..., ...)`.

    Args:
      name: file name without extension, such as "bigru".

    Raises:
      InputError: there is no such network.
    """
    return pairs.module(sys.modules[__name__], name, "network of text (config.train.model.name)", names())
