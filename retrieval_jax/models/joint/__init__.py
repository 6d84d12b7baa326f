"""Joint networks, looked up by the name of their file: a picture's vector and words in, one vector of the query out.

Each has `Model(dim=..., ...)`, called with

    picture  float32 [B, D], unit vectors of pictures
    words    float32 [B, E], the embedding of the words
    states   float32 [B, L, W], the states of their tokens
    mask     bool [B, L], True for tokens of a text

and returns float32 [B, dim], in the space of the pictures, of any length.
"""

import sys
import types

from retrieval_jax import pairs


def get(name: str) -> types.ModuleType:
    """Returns the module of a joint network, which has `Model(dim=..., ...)`.

    Args:
      name: file name without extension, such as "residual".

    Raises:
      InputError: there is no such network.
    """
    return pairs.module(sys.modules[__name__], name, "joint network (config.train.task_kwargs.joint)")
