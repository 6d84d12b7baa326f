"""Retrieval as embed, search and evaluate would score it: every stage of search.steps, over the whole gallery.

Takes test-time views and the dtype of the stored embeddings into account, ranks all queries of the selection half, and
searches exactly, whatever config.search.index is. The stage "chosen" has the steps that the run's last search chose;
before the first search it is the plain cosine.
"""

import numpy as np

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.evaluators import Evaluation
from retrieval_jax.evaluators._selection import Selection
from retrieval_jax.evaluators.retrieval import SCORES, K
from retrieval_jax.index import exact
from retrieval_jax.postprocess import State, choosing, walk
from retrieval_jax.scoring import metrics
from retrieval_jax.workdir import as_path, sides


def make(task, catalog, *, config, mesh=None, workdir=None) -> Evaluation | None:
    """Makes the evaluation.

    Args:
      task, catalog, config, mesh, workdir: see `evaluators`.

    Returns:
      The `Evaluation`, with the scores of `evaluators.retrieval` for each stage, "whitening/mar@10" and so on; None
      where the relevant listings of the queries are not known.

    Raises:
      InputError: an unknown step or stage, or what `evaluators.retrieval.make` raises.
    """
    if catalog.truth is None or catalog.query is None or catalog.gallery is None:
        return None
    steps = [walk.FIRST, *walk.parse(config.search.steps)]
    wanted = walk.chosen(config.search.get("stages", ()), steps[1:])
    selection = Selection(task, catalog, config=config, mesh=mesh, workdir=workdir, views=config.embed.get("views", ()))

    def stored(side):
        vectors = side.block(0, len(side)).astype(config.embed.dtype).astype(np.float32)
        return Embeddings(side.ids, vectors, {})

    chosen = () if workdir is None else choosing.steps_of(choosing.load(as_path(workdir) / "rankings" / sides.MODEL))

    def rank(state, stage):
        del stage
        queries, gallery = state.members[0]
        return exact.Index(gallery).search(queries, config.search.k)

    def run(params, on_batch=None):
        queries, gallery = selection.embed(params, on_batch)
        first = State([(stored(queries), stored(gallery))], None, (sides.MODEL,))
        for step, state in walk.walk(first, steps, rank, wanted, lambda state: chosen):
            if step.stage in wanted:
                scores = metrics.evaluate(state.ranking, selection.truth, ks=(K,))
                for name in SCORES:
                    yield f"{step.stage}/{name}", scores[name]

    names = [f"{step.stage}/{name}" for step in steps if step.stage in wanted for name in SCORES]
    return Evaluation(run, tuple(names), f"stages: {selection.of}")
