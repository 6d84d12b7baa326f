"""How well the model retrieves while it trains: a fixed part of the queries against a fixed part of the gallery."""

import numpy as np

from retrieval_jax import inference
from retrieval_jax.data.pictures import sources
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Truth


class Evaluator:
    """Recall of the raw embedding (cosine, no post-processing).

    The queries are taken from the selection half, which `evaluate` reports apart, so that choosing a checkpoint by
    this number leaves the other half untouched. The gallery holds all their relevant listings and fills up with
    others, so the numbers lie above those of the full gallery: compare them with each other only.
    """

    def __init__(
        self,
        predict_fn,
        *,
        catalog,
        transform,
        image_size,
        batch_size,
        mesh=None,
        k=10,
        max_queries=500,
        max_gallery=5000,
        selection_share=0.5,
        prefix="retrieval/",
        cache_bytes=2**30,
        views=(),
    ):
        """Chooses queries and gallery, by a hash of their ids: the same for every run of a catalogue.

        Args:
          predict_fn: (params, batch) -> {"embedding": [B, D]}.
          catalog: with query, gallery and truth.
          transform, image_size, batch_size, mesh, views: see `inference.predict`.
          k: depth of the ranking.
          max_queries: most queries.
          max_gallery: most gallery listings; more only if that many are relevant.
          selection_share: share of all queries to choose from.
          prefix: of the names.
          cache_bytes: of decoded pictures that stay in memory from one run to the next, for each side.

        Raises:
          InputError: the catalogue has no queries with known relevant listings.
        """
        if catalog.truth is None or catalog.query is None or catalog.gallery is None:
            raise InputError(
                f"catalogue {catalog.name} has no queries with known relevant listings: set "
                "config.train.eval_every_epochs to 0"
            )
        truth = catalog.truth
        hashes = metrics.hash_shares(truth.query_ids)
        queries = np.flatnonzero(metrics.selection_half(truth.query_ids, selection_share) & (truth.num_relevant > 0))
        if not len(queries):
            raise InputError(
                f"catalogue {catalog.name}: none of the {len(truth)} queries is in the selection share "
                f"{selection_share} and has a relevant listing; set config.train.eval_every_epochs to 0"
            )
        queries = np.sort(queries[np.argsort(hashes[queries], kind="stable")][:max_queries])
        wanted = np.unique(np.concatenate([truth.relevant(query) for query in queries]))
        others = np.setdiff1d(np.arange(len(truth.gallery_ids)), wanted, assume_unique=True)
        others = others[np.argsort(metrics.hash_shares(truth.gallery_ids)[others], kind="stable")]
        gallery = np.sort(np.concatenate([wanted, others[: max(0, max_gallery - len(wanted))]]))
        self.rows = {"query": queries, "gallery": gallery}
        self.ids = {
            "query": [truth.query_ids[int(row)] for row in queries],
            "gallery": [truth.gallery_ids[int(row)] for row in gallery],
        }
        self.images = {
            "query": sources.Cached(catalog.query.images, cache_bytes),
            "gallery": sources.Cached(catalog.gallery.images, cache_bytes),
        }
        relevant = [np.searchsorted(gallery, truth.relevant(query)) for query in queries]
        indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in relevant])])
        self.truth = Truth(self.ids["query"], self.ids["gallery"], indptr, np.concatenate(relevant))
        self.predict_fn, self.k, self.prefix = predict_fn, k, prefix
        self.predict_args = {
            "transform": transform,
            "image_size": image_size,
            "batch_size": batch_size,
            "mesh": mesh,
            "views": views,
        }

    def run(self, params, on_batch=None):
        """Yields (name, value), for k = 10: retrieval/recall@1, and mar@10, mar@10_capped, map@10 likewise.

        Args:
          params: pytree of arrays.
          on_batch: called after each batch, see `inference.predict`.
        """
        sides = {}
        for split in ("query", "gallery"):
            out = inference.predict(
                self.predict_fn,
                params,
                self.images[split],
                rows=self.rows[split],
                on_batch=on_batch,
                **self.predict_args,
            )
            sides[split] = Embeddings(self.ids[split], out["embedding"], {})
        ranking = exact.Index(sides["gallery"]).search(sides["query"], k=self.k)
        scores = metrics.evaluate(ranking, self.truth, ks=(self.k,))
        for name in ("recall@1", f"mar@{self.k}", f"mar@{self.k}_capped", f"map@{self.k}"):
            yield self.prefix + name, scores[name]


def make(task, catalog, *, config, mesh=None, **kwargs):
    """Returns `Evaluator.run`, or None where the catalogue has no ground truth."""
    if catalog.truth is None:
        return None
    return Evaluator(
        task.predict_fns["embed_image"],
        catalog=catalog,
        mesh=mesh,
        **inference.test_arguments(config),
        selection_share=config.evaluate.selection_share,
        cache_bytes=config.data.cache_bytes,
        **kwargs,
    ).run
