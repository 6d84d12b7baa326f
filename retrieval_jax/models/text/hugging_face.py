"""Weights of Hugging Face's RoBERTa, BERT and MiniLM, from safetensors into our transformer and back.

    module, params = hugging_face.load(path="all-MiniLM-L6-v2")       # a folder with config.json and model.safetensors
    module.apply({"params": params}, tokens, mask)["embedding"]

`data.text.load` reads the tokenizer that lies in the same folder. torch and transformers are never imported.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax
import safetensors.numpy

from retrieval_jax import pairs, paths
from retrieval_jax.errors import InputError, first_line, naming
from retrieval_jax.files import atomic, documents
from retrieval_jax.models.text import transformer

# {model_type of a config.json: rows of the table of positions before that of the first token}
TYPES = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "bert": 0}
_ANCHOR = "embeddings.word_embeddings.weight"  # what stands before it is the prefix of all names
# Of the file, and not of the encoder: heads, BERT's pooler, tables of numbers 0, 1, 2, ...
_LEFT_OUT = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")
_STEM = {
    "stem_tokens/embedding": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "stem_types": "embeddings.token_type_embeddings.weight",
    "stem_norm/scale": "embeddings.LayerNorm.weight",
    "stem_norm/bias": "embeddings.LayerNorm.bias",
}
_LAYERS = {"proj": "attention.output.dense", "fc1": "intermediate.dense", "fc2": "output.dense"}
_NORMS = {"norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}
_QKV = ("query", "key", "value")
_OLD = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}  # of BERT's first files


def names(depth: int, types: int = 1) -> dict[str, tuple[str, ...]]:
    """Returns the key map: {our path: their names}; several names are joined along the last axis.

    Args:
      depth: number of blocks.
      types: rows of the table of token types; without any, there is no such table.
    """
    found = {path: (name,) for path, name in _STEM.items() if types or path != "stem_types"}
    for number in range(depth):
        block, layer = f"block{number}", f"encoder.layer.{number}"
        for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
            found[f"{block}/qkv/{ours}"] = tuple(f"{layer}.attention.self.{part}.{theirs}" for part in _QKV)
            found |= {f"{block}/{name}/{ours}": (f"{layer}.{other}.{theirs}",) for name, other in _LAYERS.items()}
        for ours, theirs in (("scale", "weight"), ("bias", "bias")):
            found |= {f"{block}/{name}/{ours}": (f"{layer}.{other}.{theirs}",) for name, other in _NORMS.items()}
    return found


def to_ours(tensors: Mapping[str, np.ndarray], depth: int, types: int) -> dict:
    """Returns parameters of `transformer.Model` (not scanned) for tensors under Hugging Face's names."""
    params: dict = {}
    for path, theirs in names(depth, types).items():
        parts = [np.asarray(tensors[name], np.float32) for name in theirs]
        if path.endswith("/kernel"):
            parts = [part.T for part in parts]
        *keys, last = path.split("/")
        node = params
        for key in keys:
            node = node.setdefault(key, {})
        node[last] = np.array(np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0], order="C")
    return params


def to_theirs(params: Mapping, depth: int, types: int) -> dict[str, np.ndarray]:
    """Returns tensors under Hugging Face's names for parameters of `transformer.Model` (not scanned)."""
    tensors = {}
    for path, theirs in names(depth, types).items():
        leaf = params
        for key in path.split("/"):
            leaf = leaf[key]
        for name, part in zip(theirs, np.split(np.asarray(leaf, np.float32), len(theirs), axis=-1), strict=True):
            tensors[name] = np.array(part.T if path.endswith("/kernel") else part, order="C")
    return tensors


def stacked(params: Mapping, depth: int) -> dict:
    """Returns the parameters of a scanned model for those of one that is not."""
    rest = {name: leaf for name, leaf in params.items() if not name.startswith("block")}
    blocks = [params[f"block{number}"] for number in range(depth)]
    return {**rest, "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)}


def unstacked(params: Mapping, depth: int) -> dict:
    """Undoes `stacked`."""
    rest = {name: leaf for name, leaf in params.items() if name != "blocks"}
    each = [jax.tree.map(lambda leaf, row=number: np.asarray(leaf[row]), params["blocks"]) for number in range(depth)]
    return {**rest, **{f"block{number}": block for number, block in enumerate(each)}}


# ------------------------------------------------------------------------------------------------------------- files


def find(name: str = "", path="", offline: bool = False, filename: str = "model.safetensors") -> pathlib.Path:
    """Returns a file of a model, downloaded from the hub if necessary.

    Args:
      name: repository of the hub, such as "sentence-transformers/all-MiniLM-L6-v2"; ignored with a path.
      path: folder of the model, or its safetensors file; "" or None for the hub.
      offline: whether only the hub's local cache may be used.
      filename: which file, next to the safetensors file.

    Raises:
      InputError: there is no such file, or the hub cannot be reached.
    """
    if path:
        path = paths.expanded(path)
        file = (path if path.is_dir() else path.parent) / filename
        file = path if path.is_file() and filename == "model.safetensors" else file
        if not file.is_file():
            raise InputError(f"{file} does not exist; give the folder of a model with config.json and {filename}")
        if filename == "model.safetensors" and file.suffix != ".safetensors":
            raise InputError(
                f"{file} is not a safetensors file; other formats are not supported, because reading them can run "
                "code; download model.safetensors of the same model"
            )
        return file
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(name, filename, local_files_only=offline))
    except Exception as error:  # the hub's client passes on whatever its network layers raise
        raise InputError(
            f"cannot get {filename} of {name!r} from the hub ({first_line(error)}); check the name and the network, or "
            "give the path of a folder with a copy"
        ) from error


