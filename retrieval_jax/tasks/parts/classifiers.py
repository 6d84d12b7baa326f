"""The classifiers of another run's network, frozen, for tasks whose vectors must work under them too."""

import json
import pathlib
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.data import text
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.files.arrays import load_npz
from retrieval_jax.losses import unit

FILE = "classifiers.npz"  # in <workdir>/text, beside the vectors: the heads, and what their labels are
HEADS = ("titles", "category")
_PARTS = {"kernel": 2, "bias": 1, "log_scale": 0}


class _Facts(TypedDict):
    arrays: list[str]
    vocabulary_hash: str
    categories: list[str]
    loss: str


def save(folder, model) -> None:
    """Writes the classifiers of a finished run's network into a work directory.

    Args:
      folder: the work directory that learns from that run.
      model: of the finished run, with its params, data_info and config. Its heads are "heads_titles" and
        "heads_category"; its task_kwargs say by which "loss" titles were learned, and whether the category's head is a
        classifier by itself ("category_loss").
    """
    options, data_info = dict(model.config.train.task_kwargs), model.data_info
    arrays = {
        f"{head}_{part}": np.asarray(value, np.float32)
        for head in HEADS
        for part, value in model.params.get(f"heads_{head}", {}).items()
        if not (head == "category" and options.get("category_loss", "softmax") != "softmax")  # plain cosines: no scale
    }
    facts = {
        "arrays": sorted(arrays),
        "vocabulary_hash": data_info.vocabulary_hash,
        "categories": list(data_info.category_names[-1]) if data_info.category_names else [],
        "loss": options.get("loss", "sigmoid"),
    }
    file = pathlib.Path(folder) / text.FOLDER / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_npz(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)


def load(folder, info, dim: int) -> tuple[dict, str]:
    """Returns the classifiers that `save` wrote, for vectors of `dim` dimensions whose labels are those of `info`.

    Args:
      folder: the work directory.
      info: `data.info.DataInfo` of this run.
      dim: of the gallery network's vectors.

    Returns:
      ({"titles", "category": {"kernel" [dim, V], "bias" [V], "log_scale" of a cosine classifier}}, the loss of the
      titles' classifier).

    Raises:
      InputError: the other network has no classifier, one of other labels, or one that does not read its vectors.
    """
    file, remedy = pathlib.Path(folder) / text.FOLDER / FILE, "train again in a new work directory"
    written = load_npz(file, {"facts": (("uint8",), 1)}, remedy=remedy)["facts"].tobytes()
    facts = documents.parse(written, _Facts, name=str(file), remedy=remedy)
    there = [(head, part) for head in HEADS for part in _PARTS if f"{head}_{part}" in facts["arrays"]]
    arrays = load_npz(file, {f"{head}_{part}": (("float32",), _PARTS[part]) for head, part in there}, remedy=remedy)
    found = {}
    for head, part in there:
        found.setdefault(head, {})[part] = arrays[f"{head}_{part}"]
    off = "set config.train.task_kwargs.classifier_weight and logits_weight to 0"
    if not found:
        raise InputError(
            f"the run that {folder} learns from has no classifier of titles or categories to learn under: {off}"
        )
    same = {
        "titles": facts["vocabulary_hash"] == info.vocabulary_hash,
        "category": facts["categories"] == (list(info.category_names[-1]) if info.category_names else []),
    }
    for head, parts in found.items():
        if not same[head]:
            raise InputError(
                f"the classifier of {head} that {folder} learns under has other labels than this run: mine and train "
                f"both from one catalogue with the same settings, or {off}"
            )
        if len(parts["kernel"]) != dim:
            raise InputError(
                f"the classifier of {head} that {folder} learns under reads {len(parts['kernel']):,} numbers, and the "
                f"vectors that are searched have {dim:,} (pool_bands gives them more): let the gallery's run embed "
                f"without config.embed.model_kwargs.pool_bands, or {off}"
            )
    return found, facts["loss"]


def logits(classifier: dict, vectors: jax.Array) -> jax.Array:
    """Returns the logits [B, V] of vectors [B, dim] under a classifier of `load`, in float32.

    Args:
      classifier: one of those of `load`.
      vectors: of the query network; with "log_scale" only their directions count.
    """
    vectors, kernel = vectors.astype(jnp.float32), classifier["kernel"]
    if "log_scale" in classifier:
        vectors, kernel = unit(vectors) * jnp.exp(classifier["log_scale"]), unit(kernel.T).T
    found = vectors @ kernel
    return found + classifier["bias"] if "bias" in classifier else found
