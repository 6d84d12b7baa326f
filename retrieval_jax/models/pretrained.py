"""Published weights: timm's safetensors in and out of our backbones.

Every tensor of timm's models is exactly one of ours, so that a round trip is equal to the bit. What a backbone has to
say about it stands in its own file:

    TIMM        architecture, without tag -> the arguments of timm's constructor that define it, img_size among them
    from_timm   arguments of timm's constructor -> Model; its signature is the list of what is understood
    to_timm     Model -> those arguments
    TIMM_RULES  (regex over our path, replacement that gives timm's name, kind); the first that matches counts
    RESAMPLED   optional: regex over our path of the tables that follow the pictures' size
    resample    optional: (path, tensor, model, (height, width) of the file's pictures or None where it does not say)
                -> tensor for the model's size

Kinds: "same"; "linear", [in, out] here and [out, in] there; "conv", HWIO and OIHW; "depthwise", [k, k, C] and
[C, 1, k, k]; "pointwise", a linear layer that timm holds as a 1x1 convolution if `model.conv_mlp`. Rules are written
for layers one by one ("block3/attention/qkv/kernel"); scanned layers are taken apart before they are looked up. torch
is not needed and never imported.
"""

import dataclasses
import difflib
import functools
import inspect
import math
import pathlib
import re
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax
import safetensors.numpy

from retrieval_jax import models
from retrieval_jax.errors import InputError
from retrieval_jax.models import pixels
from retrieval_jax.models.timm import checkpoints as timm_checkpoints
from retrieval_jax.models.timm import files as timm_files
from retrieval_jax.models.timm.files import Info

# What a file may hold beside the backbone: classifiers, index tables that follow from the shapes, tokens of training.
LEFT_OUT = re.compile(
    r"head\.(fc\.)?(weight|bias)|head_dist\..*|(.*\.)?relative_position_index|(.*\.)?attn_mask|"
    r"mask_token|lm_head\..*"
)
# Arguments of timm's constructors that do not change what a trained network computes.
WITHOUT_EFFECT = (
    "num_classes",
    "drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "head_init_scale",
    "weight_init",
    "fix_init",
    "pretrained",
    "in_chans",
)
# Before the names of tensors that timm's models have not.
OURS = "retrieval_jax."


def architectures() -> dict[str, types.ModuleType]:
    """Returns {timm's name of an architecture, without tag: module of its backbone}."""
    modules = [models.get(name) for name in models.names()]
    return {name: module for module in modules for name in getattr(module, "TIMM", ())}


def _parts(timm_name: str) -> tuple[types.ModuleType, str, str]:
    """Returns (module of the backbone, architecture, tag; where none is given timm's default)."""
    name, _, tag = timm_name.removeprefix("timm/").partition(".")
    known = architectures()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5) or sorted(known)
        raise InputError(f"no backbone for timm's {name!r}; there are: {', '.join(near)}")
    return known[name], name, tag or timm_checkpoints.default_tag(name)


def _module(model) -> types.ModuleType:
    return sys.modules[type(model).__module__]


def _pair(size) -> tuple[int, int]:
    return (int(size[0]), int(size[1])) if isinstance(size, tuple | list) else (int(size), int(size))


def model(timm_name: str, path=None, **kwargs) -> Any:
    """Returns the backbone of one of timm's models, without weights.

    Args:
      timm_name: such as "convnext_xlarge.fb_in22k"; the tag does not matter here.
      path: as of `info`: what a config.json beside it says of the network counts before the architecture.
      **kwargs: arguments of timm's constructor that override the architecture's, with timm's meaning (`embed_dim`,
        `depths`, `img_size`, `global_pool` ...), and fields of our `Model` that timm does not have (`drop_path`,
        `dtype`, `remat`, `scan` ...).

    Raises:
      InputError: an unknown name (the message lists the near ones) or argument (it lists the known ones).
    """
    module, name, tag = _parts(timm_name)
    return _build(module, name, kwargs, _in_file(timm_files.find(name, tag, path, True)[1]) if path else None)


def _in_file(config: dict) -> dict:
    """Returns the arguments that a config.json says its file was made with."""
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in {**(config.get("model_args") or {}), **config.get("retrieval_jax", {})}.items()
        if key not in WITHOUT_EFFECT
    }


