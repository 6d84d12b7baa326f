"""Binary index: sign codes in memory, full vectors left on disk, candidates re-ranked by exact cosine.

`Index(gallery).search(queries, k)` searches an existing gallery. `create` and `open` manage an index on disk, which
vectors can be added to and deleted from while it is searched. Recall depends on the number of candidates: measure it
against index.exact on your own vectors (as benchmarks/binary.py does).

Source: coarse Hamming filter, then exact re-ranking, as in Zhang et al., "Visual Search at Alibaba", KDD 2018
  (arXiv 2102.04674).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tqdm

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.index import exact
from retrieval_jax.index.binary import codes, rerank
from retrieval_jax.index.binary.store import Store, create, open
from retrieval_jax.scoring.ranking import Ranking

__all__ = ["Index", "Store", "create", "open"]

GALLERY_BLOCK = 4096  # gallery rows encoded at once


class Index:
    """Approximate cosine search over a gallery; only the codes are in memory, vectors are read from the gallery.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings; need not be normalised.
      ids: G ids, for arrays; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      candidates: rows of smallest Hamming distance to re-rank by exact cosine; more give higher recall.
      bits: see `codes.fit`.
      cells: see `codes.fit`.
      probes: cells to search per query; by default the larger of 16 and 1/16 of them.
      shards: number of shards that hold the codes; does not change the result.
      method: see `codes.fit`.
      rounds: see `codes.fit`.
      seed: see `codes.fit`.

    Raises:
      InputError: a wrong number of ids, settings out of range, or a non-finite vector, named by row and id.
    """

    def __repr__(self) -> str:
        return f"binary.Index({brief.size(self.exact.gallery)})"

    def __init__(
        self,
        gallery: np.ndarray | Embeddings,
        ids: Sequence[str] | None = None,
        *,
        candidates: int = 200,
        bits: int | None = None,
        cells: int | None = None,
        probes: int | None = None,
        shards: int = 1,
        method: str = "itq",
        rounds: int = 10,
        seed: int = 0,
    ):
        self.candidates = arguments.integer(candidates, "candidates", "index binary")
        shards = arguments.integer(shards, "shards", "index binary", high=1000)
        self.exact = exact.Index(gallery, ids)  # only for its ids, places, lengths and own_rows
        gallery = self.exact.gallery
        self.coder = codes.fit(gallery, bits=bits, cells=cells, method=method, rounds=rounds, seed=seed)
        self.probes = codes.probed(self.coder.cells, probes)
        self.shards = [codes.Lists(self.coder.bits, self.coder.cells) for _ in range(shards)]
        starts = range(0, len(gallery), GALLERY_BLOCK)
        for start in tqdm.tqdm(starts, desc="encode", unit="block", mininterval=1, disable=len(starts) < 16):
            block = np.asarray(gallery[start : start + GALLERY_BLOCK], np.float32)
            lengths = exact.lengths_of(block, self.exact.ids, "gallery", start)  # rejects non-finite vectors
            self.exact.lengths[start : start + len(block)] = lengths
            code, cell = self.coder.encode(block)
            rows = np.arange(start, start + len(block))
            for number, shard in enumerate(self.shards):
                here = rows % shards == number
                shard.add(rows[here], cell[here, 0], code[here])

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns the best k candidates of every query.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: results per query; the ranking is padded if fewer are found.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k] (exact cosines); ties go by id.

        Raises:
          InputError: a dimension that differs from the gallery's, k below 1, or a non-finite vector.
        """
        ids, vectors, k = self.exact.check(queries, k)
        own = self.exact.own_rows(ids)
        own = np.split(own[:, 1], np.searchsorted(own[:, 0], np.arange(1, len(vectors))))
        by_id, count = self.exact.place.__getitem__, max(self.candidates, k)
        rows, scores = rerank.search(
            vectors,
            ids,
            k,
            coder=self.coder,
            probes=self.probes,
            find=lambda some, code, cells: codes.candidates(self.shards, code, cells, count, own[some], by_id),
            by_id=by_id,
            fetch=self.exact.gallery.__getitem__,
        )
        return self.exact.ranking(ids, rows, scores, vectors)