def place(weights: str) -> tuple[str, str]:
    """Returns (repository of the hub, "") or ("", path of a folder or file) of what a config names as weights.

    Args:
      weights: what exists as a path is one; "owner/name" that does not is of the hub.
    """
    path = paths.expanded(weights)
    repository = re.fullmatch(r"[\w.-]+/[\w.-]+", weights) is not None and not path.exists()
    return (weights, "") if repository else ("", weights)


def tokenizer(weights: str) -> str:
    """Returns the path of the tokenizer that belongs to weights.

    Args:
      weights: see `place`.

    Raises:
      InputError: a missing model, or a hub that cannot be reached.
    """
    name, path = place(weights)
    for filename in ("tokenizer.json", "vocab.json", "vocab.txt"):
        try:
            found = find(name, path, filename=filename)
            if filename == "vocab.json":
                find(name, path, filename="merges.txt")
            return str(found)
        except InputError:
            continue
    raise InputError(f"{weights} has no tokenizer (tokenizer.json, vocab.json or vocab.txt): name one in tokenizer")


def model(name: str = "", path="", offline: bool = False, **kwargs) -> transformer.Model:
    """Builds the network of a config.json, without weights.

    Args:
      name, path, offline: see `find`.
      **kwargs: fields of `transformer.Model` that do not come from the file, such as dim, pooling, dtype, dropout.

    Raises:
      InputError: there is no such file, or it describes another kind of network.
    """
    file = find(name, path, offline, "config.json")
    given = documents.read(file, dict, remedy="download it again", most_bytes=64 << 20)
    kind = given.get("model_type")
    if kind not in TYPES:
        raise InputError(f"{file}: there is no network here for model_type {kind!r}{pairs.near(kind, TYPES)}")
    for key, wanted in (("hidden_act", "gelu"), ("position_embedding_type", "absolute"), ("is_decoder", False)):
        if given.get(key, wanted) != wanted:
            raise InputError(f"{file} has {key}={given[key]!r}; only {wanted!r} is supported")
    offset = given.get("pad_token_id", 1) + 1 if TYPES[kind] else 0
    try:
        fields = {
            "vocabulary": int(given["vocab_size"]),
            "depth": int(given["num_hidden_layers"]),
            "width": int(given["hidden_size"]),
            "heads": int(given["num_attention_heads"]),
            "hidden": int(given["intermediate_size"]),
            "length": int(given["max_position_embeddings"]) - offset,
            "offset": offset,
            "types": int(given.get("type_vocab_size", 2)),
            "epsilon": float(given.get("layer_norm_eps", 1e-12)),
            "dropout": float(given.get("hidden_dropout_prob", 0.1)),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} lacks a size, or has one that is not a number ({error}); download it again") from None
    fields["pooling"] = _pooling(file)
    known = {field.name for field in dataclasses.fields(transformer.Model)} - {"parent", "name", "vocabulary"}
    pairs.check_arguments(str(name or path), kwargs, sorted(known), "config.train.model.kwargs", "network of text")
    return transformer.Model(**{**fields, **kwargs})


def _pooling(config: pathlib.Path) -> str:
    """Returns the pooling that sentence-transformers notes beside a model; the mean where it notes none."""
    modules = config.with_name("modules.json")
    if modules.is_file():
        listed = documents.read(modules, list, remedy="download it again")
        if any("Dense" in str(one.get("type")) for one in listed if isinstance(one, dict)):
            raise InputError(f"{modules} has a dense layer behind the pooling, which is not supported")
    file = config.parent / "1_Pooling" / "config.json"
    if not file.is_file():
        return "mean"
    given = documents.read(file, dict, remedy="download it again")
    if given.get("pooling_mode_cls_token") or given.get("pooling_mode") == "cls":
        return "first"
    if given.get("pooling_mode_mean_tokens") or given.get("pooling_mode") == "mean":
        return "mean"
    raise InputError(f"{file} has another pooling than the mean of the tokens or the first token, which is unsupported")


