"""The best rows of many queries so far, while blocks of scores pass by, nearly all of them looked at only once."""

from __future__ import annotations

import numpy as np

WORD = 64  # answers looked at together


class Best:
    """The `keep` best (cosine, row) of some queries so far, with room for more before they are sorted out.

    Args:
      count: queries.
      keep: rows of each.

    Attributes:
      floor: [count] float32; no row that was left out was above it.
    """

    def __init__(self, count: int, keep: int):
        self.keep = keep
        self.value = np.full((count, 2 * keep + 64), -np.inf, np.float32)
        self.row = np.full(self.value.shape, -1, np.int64)
        self.many = np.zeros(count, np.int64)
        self.floor = np.full(count, -np.inf, np.float32)

    def add(self, first: int, cosines: np.ndarray, mask: np.ndarray) -> None:
        """Takes in the cosines of some gallery rows.

        Args:
          first: the first of these rows.
          cosines: [count, n] float32; WORD divides n; -inf is never taken.
          mask: bool of the same shape, to overwrite.
        """
        width = cosines.shape[1]
        np.greater(cosines, self.floor[:, None], out=mask)
        # Few pass once the best so far are good: a word of one bit each tells where to look.
        words = np.flatnonzero(np.packbits(mask.reshape(-1)).view(np.uint64))
        if 8 * WORD * len(words) > 7 * cosines.size and width > self.keep:  # the first blocks: little to beat yet
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
        """Keeps the best of what is there and of [queries, n] more, -inf for none."""
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
        """Returns the rows that may be among the k best [queries, keep], -1 for others, and the floor [queries].

        Args:
          k: wanted, up to keep.
          error: by which a cosine may be wrong: one that lacks more than twice of it to the k-th cannot be among them.
        """
        self._put(self.value[:, :0], self.row[:, :0])
        value, row = self.value[:, : self.keep], self.row[:, : self.keep]
        last = np.partition(value, self.keep - k, axis=1)[:, self.keep - k]
        return np.where(value >= last[:, None] - 2.5 * error, row, -1), self.floor
