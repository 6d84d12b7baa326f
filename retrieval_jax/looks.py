"""Completes looks with the gallery of a finished run of the task 'outfit', from listings or a person's own photos.

`judged` asks the same gallery what is known: which outfits of the catalogue go together, and what fills a blank.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from retrieval_jax import brief, pairs, workdir
from retrieval_jax.data import fields, loading
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.info import DataInfo
from retrieval_jax.data.outfits import sets
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError
from retrieval_jax.index import attribute
from retrieval_jax.index.attribute.looks import Look, Looks
from retrieval_jax.scoring import outfits as scores
from retrieval_jax.workdir import sides

COLOURS = ("colour", "color")  # fields whose values should differ between looks where nobody says
FUNCTION = "embed_item"  # of the task "outfit": projects a picture by its type


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
      `index.attribute.looks.Looks`; its `complete` takes ids, types and conditions.

    Raises:
      InputError: a run of another task, or fields that the catalogue does not have.
    """
    folder = pathlib.Path(folder)
    config = _config(folder)
    if config.embed.predict_fn != FUNCTION:
        raise InputError(
            f"{folder}: config.embed.predict_fn is {config.embed.predict_fn!r}, and looks are completed by vectors of "
            f"{FUNCTION!r}: embed again with it, in a new work directory"
        )
    split = loading.load(config.data).split("gallery")
    gallery = Embeddings.load(folder / "embeddings" / model / "gallery")
    row_of = {item: row for row, item in enumerate(split.ids)}
    ids = [gallery.ids[row] for row in range(len(gallery))]
    if missing := [item for item in ids if item not in row_of]:
        raise InputError(f"{folder}: the catalogue has no listing {missing[0]!r} any more: embed again")
    rows, table = np.array([row_of[item] for item in ids], np.int64), None
    if conditions:
        table = attribute.build(fields.of_split(split, conditions, ids=ids), len(ids))
    info = info_lib.load(folder / "checkpoints" / "data_info.json")
    return of_gallery(gallery, split, rows, config.train.get("task_kwargs"), info, colours=colours, table=table)


def of_gallery(
    gallery: Embeddings,
    split: Split,
    rows: np.ndarray,
    task_kwargs: Mapping,
    info: DataInfo,
    *,
    colours: str = "",
    table: attribute.Table | None = None,
) -> Looks:
    """Returns an embedded gallery, for completing looks; listings of types that were not learned fit no slot.

    Args:
      gallery: embeddings [G, D] by "embed_item".
      split: the gallery of the catalogue.
      rows: int [G], row of the split of each embedding.
      task_kwargs: `types` and `same_product` of the task 'outfit'.
      info: of the run, whose labels are the learned types.
      colours: the field that should differ between looks; "" for none.
      table: attributes in the order of the embeddings, for conditions; None without.

    Raises:
      InputError: a field that the catalogue does not have, or vectors without a direction.
    """
    names = [*types_of(info), ""]
    types, products = sets.described(split, task_kwargs, info)
    return Looks(
        gallery,
        [names[kind] for kind in types[rows]],
        colours=values_of(split, rows, colours) if colours else None,
        products=products[rows],
        table=table,
    )


def values_of(split: Split, rows: np.ndarray, name: str) -> list[str]:
    """Returns one value of a field of some listings, "" where it is unknown.

    Args:
      split: of the catalogue.
      rows: int [n], of the split.
      name: of the field.

    Raises:
      InputError: there is no such field.
    """
    field = fields.read(split, name).take(rows)
    return [field.values[ids[0]] if len(ids) else "" for ids in np.split(field.value_ids, field.indptr[1:-1])]


def photos(folder: str | os.PathLike, pictures: Sequence[np.ndarray], types: Sequence[str]) -> Embeddings:
    """Embeds pictures that are not in the catalogue, such as a person's own photos of what they wear.

    Args:
      folder: work directory of a run of the task 'outfit'.
      pictures: n pictures, uint8 [h, w, 3] RGB of any size.
      types: the type of each, by name.

    Returns:
      `Embeddings` [n, D] with the network's space, for `Looks.complete(photos=...)`.

    Raises:
      InputError: a run of another task, a type that it has not learned, or not one type per picture.
    """
    from retrieval_jax import inference  # here: JAX takes seconds

    _config(pathlib.Path(folder))
    model = inference.load(folder)
    names = [f"photo {number}" for number in range(1, len(pictures) + 1)]
    return Embeddings(names, embedded(model, pictures, types), {"space": model.space})


