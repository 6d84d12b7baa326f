"""Exact search by cosine, in blocks: never a queries x gallery matrix, the same answer for every block size.

Blocks go through BLAS in float32 to find k + a margin of candidates. BLAS sums in an order that depends on block and
threads, so the candidates are re-scored pair by pair in float64, always in the same order; equal scores are put in the
order of their ids (as UTF-8 bytes). Where the margin may have missed a row (a run of ties longer than the margin), the
query is searched a second time, with every row re-scored that could still belong to its k best. What "may" means rests
on a bound of the float32 error: for up to 64 dimensions that of the worst case, beyond it 8 * sqrt(dim) roundings,
which errors that partly cancel stay far below, though nobody proved that they must.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tqdm

from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError
from retrieval_jax.ranking import Ranking

PAIRS = 1 << 23  # numbers gathered at once when pairs are re-scored
HARD_QUERIES = 32  # queries searched a second time together
QUIET_PAIRS = 5e8  # of query and gallery row: up to here a search is too short for a progress bar


def _lengths(vectors, ids: Ids | None, side: str, block: int = 2048) -> np.ndarray:
    """Returns the vectors' lengths, float64, and refuses vectors that are not finite."""
    out = np.empty(len(vectors))
    for start in range(0, len(vectors), block):
        wide = np.asarray(vectors[start : start + block], np.float64)
        out[start : start + block] = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        bad = ~np.isfinite(out[start : start + block])
        if bad.any():
            row = start + int(bad.argmax())
            name = f" ({ids[row]})" if ids is not None else ""
            raise InputError(
                f"{side} embedding of row {row}{name} holds NaN or infinity: embed that listing again, or look at its "
                "image and at the checkpoint"
            )
    return out


def _unit(block: np.ndarray, length: np.ndarray) -> np.ndarray:
    out = np.zeros(block.shape, np.float32)
    np.divide(block, length[:, None], out=out, where=length[:, None] > 0, casting="same_kind")
    return out


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the columns [n, count] of each row's `count` largest values, in no order."""
    return np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]


