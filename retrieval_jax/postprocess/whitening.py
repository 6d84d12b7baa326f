"""Whitening fitted on the gallery: gives every direction unit variance, so that no few directions decide the cosine.

Source: the eProduct runner-up (arXiv 2208.00955): ZCA whitening of each member, covariance / N with a ridge of 1e-7,
  then L2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from typing import NotRequired, TypedDict

import numpy as np
import tqdm

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.files.arrays import load_npz
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize

FORMAT = 1
# Directions with less than this share of the largest variance hold nothing but the rounding of float32 vectors.
RANK_TOLERANCE = 1e-12
FIT_ROWS = 4096  # rows read at once
SHIFT_ROWS = 1024  # evenly spaced rows whose mean approximates that of all while they are read
APPLY_ROWS = 2048


class _Info(TypedDict):
    """The info of a saved whitening; further keys say how it was fitted."""

    format: int
    version: str
    space: NotRequired[str | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted whitening: (vectors - mean) @ matrix.

    Attributes:
      mean: [D] float64.
      matrix: [D, D] (ZCA) or [D, dim] (PCA, learned) float64.
      info: what it was fitted on and how: method, ridge, dim, rows; for embeddings also space and ids_sha256.

    Raises:
      InputError: other shapes, or numbers that are non-finite.
    """

    mean: np.ndarray
    matrix: np.ndarray
    info: dict = dataclasses.field(default_factory=dict)

    __repr__ = brief.line

    def __post_init__(self):
        mean = arguments.array(self.mean, "mean", "Whitening", ("D",))
        matrix = arguments.array(self.matrix, "matrix", "Whitening", (len(mean), "dim"))
        if not (np.isfinite(mean).all() and np.isfinite(matrix).all()):
            raise InputError(
                "Whitening: mean or matrix is non-finite (NaN or infinity): fit it again on finite vectors"
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "info", arguments.mapping(self.info, "info", "Whitening"))

    def version(self) -> str:
        """Returns a fingerprint of mean and matrix; vectors of different versions must not be compared."""
        digest = hashlib.sha256(np.ascontiguousarray(self.mean, np.float64).tobytes())
        digest.update(np.ascontiguousarray(self.matrix, np.float64).tobytes())
        return digest.hexdigest()[:16]

    def apply(self, vectors: np.ndarray | Embeddings) -> np.ndarray | Embeddings:
        """Whitens vectors.

        Args:
          vectors: [n, D] array, or embeddings of the space it was fitted in.

        Returns:
          [n, dim] float32, not normalised. Embeddings give embeddings, computed on read if large, whose meta["space"]
          includes the whitening's version, so that they are not compared with others.

        Raises:
          InputError: vectors of a different dimension or space than it was fitted on, or a non-finite one.
        """
        if isinstance(vectors, Embeddings):
            fitted, given = self.info.get("space"), vectors.meta.get("space")
            if fitted is not None and given != fitted:
                raise InputError(
                    f"this whitening was fitted in the space {fitted!r} and cannot be applied to vectors of {given!r}: "
                    "fit it on the gallery of the same model"
                )
            self._check(vectors.vectors.shape)
            whitened = vectors.map(self.apply, self.matrix.shape[1])
            meta = {**vectors.meta, "space": f"{given or ''}|whitening-{self.version()}", "whitening": self.info}
            return dataclasses.replace(whitened, meta=meta)
        vectors = arguments.vectors(vectors, "vectors", "whitening")
        self._check(vectors.shape)
        out = np.empty((len(vectors), self.matrix.shape[1]), np.float32)
        # float64, so that the summation order, which depends on block and threads, does not show in the float32 result
        for start in range(0, len(vectors), APPLY_ROWS):
            block = np.asarray(vectors[start : start + APPLY_ROWS])
            arguments.finite(block, "whitening", None, start)
            with np.errstate(over="ignore", invalid="ignore"):
                out[start : start + APPLY_ROWS] = (block - self.mean) @ self.matrix
            arguments.finite(out[start : start + APPLY_ROWS], "the whitened vectors", None, start)
        return out

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != len(self.mean):
            raise InputError(
                f"this whitening was fitted on vectors of {len(self.mean)} dimensions, got shape {tuple(shape)}: fit "
                "it on the gallery of the same model"
            )

    def save(self, file: str | os.PathLike) -> None:
        """Writes mean, matrix and info to an .npz file, atomically."""
        file = pathlib.Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "version": self.version(), **self.info})
        atomic.write_npz(file, mean=self.mean, matrix=self.matrix, info=np.array(text))

    @classmethod
    def load(cls, file: str | os.PathLike) -> Whitening:
        """Loads a whitening that `save` wrote.

        Raises:
          InputError: the file is missing, is not a saved whitening, has a different format, or has been altered.
        """
        remedy = "create one with search or Whitening.save"
        kinds = {"mean": (("float64",), 1), "matrix": (("float64",), 2), "info": (("str",), 0)}
        arrays = load_npz(file, kinds, remedy=remedy)
        mean, matrix = arrays["mean"], arrays["matrix"]
        if len(mean) != len(matrix) or not (np.isfinite(mean).all() and np.isfinite(matrix).all()):
            raise InputError(
                f"{file} is not a whitening (mean {mean.shape} and matrix {matrix.shape} do not fit, or are not "
                f"finite): {remedy}"
            )
        info = documents.parse(str(arrays["info"]), _Info, name=f"the info of {file}", remedy=remedy)
        kind, version = info.pop("format"), info.pop("version")
        fitted = cls(mean, matrix, info)
        if kind != FORMAT or fitted.version() != version:
            raise InputError(f"{file} has a different format or changed since it was written: fit the whitening again")
        return fitted


