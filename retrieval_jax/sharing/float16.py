"""Weights as floats of 16 bits: half of the file, rounded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def rounded(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors with those of float32 as float16, but for numbers that are too large for it.

    Args:
      tensors: {path: array}.
    """
    most = np.finfo(np.float16).max
    return {
        name: value.astype(np.float16) if value.dtype == np.float32 and (np.abs(value) <= most).all() else value
        for name, value in tensors.items()
    }


def restored(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors with those of float16 as float32; others as they are.

    Args:
      tensors: {path: array}.
    """
    return {name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in tensors.items()}
