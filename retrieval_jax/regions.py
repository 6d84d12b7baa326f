"""Pictures cropped to their product, which the network of another run finds.

`config.embed.regions` names that run (of the task "regions"); embed then shows the networks and descriptors the best
box of each picture of the splits it names, a margin wider. A picture without a box is shown whole.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from retrieval_jax import inference, paths
from retrieval_jax.data import fields
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.examples import Pictures
from retrieval_jax.data.pictures import colour
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import boxes
from retrieval_jax.training import checkpoints
from retrieval_jax.workdir import sides

TASK = "regions"


def predicted(model: inference.Model, split: Split, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Returns "boxes" [n, K, 4], "scores" and "types" [n, K] of pictures, as `scoring.boxes.regions` takes them.

    Args:
      model: of a run of the task "regions".
      split: whose pictures.
      rows: int [n], which of them; None for all.

    Raises:
      InputError: a model of another task.
    """
    if TASK not in model.task.predict_fns:
        raise InputError(
            f"the run {model.config.get('name', '')!r} learned {model.config.train.task!r}, which finds no regions: "
            "name a run of the task 'regions', such as configs/embedded_regions.py"
        )
    return inference.predict(
        model.task.predict_fns[TASK],
        model.params,
        {"image": Pictures(split.images)},
        rows=rows,
        mesh=model.mesh,
        desc=f"regions: {split.name}",
        **inference.test_arguments(model.config),
    )


def known_types(model: inference.Model, split: Split) -> list[np.ndarray]:
    """Returns the types that are known of each listing of a split, as numbers of the model; empty where unknown.

    Args:
      model: of a run of the task "regions".
      split: with the column of types that the run learned.

    Raises:
      InputError: it has no such column.
    """
    found = fields.read(split, model.config.train.task_kwargs.types)
    labels, known = fields.encode({model.data_info.fields[0].name: found}, model.data_info)
    out = [np.zeros(0, int)] * len(split)
    for row, label in zip(np.flatnonzero(known[:, 0]).tolist(), labels.values.tolist(), strict=True):
        out[row] = np.array([label])
    return out


def main_boxes(model: inference.Model, split: Split, *, guided: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Finds the best box of every picture of a split.

    Args:
      model: of a run of the task "regions".
      split: whose pictures.
      guided: whether boxes of another type than is known of the listing are dropped.

    Returns:
      float32 [n, 4], ymin, xmin, ymax, xmax as shares, the whole picture where there is no box, and bool [n], whether
      there is one.

    Raises:
      InputError: a model of another task, or guided without a column of types.
    """
    given = known_types(model, split) if guided else None
    return boxes.main_box(boxes.regions(predicted(model, split), given=given))


def check(config, workdir) -> None:
    """Raises an InputError where the run that config.embed.regions names lies in a folder without a trained network.

    Args:
      config: the whole config.
      workdir: the work directory that embeds.
    """
    side = sides.regions(config)
    if side.run and not side.config:  # one that is named by its config runs first
        _trained(side.workdir(workdir))


def cropped(config, catalog: Catalog, workdir) -> Catalog:
    """Returns the catalogue with the pictures of the splits of config.embed.regions cropped to their products.

    Args:
      config: the whole config.
      catalog: its catalogue; the same one is returned where config.embed.regions names no run.
      workdir: the work directory that embeds.

    Raises:
      InputError: nothing is trained there, or it is a run of another task.
    """
    side = sides.regions(config)
    if not side.run:
        return catalog
    model, settings, replaced = inference.load(_trained(side.workdir(workdir))), config.embed.regions, {}
    for name in settings.splits:
        split = catalog.split(name)
        best, there = main_boxes(model, split, guided=settings.guided)
        print(f"embed: {name}: {there.sum():,} of {len(there):,} pictures are cropped to their product", flush=True)
        images = colour.Cropped(split.images, best, settings.margin)
        replaced[name] = dataclasses.replace(split, images=images)
    return dataclasses.replace(catalog, **replaced)


def _trained(folder: pathlib.Path) -> pathlib.Path:
    if not checkpoints.steps(folder / "checkpoints"):
        command = paths.command("run", "--config=configs/embedded_regions.py")
        raise InputError(
            f"config.embed.regions.run: nothing is trained in {folder}: run `{command}` first, or correct it"
        )
    return folder
