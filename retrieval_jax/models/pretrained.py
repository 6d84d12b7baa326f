"""Published weights: loads timm's safetensors into our backbones, and saves ours for timm.

Each tensor of timm's models corresponds to exactly one of ours, so a round trip is exact to the bit. Batch norms are
the exception: each is folded into the convolution before it, and saved as one that changes nothing. The file of a
backbone defines the mapping:

    TIMM        architecture, without tag -> the arguments of timm's constructor that define it, including img_size
    from_timm   arguments of timm's constructor -> Model; its signature lists the supported arguments
    to_timm     Model -> those arguments
    TIMM_RULES  (regex over our path, replacement that gives timm's name, kind); the first match applies. A fourth part
                gives the name of the batch norm that is folded into this kernel or bias
    IMPLIED     optional: arguments of from_timm that timm's functions set themselves and do not take
    LEFT_OUT    optional: {regex over timm's name: model -> whether the model does not need that tensor}
    RESAMPLED   optional: regex over our paths of tables that depend on the picture size
    resample    optional: (path, tensor, model, (height, width) of the file's pictures or None if unknown)
                -> tensor for the model's size

Kinds: "same"; "linear", [in, out] here and [out, in] there; "conv", HWIO and OIHW; "depthwise", [k, k, C] and
[C, 1, k, k]; "1x1", a linear layer that timm stores as a 1x1 convolution; "pointwise", one that it stores so if
`model.conv_mlp`. Rules apply to single layers ("block3/attention/qkv/kernel"); scanned layers are unstacked first.
torch is never imported.
"""

import dataclasses
import difflib
import functools
import inspect
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax
import safetensors.numpy

from retrieval_jax import models
from retrieval_jax.errors import InputError, naming
from retrieval_jax.files import atomic
from retrieval_jax.models import pixels
from retrieval_jax.models.timm import checkpoints as timm_checkpoints
from retrieval_jax.models.timm import files as timm_files
from retrieval_jax.models.timm import tensors as timm_tensors
from retrieval_jax.models.timm.files import Info
from retrieval_jax.pairs import near

# Arguments of timm's constructors that do not change the output of a trained network.
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


def architectures() -> dict[str, types.ModuleType]:
    """Returns {timm's name of an architecture, without tag: module of the backbone}."""
    modules = [models.get(name) for name in models.names()]
    return {name: module for module in modules for name in getattr(module, "TIMM", ())}


def _parts(timm_name: str) -> tuple[types.ModuleType, str, str]:
    """Returns (module of the backbone, architecture, tag, by default timm's default)."""
    name, _, tag = timm_name.removeprefix("timm/").partition(".")
    known = architectures()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=5)  # the full list has hundreds of names
        hint = f"did you mean {', '.join(close)}?" if close else f"available: {', '.join(sorted(known))}"
        raise InputError(f"no backbone for timm's {name!r}; {hint}")
    return known[name], name, tag or timm_checkpoints.default_tag(name)


def check(timm_name: str, path, offline: bool) -> None:
    """Checks that the weights of a model can be had, without downloading or reading them.

    Args:
      timm_name: such as "convnext_tiny.fb_in22k".
      path: a local file or folder, "" or None for the hub.
      offline: whether only the hub's local cache may be used.

    Raises:
      InputError: no such model, no such file, or the hub does not have it or cannot be reached.
    """
    _, name, tag = _parts(timm_name)
    timm_files.check(name, tag, path or None, offline)


def _pair(size) -> tuple[int, int]:
    return (int(size[0]), int(size[1])) if isinstance(size, tuple | list) else (int(size), int(size))


def model(timm_name: str, path=None, **kwargs) -> Any:
    """Builds the backbone of one of timm's models, without weights.

    Args:
      timm_name: such as "convnext_xlarge.fb_in22k"; the tag is ignored here.
      path: as in `info`; a config.json beside it takes precedence over the architecture.
      **kwargs: arguments of timm's constructor that override the architecture's, with timm's meaning (`embed_dim`,
        `depths`, `img_size`, `global_pool`, ...), and fields of our `Model` that timm does not have (`drop_path`,
        `dtype`, `remat`, `scan`, ...).

    Raises:
      InputError: an unknown name or argument; the message lists near or known ones.
    """
    module, name, tag = _parts(timm_name)
    return _build(module, name, kwargs, _in_file(timm_files.find(name, tag, path, True)[1]) if path else None)


def _in_file(config: dict) -> dict:
    """Returns the constructor arguments that a config.json records for its file."""
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in {**(config.get("model_args") or {}), **config.get("retrieval_jax", {})}.items()
        if key not in WITHOUT_EFFECT
    }


