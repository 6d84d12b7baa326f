"""How well a network fills in hidden tokens of texts that it did not learn from: accuracy, and loss in nats."""

import numpy as np

from retrieval_jax import inference
from retrieval_jax.evaluators import Evaluation
from retrieval_jax.evaluators._selection import by_hash


def make(
    task, catalog, *, config, mesh=None, workdir=None, predict_fn="masked", split="val", max_rows=5000
) -> Evaluation | None:
    """Makes the evaluation.

    Args:
      task, catalog, config, mesh, workdir: see `evaluators`.
      predict_fn: name of the predict function, which returns "hidden", "right" and "loss" [B].
      split: name of the split.
      max_rows: largest number of listings, chosen by a hash of their ids; 0 for all.

    Returns:
      The `Evaluation`, with "masked/<split>_accuracy" and "masked/<split>_loss", the mean over all hidden tokens. The
      same tokens are hidden every time. None where the split has no text.

    Raises:
      InputError: no such predict function or split, or one without the text that the task reads.
    """
    listings = catalog.split(split)
    function = inference.named(task.predict_fns, predict_fn)
    columns = inference.columns(function, listings, config, workdir, "the evaluation 'masked_tokens'")
    rows = np.flatnonzero(np.diff(columns["tokens"].indptr) > 2)
    if not len(rows):
        return None
    rows = rows[by_hash((listings.ids[int(row)] for row in rows), max_rows)]

    def run(params, on_batch=None):
        found = inference.predict(
            function,
            params,
            columns,
            rows=rows,
            mesh=mesh,
            on_batch=on_batch,
            **inference.test_arguments(config),
        )
        total = max(1, int(found["hidden"].sum()))
        yield f"masked/{split}_accuracy", float(found["right"].sum() / total)
        yield f"masked/{split}_loss", float(found["loss"].sum(dtype=np.float64) / total)

    names = (f"masked/{split}_accuracy", f"masked/{split}_loss")
    return Evaluation(run, names, f"masked tokens: {len(rows):,} of {len(listings):,} {split} listings")