def _above(cosines: np.ndarray, floor: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns values and columns above each row's floor, -inf and -1 behind; if many, the `keep` largest."""
    above = cosines > floor
    many = np.count_nonzero(above, axis=1)
    if 8 * many.max(initial=0) > cosines.shape[1] > keep:  # the first block: nothing to beat yet
        column = _largest(cosines, keep)
        value = np.take_along_axis(cosines, column, 1)
        return value, np.where(value > -np.inf, column, -1)
    query, column = np.nonzero(above)  # few, once the best so far are good
    slot = np.arange(len(query)) - np.repeat(np.cumsum(many) - many, many)
    new = np.full((len(cosines), many.max(initial=0)), -np.inf, np.float32)
    new_column = np.full(new.shape, -1, np.int64)
    new[query, slot], new_column[query, slot] = cosines[query, column], column
    return new, new_column


class Index:
    """Exact cosine search over a gallery.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings; need not be normalised; a zero vector scores 0 with
        everything.
      ids: G ids, for arrays; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      query_block: queries at once.
      gallery_block: gallery rows at once; memory is about query_block * gallery_block * 8 bytes.
      margin: candidates kept beyond k before re-scoring.

    Raises:
      InputError: ids that do not fit, or a vector that is not finite, with its row and id.
    """

    def __init__(
        self,
        gallery: np.ndarray | Embeddings,
        ids: Sequence[str] | None = None,
        *,
        query_block: int = 512,
        gallery_block: int = 16384,
        margin: int = 32,
    ):
        if isinstance(gallery, Embeddings):
            gallery, ids = gallery.vectors, gallery.ids if ids is None else ids
        if len(gallery.shape) != 2:
            raise InputError(f"the gallery is [rows, dim], got shape {tuple(gallery.shape)}")
        if min(query_block, gallery_block, margin + 1) < 1:
            raise InputError(
                f"blocks are 1 row or more, the margin 0 or more: got {query_block}, {gallery_block}, {margin}"
            )
        self.gallery, self.ids = gallery, None if ids is None else Ids.of(ids)
        if self.ids is not None and len(self.ids) != len(gallery):
            raise InputError(f"the gallery has {len(gallery)} vectors but {len(self.ids)} ids: give one id a row")
        self.query_block, self.gallery_block, self.margin = query_block, gallery_block, margin
        self.lengths = _lengths(gallery, self.ids, "gallery")
        self.place = np.arange(len(gallery))  # of each row when rows are sorted by id
        if self.ids is not None:
            names = list(self.ids)
            order = sorted(range(len(names)), key=names.__getitem__)  # Python's order of str is that of their UTF-8
            self.place[order] = np.arange(len(names))
        # What float32 may add to or take from a cosine: the rounding errors of dim terms, each at most 2**-24. Their
        # sum is at most dim of them; like a random walk it grows with sqrt(dim), and 8 times that is a wide margin.
        width = gallery.shape[1]
        self.error = (min(width, 8.0 * np.sqrt(width)) + 8.0) * 2.0**-24

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns the k gallery rows of highest cosine for every query, best first.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: how many; where the gallery holds fewer, the ranking is padded.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k] (cosines); equal scores ascend by id.

        Raises:
          InputError: another dimension than the gallery's, k below 1, or a vector that is not finite.
        """
        ids = queries.ids if isinstance(queries, Embeddings) else None
        vectors = queries.vectors if isinstance(queries, Embeddings) else np.asarray(queries)
        if len(vectors.shape) != 2 or vectors.shape[1] != self.gallery.shape[1]:
            raise InputError(
                f"queries of shape {tuple(vectors.shape)} cannot be searched in a gallery of "
                f"{self.gallery.shape[1]} numbers a row: "
                "embed both with the same model"
            )
        if k < 1:
            raise InputError(f"search.k is {k}: ask for at least one result")
        lengths = _lengths(vectors, ids, "query")
        own = self._own_rows(ids)
        rows = np.full((len(vectors), k), -1, np.int64)
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        starts = range(0, len(vectors), self.query_block)
        total = len(starts) * -(-len(self.gallery) // self.gallery_block)
        quiet = len(vectors) * len(self.gallery) < QUIET_PAIRS
        with tqdm.tqdm(total=total, desc="search", unit="block", mininterval=1, disable=quiet) as bar:
            for start in starts:
                stop = min(start + self.query_block, len(vectors))
                block = np.asarray(vectors[start:stop], np.float32)
                mine = own[np.searchsorted(own[:, 0], start) : np.searchsorted(own[:, 0], stop)] - [start, 0]
                found = self._search_block(block, lengths[start:stop], mine, k, bar)
                rows[start:stop, : found[0].shape[1]], scores[start:stop, : found[1].shape[1]] = found
        names = ids if ids is not None else [str(row) for row in range(len(vectors))]
        return Ranking(names, rows, scores, self.ids.sha256() if self.ids is not None else "")

    def _own_rows(self, ids: Ids | None) -> np.ndarray:
        """Returns (query, gallery row) of equal ids, [n, 2], ascending."""
        if ids is None or self.ids is None:
            return np.zeros((0, 2), np.int64)
        rows_of = {item: [] for item in ids}
        for row, item in enumerate(self.ids):
            if item in rows_of:
                rows_of[item].append(row)
        pairs = [(query, row) for query, item in enumerate(ids) for row in rows_of[item]]
        return np.array(pairs, np.int64).reshape(-1, 2)

    def _blocks(self, unit: np.ndarray, own: np.ndarray):
        """Yields (first row, float32 cosines [queries, rows of the block]), a query's own rows at -inf."""
        for first in range(0, len(self.gallery), self.gallery_block):
            block = np.asarray(self.gallery[first : first + self.gallery_block])
            cosines = unit @ _unit(block, self.lengths[first : first + len(block)]).T
            here = own[(own[:, 1] >= first) & (own[:, 1] < first + len(block))]
            cosines[here[:, 0], here[:, 1] - first] = -np.inf
            yield first, cosines

    def _rescore(self, block: np.ndarray, lengths: np.ndarray, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Returns float32 cosines of pairs (query[i], row[i]), summed in float64, in an order set by dim alone."""
        out = np.empty(len(row), np.float32)
        step = max(1, PAIRS // max(1, block.shape[1]))
        for start in range(0, len(row), step):
            q, g = query[start : start + step], row[start : start + step]
            dot = np.einsum("pd,pd->p", block[q].astype(np.float64), np.asarray(self.gallery[g], np.float64))
            scale = lengths[q] * self.lengths[g]
            cosine = np.divide(dot, scale, out=np.zeros_like(dot), where=scale > 0)
            out[start : start + step] = cosine + np.float64(0.0)  # -0.0 becomes 0.0
        return out

    def _search_block(
        self, block: np.ndarray, lengths: np.ndarray, own: np.ndarray, k: int, bar: tqdm.tqdm
    ) -> tuple[np.ndarray, np.ndarray]:
        count, keep = len(block), min(k + self.margin, len(self.gallery))
        unit = _unit(block, lengths)
        best = np.full((count, keep), -np.inf, np.float32)
        best_row = np.full((count, keep), -1, np.int64)
        if keep == 0:
            return best_row, best
        for first, cosines in self._blocks(unit, own):
            new, new_row = _above(cosines, best.min(1, keepdims=True), keep)
            if new.shape[1]:
                joined = np.concatenate([best, new], 1)
                joined_row = np.concatenate([best_row, np.where(new_row >= 0, new_row + first, -1)], 1)
                chosen = _largest(joined, keep)
                best, best_row = np.take_along_axis(joined, chosen, 1), np.take_along_axis(joined_row, chosen, 1)
            bar.update()
        floor = best.min(1)  # no row left outside was above this in float32; -inf: none is outside
        query, slot = np.nonzero(best_row >= 0)
        row = best_row[query, slot]
        width = min(k, keep)
        rows, scores = self._sort(query, row, self._rescore(block, lengths, query, row), count, width)
        last = scores[:, -1].astype(np.float64)
        # Could a row outside belong inside? Its cosine is at most floor + error; a tie with the last one counts, for
        # its id may be smaller.
        hard = np.flatnonzero((floor > -np.inf) & (floor + self.error >= last)) if keep < len(self.gallery) else []
        for start in range(0, len(hard), HARD_QUERIES):
            some = hard[start : start + HARD_QUERIES]
            rows[some], scores[some] = self._search_hard(block, lengths, own, unit, some, last[some], width)
        return rows, scores

    def _search_hard(self, block, lengths, own, unit, some, last, width) -> tuple[np.ndarray, np.ndarray]:
        """Searches a few queries again, re-scoring all rows that may reach `last`, a score known to be enough."""
        renumber = np.full(len(block), -1)
        renumber[some] = np.arange(len(some))
        own = np.stack([renumber[own[:, 0]], own[:, 1]], 1)
        rows, scores = np.full((len(some), width), -1, np.int64), np.full((len(some), width), -np.inf, np.float32)
        for first, cosines in self._blocks(unit[some], own[own[:, 0] >= 0]):
            query, column = np.nonzero(cosines >= (last - self.error)[:, None])
            score = self._rescore(block[some], lengths[some], query, column + first)
            old_query, old_slot = np.nonzero(rows >= 0)
            rows, scores = self._sort(
                np.concatenate([old_query, query]),
                np.concatenate([rows[old_query, old_slot], column + first]),
                np.concatenate([scores[old_query, old_slot], score]),
                len(some),
                width,
            )
        return rows, scores

    def _sort(self, query, row, score, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first `width` (row, score) of each query, by score, then id; -1 and -inf behind."""
        order = np.lexsort((self.place[row], -score, query))
        query, row, score = query[order], row[order], score[order]
        many = np.bincount(query, minlength=count)
        slot = np.arange(len(query)) - np.repeat(np.cumsum(many) - many, many)
        first = slot < width
        rows, scores = np.full((count, width), -1, np.int64), np.full((count, width), -np.inf, np.float32)
        rows[query[first], slot[first]], scores[query[first], slot[first]] = row[first], score[first]
        return rows, scores
