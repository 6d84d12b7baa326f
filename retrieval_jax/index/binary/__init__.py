"""Binary engine: sign codes in memory, vectors where they are, exact cosines of the candidates.

`Index(gallery).search(queries, k)` searches a gallery that is there. `create` and `open` keep one on disk, to which
vectors are added and from which they are deleted while it is searched. Recall depends on the number of candidates:
measure it against index.exact on your own vectors (benchmarks/binary.py does).

Source: coarse Hamming filter, then exact re-ranking, as in Zhang et al., "Visual Search at Alibaba", KDD 2018
  (arXiv 2102.04674).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import tqdm

from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact
from retrieval_jax.index.binary import codes, rerank
from retrieval_jax.index.binary.store import Store, create, open
from retrieval_jax.ranking import Ranking

__all__ = ["Index", "Store", "create", "open"]

GALLERY_BLOCK = 4096  # rows encoded at once


class Index:
    """Approximate cosine search over a gallery: memory is the codes'; vectors are read where they lie.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings; need not be normalised.
      ids: G ids, for arrays; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      candidates: rows of smallest Hamming distance that are re-ranked by exact cosine: more of them, more recall.
      bits: see `codes.fit`.
      cells: see `codes.fit`.
      probes: cells searched for a query; by default 16, or 1 / 16 of them where that is more.
      shards: parts the codes are kept in; the result is the same for every number.
      rounds: see `codes.fit`.
      seed: see `codes.fit`.

    Raises:
      InputError: ids that do not fit, settings out of range, or a vector that is not finite, with its row and id.
    """

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
        rounds: int = 10,
        seed: int = 0,
    ):
        if isinstance(gallery, Embeddings):
            gallery, ids = gallery.vectors, gallery.ids if ids is None else ids
        if len(gallery.shape) != 2:
            raise InputError(f"the gallery is [rows, dim], got shape {tuple(gallery.shape)}")
        if min(candidates, shards) < 1:
            raise InputError(f"candidates and shards are 1 or more: got {candidates} and {shards}")
        self.gallery, self.ids = gallery, None if ids is None else Ids.of(ids)
        if self.ids is not None and len(self.ids) != len(gallery):
            raise InputError(f"the gallery has {len(gallery)} vectors but {len(self.ids)} ids: give one id a row")
        self.candidates = candidates
        self.coder = codes.fit(gallery, bits=bits, cells=cells, rounds=rounds, seed=seed)
        self.probes = codes.probed(self.coder.cells, probes)
        self.shards = [codes.Lists(self.coder.bits, self.coder.cells) for _ in range(shards)]
        starts = range(0, len(gallery), GALLERY_BLOCK)
        for start in tqdm.tqdm(starts, desc="encode", unit="block", mininterval=1, disable=len(starts) < 16):
            block = np.asarray(gallery[start : start + GALLERY_BLOCK], np.float32)
            exact.lengths_of(block, self.ids, "gallery", start)  # refuses what is not finite
            code, cell = self.coder.encode(block)
            rows = np.arange(start, start + len(block))
            for number, shard in enumerate(self.shards):
                here = rows % shards == number
                shard.add(rows[here], cell[here, 0], code[here])
        self.place = np.arange(len(gallery))  # of each row when rows are sorted by id
        if self.ids is not None:
            names = list(self.ids)
            self.place[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns, for every query, the best k of its candidates.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: how many; where fewer are found, the ranking is padded.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k] (exact cosines); equal scores ascend by id.

        Raises:
          InputError: another dimension than the gallery's, k below 1, or a vector that is not finite.
        """
        vectors, ids = rerank.check_queries(queries, self.gallery.shape[1], k)
        rows_of = {item: [] for item in ids} if ids is not None and self.ids is not None else {}
        for row, item in enumerate(self.ids if rows_of else ()):
            if item in rows_of:
                rows_of[item].append(row)
        own = [np.array(rows_of[item], np.int64) for item in ids] if rows_of else [np.zeros(0, np.int64)] * len(vectors)
        rows, scores = rerank.search(
            vectors, ids, k, coder=self.coder, shards=self.shards, count=self.candidates, probes=self.probes, own=own,
            by_id=self.place.__getitem__, fetch=self.gallery.__getitem__, lock=contextlib.nullcontext(),
        )
        names = ids if ids is not None else [str(row) for row in range(len(vectors))]
        return Ranking(names, rows, scores, self.ids.sha256() if self.ids is not None else "")
