"""Completes looks with the gallery of a finished run of the task 'outfit', from listings or a person's own photos."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from retrieval_jax import inference, pairs, workdir
from retrieval_jax.data import fields, loading
from retrieval_jax.data.outfits import sets
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import attribute
from retrieval_jax.index.outfits import Looks

_FUNCTION = "embed_item"


def of_run(
    folder: str | os.PathLike, *, model: str = "trained", colours: str = "", conditions: Sequence[str] = ()
) -> Looks:
    """Returns the gallery of a finished run, for completing looks.

    Args:
      folder: work directory of a run of the task 'outfit' that was embedded.
      model: whose embeddings of the gallery.
      colours: the field that should differ between looks, such as "colour"; "" for none.
      conditions: fields and numbers that conditions may name.

    Returns:
      `index.outfits.Looks`; its `complete` takes ids, types and conditions.

    Raises:
      InputError: a run of another task, or fields that the catalogue does not have.
    """
    folder = pathlib.Path(folder)
    config = _config(folder)
    if config.embed.predict_fn != _FUNCTION:
        raise InputError(
            f"{folder}: config.embed.predict_fn is {config.embed.predict_fn!r}, and looks are completed by vectors of "
            f"{_FUNCTION!r}: embed again with it, in a new work directory"
        )
    split = loading.load(config.data).split("gallery")
    gallery = Embeddings.load(folder / "embeddings" / model / "gallery")
    row_of = {item: row for row, item in enumerate(split.ids)}
    ids = [gallery.ids[row] for row in range(len(gallery))]
    if missing := [item for item in ids if item not in row_of]:
        raise InputError(f"{folder}: the catalogue has no listing {missing[0]!r} any more: embed again")
    rows, kwargs = np.array([row_of[item] for item in ids], np.int64), config.train.task_kwargs
    table = None
    if conditions:
        table = attribute.build(fields.of_split(split, conditions, ids=ids), len(ids))
    return Looks(
        gallery,
        _names(fields.read(split, kwargs.types).take(rows)),
        colours=_names(fields.read(split, colours).take(rows)) if colours else None,
        products=sets.products_of(split, kwargs.same_product)[rows],
        table=table,
    )


def photos(folder: str | os.PathLike, pictures: Sequence[np.ndarray], types: Sequence[str]) -> np.ndarray:
    """Embeds pictures that are not in the catalogue, such as a person's own photos of what they wear.

    Args:
      folder: work directory of a run of the task 'outfit'.
      pictures: n pictures, uint8 [h, w, 3] RGB of any size.
      types: the type of each, by name.

    Returns:
      float32 [n, D], for `Looks.complete(photos=...)`.

    Raises:
      InputError: a run of another task, a type that it has not learned, or not one type per picture.
    """
    model = inference.load(folder)
    function = inference.named(model.task.predict_fns, _FUNCTION)
    known = [label.partition("=")[2] for label in model.data_info.label_names]
    if len(types) != len(pictures):
        raise InputError(f"looks: {len(types)} types for {len(pictures)} pictures: give one for each")
    if unknown := [name for name in types if name not in known]:
        raise InputError(f"looks: the run has not learned the type {unknown[0]!r}{pairs.near(unknown[0], known)}")
    columns = {"image": list(pictures), "type": np.array([known.index(name) for name in types], np.int32)}
    arguments = inference.test_arguments(model.config)
    return inference.predict(function, model.params, columns, mesh=model.mesh, **arguments)["embedding"]


def _config(folder: pathlib.Path) -> ConfigDict:
    """Returns the config of a run of the task 'outfit'."""
    config = ConfigDict(workdir.read_config(folder))
    task = (config.get("train") or {}).get("task")
    if task != "outfit":
        raise InputError(f"{folder} is a run of the task {task!r}, and looks are completed by the task 'outfit'")
    return config


def _names(field: fields.Field) -> list[str]:
    """Returns the first value of every listing, "" where it is unknown."""
    return [field.values[ids[0]] if len(ids) else "" for ids in np.split(field.value_ids, field.indptr[1:-1])]