def _build(module: types.ModuleType, name: str, kwargs: dict, in_file: dict | None = None):
    """Returns the backbone of an architecture; arguments count before those that a file was made with."""
    known = list(inspect.signature(module.from_timm).parameters)
    own = [
        field.name
        for field in dataclasses.fields(module.Model)
        if field.name not in ("parent", "name", "variant", *known)
    ]
    # None leaves an argument at the architecture's value, as in timm.create_model.
    kwargs = {key: value for key, value in kwargs.items() if value is not None or key in own}
    kwargs = {**(in_file or {}), **kwargs}
    unknown = sorted(set(kwargs) - {*known, *own, *WITHOUT_EFFECT})
    if unknown:
        raise InputError(
            f"{name}: {', '.join(map(repr, unknown))} is not understood; of timm's arguments there are: "
            f"{', '.join(known)}; of ours: {', '.join(own)}"
        )
    if kwargs.get("in_chans", 3) != 3:
        raise InputError(f"{name}: in_chans={kwargs['in_chans']}, but pictures have 3 channels here")
    arguments = {key: value for key, value in {**module.TIMM[name], **kwargs}.items() if key in known}
    return module.from_timm(**arguments).clone(**{key: value for key, value in kwargs.items() if key in own})


def info(timm_name: str, path=None) -> Info:
    """Returns how pictures must look for published weights, and the weights' licence; downloads nothing.

    Args:
      timm_name: such as "vit_base_patch16_siglip_224.webli".
      path: safetensors file, or the folder that holds model.safetensors: a config.json beside it counts before what
        timm says of the name. None for the hub's.

    Raises:
      InputError: an unknown name or a missing file.
    """
    module, name, tag = _parts(timm_name)
    config = timm_files.find(name, tag, path, True)[1] if path else {}
    return timm_files.info(name, tag, config, _pair(module.TIMM[name].get("img_size", 224)))


# ---------------------------------------------------------------------------------------------------------------- maps


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a backbone and its counterpart.

    Attributes:
      timm: its name in timm, or our path after `OURS` where timm has no such tensor.
      path: ours, layers one by one.
      leaf: keys of the leaf that holds it, in the tree as it is.
      index: place in the leading axis of a scanned leaf, or None.
      kind: as in TIMM_RULES.
      shape: of the tensor, in our layout.
    """

    timm: str
    path: str
    leaf: tuple[str, ...]
    index: int | None
    kind: str
    shape: tuple[int, ...]


def entries(model, params) -> list[Entry]:
    """Returns every tensor of a backbone with its counterpart.

    Args:
      model: backbone.
      params: its parameters, or their shapes.
    """
    rules, found = _module(model).TIMM_RULES, []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        keys = tuple(str(getattr(key, "key", key)) for key in keys)
        stacked = re.fullmatch(r"((?:.*/)?[^/]*block)s(/.*)", "/".join(keys))
        layers = range(leaf.shape[0]) if stacked else (None,)
        for i in layers:
            path = f"{stacked[1]}{i}{stacked[2]}" if stacked else "/".join(keys)
            shape = tuple(leaf.shape[1:] if stacked else leaf.shape)
            matches = ((re.fullmatch(pattern, path), *rest) for pattern, *rest in rules)
            match, replacement, kind = next((m for m in matches if m[0]), (None, "", "same"))
            found.append(Entry(match.expand(replacement) if match else OURS + path, path, keys, i, kind, shape))
    return found


def timm_shape(entry: Entry, model) -> tuple[int, ...]:
    """Returns the shape of a tensor in timm's layout."""
    return _to_timm(entry, np.broadcast_to(np.float32(0), entry.shape), model).shape  # a zero: no memory


def _to_timm(entry: Entry, tensor: np.ndarray, model) -> np.ndarray:
    if entry.kind == "conv":
        return tensor.transpose(3, 2, 0, 1)
    if entry.kind == "depthwise":
        return tensor.transpose(2, 0, 1)[:, None]
    if entry.kind == "pointwise" and model.conv_mlp:
        return tensor.T[:, :, None, None]
    if entry.kind in ("linear", "pointwise"):
        return tensor.T
    if entry.kind == "same":
        return tensor
    raise ValueError(f"unknown kind of rule {entry.kind!r} for {entry.path}")


def _from_timm(entry: Entry, tensor: np.ndarray) -> np.ndarray | None:
    """Turns a tensor of timm's into our layout; None if it cannot be of this kind."""
    if entry.kind == "conv":
        return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else None
    if entry.kind == "depthwise":
        return tensor[:, 0].transpose(1, 2, 0) if tensor.ndim == 4 and tensor.shape[1] == 1 else None
    if entry.kind == "pointwise" and tensor.ndim == 4 and math.prod(tensor.shape[2:]) == 1:
        tensor = tensor[:, :, 0, 0]
    if entry.kind in ("linear", "pointwise"):
        return tensor.T if tensor.ndim == 2 else None
    return tensor