def types_of(info: DataInfo) -> list[str]:
    """Returns the names of the types that a run of the task 'outfit' has learned.

    Args:
      info: of the run.
    """
    return [label.partition("=")[2] for label in info.label_names]


def embedded(model, pictures: Sequence[np.ndarray], types: Sequence[str]) -> np.ndarray:
    """Embeds pictures by their types as the gallery was embedded; see `photos`.

    Args:
      model: `inference.Model` of the task 'outfit'.
      pictures, types: see `photos`.
    """
    known = types_of(model.data_info)
    if len(types) != len(pictures):
        raise InputError(f"looks: {len(types)} types for {len(pictures)} pictures: give one for each")
    if unknown := [name for name in types if name not in known]:
        raise InputError(f"looks: the run has not learned the type {unknown[0]!r}{pairs.near(unknown[0], known)}")
    numbers = np.array([known.index(name) for name in types], np.int32)
    return model.embed({"image": list(pictures), "type": numbers}, FUNCTION)


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """What a run says of the gallery's outfits.

    Attributes:
      auc: of the outfits that go together against those that do not.
      outfits: how many were compared.
      questions: blanks to fill in.
      sums: [n, c], of the distances of each answer to the rest of its outfit.
      filled: [n], 1 where the right answer is the nearest.
      completed: (row of the listing that is started from, rows of the others of its outfit, looks), of some outfits.
    """

    auc: float
    outfits: int
    questions: sets.Questions
    sums: np.ndarray
    filled: np.ndarray
    completed: list[tuple[int, list[int], list[Look]]]

    __repr__ = brief.line


def judged(config, folder: str | os.PathLike, catalog: Catalog, k: int = 2) -> Judged | None:
    """Scores the outfits of the gallery, and completes some of them.

    Args:
      config: of the run; reads report.rows, how many outfits to complete, each from its first item, and report.seed,
        of their choice.
      folder: its work directory.
      catalog: its catalogue.
      k: looks for each outfit.

    Returns:
      What was found; None of a run of another task, or one without embeddings by types or without outfits of the
      gallery about which a question can be asked.

    Raises:
      InputError: embeddings of another gallery.
    """
    if (config.get("train") or {}).get("task") != "outfit" or "outfits/gallery" not in catalog.tables:
        return None
    side, folder = sides.of(config)["gallery"], pathlib.Path(folder)
    place = folder / "embeddings" / side.folder / "gallery"
    if side.run or (side.predict_fn or config["embed"]["predict_fn"]) != FUNCTION or not place.exists():
        return None
    split, kwargs = catalog.split("gallery"), config["train"].get("task_kwargs")
    gallery = Embeddings.load(place)
    if gallery.ids != Ids.of(split.ids):
        raise InputError(f"{place} is of another gallery than the catalogue's: run embed again")
    info = info_lib.load(folder / "checkpoints" / "data_info.json")
    types, products = sets.described(split, kwargs, info)
    try:
        found = sets.of_table(catalog.table("outfits", "gallery"), types)
        good = found.good()
        questions = sets.blanks(catalog, "gallery", good, types, products)
    except InputError:  # too few listings for outfits, or of a type for a question
        return None
    asked = sets.asked(found, products)
    colours = next((name for name in COLOURS if name in split.column_names), "")
    made = of_gallery(gallery, split, np.arange(len(split)), kwargs, info, colours=colours)
    vectors = made.unit()
    totals = scores.sums(vectors, questions.rows, questions.answers)
    together = scores.compatibility(vectors, asked.rows)
    order = np.random.default_rng(config["report"]["seed"]).permutation(len(good))
    completed = []
    for number in np.sort(order[: config["report"]["rows"]]).tolist():
        first, *others = (int(row) for row in good.rows[number] if row >= 0)
        slots = [made.types[row] for row in others]
        completed.append((first, others, made.complete([split.ids[first]], slots, k)))
    return Judged(
        auc=scores.auc(asked.compatible == 1, together),
        outfits=len(asked),
        questions=questions,
        sums=totals,
        filled=scores.fill_in_the_blank(totals, questions.right),
        completed=completed,
    )


def _config(folder: pathlib.Path) -> ConfigDict:
    """Returns the config of a run of the task 'outfit'."""
    config = ConfigDict(workdir.read_config(folder))
    task = (config.get("train") or {}).get("task")
    if task != "outfit":
        raise InputError(f"{folder} is a run of the task {task!r}, and looks are completed by the task 'outfit'")
    return config
