"""Exact search among some of the rows of a gallery, whichever they are and however many.

Few rows are gathered and multiplied, and so are all rows for several queries at once where the gallery is in memory.
For many, a scan over codes of 8 bits per dimension (faiss, which skips rows that are not selected) proposes candidates,
and a bound proves that nothing was missed: the cosine of a row and that of its code differ by at most the distance
between the two, whose maximum over all rows is measured when they are encoded. A query whose candidates do not reach
that far is repeated with more. Scores are those of `index.exact`, bit for bit.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np

from retrieval_jax.index import exact

FEW = 16384  # rows that are gathered instead of scanned
SEVERAL = 6  # queries from which one product with all rows in memory takes less time than a scan of codes for each
GROUP = 64  # cosines of which the largest is taken, to find a bound of the k-th largest
PART = 1 << 18  # rows of codes that one thread scans
BLOCK = 16384  # rows encoded at once
PAIRS = 1 << 24  # query x row pairs multiplied, or candidates asked for, at once
NUMBERS = 1 << 25  # floats of rows gathered at once
FEW_PRODUCTS = 1 << 28  # multiplications for which it does not pay to wake other threads
MARGIN = 54  # candidates beyond k: ten results and these make 64


class Scan:
    """Exact search by cosine among selected rows.

    Args:
      engine: exact search over the whole gallery: its vectors, lengths, order by id and scores.
    """

    def __init__(self, engine: exact.Index):
        self.engine = engine
        self._parts: list[faiss.IndexScalarQuantizer] = []
        self._coded, self._error, self._encoding = 0, 0.0, threading.Lock()

    def grown(self, engine: exact.Index) -> None:
        """Takes a gallery whose first rows are those of the one before."""
        engine.lengths[: len(self.engine.lengths)] = self.engine.lengths
        self.engine = engine

    def search(self, block: np.ndarray, lengths: np.ndarray, k: int, rows: np.ndarray, own: np.ndarray) -> tuple:
        """Returns the k best of some rows for every query.

        Args:
          block: [n, D] queries.
          lengths: [n], their lengths.
          k: results per query.
          rows: [m] the rows to search, ascending.
          own: (query, row) pairs to leave out, ascending.

        Returns:
          Rows [n, k] int64 and cosines [n, k] float32, best first, ties by id; padded with -1 and -inf.
        """
        together = len(block) >= SEVERAL and len(rows) == len(self.engine.gallery) and self._in_memory
        if len(rows) <= FEW or together:
            return self._gathered(block, lengths, k, rows, own)
        with self._encoding:
            self._encode()
        out = np.full((len(block), k), -1, np.int64), np.full((len(block), k), -np.inf, np.float32)
        mask = np.zeros(-(-len(self.engine.gallery) // PART) * PART, bool)
        mask[rows] = True
        bits = np.packbits(mask, bitorder="little")
        asked, want = np.arange(len(block)), k + MARGIN
        extra = int(np.bincount(own[:, 0]).max(initial=0)) if len(own) else 0
        while len(asked) and want + extra < len(rows) // 4 and self._held(len(asked), want + extra) <= PAIRS:
            mine = _renumbered(own, asked, len(block))
            found, proven = self._scanned(block[asked], lengths[asked], k, want + extra, bits, mine)
            for part, values in zip(out, found, strict=True):
                part[asked] = values
            asked, want = asked[~proven], 8 * want
        if len(asked):
            mine = _renumbered(own, asked, len(block))
            found = self._gathered(block[asked], lengths[asked], k, rows, mine)
            for part, values in zip(out, found, strict=True):
                part[asked] = values
        return out

    @property
    def _in_memory(self) -> bool:
        gallery = self.engine.gallery
        return type(gallery) is np.ndarray and gallery.dtype == np.float32 and gallery.flags.owndata

    def _held(self, queries: int, want: int) -> int:
        """Returns how many candidates a scan holds: each part returns its own best."""
        return queries * want * len(self._parts)

    def _gathered(self, block, lengths, k: int, rows: np.ndarray, own: np.ndarray) -> tuple:
        """Searches by multiplying the queries with all of the rows, a block of them at a time."""
        out = np.full((len(block), k), -1, np.int64), np.full((len(block), k), -np.inf, np.float32)
        if not len(rows) or not len(block):
            return out
        units = exact.unit(block, lengths)
        step = max(1, min(PAIRS // len(block), NUMBERS // block.shape[1]))
        every = len(rows) == len(self.engine.gallery)
        floor = np.full(len(block), -np.inf, np.float32)
        kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            chosen = slice(start, start + len(some)) if every else some  # a slice is not copied
            vectors = np.asarray(self.engine.gallery[chosen], np.float32)
            known = self.engine.lengths[chosen]
            if np.isnan(known).any():
                known = self.engine.lengths[chosen] = exact.lengths_of(vectors, self.engine.ids, "gallery", some)
            with exact.one_thread(len(block) * vectors.size < FEW_PRODUCTS):
                if ((known == 0) | (known > 1e-15) & (known < 1e15)).all():  # no product overflows
                    cosines = units @ vectors.T
                    cosines *= np.divide(1, known, out=np.zeros_like(known), where=known > 0).astype(np.float32)
                else:
                    cosines = units @ exact.unit(vectors, known).T
            if len(own):
                place = np.minimum(np.searchsorted(some, own[:, 1]), len(some) - 1)
                here = some[place] == own[:, 1]
                cosines[own[here, 0], place[here]] = -np.inf
            for number, mine in enumerate(cosines):
                floor[number] = max(floor[number], _bound(mine, k))
                place = np.flatnonzero(mine >= max(floor[number] - 2 * self.engine.error, np.finfo(np.float32).min))
                kept.append((np.full(len(place), number), some[place], mine[place]))
        query, row, cosine = (np.concatenate(part) for part in zip(*kept, strict=True))
        inside = cosine >= (floor - 2 * self.engine.error)[query]
        query, row = query[inside], row[inside]
        score = self.engine.rescore(block, lengths, query, row)
        return exact.best_first(query, row, score, self.engine.place, len(block), k)

    def _scanned(self, block, lengths, k: int, want: int, bits: np.ndarray, own: np.ndarray) -> tuple:
        """Searches by codes; returns (rows, cosines) and which queries are proven, [n]."""
        units = exact.unit(block, lengths)

        def search(number: int) -> tuple[np.ndarray, np.ndarray]:
            part = self._parts[number]
            chosen = bits[number * PART // 8 : -(-(number * PART + part.ntotal) // 8)]
            selector = faiss.IDSelectorBitmap(len(chosen), faiss.swig_ptr(chosen))  # takes bytes, not rows
            return part.search(units, min(want, part.ntotal), params=faiss.SearchParameters(sel=selector))

        if len(block) > 1 or len(self._parts) < 2:  # faiss spreads queries over cores
            found = [search(number) for number in range(len(self._parts))]
        else:
            # Of each thread alone: threads below it would wait for each other in busy loops.
            workers = min(len(self._parts), self.engine.threads)
            with ThreadPoolExecutor(workers, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
                found = list(pool.map(search, range(len(self._parts))))
        rows = np.concatenate([np.where(row >= 0, row + n * PART, -1) for n, (_, row) in enumerate(found)], 1)
        coarse = np.concatenate([np.where(row >= 0, score, -np.inf) for score, row in found], 1)
        if coarse.shape[1] > want:
            order = np.argpartition(-coarse, want - 1, axis=1)[:, :want]
            rows, coarse = np.take_along_axis(rows, order, 1), np.take_along_axis(coarse, order, 1)
        floor = coarse.min(1)  # of a row that was not returned, the coarse score is at most this
        rows[tuple(self._places(rows, own).T)] = -1
        query, slot = np.nonzero(rows >= 0)
        row = rows[query, slot]
        score = self.engine.rescore(block, lengths, query, row)
        best = exact.best_first(query, row, score, self.engine.place, len(block), k)
        proven = (floor == -np.inf) | (floor.astype(np.float64) + self._error < best[1][:, -1])
        return best, proven

    @staticmethod
    def _places(rows: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Returns the (query, slot) places in rows [n, want] of pairs to leave out."""
        found = [(query, slot) for query, row in own.tolist() for slot in np.flatnonzero(rows[query] == row)]
        return np.array(found, np.int64).reshape(-1, 2)

    def _encode(self) -> None:
        """Encodes the rows that were added since the last call."""
        gallery, engine = self.engine.gallery, self.engine
        count, dim = gallery.shape
        if self._coded < count and not self._parts:
            low, high = np.full(dim, np.inf, np.float32), np.full(dim, -np.inf, np.float32)
            for start in range(0, count, BLOCK):
                units = self._units(start, min(count, start + BLOCK))
                low, high = np.minimum(low, units.min(0)), np.maximum(high, units.max(0))
            self._range = np.stack([low, high])
        while self._coded < count:
            number, inside = divmod(self._coded, PART)
            if number == len(self._parts):
                part = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
                part.train(self._range)
                self._parts.append(part)
            part, stop = self._parts[number], min(count, self._coded + min(BLOCK, PART - inside))
            units = self._units(self._coded, stop)
            part.add(units)
            distance = part.reconstruct_n(inside, stop - self._coded).astype(np.float64) - units
            largest = float(np.sqrt(np.einsum("nd,nd->n", distance, distance).max()))
            # A unit query's cosine with the code is off by at most the distance, and float32 adds its own error.
            self._error = max(self._error, largest + 2 * engine.error)
            self._coded = stop

    def _units(self, start: int, stop: int) -> np.ndarray:
        block = np.asarray(self.engine.gallery[start:stop], np.float32)
        lengths = self.engine.lengths[start:stop]
        if np.isnan(lengths).any():
            lengths[:] = exact.lengths_of(block, self.engine.ids, "gallery", start)
        return exact.unit(block, lengths)


def _bound(values: np.ndarray, k: int) -> float:
    """Returns a number that at least k of some values [n] reach, near the k-th largest; -inf for fewer values.

    Each group has at least one value that reaches its largest, so k values reach the k-th largest of these.
    """
    size = max(1, min(GROUP, len(values) // (4 * k)))
    groups = values[: len(values) // size * size].reshape(-1, size).max(1)
    return float(np.partition(groups, len(groups) - k)[-k]) if len(groups) >= k else -np.inf


def _renumbered(own: np.ndarray, asked: np.ndarray, count: int) -> np.ndarray:
    """Returns the pairs of the queries `asked`, ascending, with the queries numbered as in `asked`."""
    number = np.full(count, -1)
    number[asked] = np.arange(len(asked))
    own = np.stack([number[own[:, 0]], own[:, 1]], 1)
    return own[own[:, 0] >= 0]
