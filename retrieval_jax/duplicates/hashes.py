"""Near-duplicates among a million pictures: hashes of thumbnails propose pairs, the thumbnails themselves decide.

A hash is the signs of a thumbnail's principal components (of its 8 x 8 mean colours, with mean and contrast removed),
split into bands. Two pictures are compared if a band matches, or would match with some of its least certain bits
flipped (multi-probe hashing). Matching signs are not enough, since shop photos in one pose share many of them. A pair
is a near-duplicate if its thumbnails are, by the criterion of `thumbnails.find`, possibly with one mirrored; optionally
also if they would be after undoing a change of light, a shift, or a mild crop.

Sources: multi-index hashing, Norouzi et al., arXiv 1307.2982; probing by certainty, Lv et al., "Multi-Probe
LSH", VLDB 2007; alignment by linear terms, Simard et al., "Efficient Pattern Recognition Using a New Transformation
Distance", NIPS 1992.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from retrieval_jax import brief

SIDE = 8  # of a thumbnail, as made by `data.pictures.noted.thumbnail`
BANDS = 4
PROBED_BITS = 5  # least certain bits per band that are flipped: 32 keys are looked up
WINDOW = 64  # pictures compared on either side in an overfull bucket, nearest by first component

_LEADING = 16  # components of the first, cheap comparison
_LOOSE = 0.6  # an altered copy's leading components differ by at most this share of the contrast
_ALIGNED = 8  # most pictures of the other side that one picture is aligned with
_LEARN_ROWS = 20_000
_CHUNK = 8192  # pictures of the first side at once
_PAIRS = 1 << 18  # pairs whose components are compared at once
_FULL_PAIRS = 1 << 14  # pairs whose thumbnails are compared at once
# Largest alterations that are undone: offset of light (levels), gain, shift and zoom (in cells of the thumbnail; for
# zoom, at the border).
_BOUNDS = np.array([20.0, 0.2, 0.4, 0.4, 0.4, 0.4], np.float32)


@dataclasses.dataclass(frozen=True)
class Found:
    """Near-duplicates: the nearest proposed one for every picture of the first side that has any.

    Attributes:
      rows: int64 [f], rows of the first side, ascending.
      others: int64 [f], rows of the second side.
      differences: float64 [f], root mean square difference as a share of the first one's contrast, unaltered (but
        possibly mirrored).
      aligned: float64 [f], the same after compensating light, shift and zoom, if requested; at most max_difference.
      mirrored: bool [f].
      proposed: number of pairs compared.
      cut: number of look-ups that hit a bucket too full to compare completely.
    """

    rows: np.ndarray
    others: np.ndarray
    differences: np.ndarray
    aligned: np.ndarray
    mirrored: np.ndarray
    proposed: int
    cut: int

    __repr__ = brief.line


class Table:
    """Hashes of the pictures of one side, sorted by band.

    Args:
      thumbnails: uint8 [m, 192].
    """

    def __init__(self, thumbnails: np.ndarray):
        self.thumbnails = thumbnails
        # as many keys as pictures, so a bucket holds one picture on average
        self.bits = int(np.clip(np.ceil(np.log2(max(2, len(thumbnails)))), 8, 24))
        rows = np.unique(np.linspace(0, len(thumbnails) - 1, min(len(thumbnails), _LEARN_ROWS)).astype(np.int64))
        some = standardised(thumbnails[rows]).astype(np.float64)
        self.mean = some.mean(0)
        _, vectors = np.linalg.eigh((some - self.mean).T @ (some - self.mean))
        vectors = vectors[:, ::-1][:, : BANDS * self.bits]
        # the sign of an eigenvector is arbitrary: fix it, so that hashes are the same on every machine
        vectors = vectors * np.where(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
        self.directions = vectors.astype(np.float32)
        self.mean = self.mean.astype(np.float32)
        self.medians = np.median((some.astype(np.float32) - self.mean) @ self.directions, axis=0)
        self.leading = np.empty((len(thumbnails), _LEADING), np.float32)
        keys = np.empty((BANDS, len(thumbnails)), np.uint32)
        for start in range(0, len(thumbnails), _CHUNK):
            part = slice(start, start + _CHUNK)
            components = self.components(thumbnails[part])
            self.leading[part] = components[:, :_LEADING]
            keys[:, part] = self.keys(components)[0]
        place = _ordered(self.leading[:, 0])
        self.bands = []
        for band in range(BANDS):
            order = np.lexsort((place, keys[band])).astype(np.int64)  # ties by row
            unique, starts = np.unique(keys[band][order], return_index=True)
            self.bands.append((order, place[order], unique, np.append(starts, len(thumbnails))))

    def components(self, thumbnails: np.ndarray) -> np.ndarray:
        """Returns the principal components of thumbnails, float32 [n, BANDS * bits]."""
        return (standardised(thumbnails) - self.mean) @ self.directions

    def keys(self, components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns each band's keys, uint32 [BANDS, n], and the certainty of each bit, float32 [BANDS, n, bits]."""
        values = components - self.medians
        # band b takes every BANDS-th component from the b-th on, so that each has strong and weak ones
        values = values.reshape(len(values), self.bits, BANDS).transpose(2, 0, 1)
        weights = np.uint32(1) << np.arange(self.bits, dtype=np.uint32)
        return ((values > 0) * weights).sum(-1, dtype=np.uint32), np.abs(values)