def moments(vectors: np.ndarray | Embeddings) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean [D] and covariance [D, D] (sum / N) of vectors in float64, in one pass, block by block.

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
    spread = np.unique(np.linspace(0, count - 1, min(count, SHIFT_ROWS)).astype(np.int64))
    shift = np.asarray(rows[spread], np.float64).mean(0)
    shift[~np.isfinite(shift)] = 0.0  # the non-finite row is reported below
    total, second = np.zeros(width), np.zeros((width, width))
    starts = range(0, count, FIT_ROWS)
    quiet = count * width * width < 1e12
    for start in tqdm.tqdm(starts, desc="whitening: fit", unit="block", mininterval=1, disable=quiet):
        block = np.asarray(rows[start : start + FIT_ROWS], np.float64)
        arguments.finite(block, "whitening", embeddings.ids if embeddings is not None else None, start)
        with np.errstate(over="ignore", invalid="ignore"):
            block = block - shift
            total += block.sum(0)
            second += block.T @ block
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
    return mean, covariance


def rounding(rows) -> float:
    """Returns the share of vectors' squared length that rounding alone may add to their variance, by their dtype."""
    dtype = np.dtype(getattr(rows, "dtype", np.float32))
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps) ** 2


def inverse_root(covariance: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns directions [D, D] (columns, largest variance first) and their scales [D], 1 / sqrt(variance + ridge).

    A direction with less than 1e-12 of the largest variance counts as empty and gets scale 0.
    """
    variance, directions = np.linalg.eigh(covariance)
    variance, directions = variance[::-1], directions[:, ::-1]
    kept = variance > max(variance[0], 0.0) * RANK_TOLERANCE
    scale = np.zeros(len(variance))
    scale[kept] = 1.0 / np.sqrt(variance[kept] + ridge)
    # the sign of an eigenvector is arbitrary: fix it, so that a fit is reproducible on other machines
    largest = np.abs(directions).argmax(0)
    return directions * np.where(directions[largest, np.arange(len(variance))] < 0, -1.0, 1.0), scale


def check_settings(width: int, ridge: float, dim: int | None) -> tuple[float, int | None]:
    """Returns ridge and dim; raises InputError for a `dim` outside 1 to `width`, or a negative or non-finite ridge."""
    if dim is not None and not 1 <= arguments.integer(dim, "dim", "whitening") <= width:
        raise InputError(
            f"whitening to dim={dim}, but the vectors have {width} dimensions: choose 1 to {width}, or None for all"
        )
    return arguments.number(ridge, "ridge", "whitening", low=0), None if dim is None else int(dim)


def describe(vectors: np.ndarray | Embeddings, **settings) -> dict:
    """Returns the contents of `Whitening.info`: what it is fitted on, and the settings."""
    info = {"rows": len(vectors), **settings}
    if isinstance(vectors, Embeddings):
        info |= {"space": vectors.meta.get("space"), "ids_sha256": vectors.ids.sha256()}
    return info


def fit(vectors: np.ndarray | Embeddings, ridge: float = 1e-7, dim: int | None = None) -> Whitening:
    """Fits a whitening: ZCA, or PCA whitening to `dim` dimensions.

    Reads the vectors once, block by block (`moments`): [D, D] in memory, never [N, D]. The ridge is added to every
    variance, as in the source, so a nearly empty direction is amplified by 1 / sqrt(ridge) at most. A direction with
    less than 1e-12 of the largest variance is empty (fewer vectors than dimensions, constant or dependent columns):
    the source would amplify its rounding noise, here it is set to zero. On full-rank data both agree.

    Args:
      vectors: [N, D] array, memory-mapped array or Embeddings; the gallery's, never the queries'.
      ridge: added to the eigenvalues of the covariance (sum / N), in the vectors' squared units.
      dim: number of directions of largest variance to keep (PCA whitening); None keeps all and rotates back to the
        original axes (ZCA).

    Returns:
      Whitening with mean [D] and matrix [D, D or dim].

    Raises:
      InputError: fewer than two vectors, a non-finite vector, a negative ridge, or dim out of range.

    Source: ZCA as in arXiv 2208.00955; PCA whitening as in Jegou & Chum, ECCV 2012.
    """
    rows = arguments.vectors(vectors.vectors if isinstance(vectors, Embeddings) else vectors, "vectors", "whitening")
    ridge, dim = check_settings(rows.shape[1], ridge, dim)
    mean, covariance = moments(vectors)
    directions, scale = inverse_root(covariance, ridge)
    matrix = (directions * scale) @ directions.T if dim is None else (directions * scale)[:, :dim]
    return Whitening(mean, matrix, describe(vectors, method="zca" if dim is None else "pca", ridge=ridge, dim=dim))


def apply_to_member(state: State, number: int, fitted: Whitening) -> tuple[Embeddings, Embeddings]:
    """Whitens a member's queries and gallery and normalises them to length 1; saves the whitening.

    Args:
      state: whitening_<member>.npz is saved in its folder, if it has one.
      number: which member.
      fitted: the whitening, fitted on the member's gallery.
    """
    if state.folder is not None:
        fitted.save(state.folder / f"whitening_{re.sub(r'[^A-Za-z0-9_.-]', '_', state.name(number))}.npz")
    queries, gallery = (fitted.apply(side).map(normalize) for side in state.members[number])
    return queries, gallery


def step(state: State, *, ridge: float = 1e-7, dim: int | None = None) -> State:
    """Fits on each member's gallery, whitens its queries and gallery, then normalises to length 1.

    Args:
      state: every member is whitened separately; whitening_<member>.npz is saved if the state has a folder.
      ridge: see `fit`.
      dim: see `fit`.

    Returns:
      The state with whitened unit vectors, computed on read if large, and no ranking.
    """
    arguments.instance(state, State, "state", "whitening")
    members = [
        apply_to_member(state, number, fit(gallery, ridge, dim)) for number, (_, gallery) in enumerate(state.members)
    ]
    return dataclasses.replace(state, members=members, ranking=None)
