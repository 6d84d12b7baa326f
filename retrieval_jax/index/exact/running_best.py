"""Running top-k of many queries over blocks of scores, built so that nearly all scores are looked at only once."""

from __future__ import annotations

import numpy as np

WORD = 64  # comparison results tested together


class Best:
    """The `keep` best (cosine, row) per query so far, with a buffer for more before they are pruned.

    Args:
      count: number of queries.
      keep: rows per query.

    Attributes:
      floor: [count] float32; every row that was dropped scored at most this.
    """

    def __init__(self, count: int, keep: int):
        self.keep = keep
        self.value = np.full((count, 2 * keep + 64), -np.inf, np.float32)
        self.row = np.full(self.value.shape, -1, np.int64)
        self.many = np.zeros(count, np.int64)
        self.floor = np.full(count, -np.inf, np.float32)

    def add(self, first: int, cosines: np.ndarray, mask: np.ndarray) -> None:
        """Adds the cosines of a block of gallery rows.

        Args:
          first: first row of the block.
          cosines: [count, n] float32, n a multiple of WORD; -inf is never kept.
          mask: bool of the same shape, overwritten.
        """
        width = cosines.shape[1]
        np.greater(cosines, self.floor[:, None], out=mask)
        # Once the best so far are good, few scores pass: test 64 of them at a time, packed into a word of bits.
        words = np.flatnonzero(np.packbits(mask.reshape(-1)).view(np.uint64))
        if 8 * WORD * len(words) > 7 * cosines.size and width > self.keep:  # the first blocks: nearly all pass
            chosen = np.argpartition(cosines, width - self.keep, axis=1)[:, width - self.keep :]
            self._put(np.take_along_axis(cosines, chosen, 1), chosen + first)
            return
        word, place = np.divmod(np.flatnonzero(mask.reshape(-1, WORD)[words].reshape(-1)), WORD)
        query, column = np.divmod(WORD * words[word] + place, width)
        many = np.bincount(query, minlength=len(cosines))
        slot = np.arange(len(query)) - np.repeat(np.cumsum(many) - many, many)
        if (self.many + many).max(initial=0) <= self.value.shape[1]:
            slot += self.many[query]
            self.value[query, slot], self.row[query, slot] = cosines[query, column], column + first
            self.many += many
        else:
            value = np.full((len(cosines), many.max()), -np.inf, np.float32)
            row = np.full(value.shape, -1, np.int64)
            value[query, slot], row[query, slot] = cosines[query, column], column + first
            self._put(value, row)

    def _put(self, value: np.ndarray, row: np.ndarray) -> None:
        """Merges [queries, n] more values and rows, padded with -inf, and keeps the best."""
        value, row = np.concatenate([self.value, value], 1), np.concatenate([self.row, row], 1)
        chosen = np.argpartition(value, value.shape[1] - self.keep, axis=1)[:, value.shape[1] - self.keep :]
        self.value[:, self.keep :], self.row[:, self.keep :] = -np.inf, -1
        self.value[:, : self.keep] = np.take_along_axis(value, chosen, 1)
        self.row[:, : self.keep] = np.where(
            np.isneginf(self.value[:, : self.keep]), -1, np.take_along_axis(row, chosen, 1)
        )
        self.floor = self.value[:, : self.keep].min(1)
        self.many[:] = self.keep

    def finish(self, k: int, error: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows that may be among the k best, [queries, keep], the rest -1, and the floor [queries].

        Args:
          k: results per query, up to keep.
          error: bound of a cosine's error; a row that trails the k-th by more than twice this cannot be among the best.
        """
        self._put(self.value[:, :0], self.row[:, :0])
        value, row = self.value[:, : self.keep], self.row[:, : self.keep]
        last = np.partition(value, self.keep - k, axis=1)[:, self.keep - k]
        return np.where(value >= last[:, None] - 2.5 * error, row, -1), self.floor
