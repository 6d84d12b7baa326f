"""Regions against true boxes: mean average precision, with and without the types that are known to be in a picture."""

import pathlib

import numpy as np

from retrieval_jax import inference
from retrieval_jax.data import fields, regions
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Pictures
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import Evaluation
from retrieval_jax.evaluators._selection import by_hash
from retrieval_jax.scoring import boxes as scores


def make(task, catalog, *, config, mesh=None, workdir=None, split="val", max_rows=1000, iou=0.5) -> Evaluation | None:
    """Makes the evaluation.

    Args:
      task, catalog, config, mesh, workdir: see `evaluators`.
      split: name of the split.
      max_rows: largest number of pictures, chosen by a hash of their ids; 0 for all.
      iou: overlap from which a box is right.

    Returns:
      The `Evaluation`, with the scores "regions/map", "regions/map_given", where only boxes of types that are in the
      picture are kept, and "regions/iou", the mean overlap of the best box with the true ones; None where no picture of
      the split has a box of a learned type.

    Raises:
      InputError: the task does not predict regions.
    """
    if "regions" not in task.predict_fns or workdir is None:
        raise InputError("config.train.evaluations: 'regions' scores the task 'regions' in a work directory")
    info = info_lib.load(pathlib.Path(workdir) / "checkpoints" / "data_info.json")
    listings, kwargs = catalog.split(split), config.train.task_kwargs
    if regions.BOX not in listings.columns:
        return None
    target = regions.of_split(listings, fields.read(listings, kwargs.types), info, kwargs.group)
    chosen = by_hash((listings.ids[int(row)] for row in target.rows), max_rows)
    true = target.true(chosen.tolist())
    if not any(len(one["boxes"]) for one in true):
        return None
    columns = {"image": Pictures(listings.images)}
    function = inference.named(task.predict_fns, "regions")

    def run(params, on_batch=None):
        found = inference.predict(
            function,
            params,
            columns,
            rows=target.rows[chosen],
            mesh=mesh,
            on_batch=on_batch,
            **inference.test_arguments(config),
        )
        for name, given in (("map", None), ("map_given", [np.unique(one["types"]) for one in true])):
            kept = scores.regions(found, given=given)
            yield f"regions/{name}", scores.average_precision(kept, true, least_iou=iou)["map"]
        main, _ = scores.main_box(scores.regions(found))
        overlaps = [
            scores.iou(box, one["boxes"]).max() for box, one in zip(main, true, strict=True) if len(one["boxes"])
        ]
        yield "regions/iou", float(np.mean(overlaps))

    names = ("regions/map", "regions/map_given", "regions/iou")
    return Evaluation(run, names, f"regions: {len(chosen):,} of {len(target.rows):,} {split} pictures with boxes")
