"""Retrieval with the raw embedding (cosine, no post-processing) on a fixed part of the queries and of the gallery.

The gallery is a part of the whole one, so the scores are higher than those of `evaluate`: compare them only with each
other.
"""

from retrieval_jax import index
from retrieval_jax.evaluators import Evaluation
from retrieval_jax.evaluators._selection import Selection
from retrieval_jax.index import exact
from retrieval_jax.scoring import metrics

SCORES = ("recall@1", "mar@10", "mar@10_capped", "map@10")
K = 10  # depth of the ranking


def make(task, catalog, *, config, mesh=None, workdir=None, max_queries=500, max_gallery=2000) -> Evaluation | None:
    """Makes the evaluation.

    Args:
      task, catalog, config, mesh, workdir: see `evaluators`.
      max_queries: largest number of queries.
      max_gallery: largest number of gallery listings; more only if that many are relevant.

    Returns:
      The `Evaluation`, with the scores "retrieval/recall@1" and "retrieval/mar@10", ".../mar@10_capped",
      ".../map@10"; None where the relevant listings of the queries are not known.

    Raises:
      InputError: no query of the selection half has a relevant listing, or a split lacks a column.
    """
    if catalog.truth is None or catalog.query is None or catalog.gallery is None:
        return None
    selection = Selection(
        task,
        catalog,
        config=config,
        mesh=mesh,
        workdir=workdir,
        max_queries=max_queries,
        max_gallery=max_gallery,
    )

    def run(params, on_batch=None):
        queries, gallery = selection.embed(params, on_batch)
        found = index.others(exact.Index(gallery), queries, gallery, K)
        scores = metrics.evaluate(found, selection.truth, ks=(K,))
        for name in SCORES:
            yield f"retrieval/{name}", scores[name]

    return Evaluation(run, tuple(f"retrieval/{name}" for name in SCORES), f"retrieval: {selection.of}, plain cosine")
