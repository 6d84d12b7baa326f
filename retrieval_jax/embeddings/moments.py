"""Mean and covariance of embeddings, in float64 and in one pass over rows that need not fit in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tqdm

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings.folder import Embeddings
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.errors import InputError

FIT_ROWS = 4096  # rows read at once
SHIFT_ROWS = 1024  # evenly spaced rows whose mean approximates that of all while they are read


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """What a whitening is computed from.

    Attributes:
      rows: number of vectors.
      mean: [D] float64.
      covariance: [D, D] float64, sum / N.
      cubic: [D] float64, sum over rows of |x - mean|^2 (x - mean).
      quartic: sum over rows of |x - mean|^4.
    """

    rows: int
    mean: np.ndarray
    covariance: np.ndarray
    cubic: np.ndarray
    quartic: float

    __repr__ = brief.line

    def shrinkage(self) -> float:
        """Returns the share of the identity in Ledoit and Wolf's estimate, 0 to 1.

        The estimate is (1 - share) covariance + share * mean variance * identity.

        Source: Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004).
        """
        square, trace, width = float((self.covariance**2).sum()), float(np.trace(self.covariance)), len(self.mean)
        distance = square - trace * trace / width
        error = (self.quartic / self.rows - square) / self.rows
        return float(np.clip(error / distance, 0.0, 1.0)) if distance > 0 else 1.0


def measure(vectors: np.ndarray | Embeddings) -> Moments:
    """Computes the moments of vectors in float64, in one pass, block by block.

    The mean of a few evenly spaced rows is subtracted while reading, and the remainder at the end: in a gallery of N
    rows at most log10(N / 1024) of float64's 16 digits cancel, because those rows are part of it. Products are in
    float64 too: float32 would be twice as fast but drowns the smallest variances (on real vectors of 672 dimensions,
    whitened values were off by up to 6e-3).

    Args:
      vectors: [N, D] array, memory-mapped array or Embeddings.

    Raises:
      InputError: fewer than two vectors, a non-finite one, named by row and id, or vectors that are all the same.
    """
    embeddings = vectors if isinstance(vectors, Embeddings) else None
    rows = arguments.vectors(embeddings.vectors if embeddings is not None else vectors, "vectors", "whitening")
    if rows.shape[0] < 2:
        raise InputError(f"whitening needs at least two vectors [N, D], got shape {tuple(rows.shape)}")
    count, width = rows.shape
    shift = _shift(rows)
    total, second, cubic, quartic = np.zeros(width), np.zeros((width, width)), np.zeros(width), 0.0
    for block in _blocks(rows, embeddings):
        with np.errstate(over="ignore", invalid="ignore"):
            block = block - shift
            length = np.einsum("nd,nd->n", block, block)
            total += block.sum(0)
            second += block.T @ block
            cubic += length @ block
            quartic += float(length @ length)
    offset = total / count
    mean, covariance = shift + offset, second / count - np.outer(offset, offset)
    if not np.isfinite(covariance).all():
        raise InputError(
            "whitening: the vectors are so large that their squares overflow: scale them, or normalise them"
        )
    if np.trace(covariance) <= rounding(rows) * (mean @ mean):
        raise InputError(
            f"whitening: all {count:,} vectors are the same up to rounding, so nothing is left to compare them by: did "
            "the network collapse, or are all pictures the same? Leave the whitening out, or embed again"
        )
    cubic, quartic = _moved(count, total, second, cubic, quartic, -offset)
    return Moments(count, mean, covariance, cubic, quartic)


def moments(vectors: np.ndarray | Embeddings) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean [D] and covariance [D, D] of vectors; see `measure`."""
    found = measure(vectors)
    return found.mean, found.covariance


def mean(vectors: Embeddings) -> np.ndarray:
    """Returns the mean [D] of vectors, float64; raises InputError for a non-finite one or none at all."""
    if not len(vectors):
        raise InputError("whitening needs vectors to centre, got 0")
    shift = _shift(vectors.vectors)
    return shift + sum((block - shift).sum(0) for block in _blocks(vectors.vectors, vectors)) / len(vectors)


def pooled(parts: Sequence[Moments], own: bool) -> Moments:
    """Returns the moments of several sets of vectors together.

    Args:
      parts: moments of each set, all of one dimension.
      own: about each set's own mean, as if the sets had been centred; otherwise about the mean of all rows.
    """
    if len(parts) == 1:
        return parts[0]
    rows = sum(part.rows for part in parts)
    centre = sum(part.rows * part.mean for part in parts) / rows
    covariance, cubic, quartic = 0.0, 0.0, 0.0
    for part in parts:
        offset = np.zeros_like(centre) if own else part.mean - centre
        second = part.rows * part.covariance
        moved = _moved(part.rows, np.zeros_like(centre), second, part.cubic, part.quartic, offset)
        cubic, quartic = cubic + moved[0], quartic + moved[1]
        covariance = covariance + (second + part.rows * np.outer(offset, offset)) / rows
    return Moments(rows, centre, covariance, cubic, float(quartic))


def rounding(rows) -> float:
    """Returns the share of vectors' squared length that rounding alone may add to their variance, by their dtype."""
    dtype = np.dtype(getattr(rows, "dtype", np.float32))
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps) ** 2


def _shift(rows) -> np.ndarray:
    shift = np.asarray(rows[spread(rows.shape[0], SHIFT_ROWS)], np.float64).mean(0)
    shift[~np.isfinite(shift)] = 0.0  # the non-finite row is reported when it is read
    return shift


def _blocks(rows, embeddings: Embeddings | None):
    """Yields the rows block by block in float64; raises InputError for a non-finite one."""
    count, width = rows.shape
    starts = range(0, count, FIT_ROWS)
    quiet = count * width * width < 1e12
    for start in tqdm.tqdm(starts, desc="whitening: fit", unit="block", mininterval=1, disable=quiet):
        block = np.asarray(rows[start : start + FIT_ROWS], np.float64)
        arguments.finite(block, "whitening", embeddings.ids if embeddings is not None else None, start)
        yield block


def _moved(count, total, second, cubic, quartic, offset) -> tuple[np.ndarray, float]:
    """Returns the sums of |z|^2 z and |z|^4 for z = y + offset, from the sums of y, y y', |y|^2 y and |y|^4."""
    length, trace, along = offset @ offset, np.trace(second), second @ offset
    with np.errstate(over="ignore", invalid="ignore"):
        moved = cubic + trace * offset + 2 * along + 2 * (total @ offset) * offset + length * total
        fourth = quartic + 4 * offset @ along + 4 * cubic @ offset + 2 * length * trace + 4 * length * (total @ offset)
        return moved + count * length * offset, float(fourth + count * length**2)
