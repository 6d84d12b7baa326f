"""Whitening fitted on the gallery: directions in which all products vary alike count no more than rare ones.

Source: the eProduct runner-up (arXiv 2208.00955): ZCA whitening of each member, covariance / N with a ridge of 1e-7,
  then L2.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re

import numpy as np

from retrieval_jax.embeddings import BLOCK_ROWS, Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize

# Directions with less than this share of the largest variance hold only the rounding of float32 vectors.
RANK_TOLERANCE = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted whitening: (vectors - mean) @ matrix.

    Attributes:
      mean: [D] float64.
      matrix: [D, D] (ZCA) or [D, dim] (PCA) float64.
    """

    mean: np.ndarray
    matrix: np.ndarray

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Whitens vectors.

        Args:
          vectors: [n, D], such as those it was fitted on.

        Returns:
          [n, dim] float32, not normalised.

        Raises:
          InputError: vectors of another dimension than the fitted ones.
        """
        vectors = np.asarray(vectors, np.float64)
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise InputError(
                f"this whitening was fitted on vectors of {len(self.mean)} numbers, got shape {vectors.shape}: "
                "fit it on the gallery of the same model"
            )
        # float64: the product's order of summation, which depends on block and threads, then does not reach float32
        return ((vectors - self.mean) @ self.matrix).astype(np.float32)

    def save(self, file: str | os.PathLike) -> None:
        """Writes mean and matrix to an .npz file."""
        file = pathlib.Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "wb") as stream:
            np.savez(stream, mean=self.mean, matrix=self.matrix)

    @classmethod
    def load(cls, file: str | os.PathLike) -> Whitening:
        """Returns the whitening that `save` wrote.

        Raises:
          InputError: no such file, or another kind of file.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(arrays["mean"], arrays["matrix"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{file} is not a saved whitening ({error}): fit one with search, or Whitening.save"
            ) from error


def fit(vectors: np.ndarray | Embeddings, ridge: float = 1e-7, dim: int | None = None) -> Whitening:
    """Fits a whitening: ZCA, or PCA whitening to `dim` numbers.

    Reads the vectors twice, block by block (mean, then covariance), accumulating in float64: [D, D] in memory, never
    [N, D]. The ridge is added to every variance, as the source does, so a nearly empty direction is blown up by 1 /
    sqrt(ridge) at most. A direction that holds less than 1e-12 of the largest variance is empty (fewer vectors than
    numbers, constant or dependent columns): the source would blow up its rounding noise, here it is set to zero. On
    data of full rank both agree.

    Args:
      vectors: [N, D] array, memory-mapped array or Embeddings; the gallery's, never the queries'.
      ridge: added to the eigenvalues of the covariance (sum / N), in the vectors' squared units.
      dim: keep this many directions of largest variance (PCA whitening); None: all, turned back to the original axes
        (ZCA).

    Returns:
      Whitening with mean [D] and matrix [D, D or dim].

    Raises:
      InputError: fewer than two vectors, a vector that is not finite, a negative ridge, or dim out of range.

    Source: ZCA as in arXiv 2208.00955; PCA whitening as in Jegou & Chum, ECCV 2012.
    """
    embeddings = vectors if isinstance(vectors, Embeddings) else None
    rows = embeddings.vectors if embeddings is not None else vectors
    if len(rows.shape) != 2 or rows.shape[0] < 2:
        raise InputError(f"whitening is fitted on at least two vectors [N, D], got shape {tuple(rows.shape)}")
    count, width = rows.shape
    if dim is not None and not 1 <= dim <= width:
        raise InputError(
            f"whitening to dim={dim}, but the vectors have {width} numbers: choose 1 to {width}, or None for ZCA"
        )
    if ridge < 0:
        raise InputError(f"the ridge of whitening is {ridge}: it is added to variances, give 0 or more")

    def blocks():
        for start in range(0, count, BLOCK_ROWS):
            yield start, np.asarray(rows[start : start + BLOCK_ROWS], np.float64)

    total = np.zeros(width)
    for start, block in blocks():
        finite = np.isfinite(block).all(1)
        if not finite.all():
            row = start + int((~finite).argmax())
            name = f" ({embeddings.ids[row]})" if embeddings is not None else ""
            raise InputError(
                f"row {row}{name} of the vectors to fit a whitening on is not finite: embed that listing again"
            )
        total += block.sum(0)
    mean = total / count
    covariance = np.zeros((width, width))
    for _, block in blocks():
        block -= mean
        covariance += block.T @ block
    covariance /= count

    variance, directions = np.linalg.eigh(covariance)
    variance, directions = variance[::-1], directions[:, ::-1]  # largest first
    kept = variance > max(variance[0], 0.0) * RANK_TOLERANCE
    scale = np.zeros(width)
    scale[kept] = 1.0 / np.sqrt(variance[kept] + ridge)
    if dim is None:
        return Whitening(mean, (directions * scale) @ directions.T)
    # an eigenvector's sign is free: fix it, so that a fit repeats on another machine
    largest = np.abs(directions).argmax(0)
    directions = directions * np.where(directions[largest, np.arange(width)] < 0, -1.0, 1.0)
    return Whitening(mean, (directions * scale)[:, :dim])


def step(state: State, *, ridge: float = 1e-7, dim: int | None = None) -> State:
    """Fits on each member's gallery, applies to its queries and gallery, then normalises to length 1.

    Args:
      state: every member is whitened by itself; saves whitening_<member>.npz where the state has a folder.
      ridge: see `fit`.
      dim: see `fit`.

    Returns:
      The state with whitened vectors of length 1 and no ranking.
    """
    members = []
    for number, (queries, gallery) in enumerate(state.members):
        fitted = fit(gallery, ridge, dim)
        if state.folder is not None:
            fitted.save(state.folder / f"whitening_{re.sub(r'[^A-Za-z0-9_.-]', '_', state.name(number))}.npz")
        width = fitted.matrix.shape[1]
        members.append(
            tuple(
                side.map(lambda block, fitted=fitted: normalize(fitted.apply(block)), width)
                for side in (queries, gallery)
            )
        )
    return dataclasses.replace(state, members=members, ranking=None)
