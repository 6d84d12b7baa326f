"""Accuracy of a classification head: the share of listings whose highest score is that of their label."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from retrieval_jax import inference
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import Evaluation
from retrieval_jax.evaluators._selection import by_hash


def make(
    task,
    catalog,
    *,
    config,
    mesh=None,
    workdir=None,
    predict_fn="category",
    output="logits",
    label="category",
    split="val",
    max_rows=5000,
) -> Evaluation | None:
    """Makes the evaluation.

    Args:
      task, catalog, config, mesh, workdir: see `evaluators`.
      predict_fn: name of the predict function.
      output: name of its array of scores, [B, C].
      label: name of the column of the split that holds the labels, ints [n] below C, negative where unknown.
      split: name of the split.
      max_rows: largest number of listings, chosen by a hash of their ids; 0 for all.

    Returns:
      The `Evaluation`, with the score "accuracy/<split>_<label>"; None where no label of the split is known.

    Raises:
      InputError: no such predict function, split or column, or labels that are not ints [n].
    """
    if label == "category" and config.train.get("task_kwargs", {}).get("category_labels") == "clusters":
        raise InputError(
            "config.train.evaluations: with category_labels='clusters' the head predicts pseudo-products, which the "
            "column 'category' does not hold; leave accuracy out, or set label to a column of your own"
        )
    listings = catalog.split(split)
    function = inference.named(task.predict_fns, predict_fn)
    wanted = dataclasses.replace(function, reads=tuple(dict.fromkeys((*function.reads, label))))
    columns = inference.columns(wanted, listings, config, workdir, f"the evaluation 'accuracy' of {predict_fn}")
    labels = np.asarray(columns[label]) if isinstance(columns[label], np.ndarray) else np.zeros(0)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(listings):
        raise InputError(f"config.train.evaluations: accuracy needs a label per listing, which {label!r} does not hold")
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        return None
    rows = rows[by_hash((listings.ids[int(row)] for row in rows), max_rows)]
    name = f"accuracy/{split}_{label}"

    def run(params, on_batch=None):
        best = inference.predict(
            _best(function, output),
            params,
            columns,
            rows=rows,
            mesh=mesh,
            on_batch=on_batch,
            **inference.test_arguments(config),
        )["best"]
        yield name, float((best == labels[rows]).mean())

    return Evaluation(run, (name,), f"accuracy: {len(rows):,} of {len(listings):,} {split} listings")


@functools.lru_cache(maxsize=8)
def _best(predict_fn, output):
    """Returns the predict function of the highest score, {"best": int32 [B]}."""

    def best(params, batch):
        out = predict_fn(params, batch)
        if output not in out:
            raise InputError(
                f"config.train.evaluations: the predict function of accuracy returns {', '.join(sorted(out))}, and "
                f"output is {output!r}"
            )
        return {"best": jnp.argmax(out[output], axis=-1).astype(jnp.int32)}

    return dataclasses.replace(predict_fn, fn=best)
