"""Outfits of a split during training: the AUC of compatibility and fill in the blank, by the public protocol."""

import logging
import pathlib

import numpy as np

from retrieval_jax import inference
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.outfits import sets
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import Evaluation
from retrieval_jax.scoring import outfits as scores

_log = logging.getLogger(__name__)


def make(task, catalog, *, config, mesh=None, workdir=None, split="val", max_outfits=500) -> Evaluation | None:
    """Makes the evaluation.

    Args:
      task, catalog, config, mesh, workdir: see `evaluators`.
      split: name of the split whose outfits are scored.
      max_outfits: largest number of outfits, and of blanks, chosen at random, always the same; 0 for all.

    Returns:
      The `Evaluation`, with the scores "outfits/auc" and "outfits/fitb", the second where blanks can be asked; None
      where the split has no outfits, or too few to compare.

    Raises:
      InputError: the task does not embed items by type.
    """
    if "embed_item" not in task.predict_fns or workdir is None:
        raise InputError("config.train.evaluations: 'outfits' scores the task 'outfit' in a work directory")
    if f"outfits/{split}" not in catalog.tables:
        return None
    info = info_lib.load(pathlib.Path(workdir) / "checkpoints" / "data_info.json")
    listings = catalog.split(split)
    types, products = sets.described(listings, config.train.get("task_kwargs"), info)
    rated = sets.of_table(catalog.table("outfits", split), types).rated()
    found = rated.take(_some(len(rated), max_outfits))
    outfits = sets.asked(found, products)
    # Where the table says what does not go together, nothing is exchanged, also where none of it was chosen.
    kinds = (found if (rated.compatible == 0).any() else outfits).compatible
    if not 0 < (kinds == 1).sum() < len(kinds):
        _log.warning(
            "no evaluation 'outfits': %s has no outfits of one of the two kinds, those that go together and others",
            split,
        )
        return None
    every, questions = [outfits.rows], None
    try:
        questions = sets.blanks(catalog, split, found.good(), types, products)
        questions = questions.take(_some(len(questions), max_outfits))
        every += [questions.rows, questions.answers]
    except InputError as problem:  # a small split
        _log.warning("the evaluation 'outfits' of %s has no blanks, only the AUC: %s", split, problem)
    rows = np.unique(np.concatenate([one[one >= 0] for one in every]))
    place = np.full(len(listings) + 1, -1, np.int64)  # the last for an empty place
    place[rows] = np.arange(len(rows))
    function = task.predict_fns["embed_item"]
    columns = inference.columns(function, listings, config, workdir, "the evaluation 'outfits'")

    def run(params, on_batch=None):
        arguments = inference.test_arguments(config)
        made = inference.predict(function, params, columns, rows=rows, mesh=mesh, on_batch=on_batch, **arguments)
        vectors = made["embedding"]
        together = scores.compatibility(vectors, place[outfits.rows])
        yield "outfits/auc", scores.auc(outfits.compatible == 1, together)
        if questions is None:
            return
        sums = scores.sums(vectors, place[questions.rows], place[questions.answers])
        yield "outfits/fitb", float(scores.fill_in_the_blank(sums, questions.right).mean())

    names = ("outfits/auc",) if questions is None else ("outfits/auc", "outfits/fitb")
    of = f"outfits: {len(outfits):,} of the {split} split, {0 if questions is None else len(questions):,} blanks"
    return Evaluation(run, names, of)


def _some(count: int, most: int) -> np.ndarray:
    """Returns `most` of `count` rows at random, ascending: a table may have what goes together first."""
    return np.sort(np.random.default_rng(0).permutation(count)[: most or count])
