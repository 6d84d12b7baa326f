"""What turns a request into vectors: the networks of a run, or of an exported model, behind one set of functions."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from retrieval_jax import brief, looks
from retrieval_jax.data import listing_texts
from retrieval_jax.data.catalog import Split
from retrieval_jax.data.examples import Pictures
from retrieval_jax.data.info import DataInfo
from retrieval_jax.data.pictures import colour
from retrieval_jax.embeddings import Embeddings, writer
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess.new_queries import Stage
from retrieval_jax.workdir import sides

MINED = "mined"
_BLOCK = 256  # listings that are embedded at a time
TOP = 10  # predicted attributes of a picture
EXPORTED = "model.safetensors"  # the file that tells an exported folder from a work directory

Vectors = Callable[[Sequence], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """Functions of a list of inputs; None for what the run's networks do not do.

    Attributes:
      space: name of the space of the gallery that they search; "" where it is unknown.
      pictures: uint8 [h, w, 3] pictures -> float32 [n, D].
      words: texts -> float32 [n, D].
      edited: (picture, text) pairs -> float32 [n, 2, D]: the picture's own vector, and with the words at weight 1.
      boxes: pictures -> float [n, 4], the part that the run embeds: ymin, xmin, ymax, xmax as shares; NaN for the whole
        picture.
      attributes: pictures -> per picture [(field, value, probability)], most probable first.
      items: (picture, type) pairs -> float32 [n, D], of a run of the task "outfit" whose gallery is embedded by types.
      learned: the types that `items` takes.
      columns: split -> the columns that `listings` reads, {name: column}; of an exported model, whose gallery is
        embedded where it is served.
      listings: columns and int rows [n] -> float32 [n, D].
      recipe: name of all that a vector of `listings` depends on beside its listing.
      stages: of the search, which an exported model brings along; None for those of the work directory.
    """

    space: str
    pictures: Vectors | None
    words: Vectors | None = None
    edited: Vectors | None = None
    boxes: Vectors | None = None
    attributes: Callable[[Sequence], list[list[tuple[str, str, float]]]] | None = None
    items: Vectors | None = None
    learned: DataInfo | None = None
    columns: Callable[[Split], dict] | None = None
    listings: Callable[[Mapping, np.ndarray], np.ndarray] | None = None
    recipe: str = ""
    stages: list[Stage] | None = None
    __repr__ = brief.line

    @property
    def without_pictures(self) -> str:
        """Why the run is not searched by pictures; "" where it is."""
        if self.pictures is not None:
            return ""
        if self.items is not None:
            return "its network embeds a picture by its type, and learned what goes together: complete looks with it"
        return "its network reads text"

    def check(self, gallery: Embeddings, folder: pathlib.Path) -> None:
        """Checks that the gallery is of these networks.

        Args:
          gallery: its embeddings.
          folder: of the run, for the message.

        Raises:
          InputError: the gallery was embedded by another checkpoint than the networks are of.
        """
        if self.space and gallery.meta.get("space") != self.space:
            raise InputError(
                f"{folder}: its gallery is in the space {gallery.meta.get('space')!r}, and its network embeds into "
                f"{self.space!r}: run `retrieval-jax embed` again after training"
            )


def is_exported(folder: pathlib.Path) -> bool:
    """Returns whether a folder is an exported model rather than a work directory."""
    return (folder / EXPORTED).exists()


def signature(folder: pathlib.Path) -> tuple | None:
    """Returns what changes when a model is exported again; None for a work directory, whose embeddings tell.

    Args:
      folder: work directory or exported folder.
    """
    return status(folder / "config.json") if is_exported(folder) else None


def status(file: pathlib.Path) -> tuple | None:
    """Returns inode, time and size of a file, which differ after it was written again; None for a missing one."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def load(folder: pathlib.Path, config: dict) -> Networks:
    """Loads the networks of a run or of an exported model.

    Args:
      folder: work directory, or folder of `retrieval-jax export`.
      config: its whole config.

    Raises:
      InputError: nothing was trained there, or the files are damaged.
    """
    return _of_exported(folder) if is_exported(folder) else _of_run(folder, config)


