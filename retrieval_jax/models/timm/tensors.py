"""Matches the tensors of a backbone with those of timm's weight files: names, layouts, shapes, resampling.

A backbone's file defines the mapping; `models.pretrained` documents what such a file contains.
"""

import collections
import dataclasses
import math
import os
import re
import sys
import types

import jax
import numpy as np

from retrieval_jax.errors import InputError

# Tensors of a file that a backbone does not need: classifiers, index tables derived from shapes, training-only tokens.
LEFT_OUT = re.compile(
    r"head\.(fc\.)?(weight|bias)|head_dist\..*|(.*\.)?relative_position_index|(.*\.)?attn_mask|"
    r"mask_token|lm_head\..*|classifier\..*|(.*\.)?num_batches_tracked"
)
# Prefix of tensors that timm's models do not have.
OURS = "retrieval_jax."


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a backbone and its counterpart in timm.

    Attributes:
      timm: its name in timm, or `OURS` followed by our path if timm has no such tensor.
      path: our path, with unscanned layers.
      leaf: keys of the leaf that holds it in the parameter tree.
      index: index along the leading axis of a scanned leaf, or None.
      kind: as in TIMM_RULES.
      shape: shape of the tensor in our layout.
      norm: timm's name of the batch norm that is folded into it, or "".
    """

    timm: str
    path: str
    leaf: tuple[str, ...]
    index: int | None
    kind: str
    shape: tuple[int, ...]
    norm: str = ""


def module_of(model) -> types.ModuleType:
    """Returns the module that defines a backbone."""
    return sys.modules[type(model).__module__]


def entries(model, params) -> list[Entry]:
    """Returns every tensor of a backbone with its counterpart in timm.

    Args:
      model: backbone.
      params: its parameters, or their shapes.
    """
    rules, found = module_of(model).TIMM_RULES, []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        keys = tuple(str(getattr(key, "key", key)) for key in keys)
        stacked = re.fullmatch(r"((?:.*/)?[^/]*block)s(/.*)", "/".join(keys))
        layers = range(leaf.shape[0]) if stacked else (None,)
        for i in layers:
            path = f"{stacked[1]}{i}{stacked[2]}" if stacked else "/".join(keys)
            shape = tuple(leaf.shape[1:] if stacked else leaf.shape)
            matches = ((re.fullmatch(pattern, path), *rest) for pattern, *rest in rules)
            match, replacement, kind, *norm = next((m for m in matches if m[0]), (None, "", "same"))
            name, norm = match.expand(replacement) if match else OURS + path, match.expand(norm[0]) if norm else ""
            found.append(Entry(name, path, keys, i, kind, shape, norm))
    return found


def timm_shape(entry: Entry, model) -> tuple[int, ...]:
    """Returns the shape of a tensor in timm's layout."""
    return to_timm(entry, np.broadcast_to(np.float32(0), entry.shape), model).shape  # a broadcast zero: no memory


def timm_shapes(model, params) -> dict[str, tuple[int, ...]]:
    """Returns {timm's name: shape} of all tensors of a backbone, those of folded batch norms included.

    Args:
      model: backbone.
      params: its parameters, or their shapes.
    """
    found = {}
    for entry in entries(model, params):
        found[entry.timm] = timm_shape(entry, model)
        found |= {name: entry.shape[-1:] for name in _of_norm(entry)}
    return found


def _of_norm(entry: Entry) -> list[str]:
    """Returns timm's names of the tensors of the batch norm that is folded into an entry, its bias included."""
    return [f"{entry.norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var")] if entry.norm else []


def fold(entry: Entry, tensor: np.ndarray, model, read) -> np.ndarray:
    """Folds a batch norm into the kernel before it, or into its bias; exact up to the rounding to float32.

    Args:
      entry: the backbone's tensor; without a batch norm the tensor is returned unchanged.
      tensor: kernel, or the norm's own bias, in our layout.
      model: backbone; its `epsilon` is that of its norms.
      read: timm's name -> tensor of the file.
    """
    if not entry.norm:
        return tensor
    scale, _, mean, variance = (np.asarray(read(name), np.float64) for name in _of_norm(entry))
    scale = scale / np.sqrt(variance + model.epsilon)
    return (tensor - mean * scale if entry.timm == f"{entry.norm}.bias" else tensor * scale).astype(np.float32)


def unfolded(entry: Entry, model) -> dict[str, np.ndarray]:
    """Returns what timm needs beside a kernel and bias that a batch norm was folded into: a norm that changes nothing.

    Args:
      entry: the backbone's tensor.
      model: backbone.

    Returns:
      {timm's name: tensor}, empty for an entry without a norm; `fold` then gives back the same bits.
    """
    values = {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - model.epsilon} if entry.norm else {}
    return {f"{entry.norm}.{name}": np.full(entry.shape[-1:], value, np.float32) for name, value in values.items()}


def to_timm(entry: Entry, tensor: np.ndarray, model) -> np.ndarray:
    """Converts a tensor from our layout to timm's."""
    if entry.kind == "conv":
        return tensor.transpose(3, 2, 0, 1)
    if entry.kind == "depthwise":
        return tensor.transpose(2, 0, 1)[:, None]
    if entry.kind == "1x1" or (entry.kind == "pointwise" and model.conv_mlp):
        return tensor.T[:, :, None, None]
    if entry.kind in ("linear", "pointwise"):
        return tensor.T
    if entry.kind == "same":
        return tensor
    raise ValueError(f"unknown kind of rule {entry.kind!r} for {entry.path}")


