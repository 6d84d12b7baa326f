"""Predicted against true attributes: per field and as sets, with calibration and combinations that never occur.

With `guide`, the attributes of these fields are given, and the others are predicted again.
"""

import dataclasses
import itertools
import pathlib

import numpy as np

from retrieval_jax import brief, inference, pairs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import Evaluation
from retrieval_jax.evaluators._selection import by_hash
from retrieval_jax.scoring import attributes as scores

GIVEN = "attribute_given"


@dataclasses.dataclass(frozen=True)
class Labelled:
    """True labels of some listings, and what predict functions read of them.

    Attributes:
      names: of the fields.
      field_of: int [V].
      true: bool [n, V].
      known: bool [n, fields].
      columns: of the whole split, for `inference.predict`.
      rows: int [n], of the split.
    """

    names: list[str]
    field_of: np.ndarray
    true: np.ndarray
    known: np.ndarray
    columns: dict
    rows: np.ndarray

    __repr__ = brief.line

    def given(self, fields: list[int]) -> dict:
        """Returns the columns with the true labels of some fields as given ones."""
        ids = self.columns["attribute_ids"]
        kept = np.isin(self.field_of[ids.values], fields)
        indptr = np.concatenate([[0], np.cumsum(kept)])[ids.indptr]
        return {**self.columns, GIVEN: Ragged(indptr, ids.values[kept])}


def labelled(task, split, config, workdir, info, rows=None) -> Labelled:
    """Reads the true labels of a split.

    Args:
      task: the `tasks.Task`.
      split: `data.catalog.Split`.
      config: the whole config.
      workdir: the work directory.
      info: `data.info.DataInfo` with fields.
      rows: int [n], of the split; None for all.
    """
    rows = np.arange(len(split)) if rows is None else rows
    function = inference.named(task.predict_fns, "attributes")
    wanted = dataclasses.replace(function, reads=(*function.reads, "attribute_ids", "attribute_known"))
    columns = inference.columns(wanted, split, config, workdir, "the evaluation 'attributes'")
    true = np.zeros((len(rows), len(info.label_names)), bool)
    ids, there = columns["attribute_ids"].padded(rows)
    true[np.nonzero(there)[0], ids[there]] = True
    field_of = np.repeat(np.arange(len(info.fields)), [field.values for field in info.fields])
    names = [field.name for field in info.fields]
    return Labelled(names, field_of, true, columns["attribute_known"][rows], columns, rows)


def numbers(names, fields, where) -> list[int]:
    """Returns the places of fields by name; raises InputError, with near names, for an unknown one."""
    for name in fields:
        if name not in names:
            raise InputError(f"{where} has {name!r}{pairs.near(name, names)}")
    return [names.index(name) for name in fields]


def make(
    task,
    catalog,
    *,
    config,
    mesh=None,
    workdir=None,
    split="val",
    guide=(),
    combinations=(),
    max_rows=2000,
) -> Evaluation | None:
    """Makes the evaluation.

    Args:
      task, catalog, config, mesh, workdir: see `evaluators`.
      split: name of the split.
      guide: names of the fields whose true values are given, for the scores "attributes/guided_..."; () for none.
      combinations: tuples of names of fields with one value: the share of listings with values that no training
        listing has together is "attributes/unseen_<field>_<field>"; () for all pairs.
      max_rows: largest number of listings, chosen by a hash of their ids; 0 for all.

    Returns:
      The `Evaluation`, with the scores "attributes/set_f1", "attributes/precision", "attributes/recall",
      "attributes/ece", "attributes/<field>_f1" and those above; None where no label of the split is known.

    Raises:
      InputError: no such split or field, or a task that does not learn fields.
    """
    if "attributes_given" not in task.predict_fns or workdir is None:
        raise InputError(
            "config.train.evaluations: 'attributes' scores the task 'attribute_sequence' in a work directory"
        )
    info = info_lib.load(pathlib.Path(workdir) / "checkpoints" / "data_info.json")
    listings = catalog.split(split)
    rows = by_hash(listings.ids, max_rows)
    target = labelled(task, listings, config, workdir, info, rows)
    if not target.known.any():
        return None
    single = [field.name for field in info.fields if not field.many]
    combinations = combinations or tuple(itertools.combinations(single, 2))
    where = "config.train.evaluations: attributes"
    combined = [numbers(single, fields, f"{where}: combinations") for fields in combinations]
    combined = [[target.names.index(single[number]) for number in fields] for fields in combined]
    guiding = numbers(target.names, guide, f"{where}: guide")
    train = labelled(task, catalog.split("train"), config, workdir, info).true
    arguments = inference.test_arguments(config)
    known_fields = [name for number, name in enumerate(target.names) if target.known[:, number].any()]
    free = [name for name in known_fields if name not in guide]

    def predict(name, params, columns, on_batch):
        function = inference.named(task.predict_fns, name)
        return inference.predict(function, params, columns, rows=rows, mesh=mesh, on_batch=on_batch, **arguments)

    def run(params, on_batch=None):
        out = predict("attributes", params, target.columns, on_batch)
        found = score(out, target)
        yield from ((f"attributes/{name}", found[name]) for name in _OVERALL)
        yield from ((f"attributes/{name}_f1", found[f"{name}_f1"]) for name in known_fields)
        shares = scores.unseen(out["chosen"], train, target.field_of, combined)
        for fields, share in zip(combinations, shares.T, strict=True):
            known = share[~np.isnan(share)]
            yield f"attributes/unseen_{'_'.join(fields)}", float(known.mean()) if len(known) else 0.0
        if guiding:
            out = predict("attributes_given", params, target.given(guiding), on_batch)
            found = score(out, target)
            yield from ((f"attributes/guided_{name}_f1", found[f"{name}_f1"]) for name in free)

    names = [f"attributes/{name}" for name in (*_OVERALL, *(f"{name}_f1" for name in known_fields))]
    names += [f"attributes/unseen_{'_'.join(fields)}" for fields in combinations]
    names += [f"attributes/guided_{name}_f1" for name in free] if guiding else []
    return Evaluation(run, tuple(names), f"attributes: {len(rows):,} of {len(listings):,} {split} listings")


_OVERALL = ("set_f1", "precision", "recall", "ece")


def score(out: dict, target: Labelled) -> dict[str, float]:
    """Returns the scores of a prediction, `scoring.attributes.summary` and "ece".

    Args:
      out: "chosen" bool [n, V] and "probabilities" [n, V].
      target: the true labels.
    """
    counted = scores.counts(out["chosen"], target.true, target.known, target.field_of)
    shown = out["chosen"] & target.known[:, target.field_of]
    found = scores.summary(counted, target.known, target.names)
    ece = scores.calibration(out["probabilities"][shown], target.true[shown])["ece"] if shown.any() else float("nan")
    return {**found, "ece": ece}