def _build(module: types.ModuleType, name: str, kwargs: dict, in_file: dict | None = None):
    """Builds the backbone of an architecture; kwargs take precedence over the arguments recorded with a file."""
    known = list(inspect.signature(module.from_timm).parameters)
    own = [
        field.name
        for field in dataclasses.fields(module.Model)
        if field.name not in ("parent", "name", "variant", *known)
    ]
    # None keeps the architecture's value, as in timm.create_model.
    kwargs = {key: value for key, value in kwargs.items() if value is not None or key in own}
    kwargs = {**(in_file or {}), **kwargs}
    unknown = sorted(set(kwargs) - {*known, *own, *WITHOUT_EFFECT})
    if unknown:
        hint = near(unknown[0], [*known, *own])
        raise InputError(f"{name}: unknown argument {', '.join(map(repr, unknown))}{hint}")
    if kwargs.get("in_chans", 3) != 3:
        raise InputError(f"{name}: in_chans={kwargs['in_chans']}, but pictures have 3 channels here; leave it out")
    arguments = {key: value for key, value in {**module.TIMM[name], **kwargs}.items() if key in known}
    return module.from_timm(**arguments).clone(**{key: value for key, value in kwargs.items() if key in own})


def info(timm_name: str, path=None) -> Info:
    """Returns how to prepare pictures for published weights, and the weights' licence; downloads nothing.

    Args:
      timm_name: such as "vit_base_patch16_siglip_224.webli".
      path: safetensors file, or a folder with model.safetensors; a config.json beside it takes precedence over timm's
        own table. None for the hub.

    Raises:
      InputError: an unknown name or a missing file.
    """
    module, name, tag = _parts(timm_name)
    config = timm_files.find(name, tag, path, True)[1] if path else {}
    return timm_files.info(name, tag, config, _pair(module.TIMM[name].get("img_size", 224)))


# ------------------------------------------------------------------------------------------------------- load and save


def shapes_of(model, image_size) -> dict:
    """Returns the shapes of a backbone's parameters for pictures of (height, width); allocates nothing."""
    images = jax.ShapeDtypeStruct((1, *_pair(image_size), 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def load(timm_name: str, path=None, *, offline: bool = False, dtype: Any = jnp.float32, **timm_kwargs):
    """Loads published weights into one of our backbones and prints their licence.

    `model.apply({"params": params}, images)["embedding"]` then equals timm's
    `forward_head(forward_features(images), pre_logits=True)` for normalised pictures [B, H, W, 3]. Classifiers in the
    file are ignored, and so is a prefix of the names, such as "module.". Position tables are resampled if `img_size`
    differs from the file's, as in timm.

    Args:
      timm_name: architecture and tag, such as "swin_large_patch4_window12_384.ms_in22k"; the tag defaults to timm's.
      path: safetensors file, or a folder with model.safetensors; a config.json beside it is read too. None for the
        repository "timm/<timm_name>" of the hub, downloaded once and cached.
      offline: use only the cache.
      dtype: type of the computation; parameters are float32 whatever the file's type.
      **timm_kwargs: as in `model`.

    Returns:
      (model, params: nested dict of float32 NumPy arrays).

    Raises:
      InputError: unknown name or argument, no file, no network, or a file of another model; one message lists every
        missing, unexpected and mis-shaped tensor.
    """
    module, name, tag = _parts(timm_name)
    file, config = timm_files.find(name, tag, path, offline)
    in_file = _in_file(config)
    built = _build(module, name, {**timm_kwargs, "dtype": dtype}, in_file)
    about = timm_files.info(name, tag, config, _pair(module.TIMM[name].get("img_size", 224)))
    # Without config.json a table with the wanted number of positions is used unchanged, as in timm.
    source_size = _pair(in_file.get("img_size") or about.input_size) if config else None
    image_size = _pair(
        timm_kwargs.get("img_size") or in_file.get("img_size") or module.TIMM[name].get("img_size") or about.input_size
    )
    abstract = shapes_of(built, image_size)
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}
        prefix = timm_tensors.prefix_of(built, abstract, shapes, str(file))
        outside = [key for key in shapes if not key.startswith(prefix)]
        shapes = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        wanted, fresh, left_out = timm_tensors.check(
            built, abstract, shapes, source_size, f"{file}, behind the prefix {prefix!r}," if prefix else str(file)
        )
        tensors = _read(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}); download it again") from error

    layers = {}
    for entry in wanted:
        tensor = np.asarray(tensors[prefix + entry.timm], np.float32)
        tensor = timm_tensors.fitting(entry, tensor, built, source_size)
        tensor = timm_tensors.fold(entry, tensor, built, lambda name: tensors[prefix + name])
        layers.setdefault(entry.leaf, []).append(tensor)
        if not entry.norm:
            del tensors[prefix + entry.timm]
    if fresh:  # only in our models, such as the exponent of GeM: initialised
        for entry, tensor in zip(fresh, _fresh(built, fresh, image_size), strict=True):
            layers.setdefault(entry.leaf, []).append(np.asarray(tensor))
    params = {}
    stacked = {entry.leaf for entry in wanted + fresh if entry.index is not None}
    for keys, tensors in layers.items():
        node = params
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = np.stack(tensors) if keys in stacked else np.array(tensors[0], order="C")
    named = (("ignored", left_out + outside), ("not in the file, initialised", [entry.path for entry in fresh]))
    notes = [
        f"{what}: {', '.join(found[:4])}{f' and {len(found) - 4} more' if len(found) > 4 else ''}"
        for what, found in named
        if found
    ]
    print(
        "; ".join(
            [
                f"pretrained: {timm_name}, {len(wanted)} tensors from {file}"
                + (f", where their names begin with {prefix!r}" if prefix else ""),
                f"licence of the weights: {about.licence or 'unknown, ask the publisher'}",
                *notes,
            ]
        ),
        flush=True,
    )
    return built, params