def find(
    first: np.ndarray,
    table: Table,
    max_difference: float = 0.05,
    own: np.ndarray | None = None,
    *,
    mirrored: bool = True,
    altered: bool = False,
) -> Found:
    """Finds each picture's nearest near-duplicate on the other side, among the pairs that hashes propose.

    Args:
      first: uint8 [n, 192], thumbnails.
      table: hashes of the other side's m thumbnails.
      max_difference: largest root mean square difference, as a share of the first one's standard deviation.
      own: [n] row of the other side to leave out for each of first, -1 for none; none by default.
      mirrored: whether mirror images count.
      altered: whether pairs count that differ only by light, a shift or a mild crop. This also matches different
        products of one shape: have a person look at these pairs before acting on them.

    Returns:
      `Found`.
    """
    parts, proposed, cut, columns = [], 0, 0, np.int64(len(table.thumbnails))
    # Two thumbnails that differ by a share d of the contrast are at most 2 d apart when scaled to length 1.
    loose = max(2 * max_difference, _LOOSE if altered else 0.0)
    for start in range(0, len(first), _CHUNK):
        chunk = first[start : start + _CHUNK]
        own_rows = None if own is None else own[start : start + _CHUNK]
        for flip in (False, True) if mirrored else (False,):
            turned = mirror(chunk) if flip else chunk
            components = table.components(turned)
            kept, distances = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
            for rows, others, num_cut in _proposals(components, table):
                proposed, cut = proposed + len(rows), cut + num_cut
                apart = components[rows, :_LEADING] - table.leading[others]
                apart = np.einsum("nd,nd->n", apart, apart)
                near = apart <= loose**2
                if own_rows is not None:
                    near &= own_rows[rows] != others
                kept.append(rows[near] * columns + others[near])
                distances.append(apart[near])
            pairs, once = np.unique(np.concatenate(kept), return_index=True)
            distances = np.concatenate(distances)[once]
            rows, others = np.divmod(pairs, columns)
            wanted = distances <= (2 * max_difference) ** 2
            if altered:  # these components are less sensitive to light and shift: align the nearest by them
                order = np.lexsort((others, distances, rows))
                firsts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(chunk)))])
                wanted[order[np.arange(len(order)) - firsts[rows[order]] < _ALIGNED]] = True
            rows, others = rows[wanted], others[wanted]
            for at in range(0, len(rows), _FULL_PAIRS):
                some = slice(at, at + _FULL_PAIRS)
                plain, even = differences(turned[rows[some]], table.thumbnails[others[some]], altered)
                good = even <= max_difference
                flips = np.full(np.count_nonzero(good), flip)
                parts.append((start + rows[some][good], others[some][good], plain[good], even[good], flips))
        parts = [_nearest(parts)]
    return Found(*_nearest(parts), proposed, cut)


def _nearest(parts: list) -> tuple[np.ndarray, ...]:
    """Keeps the best pair per first row: smallest difference, then unmirrored, then lowest row."""
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, bool))
    rows, others, plain, even, flips = (np.concatenate(column) for column in zip(empty, *parts, strict=True))
    order = np.lexsort((others, flips, even, plain, rows))
    order = order[np.diff(rows[order], prepend=-1) > 0]
    return rows[order], others[order], plain[order], even[order], flips[order]


