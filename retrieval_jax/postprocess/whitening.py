"""Whitening: brings the variances of all directions closer together, so that no few of them decide the cosine.

By default as published for eProduct: fitted on the gallery, to equal variances. That hurts where queries differ from
the gallery, or where the gallery has few rows; `power`, `relative_ridge`, `shrink`, `centre` and `fit_on` make it
milder, and the step "chosen" finds out which of them help (docs/choosing_steps.md).

Longer than 400 lines: the fitted map, its file, and how it is fitted belong together.

Sources: the eProduct runner-up (arXiv 2208.00955): ZCA whitening of each member, covariance / N with a ridge of 1e-7,
  then L2. Shrinkage: Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004).
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

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings import moments as moments_lib
from retrieval_jax.embeddings.moments import Moments
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.files.arrays import load_npz
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.l2 import normalize

STEPS = ("whitening", "learned_whitening")  # whose map is saved with the rankings
FORMAT = 1
# Directions with less than this share of the largest variance hold nothing but the rounding of float32 vectors.
RANK_TOLERANCE = 1e-12
APPLY_ROWS = 2048
CENTRES = ("common", "own")
FITTED_ON = ("gallery", "queries", "both", "train")


class _Info(TypedDict):
    """The info of a saved whitening; further keys say how it was fitted."""

    format: int
    version: str
    space: NotRequired[str | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted whitening: (vectors - mean) @ matrix.

    Attributes:
      mean: [D] float64; where queries have a centre of their own, that of the gallery.
      matrix: [D, D] (ZCA) or [D, dim] (PCA, learned) float64.
      info: what it was fitted on and how: method, ridge, dim, rows; for embeddings also space and ids_sha256.
      query_mean: [D] float64, the queries' own centre; None where both sides share `mean`.

    Raises:
      InputError: other shapes, or numbers that are non-finite.
    """

    mean: np.ndarray
    matrix: np.ndarray
    info: dict = dataclasses.field(default_factory=dict)
    query_mean: np.ndarray | None = None

    __repr__ = brief.line

    def __post_init__(self):
        mean = arguments.array(self.mean, "mean", "Whitening", ("D",))
        matrix = arguments.array(self.matrix, "matrix", "Whitening", (len(mean), "dim"))
        own = self.query_mean
        if own is not None:
            own = arguments.array(own, "query_mean", "Whitening", (len(mean),))
        if not all(np.isfinite(array).all() for array in (mean, matrix, *([] if own is None else [own]))):
            raise InputError(
                "Whitening: mean or matrix is non-finite (NaN or infinity): fit it again on finite vectors"
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "query_mean", own)
        object.__setattr__(self, "info", arguments.mapping(self.info, "info", "Whitening"))

    def version(self) -> str:
        """Returns a fingerprint of means and matrix; vectors of different versions must not be compared."""
        digest = hashlib.sha256(np.ascontiguousarray(self.mean, np.float64).tobytes())
        digest.update(np.ascontiguousarray(self.matrix, np.float64).tobytes())
        if self.query_mean is not None:
            digest.update(np.ascontiguousarray(self.query_mean, np.float64).tobytes())
        return digest.hexdigest()[:16]

    def apply(self, vectors: np.ndarray | Embeddings, side: str = "") -> np.ndarray | Embeddings:
        """Whitens vectors.

        Args:
          vectors: [n, D] array, or embeddings of the space it was fitted in.
          side: "query" or "gallery"; needed only where the two have centres of their own.

        Returns:
          [n, dim] float32, not normalised. Embeddings give embeddings, computed on read if large, whose meta["space"]
          includes the whitening's version, so that they are not compared with others.

        Raises:
          InputError: vectors of a different dimension or space than it was fitted on, a non-finite one, or no side
            where it matters.
        """
        mean = self._mean(side)
        if isinstance(vectors, Embeddings):
            fitted, given = self.info.get("space"), vectors.meta.get("space")
            if fitted is not None and given != fitted:
                raise InputError(
                    f"this whitening was fitted in the space {fitted!r} and cannot be applied to vectors of {given!r}: "
                    "fit it on the gallery of the same model"
                )
            self._check(vectors.vectors.shape)
            whitened = vectors.map(lambda block: self.apply(block, side), self.matrix.shape[1])
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
                out[start : start + APPLY_ROWS] = (block - mean) @ self.matrix
            arguments.finite(out[start : start + APPLY_ROWS], "the whitened vectors", None, start)
        return out

    def _mean(self, side: str) -> np.ndarray:
        if self.query_mean is None and not side:
            return self.mean
        if side not in ("query", "gallery"):
            raise InputError(
                f"this whitening has a centre for queries and one for the gallery, and side is {side!r}: give 'query' "
                "or 'gallery'"
            )
        return self.query_mean if side == "query" and self.query_mean is not None else self.mean

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != len(self.mean):
            raise InputError(
                f"this whitening was fitted on vectors of {len(self.mean)} dimensions, got shape {tuple(shape)}: fit "
                "it on the gallery of the same model"
            )

    def save(self, file: str | os.PathLike) -> None:
        """Writes means, matrix and info to an .npz file, atomically."""
        file = pathlib.Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "version": self.version(), **self.info})
        own = {} if self.query_mean is None else {"query_mean": self.query_mean}
        atomic.write_npz(file, mean=self.mean, matrix=self.matrix, info=np.array(text), **own)

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
        kind, version, own = info.pop("format"), info.pop("version"), None
        if info.get("centre") == "own":
            own = load_npz(file, {"query_mean": (("float64",), 1)}, remedy=remedy)["query_mean"]
            if own.shape != mean.shape or not np.isfinite(own).all():
                raise InputError(f"{file} is not a whitening (its query_mean does not fit): {remedy}")
        fitted = cls(mean, matrix, info, own)
        if kind != FORMAT or fitted.version() != version:
            raise InputError(f"{file} has a different format or changed since it was written: fit the whitening again")
        return fitted