def _fresh(model, wanted: list[timm_tensors.Entry], image_size: tuple[int, int]) -> list[jax.Array]:
    """Returns the initial values of some tensors; the others are not computed."""

    def init(key, images):
        params = model.init(key, images)["params"]
        leaves = [functools.reduce(dict.__getitem__, entry.leaf, params) for entry in wanted]
        return [leaf if entry.index is None else leaf[entry.index] for entry, leaf in zip(wanted, leaves, strict=True)]

    # None of them depends on the picture size, so the pictures are small. They are an argument because XLA would fold a
    # constant at compile time.
    small = jnp.zeros((1, *(min(side, 64) for side in image_size), 3))
    return jax.jit(init)(jax.random.key(0), small)


def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(file)
    except (KeyError, TypeError, AttributeError):  # types that NumPy lacks, such as bfloat16
        return safetensors.flax.load_file(file)


def save(model, params, path, *, timm_name: str = "", about: Info | None = None) -> None:
    """Writes a backbone's parameters under timm's names, and a config.json beside them.

    If timm can build the backbone and the file is called model.safetensors, `timm.create_model("local-dir:FOLDER")`
    reads both. Parameters that timm lacks, such as GeM's exponent, are written too, with the prefix "retrieval_jax.";
    only `load` can read such a file.

    Args:
      model: backbone.
      params: its parameters, without heads.
      path: safetensors file to write.
      timm_name: architecture for config.json; "" for the one most similar to this backbone.
      about: picture preparation and licence for config.json; None for those of `timm_name` or, without a name, the
        statistics that networks trained here expect.

    Raises:
      InputError: the parameters do not belong to this backbone.
    """
    module, path = timm_tensors.module_of(model), pathlib.Path(path)
    arguments = module.to_timm(model)
    name = timm_name or max(
        module.TIMM, key=lambda name: sum(arguments.get(key) == value for key, value in module.TIMM[name].items())
    )
    name = _parts(name)[1]
    if about is None:
        size = _pair(arguments.get("img_size") or 224)
        about = info(timm_name) if timm_name else Info(pixels.MEAN, pixels.STD, "bilinear", 1.0, size, "")
    if "img_size" in arguments and not arguments["img_size"]:  # timm requires a size
        arguments["img_size"] = tuple(about.input_size)
    tensors = {}
    for entry in timm_tensors.entries(model, params):
        tensor = params
        for key in entry.leaf:
            tensor = tensor[key]
        tensor = np.asarray(tensor if entry.index is None else tensor[entry.index])
        tensors[entry.timm] = np.array(timm_tensors.to_timm(entry, tensor, model), order="C")
        tensors |= timm_tensors.unfolded(entry, model)
    timm_tensors.check(
        model,
        shapes_of(model, about.input_size if not arguments.get("img_size") else arguments["img_size"]),
        {key: tensor.shape for key, tensor in tensors.items()},
        about.input_size,
        "the tree of parameters to save",
    )
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.written(path) as new:
        safetensors.numpy.save_file(tensors, new, metadata={"format": "pt"})
    # Fields that timm's arguments cannot express: neither fields that they have too, nor fields that change them, such
    # as a size that is None here because the variant defines it.
    rebuilt, known = module.from_timm(**arguments), inspect.signature(module.from_timm).parameters
    ours = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in ("parent", "name", "variant", "drop_path", "dtype", "remat", "scan", *known)
        and getattr(model, field.name) != getattr(rebuilt, field.name)
        and module.to_timm(rebuilt.clone(**{field.name: getattr(model, field.name)})) == module.to_timm(rebuilt)
    }
    implied = [key for key in getattr(module, "IMPLIED", ()) if arguments[key] == module.TIMM[name][key]]
    arguments = {key: value for key, value in arguments.items() if key not in implied}
    timm_files.write_config(path, name, arguments, ours, about)