def standardised(thumbnails: np.ndarray) -> np.ndarray:
    """Returns thumbnails with mean and contrast removed, float32 [n, D] of length 1; flat ones become 0."""
    values = thumbnails.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    lengths = np.sqrt(np.einsum("nd,nd->n", values, values))
    return values / np.maximum(lengths, 1e-6)[:, None]


def mirror(thumbnails: np.ndarray) -> np.ndarray:
    """Returns the thumbnails of the mirror images, uint8 [n, 192]."""
    return np.ascontiguousarray(thumbnails.reshape(-1, SIDE, SIDE, 3)[:, :, ::-1]).reshape(len(thumbnails), -1)


def _ordered(values: np.ndarray) -> np.ndarray:
    """Returns integers in the order of values from -2 to 2, int64 [n]."""
    return np.rint(values.astype(np.float64) * 2**30).astype(np.int64)


def _proposals(components: np.ndarray, table: Table) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yields (rows of components, rows of the table), with repeats, and the number of look-ups that were cut short."""
    keys, certain = table.keys(components)
    place = _ordered(components[:, 0])
    subsets = np.arange(1 << PROBED_BITS, dtype=np.uint32)
    for band, (order, places, unique, starts) in enumerate(table.bands):
        weakest = np.argsort(certain[band], axis=1, kind="stable")[:, :PROBED_BITS].astype(np.uint32)
        turned = np.zeros((len(keys[band]), len(subsets)), np.uint32)
        for bit in range(PROBED_BITS):
            turned |= ((subsets >> np.uint32(bit)) & np.uint32(1)) << weakest[:, bit : bit + 1]
        probes = (keys[band][:, None] ^ turned).ravel()
        at = np.searchsorted(unique, probes)
        hit = np.flatnonzero((at < len(unique)) & (unique[np.minimum(at, len(unique) - 1)] == probes))
        rows, at = hit // len(subsets), at[hit]
        low, high = starts[at], starts[at + 1]
        full = np.flatnonzero(high - low > 2 * WINDOW)
        for i in full.tolist():
            middle = low[i] + np.searchsorted(places[low[i] : high[i]], place[rows[i]])
            low[i], high[i] = max(low[i], middle - WINDOW), min(high[i], middle + WINDOW)
        counts, cut = high - low, len(full)
        ends = np.cumsum(counts)
        begin = 0
        while begin < len(rows):
            end = max(begin + 1, int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + _PAIRS, side="right")))
            some = counts[begin:end]
            offsets = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
            yield np.repeat(rows[begin:end], some), order[np.repeat(low[begin:end], some) + offsets], cut
            begin, cut = end, 0


def differences(first: np.ndarray, second: np.ndarray, altered: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Compares pairs of thumbnails.

    Args:
      first: uint8 [n, 192].
      second: uint8 [n, 192].
      altered: whether to compensate light, shift and zoom.

    Returns:
      Root mean square differences as shares of the first ones' standard deviation, unaltered and compensated (never
      larger; equal without `altered`), both float64 [n].
    """
    one, other = (side.astype(np.float32) for side in (first, second))
    apart = one - other
    contrast = np.maximum(first.std(1), 1e-9)  # flat ones: 0 / 0 is 0
    plain = np.sqrt(np.einsum("nd,nd->n", apart, apart) / apart.shape[1]) / contrast
    if not altered:
        return plain, plain
    middle = ((one + other) / 2).reshape(-1, SIDE, SIDE, 3)  # linearising midway between the two is most accurate
    down, right = np.gradient(middle, axis=(1, 2))
    at = np.linspace(-1, 1, SIDE, dtype=np.float32)[:, None]
    terms = np.stack([np.ones_like(middle), middle, down, right, down * at[:, None], right * at], 1)
    terms = terms.reshape(len(first), len(_BOUNDS), -1)
    gram, diagonal = terms @ terms.transpose(0, 2, 1), np.arange(len(_BOUNDS))
    gram[:, diagonal, diagonal] = 1.001 * gram[:, diagonal, diagonal] + 1e-3  # a flat picture's terms vanish: give 0
    best = np.linalg.solve(gram, terms @ apart[:, :, None])[:, :, 0]
    rest = apart - np.einsum("nk,nkd->nd", np.clip(best, -_BOUNDS, _BOUNDS), terms)
    return plain, np.minimum(plain, np.sqrt(np.einsum("nd,nd->n", rest, rest) / rest.shape[1]) / contrast)
