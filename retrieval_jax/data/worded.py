"""Pictures with words beside them ("the same, but in red"): how runs and exported models check and mix the two."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError


def listed(values: Any) -> Any:
    """Returns the rows of an input: a text, a path or a picture that was given by itself becomes a list of one.

    Args:
      values: a text, a path, uint8 [h, w, 3], or several of them in a list, array or column, which stay as they are.
    """
    alone = isinstance(values, str | os.PathLike)
    picture = isinstance(values, np.ndarray) and values.ndim == 3 and values.dtype == np.uint8 and values.shape[2] == 3
    return [values] if alone or picture else values


def given(pictures: Any, words: str | Iterable[str], weight: float) -> tuple[list, list[str], np.float32]:
    """Returns pictures, their words and the weight of the words, checked.

    Args:
      pictures: n of them, or one by itself, see `listed`.
      words: n texts, or one by itself.
      weight: of the words, from 0.

    Raises:
      InputError: no picture, another number of texts, or a weight below 0.
    """
    pictures, words = list(listed(pictures)), list(listed(words))
    if not pictures or len(pictures) != len(words):
        raise InputError(f"{len(pictures)} pictures and {len(words)} texts: give one text per picture, or ''")
    if strange := [row for row, text in enumerate(words) if not isinstance(text, str)]:
        raise InputError(
            f"the words of picture {strange[0]} are {type(words[strange[0]]).__name__}: give a text, or ''"
        )
    return pictures, words, np.float32(arguments.number(weight, "weight", "embed", low=0))


def mixed(out: Mapping[str, np.ndarray], weight: np.float32) -> np.ndarray:
    """Returns unit vectors float32 [n, D] of pictures with words.

    Args:
      out: of "embed_edit": "reference" [n, D], the pictures' own vectors, and "embedding" [n, D], those with words.
      weight: of the words: 0 gives the reference, 1 the embedding.
    """
    found = out["reference"] + weight * (out["embedding"] - out["reference"])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