def _from_timm(entry: Entry, tensor: np.ndarray) -> np.ndarray | None:
    """Converts a tensor from timm's layout to ours; None if it cannot be of this kind."""
    if entry.kind == "conv":
        return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else None
    if entry.kind == "depthwise":
        return tensor[:, 0].transpose(1, 2, 0) if tensor.ndim == 4 and tensor.shape[1] == 1 else None
    if entry.kind in ("pointwise", "1x1") and tensor.ndim == 4 and math.prod(tensor.shape[2:]) == 1:
        tensor = tensor[:, :, 0, 0]
    if entry.kind in ("linear", "pointwise", "1x1"):
        return tensor.T if tensor.ndim == 2 else None
    return tensor


def fitting(entry: Entry, tensor: np.ndarray, model, source_size) -> np.ndarray | None:
    """Converts a tensor of a file for a backbone, resampling it if allowed; None if it does not fit.

    Args:
      entry: the backbone's tensor.
      tensor: the file's tensor, in timm's layout.
      model: backbone.
      source_size: (height, width) of the pictures that the file was made for, or None if unknown.
    """
    module, tensor = module_of(model), _from_timm(entry, tensor)
    if tensor is not None and re.fullmatch(getattr(module, "RESAMPLED", "(?!)"), entry.path):
        try:
            tensor = module.resample(entry.path, tensor, model, source_size)
        except (ValueError, IndexError):
            return None
    return tensor if tensor is not None and tensor.shape == entry.shape else None


def prefix_of(model, params, names, source: str) -> str:
    """Returns what the names of a file have before those of a backbone, such as "module.model.", or "".

    Training code wraps networks ("model.", "module.", "student.backbone."), and files of several networks name each
    ("visual.", "text."). The prefix is the one behind which most tensors of the backbone are found, and at least half.

    Args:
      model: backbone.
      params: its parameters, or their shapes.
      names: of the file's tensors.
      source: name of the file, for the message.

    Raises:
      InputError: the file holds the backbone under several prefixes.
    """
    wanted, found = timm_shapes(model, params), collections.Counter()
    for name in names:
        for at in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            if name[at:] in wanted:
                found[name[:at]] += 1
    most = max(found.values(), default=0)
    best = sorted(prefix for prefix, count in found.items() if count == most)
    if 2 * most < len(wanted) or "" in best:
        return ""
    if len(best) > 1:
        raise InputError(
            f"{source} holds this model {len(best)} times, under {' and '.join(map(repr, best))}: copy the tensors "
            "that you mean to a safetensors file of their own"
        )
    return best[0]


def check(model, params, shapes: dict[str, tuple[int, ...]], source_size=(224, 224), source: str = "the file"):
    """Checks that the tensors of a file are exactly those of a backbone.

    Args:
      model: backbone.
      params: its parameters, or their shapes.
      shapes: {timm's name: shape} of the file's tensors.
      source_size: (height, width) of the pictures that the file was made for, or None if unknown.
      source: name of the file, for the message.

    Returns:
      (entries found in the file, entries that only our models have and the file lacks, names in the file that are left
      out: classifiers and tables derived from shapes).

    Raises:
      InputError: one message that lists every missing, unexpected and mis-shaped tensor.
    """
    wanted, extra = entries(model, params), getattr(module_of(model), "LEFT_OUT", {})
    fresh = [entry for entry in wanted if entry.timm.startswith(OURS) and entry.timm not in shapes]
    wanted = [entry for entry in wanted if entry not in fresh]
    norms = {name: entry.shape[-1:] for entry in wanted for name in _of_norm(entry)}
    names = {entry.timm for entry in wanted} | norms.keys()
    left_out = [
        name
        for name in shapes
        if name not in names
        and (
            LEFT_OUT.fullmatch(name)
            or any(re.fullmatch(pattern, name) and without(model) for pattern, without in extra.items())
        )
    ]
    expected = {entry.timm: timm_shape(entry, model) for entry in wanted} | norms
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in shapes]
    surplus = [f"{name} {tuple(shape)}" for name, shape in shapes.items() if name not in names | set(left_out)]
    wrong = []
    for entry in wanted:
        if entry.timm in shapes:
            nothing = np.broadcast_to(np.float32(0), shapes[entry.timm])
            if fitting(entry, nothing, model, source_size) is None:
                wrong.append(f"{entry.timm} {tuple(shapes[entry.timm])}, expected {timm_shape(entry, model)}")
    wrong += [
        f"{name} {tuple(shapes[name])}, expected {shape}"
        for name, shape in norms.items()
        if name in shapes and tuple(shapes[name]) != shape and not any(entry.timm == name for entry in wanted)
    ]
    if missing or surplus or wrong:
        lists = ". ".join(
            f"{len(found)} {what}: {'; '.join(found)}"
            for what, found in (("missing", missing), ("unexpected", surplus), ("with another shape", wrong))
            if found
        )
        common = os.path.commonprefix(list(shapes)).rpartition(".")[0] if len(shapes) > 1 else ""
        common = f" All names in the file begin with '{common}.'." if common else ""
        raise InputError(
            f"{source} does not hold the weights of this model "
            f"({type(model).__module__.rpartition('.')[2]} {model.variant}). {lists}.{common} "
            "Give the name and the arguments that the file was made with"
        )
    return wanted, fresh, left_out
