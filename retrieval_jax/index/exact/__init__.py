"""Exact search by cosine: one pass over the gallery for all queries, with the same result for every block size.

Tiles of queries x gallery rows go through BLAS in float32 to find k + margin candidates. BLAS sums in an order that
depends on block size and threads, so the candidates are re-scored pair by pair in float64, always in the same order;
ties go by id (as UTF-8 bytes). If the margin may have missed a row (a run of ties longer than the margin), the query is
searched again, and every row that could still be among its k best is re-scored. "May" rests on a bound of the float32
error: the worst case for up to 64 dimensions, 8 * sqrt(dim) roundings beyond that. Rounding errors partly cancel and
stay far below the latter, but there is no proof that they must.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl
import tqdm

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings, Ids, places
from retrieval_jax.index.exact.blocks import (
    best_first,
    check_gallery,
    check_queries,
    lengths_of,
    query_block,
    unit,
    warn_zero,
    zero_rows,
)
from retrieval_jax.index.exact.running_best import WORD, Best
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.workdir.provenance import cores

__all__ = [
    "Index",
    "best_first",
    "check_queries",
    "lengths_of",
    "one_thread",
    "query_block",
    "unit",
    "warn_zero",
    "zero_rows",
]

TILE = 512  # most queries that one thread multiplies with a gallery block at once
PAIRS = 1 << 18  # floats that one thread gathers at once to re-score pairs: few enough for its cache
READS = 1 << 22  # floats read at once for that: rows that are computed on read cost nearly as much in small reads
LOOKUP = 64  # ids read to find one by bisection, about: for fewer queries than this share, the others are not read
QUIET_PAIRS = 5e8  # query x gallery-row pairs; a search of up to this many is too short for a progress bar


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


class _OneThread:
    """Limits BLAS to one thread while anybody wants that.

    The limit is the whole process's: if every context restored what it had found, one that overlaps with another's end
    in a second thread would restore the other's limit, for good.
    """

    def __init__(self):
        self._lock, self._wanted, self._limit = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._lock:
            if not self._wanted:
                self._limit = _blas().limit(limits=1, user_api="blas")
            self._wanted += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._wanted -= 1
            if not self._wanted:
                self._limit.restore_original_limits()


_ONE_THREAD = _OneThread()


def one_thread(wanted: bool) -> contextlib.AbstractContextManager:
    """Returns a context in which BLAS uses one thread, if that is wanted; contexts may overlap in several threads.

    Args:
      wanted: False for a context without effect.
    """
    return _ONE_THREAD if wanted else contextlib.nullcontext()


class Index:
    """Exact cosine search over a gallery.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings; need not be normalised; a zero vector scores 0 with
        everything, and a search warns of it. Read in blocks during a search, once per `query_block` queries.
      ids: G ids, for arrays; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      query_block: queries at once; they and their candidates, (2 * (k + margin) + 64) * 12 bytes each, are in memory.
      gallery_block: gallery rows at once; takes 12 * dim bytes per row, plus up to 2,560 bytes per row and thread.
      margin: candidates kept beyond k before re-scoring.

    Raises:
      InputError: the number of ids differs from the number of rows, or a setting is out of range.
    """

    def __repr__(self) -> str:
        return f"exact.Index({brief.size(self.gallery)})"

    def __init__(
        self,
        gallery: np.ndarray | Embeddings,
        ids: Sequence[str] | None = None,
        *,
        query_block: int = 16384,
        gallery_block: int = 8192,
        margin: int = 32,
    ):
        self.gallery, self.ids = gallery, _ = check_gallery(gallery, ids, "index exact")
        self.query_block = arguments.integer(query_block, "query_block", "index exact")
        self.gallery_block = arguments.integer(gallery_block, "gallery_block", "index exact")
        self.margin = arguments.integer(margin, "margin", "index exact", low=0)
        self.lengths = np.full(len(gallery), np.nan)  # filled by the first search
        self.place = np.arange(len(gallery)) if self.ids is None else places(self.ids)  # each row's rank by id
        # Bound of the float32 error of a cosine: dim rounding errors of at most 2**-24 each. Their sum is at most dim
        # times that; as a random walk it grows with sqrt(dim), and 8 times that is a wide margin.
        width = gallery.shape[1]
        self.error = (min(width, 8.0 * np.sqrt(width)) + 8.0) * 2.0**-24
        self.threads = min(64, cores())

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns the k gallery rows of highest cosine for every query, best first.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: results per query; the ranking is padded if the gallery has fewer.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k] (cosines); ties go by id.

        Raises:
          InputError: a dimension that differs from the gallery's, k below 1, or a non-finite vector, named by row and
            id.
        """
        ids, vectors, k = self.check(queries, k)
        own = self.own_rows(ids)
        rows = np.full((len(vectors), k), -1, np.int64)
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        starts = range(0, len(vectors), self.query_block)
        total = len(starts) * -(-len(self.gallery) // self.gallery_block)
        quiet = len(vectors) * len(self.gallery) < QUIET_PAIRS
        with (
            tqdm.tqdm(total=total, desc="search", unit="block", mininterval=1, disable=quiet) as bar,
            ThreadPoolExecutor(self.threads) as pool,
        ):
            for start in starts:
                stop = min(start + self.query_block, len(vectors))
                block, lengths, mine = query_block(vectors, ids, own, start, stop)
                found = self._search_block(block, lengths, mine, k, pool, bar)
                rows[start:stop, : found[0].shape[1]], scores[start:stop, : found[1].shape[1]] = found
        return self.ranking(ids, rows, scores, vectors)

    def check(self, queries: np.ndarray | Embeddings, k: int) -> tuple[Ids | None, np.ndarray, int]:
        """Returns the queries' ids (or None), their vectors, and k; raises the same InputErrors as `search`."""
        return check_queries(queries, self.gallery.shape[1], k)

    def ranking(self, ids: Ids | None, rows: np.ndarray, scores: np.ndarray, vectors) -> Ranking:
        """Returns a Ranking of rows and scores [Q, k] of this gallery; warns of zero vectors.

        Args:
          ids: of the queries, or None: then they are numbered.
          rows: [Q, k].
          scores: [Q, k].
          vectors: [Q, D] the queries.
        """
        warn_zero(zero_rows(vectors, scores), len(vectors), "query", ids)
        warn_zero(np.flatnonzero(self.lengths == 0), len(self.gallery), "gallery", self.ids)
        names = ids if ids is not None else [str(row) for row in range(len(rows))]
        return Ranking(names, rows, scores, self.ids.sha256() if self.ids is not None else "")

    def own_rows(self, ids: Ids | None) -> np.ndarray:
        """Returns the (query, gallery row) pairs that are never results (`Ids.left_out`), [n, 2] int64, ascending."""
        if ids is None or self.ids is None:
            return np.zeros((0, 2), np.int64)
        left_out = list(ids.left_out())
        if len(ids) * LOOKUP < len(self.ids):
            rows_of = {item: self._rows_of(item) for items in left_out for item in items}
        else:
            rows_of = {item: [] for items in left_out for item in items}
            for row, item in enumerate(self.ids):
                if item in rows_of:
                    rows_of[item].append(row)
        pairs = [(query, row) for query, items in enumerate(left_out) for item in items for row in rows_of[item]]
        return np.array(sorted(pairs), np.int64).reshape(-1, 2)

    @functools.cached_property
    def _by_id(self) -> np.ndarray:
        return np.argsort(self.place, kind="stable")

    def _rows_of(self, item: str) -> list[int]:
        """Returns the rows of an id, ascending, by bisection."""
        rows = []
        at = bisect.bisect_left(self._by_id, item, key=lambda row: self.ids[int(row)])
        while at < len(self._by_id) and self.ids[int(self._by_id[at])] == item:
            rows.append(int(self._by_id[at]))
            at += 1
        return rows

    def rescore(self, block: np.ndarray, lengths: np.ndarray, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Returns the cosines of pairs, summed in float64 in an order that depends on dim alone.

        Args:
          block: [n, D] queries.
          lengths: [n], the queries' lengths.
          query: [p] each pair's row of `block`.
          row: [p] each pair's gallery row; every row is read once.

        Returns:
          [p] float32.
        """
        out = np.empty(len(row), np.float32)
        order = np.argsort(row, kind="stable")
        read, step = (max(1, numbers // max(1, block.shape[1])) for numbers in (READS, PAIRS))

        def score(start: int) -> None:
            pairs = order[start : start + read]
            rows, which = np.unique(row[pairs], return_inverse=True)
            vectors = np.asarray(self.gallery[rows], np.float32)
            known = self.lengths[rows]
            if np.isnan(known).any():
                known = self.lengths[rows] = lengths_of(vectors, self.ids, "gallery", rows)
            for first in range(0, len(pairs), step):
                some, there = pairs[first : first + step], which[first : first + step]
                wide = block[query[some]].astype(np.float64)
                dot = np.einsum("pd,pd->p", wide, vectors[there].astype(np.float64))
                scale = lengths[query[some]] * known[there]
                cosine = np.divide(dot, scale, out=np.zeros_like(dot), where=scale > 0)
                out[some] = cosine + np.float64(0.0)  # -0.0 becomes 0.0

        if len(row) <= step:
            score(0)
            return out
        read = min(read, -(-len(row) // self.threads))
        with ThreadPoolExecutor(self.threads) as pool, one_thread(True):
            list(pool.map(score, range(0, len(row), read)))
        return out

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (first row, unit vectors) per gallery block, reading ahead."""

        def read(first: int) -> tuple[int, np.ndarray]:
            block = np.asarray(self.gallery[first : first + self.gallery_block], np.float32)
            lengths = self.lengths[first : first + len(block)]
            if np.isnan(lengths).any():
                lengths[:] = lengths_of(block, self.ids, "gallery", first)
            return first, unit(block, lengths)

        readers = max(1, self.threads // 4)
        waiting = collections.deque()
        with ThreadPoolExecutor(readers) as pool:
            for first in range(0, len(self.gallery), self.gallery_block):
                waiting.append(pool.submit(read, first))
                if len(waiting) > readers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _tiles(self, units: np.ndarray, own: np.ndarray, pool: ThreadPoolExecutor, bar, work) -> None:
        """Calls work(tile number, first row, cosines, mask) for tiles of `_height` queries and all gallery rows.

        Calls run in threads; those of one tile come in row order. The number of columns is a multiple of WORD; a
        query's own rows and the columns past the last row hold -inf. The buffers of cosines and mask are reused.
        """
        height = self._height(len(units))
        starts = range(0, len(units), height)
        cut = np.searchsorted(own[:, 0], [*starts, len(units)])
        shape = height, -(-min(self.gallery_block, len(self.gallery)) // WORD) * WORD
        scratch = [(np.empty(shape, np.float32), np.empty(shape, bool)) for _ in starts[: self.threads]]

        def run(number: int, first: int, rows: np.ndarray) -> None:
            tile = units[starts[number] : starts[number] + height]
            spare = scratch.pop()
            cosines = spare[0][: len(tile)]
            np.matmul(tile, rows.T, out=cosines[:, : len(rows)])
            cosines[:, len(rows) :] = -np.inf
            mine = own[cut[number] : cut[number + 1]]
            mine = mine[(mine[:, 1] >= first) & (mine[:, 1] < first + len(rows))]
            cosines[mine[:, 0] - starts[number], mine[:, 1] - first] = -np.inf
            work(number, first, cosines, spare[1][: len(tile)])
            scratch.append(spare)

        # One BLAS thread per tile, unless there are fewer tiles than cores: then BLAS threads share a tile.
        with one_thread(len(starts) >= self.threads):
            for first, rows in self._blocks():
                list(pool.map(lambda number: run(number, first, rows), range(len(starts))))  # noqa: B023 (all done)
                bar.update()

    def _height(self, count: int) -> int:
        """Returns the tile height for `count` queries: one that gives as many tiles as threads, or a multiple."""
        rounds = -(-count // (TILE * self.threads))
        return min(TILE, max(min(TILE, 64), -(-count // (rounds * self.threads))), count)

    def _search_block(self, block, lengths, own, k: int, pool, bar) -> tuple[np.ndarray, np.ndarray]:
        count, keep = len(block), min(k + self.margin, len(self.gallery))
        if keep == 0 or count == 0:
            return np.full((count, keep), -1, np.int64), np.full((count, keep), -np.inf, np.float32)
        units = unit(block, lengths)
        height = self._height(count)
        best = [Best(min(height, count - start), keep) for start in range(0, count, height)]
        self._tiles(units, own, pool, bar, lambda number, *found: best[number].add(*found))
        width = min(k, keep)
        found = [one.finish(width, self.error) for one in best]
        best_row, floor = np.concatenate([row for row, _ in found]), np.concatenate([low for _, low in found])
        query, slot = np.nonzero(best_row >= 0)
        row = best_row[query, slot]
        rows, scores = best_first(query, row, self.rescore(block, lengths, query, row), self.place, count, width)
        last = scores[:, -1].astype(np.float64)
        # May a row that was left out belong among the best? Its cosine is at most floor + error; a tie with the last
        # result counts too, since its id may be smaller.
        hard = np.flatnonzero((floor > -np.inf) & (floor + self.error >= last)) if keep < len(self.gallery) else []
        if len(hard):
            rows[hard], scores[hard] = self.search_again(block, lengths, own, hard, last[hard], width, pool)
        return rows, scores

    def search_again(self, block, lengths, own, some, last, width: int, pool) -> tuple[np.ndarray, np.ndarray]:
        """Searches some queries exactly, re-scoring all rows that may reach a given score.

        Args:
          block: [n, D] queries.
          lengths: [n], the queries' lengths.
          own: from `own_rows`.
          some: [s] which queries to search, ascending.
          last: [s] a score that at least `width` gallery rows reach; -inf if unknown.
          width: rows to return.
          pool: threads.

        Returns:
          Rows [s, width] int64 and scores [s, width] float32, as from `best_first`.
        """
        renumber = np.full(len(block), -1)
        renumber[some] = np.arange(len(some))
        own = np.stack([renumber[own[:, 0]], own[:, 1]], 1)
        block, lengths = block[some], lengths[some]
        enough = (last - self.error).astype(np.float64)
        height = self._height(len(some))
        rows = [np.full((min(height, len(some) - n), width), -1, np.int64) for n in range(0, len(some), height)]
        scores = [np.full(part.shape, -np.inf, np.float32) for part in rows]

        def work(number: int, first: int, cosines: np.ndarray, mask: np.ndarray) -> None:
            tile = slice(number * height, number * height + len(cosines))
            np.greater_equal(cosines, enough[tile, None], out=mask)
            np.logical_and(mask, cosines > -np.inf, out=mask)  # not own rows or padding, even if `enough` is -inf
            query, column = np.nonzero(mask)
            if len(query):
                score = self.rescore(block[tile], lengths[tile], query, column + first)
                old_query, old_slot = np.nonzero(rows[number] >= 0)
                rows[number], scores[number] = best_first(
                    np.concatenate([old_query, query]),
                    np.concatenate([rows[number][old_query, old_slot], column + first]),
                    np.concatenate([scores[number][old_query, old_slot], score]),
                    self.place,
                    len(cosines),
                    width,
                )

        with tqdm.tqdm(disable=True) as bar:
            self._tiles(unit(block, lengths), own[own[:, 0] >= 0], pool, bar, work)
        return np.concatenate(rows), np.concatenate(scores)