def load(name: str = "", path="", offline: bool = False, *, dtype: Any = jnp.float32, **kwargs):
    """Loads published weights into our transformer.

    Args:
      name, path, offline: see `find`.
      dtype: type of the computation; parameters are float32 whatever the file's type.
      **kwargs: see `model`; with a `dim`, the file has no projection, and the parameters none either.

    Returns:
      (module, params: nested dict of float32 NumPy arrays).

    Raises:
      InputError: see `find` and `model`; or a file of another network: one message lists every missing, unexpected and
        mis-shaped tensor.
    """
    module = model(name, path, offline, dtype=dtype, **kwargs)
    file = find(name, path, offline)
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}
        prefix = next((key.removesuffix(_ANCHOR) for key in shapes if key.endswith(_ANCHOR)), "")
        there = _checked(module, shapes, prefix, str(file))
        tensors = _read(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}); download it again") from error
    params = to_ours({key: tensors[name] for key, name in there.items()}, module.depth, module.types)
    return module, stacked(params, module.depth) if module.scan else params


def _checked(module: transformer.Model, shapes: Mapping[str, tuple], prefix: str, where: str) -> dict[str, str]:
    """Returns {name: its name in the file} of all tensors of a network; raises InputError where they are others."""
    abstract = jax.eval_shape(
        module.clone(scan=False, dim=0).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 1), jnp.int32),
        jax.ShapeDtypeStruct((1, 1), jnp.bool_),
    )["params"]
    expected = {}
    for path, theirs in names(module.depth, module.types).items():
        leaf = abstract
        for key in path.split("/"):
            leaf = leaf[key]
        shape = (*leaf.shape[:-1], leaf.shape[-1] // len(theirs))
        expected |= {key: shape[::-1] if path.endswith("/kernel") else shape for key in theirs}
    there, wrong = {}, []
    for key, shape in expected.items():
        old = next((key.replace(new, old) for new, old in _OLD.items() if key.endswith(new)), key)
        there[key] = prefix + (key if prefix + key in shapes else old)
        if there[key] not in shapes:
            wrong.append(f"  {prefix}{key} {shape} is missing")
        elif shapes[there[key]] != shape:
            wrong.append(f"  {there[key]} is {shapes[there[key]]}, and config.json makes it {shape}")
    for key in sorted(set(shapes) - set(there.values())):
        if key.startswith(prefix) and key.removeprefix(prefix).startswith(("encoder.", "embeddings.")):
            if not key.removeprefix(prefix).startswith(_LEFT_OUT):
                wrong.append(f"  {key} {shapes[key]} belongs to another network")
    if wrong:
        raise InputError(f"{where} does not hold the network of the config.json beside it:\n" + "\n".join(wrong[:40]))
    return there


def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(file)
    except (KeyError, TypeError, AttributeError):  # types that NumPy lacks, such as bfloat16
        return safetensors.flax.load_file(file)


def save(module: transformer.Model, params: Mapping, folder, *, pad: int = 1) -> None:
    """Writes a network as Hugging Face's libraries read it: model.safetensors and config.json.

    A network with an offset of positions becomes a RobertaModel, any other a BertModel. A projection is left out: those
    have none. `data.text.Tokenizer.save` writes the tokenizer beside them.

    Args:
      module: the network.
      params: its parameters.
      folder: is made where it does not exist.
      pad: id of the padding token.

    Raises:
      InputError: a network whose table of positions fits neither.
    """
    folder, roberta = pathlib.Path(folder), module.offset > 0
    if roberta and module.offset != pad + 1:
        raise InputError(f"an offset of {module.offset} rows of positions needs the padding token {module.offset - 1}")
    params = unstacked(params, module.depth) if module.scan else params
    tensors = to_theirs(params, module.depth, module.types)
    types = module.types or 1  # theirs always have such a table
    if not module.types:
        tensors["embeddings.token_type_embeddings.weight"] = np.zeros((types, module.width), np.float32)
    config = {
        "architectures": ["RobertaModel" if roberta else "BertModel"],
        "model_type": "roberta" if roberta else "bert",
        "vocab_size": module.vocabulary,
        "num_hidden_layers": module.depth,
        "hidden_size": module.width,
        "num_attention_heads": module.heads,
        "intermediate_size": module.hidden or 4 * module.width,
        "max_position_embeddings": module.length + module.offset,
        "type_vocab_size": types,
        "layer_norm_eps": module.epsilon,
        "hidden_dropout_prob": module.dropout,
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "pad_token_id": pad,
    }
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with atomic.written(folder / "model.safetensors") as new:
        safetensors.numpy.save_file(tensors, new, metadata={"format": "pt"})
    atomic.write_json(folder / "config.json", config)
