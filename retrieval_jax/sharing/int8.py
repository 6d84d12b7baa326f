"""Weights as whole numbers of eight bits, with a scale per output: a quarter of the file, rounded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retrieval_jax.errors import InputError

_SCALE = ":scale"  # after the name of a tensor; names of parameters have no colon
_LEAST = 256  # numbers of a tensor: smaller ones, biases and norms stay as they are


def rounded(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors with the large matrices and kernels as int8, and their scales beside them.

    Symmetric, the largest number of each output (the last dimension) is 127. Of stacked layers, whose first dimension
    counts them ([layers, in, out], [layers, h, w, in, out]), each has scales of its own.

    Args:
      tensors: {path: array}.
    """
    out = {}
    for name, value in tensors.items():
        if value.ndim < 2 or value.size < _LEAST or not np.issubdtype(value.dtype, np.floating):
            out[name] = value
            continue
        axes = tuple(range(value.ndim % 2 if value.ndim > 2 else 0, value.ndim - 1))
        scale = np.abs(value).max(axes, keepdims=True).astype(np.float32) / 127
        whole = np.rint(np.divide(value, scale, out=np.zeros(value.shape, np.float32), where=scale > 0))
        out[name], out[name + _SCALE] = whole.astype(np.int8), scale
    return out


def restored(tensors: Mapping[str, np.ndarray], file) -> dict[str, np.ndarray]:
    """Returns tensors as float32 where `rounded` made whole numbers of them; others as they are.

    Args:
      tensors: {path: array}.
      file: they are from, for messages.

    Raises:
      InputError: a scale that does not fit its tensor.
    """
    out = {}
    for name, value in tensors.items():
        if name.endswith(_SCALE):
            if tensors.get(name.removesuffix(_SCALE), np.zeros(0)).dtype != np.int8:
                raise InputError(f"{file}: {name!r} is the scale of no tensor: copy the folder, or export, again")
        elif value.dtype != np.int8:
            out[name] = value
        else:
            scale = tensors.get(name + _SCALE)
            fits = scale is not None and scale.dtype == np.float32 and scale.ndim == value.ndim
            if not fits or any(one not in (1, side) for one, side in zip(scale.shape, value.shape, strict=True)):
                raise InputError(f"{file}: the scale of {name!r} does not fit it: copy the folder, or export, again")
            out[name] = value.astype(np.float32) * scale
    return out