def _of_run(folder: pathlib.Path, config: dict) -> Networks:
    from retrieval_jax import inference  # here: JAX takes seconds

    chosen, models = sides.of(config), {}
    for side in dict.fromkeys(chosen.values()):
        models[side] = inference.load(side.workdir(folder), side.which, side.step or None)
    query, gallery = models[chosen["query"]], models[chosen["gallery"]]
    pictures = boxes = cropping = None
    for side in (chosen["query"], chosen["gallery"]):  # a text network leaves pictures to the gallery's network
        model = models[side]
        name = side.predict_fn or model.config.embed.predict_fn
        function = inference.named(model.task.predict_fns, name)
        if function.reads in (("image",), ("picture",), ["image"], ["picture"]):
            pictures = functools.partial(_vectors, model, name)
            if name == "embed_image" and "embed_whole" in model.task.predict_fns:
                # The service crops, so that the box can be shown and moved; the network reads all that it is given.
                pictures, boxes, cropping = functools.partial(_vectors, model, "embed_whole"), model.locate, model
            break
    words = edited = attributes = items = learned = None
    side = chosen["gallery"]
    if not side.run and config["train"]["task"] == "outfit":
        if (side.predict_fn or config["embed"]["predict_fn"]) == looks.FUNCTION:
            items, learned = functools.partial(_items, gallery), gallery.data_info
    for model in (query, gallery):
        functions = model.task.predict_fns
        if words is None and {"embed_text", "embed_query"} & set(functions):
            words = model.embed_text
        if edited is None and "embed_edit" in functions:
            edited = functools.partial(_edited, model)
        if attributes is None and "attributes" in functions and functions["attributes"].reads == ("image",):
            whole = "attributes_whole" if model is cropping else "attributes"
            attributes = functools.partial(_attributes, model, whole)
    # That of another run, where a network learned into it. Behind an adapter the gallery is in the queries' space.
    space, embeds = (model.data_info.target_space or model.space for model in (query, gallery))
    if space != embeds and not chosen["gallery"].adapter:
        raise InputError(
            f"{folder}: the queries are embedded into the space {space!r} ({chosen['query']}), and the gallery into "
            f"{embeds!r} ({chosen['gallery']}), which cannot be compared: if one learned from the other, which was "
            "trained again since, train it again; else set config.search.query_from and gallery_from to one checkpoint"
        )
    side = sides.regions(config)
    if side.run and "query" in config["embed"]["regions"]["splits"]:
        finder = inference.load(side.workdir(folder))
        boxes = functools.partial(_boxes, finder, config["embed"]["regions"]["margin"])
    return Networks(space, pictures, words, edited, boxes, attributes, items, learned)


def _vectors(model, name: str, images: Sequence) -> np.ndarray:
    return model.embed(images, name)


def _boxes(model, margin: float, images: Sequence) -> np.ndarray:
    from retrieval_jax import regions

    split = Split("query", [str(number) for number in range(len(images))], None, None, images)
    found, there = regions.main_boxes(model, split)
    found = colour.Cropped(images, found, margin).boxes
    return np.where(there[:, None], found, np.nan)


def _edited(model, pairs: Sequence) -> np.ndarray:
    pictures, words = [picture for picture, _ in pairs], [text for _, text in pairs]
    both = [model.embed(pictures, words=words, weight=weight) for weight in (0.0, 1.0)]
    return np.stack(both, 1)


def _items(model, pairs: Sequence) -> np.ndarray:
    return looks.embedded(model, [picture for picture, _ in pairs], [kind for _, kind in pairs])


def _attributes(model, predict_fn: str, images: Sequence) -> list[list[tuple[str, str, float]]]:
    if model.data_info.fields:
        found = [
            [(field, value, chance) for field, values in one.items() for value, chance in values]
            for one in model.predict_fields(images)
        ]
    else:
        found = [[(MINED, *one) for one in row] for row in model.predict_attributes(images, TOP, predict_fn)]
    return [sorted(one, key=lambda item: -item[2])[:TOP] for one in found]


def _mined_by(model, images: Sequence) -> list[list[tuple[str, str, float]]]:
    return [[(MINED, word, chance) for word, chance in one] for one in model.predict_attributes(images, top=TOP)]


def _of_exported(folder: pathlib.Path) -> Networks:
    from retrieval_jax import exported

    model = exported.load(folder)
    texts = model.about.get("texts", {})
    of_gallery = model.program("gallery")
    (column, *others) = model.reads(of_gallery) if of_gallery in model.programs else ("", "")
    if others or not (column == "image" or texts.get(column, {}).get("columns")):
        raise InputError(
            f"{folder} has no program that embeds listings by their picture or their text alone, so it has no gallery "
            "that could be searched"
        )
    sides_ = [model.program("query"), of_gallery]
    of_pictures = next((name for name in sides_ if model.reads(name) == ["image"]), None)
    pictures = functools.partial(model.embed, program=of_pictures) if of_pictures else None

    def columns(split: Split) -> dict:
        if column == "image":
            return {column: Pictures(split.images)}
        return {column: np.array(listing_texts.of(split, texts[column]["columns"]), object)}

    def listings(given: Mapping, rows: np.ndarray) -> np.ndarray:
        values = given[column].source if column == "image" else given[column]
        blocks = (rows[start : start + _BLOCK].tolist() for start in range(0, len(rows), _BLOCK))
        return np.concatenate([model.embed([values[row] for row in block], of_gallery) for block in blocks])

    words = edited = attributes = None
    if any(name in model.programs and set(model.reads(name)) <= set(texts) for name in ("embed_text", "embed_query")):
        words = model.embed_text
    if "embed_edit" in model.programs and set(model.reads("embed_edit")) == {"image", "words"} and "words" in texts:
        edited = functools.partial(_edited, model)
    if "attributes" in model.programs and model.reads("attributes") == ["image"]:
        attributes = functools.partial(_mined_by, model)
    space = model.about.get("space", "")
    vectors = {name: model.about.get(name) for name in ("sha256", "input", "inputs", "texts")}
    recipe = writer.recipe_name({**vectors, "program": of_gallery})
    about_listings = {"columns": columns, "listings": listings, "recipe": recipe, "stages": model.stages()}
    return Networks(space, pictures, words, edited, None, attributes, **about_listings)
