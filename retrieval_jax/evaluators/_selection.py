"""The queries and gallery listings that an evaluation ranks, and their embeddings with the current parameters."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from retrieval_jax import inference
from retrieval_jax.data.examples import Pictures
from retrieval_jax.data.pictures import sources
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Truth
from retrieval_jax.workdir import sides


def by_hash(ids: Iterable[str], most: int) -> np.ndarray:
    """Returns which of some listings are scored, int64 ascending: at most `most` by a hash of their ids; 0 for all."""
    return np.sort(np.argsort(metrics.hash_shares(list(ids)), kind="stable")[: most or None])


class Selection:
    """A fixed part of the queries against a fixed part of the gallery.

    The queries come from the selection half, which `evaluate` reports separately, so that choosing a checkpoint by
    these scores leaves the other half untouched. The gallery holds all of their relevant listings and is filled up with
    others. Both are chosen by a hash of the ids: the same for every run on a catalogue.

    A side of the search that is another run's (config.search.query_from, gallery_from) is embedded by that run, once.

    Attributes:
      rows: {"query", "gallery": int [n], rows of the split}.
      ids: {"query", "gallery": their ids}.
      truth: `scoring.ranking.Truth` of these.
      of: how many they are, for people.
    """

    def __init__(self, task, catalog, *, config, mesh, workdir, max_queries=0, max_gallery=0, views=()):
        """Chooses queries and gallery.

        Args:
          task, catalog, config, mesh, workdir: see `evaluators`; the catalogue has ground truth.
          max_queries: largest number of queries; 0 for all of the selection half.
          max_gallery: largest number of gallery listings, unless more are relevant; 0 for all.
          views: see `inference.predict`.

        Raises:
          InputError: no query of the selection half has a relevant listing, or a split lacks a column.
        """
        truth, share = catalog.truth, config.evaluate.selection_share
        hashes = metrics.hash_shares(truth.query_ids)
        queries = np.flatnonzero(metrics.selection_half(truth.query_ids, share) & (truth.num_relevant > 0))
        if not len(queries):
            raise InputError(
                f"catalogue {catalog.name}: none of the {len(truth)} queries is in the selection share {share} and has "
                "a relevant listing; set config.train.eval_every_epochs to 0"
            )
        queries = np.sort(queries[np.argsort(hashes[queries], kind="stable")][: max_queries or None])
        wanted = np.unique(np.concatenate([truth.relevant(query) for query in queries]))
        others = np.setdiff1d(np.arange(len(truth.gallery_ids)), wanted, assume_unique=True)
        others = others[np.argsort(metrics.hash_shares(truth.gallery_ids)[others], kind="stable")]
        most = max(0, max_gallery - len(wanted)) if max_gallery else None
        gallery = np.sort(np.concatenate([wanted, others[:most]]))
        self.rows = {"query": queries, "gallery": gallery}
        self.of = (
            f"{len(queries):,} of {len(truth):,} queries (of the selection half) against {len(gallery):,} of "
            f"{len(truth.gallery_ids):,} gallery listings"
        )
        self.ids = {
            "query": Ids.of(truth.query_ids).take(queries),
            "gallery": [truth.gallery_ids[int(row)] for row in gallery],
        }
        relevant = [np.searchsorted(gallery, truth.relevant(query)) for query in queries]
        indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in relevant])])
        self.truth = Truth(self.ids["query"], self.ids["gallery"], indptr, np.concatenate(relevant))

        self._mesh, self._views, self._own, self._fixed = mesh, views, {}, {}
        for split, side in sides.of(config).items():
            if side.run and not side.adapter:
                self._fixed[split] = self._of_other_run(catalog.split(split), side, workdir)
                continue
            if side.adapter or side.step or side.which != "ema":
                raise InputError(
                    f"config.search.{split}_from asks for {side}, which training cannot score on its way: "
                    "set config.train.eval_every_epochs to 0"
                )
            name = side.predict_fn or config.embed.predict_fn
            predict_fn = inference.named(task.predict_fns, name)
            columns = inference.columns(
                predict_fn, catalog.split(split), config, workdir, f"the predict function {name!r}"
            )
            columns = {
                key: dataclasses.replace(column, source=sources.Cached(column.source, config.data.cache_bytes))
                if isinstance(column, Pictures)
                else column
                for key, column in columns.items()
            }
            self._own[split] = predict_fn, columns, inference.test_arguments(config)

    def embed(self, params, on_batch=None) -> tuple[Embeddings, Embeddings]:
        """Returns the embeddings of queries and gallery.

        Args:
          params: pytree of arrays.
          on_batch: called after each batch, see `inference.predict`.

        Raises:
          InputError: the two have different dimensions.
        """
        found = dict(self._fixed)
        for split, (predict_fn, columns, arguments) in self._own.items():
            found[split] = self._predict(split, predict_fn, params, columns, arguments, self._views, on_batch)
        queries, gallery = found["query"], found["gallery"]
        if queries.dim != gallery.dim:
            raise InputError(
                f"the embeddings of the queries have {queries.dim} dimensions and those of the gallery {gallery.dim}: "
                "change config.search.query_from or gallery_from"
            )
        return queries, gallery

    def _predict(self, split, predict_fn, params, columns, arguments, views, on_batch=None) -> Embeddings:
        out = inference.predict(
            predict_fn,
            params,
            columns,
            rows=self.rows[split],
            mesh=self._mesh,
            views=views,
            on_batch=on_batch,
            **arguments,
        )
        return Embeddings(self.ids[split], out["embedding"], {})

    def _of_other_run(self, split, side, workdir) -> Embeddings:
        folder = side.workdir(workdir)
        model = inference.load(folder, side.which, side.step or None)
        name = side.predict_fn or model.config.embed.predict_fn
        predict_fn = inference.named(model.task.predict_fns, name)
        columns = inference.columns(predict_fn, split, model.config, folder, f"the predict function {name!r}")
        arguments, views = inference.test_arguments(model.config), model.config.embed.get("views", ())
        return self._predict(split.name, predict_fn, model.params, columns, arguments, views)