def _fitting(entry: Entry, tensor: np.ndarray, model, source_size) -> np.ndarray | None:
    """Returns a tensor of timm's as this backbone needs it, resampled where it may be; None if it does not fit."""
    module, tensor = _module(model), _from_timm(entry, tensor)
    if tensor is not None and re.fullmatch(getattr(module, "RESAMPLED", "(?!)"), entry.path):
        try:
            tensor = module.resample(entry.path, tensor, model, source_size)
        except (ValueError, IndexError):
            return None
    return tensor if tensor is not None and tensor.shape == entry.shape else None


def check(model, params, shapes: dict[str, tuple[int, ...]], source_size=(224, 224), source: str = "the file"):
    """Checks that a file's tensors are exactly the backbone's.

    Args:
      model: backbone.
      params: its parameters, or their shapes.
      shapes: {timm's name: shape} of the file's tensors.
      source_size: (height, width) of the pictures that the file was made for; None where it does not say.
      source: name of the file, for the message.

    Returns:
      (entries that are in the file, entries that only our models have and that are not in it, names in the file that
      are left out: classifiers and tables that follow from shapes).

    Raises:
      InputError: one message that lists every missing, surplus and mis-shaped tensor.
    """
    wanted, extra = entries(model, params), getattr(_module(model), "LEFT_OUT", {})
    fresh = [entry for entry in wanted if entry.timm.startswith(OURS) and entry.timm not in shapes]
    wanted = [entry for entry in wanted if entry not in fresh]
    names = {entry.timm for entry in wanted}
    left_out = [
        name
        for name in shapes
        if name not in names
        and (
            LEFT_OUT.fullmatch(name)
            or any(re.fullmatch(pattern, name) and without(model) for pattern, without in extra.items())
        )
    ]
    missing = [f"{entry.timm} {timm_shape(entry, model)}" for entry in wanted if entry.timm not in shapes]
    surplus = [f"{name} {tuple(shape)}" for name, shape in shapes.items() if name not in names | set(left_out)]
    wrong = []
    for entry in wanted:
        if entry.timm in shapes:
            nothing = np.broadcast_to(np.float32(0), shapes[entry.timm])
            if _fitting(entry, nothing, model, source_size) is None:
                wrong.append(f"{entry.timm} {tuple(shapes[entry.timm])}, not {timm_shape(entry, model)}")
    if missing or surplus or wrong:
        lists = ". ".join(
            f"{len(found)} {what}: {'; '.join(found)}"
            for what, found in (("missing", missing), ("surplus", surplus), ("of another shape", wrong))
            if found
        )
        raise InputError(
            f"{source} does not hold the weights of this model "
            f"({type(model).__module__.rpartition('.')[2]} {model.variant}). {lists}. "
            "Give the name and the arguments that the file was made with"
        )
    return wanted, fresh, left_out


# ------------------------------------------------------------------------------------------------------- load and save


def shapes_of(model, image_size) -> dict:
    """Returns the shapes of a backbone's parameters for pictures of a size (height, width); allocates nothing."""
    images = jax.ShapeDtypeStruct((1, *_pair(image_size), 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def load(timm_name: str, path=None, *, offline: bool = False, dtype: Any = jnp.float32, **timm_kwargs):
    """Loads published weights into one of our backbones, and prints their licence.

    `model.apply({"params": params}, images)["embedding"]` is then what timm's
    `forward_head(forward_features(images), pre_logits=True)` gives for normalised pictures [B, H, W, 3]. Classifiers in
    the file are left out. Tables of positions are resampled if `img_size` is not the file's, as timm does.

    Args:
      timm_name: architecture and tag, such as "swin_large_patch4_window12_384.ms_in22k"; without a tag timm's default.
      path: safetensors file, or a folder with model.safetensors; a config.json beside it is read too. None for the
        repository "timm/<timm_name>" of the hub, downloaded once and cached.
      offline: whether only the cache is looked at.
      dtype: type of the computation; parameters are float32 whatever the file holds.
      **timm_kwargs: as of `model`.

    Returns:
      (model, params: nested dict of float32 NumPy arrays).

    Raises:
      InputError: unknown name or argument, no file, no network, or a file that is not this model's: one message lists
        every missing, surplus and mis-shaped tensor.
    """
    module, name, tag = _parts(timm_name)
    file, config = timm_files.find(name, tag, path, offline)
    in_file = _in_file(config)
    built = _build(module, name, {**timm_kwargs, "dtype": dtype}, in_file)
    about = timm_files.info(name, tag, config, _pair(module.TIMM[name].get("img_size", 224)))
    # Without config.json a table that has as many positions as are wanted is taken as it is, as timm does.
    source_size = _pair(in_file.get("img_size") or about.input_size) if config else None
    image_size = _pair(
        timm_kwargs.get("img_size") or in_file.get("img_size") or module.TIMM[name].get("img_size") or about.input_size
    )
    abstract = shapes_of(built, image_size)
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}
        wanted, fresh, left_out = check(built, abstract, shapes, source_size, str(file))
        tensors = _read(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}): download it again") from error

    layers = {}
    for entry in wanted:
        tensor = np.asarray(tensors.pop(entry.timm), np.float32)
        layers.setdefault(entry.leaf, []).append(_fitting(entry, tensor, built, source_size))
    if fresh:  # ours alone, such as the exponent of GeM: as in a fresh model
        for entry, tensor in zip(fresh, _fresh(built, fresh, image_size), strict=True):
            layers.setdefault(entry.leaf, []).append(np.asarray(tensor))
    params = {}
    stacked = {entry.leaf for entry in wanted + fresh if entry.index is not None}
    for keys, tensors in layers.items():
        node = params
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = np.stack(tensors) if keys in stacked else np.array(tensors[0], order="C")
    named = (("left out", left_out), ("not in the file, fresh", [entry.path for entry in fresh]))
    notes = [
        f"{what}: {', '.join(found[:4])}{f' and {len(found) - 4} more' if len(found) > 4 else ''}"
        for what, found in named
        if found
    ]
    print(
        "; ".join(
            [
                f"pretrained: {timm_name}, {len(wanted)} tensors of {file}",
                f"licence of the weights: {about.licence or 'not known, ask the publisher'}",
                *notes,
            ]
        ),
        flush=True,
    )
    return built, params