def spectrum(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns variances [D], largest first, and directions [D, D] (columns)."""
    variance, directions = np.linalg.eigh(covariance)
    variance, directions = variance[::-1], directions[:, ::-1]
    # the sign of an eigenvector is arbitrary: fix it, so that a fit is reproducible on other machines
    largest = np.abs(directions).argmax(0)
    return variance, directions * np.where(directions[largest, np.arange(len(variance))] < 0, -1.0, 1.0)


def scales(variance: np.ndarray, ridge: float, power: float = 0.5, floor: float = 0.0) -> np.ndarray:
    """Returns the scales [D] of directions, (variance + ridge) ** -power.

    A direction with less than 1e-12 of the largest variance counts as empty and gets scale 0.

    Args:
      variance: [D], largest first.
      ridge: added to every variance.
      power: 0.5 for equal variances, 0 for the variances as they are.
      floor: added to every variance like the ridge; above 0, empty directions are kept, with floor ** -power at most.
    """
    kept = variance > max(variance[0], 0.0) * RANK_TOLERANCE
    if floor > 0:
        kept, variance = np.ones_like(kept), np.maximum(variance, 0.0) + floor
    scale = np.zeros(len(variance))
    scale[kept] = 1.0 / np.sqrt(variance[kept] + ridge) if power == 0.5 else (variance[kept] + ridge) ** -power
    return scale


def inverse_root(covariance: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns directions [D, D] (columns, largest variance first) and their scales [D], 1 / sqrt(variance + ridge)."""
    variance, directions = spectrum(covariance)
    return directions, scales(variance, ridge)


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


def fit(
    vectors: np.ndarray | Embeddings,
    ridge: float = 1e-7,
    dim: int | None = None,
    *,
    power: float = 0.5,
    relative_ridge: float = 0.0,
    shrink: bool = False,
) -> Whitening:
    """Fits a whitening: ZCA, or PCA whitening to `dim` dimensions.

    Reads the vectors once, block by block (`embeddings.moments`): [D, D] in memory, never [N, D]. The ridge is added to
    every variance, as in the source, so a nearly empty direction is amplified by 1 / sqrt(ridge) at most. A direction
    with less than 1e-12 of the largest variance is empty (fewer vectors than dimensions, constant or dependent
    columns): the source would amplify its rounding noise, here it is set to zero. On full-rank data both agree.

    Args:
      vectors: [N, D] array, memory-mapped array or Embeddings; as published, the gallery's.
      ridge: added to the eigenvalues of the covariance (sum / N), in the vectors' squared units.
      dim: number of directions of largest variance to keep (PCA whitening); None keeps all and rotates back to the
        original axes (ZCA).
      power: directions are scaled by variance ** -power, 0 to 1: 0.5 gives equal variances, less is milder.
      relative_ridge: a ridge as a share of the mean variance, such as 0.01, beside `ridge`.
      shrink: shrink the covariance towards a multiple of the identity, by Ledoit and Wolf's share: for few rows.

    Returns:
      Whitening with mean [D] and matrix [D, D or dim].

    Raises:
      InputError: fewer than two vectors, a non-finite vector, or a setting out of range.

    Source: ZCA as in arXiv 2208.00955; PCA whitening as in Jegou & Chum, ECCV 2012; shrinkage as in Ledoit & Wolf 2004.
    """
    rows = arguments.vectors(vectors.vectors if isinstance(vectors, Embeddings) else vectors, "vectors", "whitening")
    settings = _settings(rows.shape[1], ridge, dim, power, relative_ridge, shrink)
    found = moments_lib.measure(vectors)
    return _fitted(Directions(found, *spectrum(found.covariance)), describe(vectors), settings)


@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """What whitenings of all strengths have in common.

    Attributes:
      moments: of what they are fitted on.
      variance: [D] float64, largest first.
      vectors: [D, D] float64, the directions as columns; None where they are no longer needed.
    """

    moments: Moments
    variance: np.ndarray
    vectors: np.ndarray | None

    __repr__ = brief.line

    def scale(
        self,
        *,
        ridge: float = 1e-7,
        dim: int | None = None,
        power: float = 0.5,
        relative_ridge: float = 0.0,
        shrink: bool = False,
    ) -> np.ndarray:
        """Returns the scales [D or dim] of the directions; the settings are those of `fit`."""
        settings = _settings(len(self.variance), ridge, dim, power, relative_ridge, shrink)
        return _scale(self, settings)[0][: settings["dim"]]


def directions(
    queries: Embeddings,
    gallery: Embeddings,
    train: Embeddings | None = None,
    *,
    centre: str = "common",
    fit_on: str = "gallery",
    known: dict | None = None,
) -> Directions:
    """Finds the directions that a whitening of two sides scales.

    Args:
      queries, gallery, train, centre, fit_on: see `fit_sides`.
      known: moments and directions of earlier calls with the same embeddings, to reuse and to add to.

    Raises:
      InputError: see `fit_sides`.
    """
    arguments.choice(centre, "centre", "whitening", CENTRES)
    arguments.choice(fit_on, "fit_on", "whitening", FITTED_ON)
    if fit_on == "train" and train is None:
        raise InputError(
            "whitening: fit_on is 'train', and there are no embeddings of train listings: run embed with these steps, "
            "or give 'gallery', 'queries' or 'both'"
        )
    sources = _sources(queries, gallery, train, fit_on)
    known = {} if known is None else known
    for side in sources:
        if id(side) not in known:
            known[id(side)] = moments_lib.measure(side)
    own = centre == "own" and len(sources) > 1
    key = ("directions", *map(id, sources), own)
    if key not in known:
        found = moments_lib.pooled([known[id(side)] for side in sources], own)
        known[key] = Directions(found, *spectrum(found.covariance))
    return known[key]


def _sources(queries, gallery, train, fit_on: str) -> tuple[Embeddings, ...]:
    return {"gallery": (gallery,), "queries": (queries,), "both": (queries, gallery), "train": (train,)}[fit_on]


def fit_sides(
    queries: Embeddings,
    gallery: Embeddings,
    train: Embeddings | None = None,
    *,
    ridge: float = 1e-7,
    dim: int | None = None,
    power: float = 0.5,
    relative_ridge: float = 0.0,
    shrink: bool = False,
    centre: str = "common",
    fit_on: str = "gallery",
) -> Whitening:
    """Fits one whitening for both sides of a search.

    Args:
      queries: embeddings of the queries.
      gallery: embeddings of the gallery.
      train: embeddings of train listings, for fit_on "train".
      ridge, dim, power, relative_ridge, shrink: see `fit`.
      centre: "common", one mean, of what it is fitted on; "own", each side is centred by itself, which undoes a shift
        between users' and shops' pictures but needs some hundred queries of all kinds.
      fit_on: whose covariance: "gallery", "queries", "both" (their rows together; with own centres about each side's
        mean), or "train".

    Returns:
      The `Whitening`, with a query_mean for own centres.

    Raises:
      InputError: a setting out of range, no train embeddings, or what `fit` raises.
    """
    settings, known = _settings(gallery.dim, ridge, dim, power, relative_ridge, shrink), {}
    found = directions(queries, gallery, train, centre=centre, fit_on=fit_on, known=known)
    means = {}
    if centre == "own":
        means = {
            name: known[id(side)].mean if id(side) in known else moments_lib.mean(side)
            for name, side in (("query", queries), ("gallery", gallery))
        }
    sources = _sources(queries, gallery, train, fit_on)
    info = describe(sources[-1])
    if centre != "common" or fit_on != "gallery":
        info |= {"centre": centre, "fit_on": fit_on, "rows": sum(map(len, sources))}
        info["fitted_ids_sha256"] = [side.ids.sha256() for side in sources]
        info["ids_sha256"] = gallery.ids.sha256()
    return _fitted(found, info, settings, means.get("gallery"), means.get("query"))


def _settings(width: int, ridge, dim, power, relative_ridge, shrink) -> dict:
    """Returns the checked settings of a fit, by name."""
    ridge, dim = check_settings(width, ridge, dim)
    return {
        "ridge": ridge,
        "dim": dim,
        "power": arguments.number(power, "power", "whitening", low=0, high=1),
        "relative_ridge": arguments.number(relative_ridge, "relative_ridge", "whitening", low=0),
        "shrink": arguments.flag(shrink, "shrink", "whitening"),
    }


def _scale(found: Directions, settings: dict) -> tuple[np.ndarray, dict]:
    """Returns the scales [D] of directions, and what the info of the whitening says of them."""
    variance, average = found.variance, np.trace(found.moments.covariance) / len(found.variance)
    floor, info = settings["relative_ridge"] * average, {}
    if settings["shrink"]:
        share = found.moments.shrinkage()
        variance, floor = (1 - share) * variance, floor + share * average  # the directions stay
        info["shrinkage"] = share
    # as published, only what was published is in the info: it is part of files that others read
    info |= {
        name: settings[name] for name, usual in (("power", 0.5), ("relative_ridge", 0.0)) if settings[name] != usual
    }
    return scales(variance, settings["ridge"], settings["power"], floor), info


def _fitted(
    found: Directions,
    info: dict,
    settings: dict,
    mean: np.ndarray | None = None,
    query_mean: np.ndarray | None = None,
) -> Whitening:
    """Returns the whitening of some directions by checked settings; info gets the settings."""
    ridge, dim, vectors = settings["ridge"], settings["dim"], found.vectors
    scale, said = _scale(found, settings)
    info = {"rows": info["rows"], "method": "zca" if dim is None else "pca", "ridge": ridge, "dim": dim, **info, **said}
    matrix = (vectors * scale) @ vectors.T if dim is None else (vectors * scale)[:, :dim]
    return Whitening(found.moments.mean if mean is None else mean, matrix, info, query_mean)


def apply_to_member(state: State, number: int, fitted: Whitening) -> tuple[Embeddings, Embeddings]:
    """Whitens a member's queries and gallery and normalises them to length 1; saves the whitening.

    Args:
      state: whitening_<member>.npz is saved in its folder, if it has one.
      number: which member.
      fitted: the whitening, fitted on the member.
    """
    if state.folder is not None:
        fitted.save(state.folder / f"whitening_{re.sub(r'[^A-Za-z0-9_.-]', '_', state.name(number))}.npz")
    queries, gallery = state.members[number]
    return fitted.apply(queries, "query").map(normalize), fitted.apply(gallery, "gallery").map(normalize)


def step(
    state: State,
    *,
    ridge: float = 1e-7,
    dim: int | None = None,
    power: float = 0.5,
    relative_ridge: float = 0.0,
    shrink: bool = False,
    centre: str = "common",
    fit_on: str = "gallery",
) -> State:
    """Fits on each member, whitens its queries and gallery, then normalises to length 1.

    Args:
      state: every member is whitened separately; whitening_<member>.npz is saved if the state has a folder.
      ridge, dim, power, relative_ridge, shrink: see `fit`.
      centre, fit_on: see `fit_sides`; as published, both sides are centred and whitened by the gallery.

    Returns:
      The state with whitened unit vectors, computed on read if large, and no ranking.
    """
    arguments.instance(state, State, "state", "whitening")
    kwargs = {"ridge": ridge, "dim": dim, "power": power, "relative_ridge": relative_ridge, "shrink": shrink}
    kwargs |= {"centre": centre, "fit_on": fit_on}
    members = [
        apply_to_member(state, number, fit_sides(queries, gallery, state.evidence_of(number).train, **kwargs))
        for number, (queries, gallery) in enumerate(state.members)
    ]
    return dataclasses.replace(state, members=members, ranking=None)