def _fresh(model, wanted: list[Entry], image_size: tuple[int, int]) -> list[jax.Array]:
    """Returns tensors as a fresh model has them; only these are computed."""

    def init(key, images):
        params = model.init(key, images)["params"]
        leaves = [functools.reduce(dict.__getitem__, entry.leaf, params) for entry in wanted]
        return [leaf if entry.index is None else leaf[entry.index] for entry, leaf in zip(wanted, leaves, strict=True)]

    # Small pictures, on whose size none of them depends; an argument, because XLA would compute with a constant while
    # it compiles.
    small = jnp.zeros((1, *(min(side, 64) for side in image_size), 3))
    return jax.jit(init)(jax.random.key(0), small)


def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(file)
    except (KeyError, TypeError, AttributeError):  # types that NumPy has not, such as bfloat16
        return safetensors.flax.load_file(file)


def save(model, params, path, *, timm_name: str = "", about: Info | None = None) -> None:
    """Writes a backbone's parameters under timm's names, and a config.json beside them.

    Where the backbone is one that timm can build, `timm.create_model("local-dir:FOLDER")` reads both (the file is then
    to be called model.safetensors). Parameters that timm has not, such as GeM's exponent, are written too, after
    "retrieval_jax."; such a file is for `load` alone.

    Args:
      model: backbone.
      params: its parameters, without heads.
      path: safetensors file to write.
      timm_name: architecture that config.json names; "" for the one most like this backbone.
      about: what config.json says of the pictures and the licence; None for what is known of `timm_name`, and without
        one for the statistics that networks trained here expect.

    Raises:
      InputError: the parameters are not this backbone's.
    """
    module, path = _module(model), pathlib.Path(path)
    arguments = module.to_timm(model)
    name = timm_name or max(
        module.TIMM, key=lambda name: sum(arguments.get(key) == value for key, value in module.TIMM[name].items())
    )
    name = _parts(name)[1]
    if about is None:
        size = _pair(arguments.get("img_size") or 224)
        about = info(timm_name) if timm_name else Info(pixels.MEAN, pixels.STD, "bilinear", 1.0, size, "")
    if "img_size" in arguments and not arguments["img_size"]:  # timm cannot leave it open
        arguments["img_size"] = tuple(about.input_size)
    tensors = {}
    for entry in entries(model, params):
        tensor = params
        for key in entry.leaf:
            tensor = tensor[key]
        tensor = np.asarray(tensor if entry.index is None else tensor[entry.index])
        tensors[entry.timm] = np.array(_to_timm(entry, tensor, model), order="C")
    check(
        model,
        shapes_of(model, about.input_size if not arguments.get("img_size") else arguments["img_size"]),
        {key: tensor.shape for key, tensor in tensors.items()},
        about.input_size,
        "what is to be saved",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    # What timm's arguments cannot tell: no fields that they have too, nor those that change them, such as a size that
    # is None here because it is the variant's.
    rebuilt, known = module.from_timm(**arguments), inspect.signature(module.from_timm).parameters
    ours = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in ("parent", "name", "variant", "drop_path", "dtype", "remat", "scan", *known)
        and getattr(model, field.name) != getattr(rebuilt, field.name)
        and module.to_timm(rebuilt.clone(**{field.name: getattr(model, field.name)})) == module.to_timm(rebuilt)
    }
    timm_files.write_config(path, name, arguments, ours, about)
