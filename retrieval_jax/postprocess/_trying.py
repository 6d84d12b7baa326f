"""Searches some thousand rows with many candidate steps, to compare them.

Whitenings of any strength scale the same directions, so both sides are rotated once per covariance, and a candidate
costs one product of matrices. All in float32, without the second look that `index.exact` takes at near-ties: what the
search itself writes is whitened in float64 by `whitening`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from retrieval_jax import postprocess
from retrieval_jax.embeddings import Embeddings, moments
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.index import exact
from retrieval_jax.postprocess import State, whitening

DEPTH = 10  # results that are compared, as in MAR@10
NEED_RANKING = ("query_expansion", "reranking", "global_reranking", "diffusion")

Steps = tuple[tuple[str, dict], ...]


def apply(
    steps: Steps,
    queries: Embeddings,
    gallery: Embeddings,
    known: dict | None = None,
    fit_rows: tuple[int, int] | None = None,
) -> np.ndarray:
    """Returns the rows found for each query, [Q, DEPTH], -1 where there are fewer; ties go by row.

    Args:
      steps: (name, kwargs) pairs.
      queries, gallery: the two sides, few enough for memory.
      known: what earlier calls found out about the same objects, to reuse and to add to.
      fit_rows: most queries and most gallery rows that a first whitening is fitted on; None for all.
    """
    known = {} if known is None else known
    first, rest = (steps[:1], steps[1:]) if steps and steps[0][0] == "whitening" else ((), steps)
    sides = _sides(first[0][1] if first else None, queries, gallery, known, fit_rows)
    if not rest:
        return _nearest(*sides, _same(queries, gallery, known), min(DEPTH, len(gallery)))
    key = ("ranked", id(queries), id(gallery), repr(first))
    if key not in known:
        members = [
            _scaled(side, vectors, sides[2]) for side, vectors in zip((queries, gallery), sides[:2], strict=True)
        ]
        ranking = exact.Index(members[1]).search(members[0], min(100, len(gallery)))
        known[key] = State([tuple(members)], ranking)
    state = known[key]
    for name, kwargs in rest:
        if name in NEED_RANKING and state.ranking is None:
            ranking = exact.Index(state.members[0][1]).search(state.members[0][0], min(100, len(gallery)))
            state = dataclasses.replace(state, ranking=ranking)
        state = postprocess.get(name).step(state, **kwargs)
    if state.ranking is None:
        searched, gallery = state.members[0]
        return exact.Index(gallery).search(searched, min(DEPTH, len(gallery))).item_rows
    return state.ranking.item_rows[:, :DEPTH]


def recalls(rows: np.ndarray, right: Sequence[np.ndarray]) -> np.ndarray:
    """Returns each query's share of the right listings among the first DEPTH, at most DEPTH counted, [n]."""
    pairs = zip(rows.tolist(), (wanted.tolist() for wanted in right), strict=False)
    return np.array([len(set(found) & set(wanted)) / min(DEPTH, len(wanted)) for found, wanted in pairs])


def hubness(rows: np.ndarray, count: int) -> float:
    """Returns the skewness of how often each of `count` gallery listings is found."""
    often = np.bincount(rows[rows >= 0].ravel(), minlength=count).astype(np.float64)
    deviation = often.std()
    return float((((often - often.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class _Rotated:
    """Two sides along the directions of a covariance.

    Attributes:
      found: the directions, without their vectors.
      queries, gallery: [n, D] float32, relative to the gallery's mean.
      own: [D] float32, the mean of the queries.
      common: [D] float32, the mean of what the covariance is of.
    """

    found: whitening.Directions
    queries: np.ndarray
    gallery: np.ndarray
    own: np.ndarray
    common: np.ndarray


def _sides(kwargs: dict | None, queries: Embeddings, gallery: Embeddings, known: dict, fit_rows) -> tuple:
    """Returns queries [Q, n], gallery [G, n] and scales [n] of n directions, float32; None for no whitening."""
    if kwargs is None:
        both = (side.block(0, len(side)) for side in (queries, gallery))
        return *both, np.ones(gallery.dim, np.float32)
    kwargs = dict(kwargs)
    centre, fit_on = kwargs.pop("centre", "common"), kwargs.pop("fit_on", "gallery")
    key = ("rotated", id(queries), id(gallery), fit_on, centre == "own" and fit_on == "both")
    if key not in known:
        known[key] = _rotate(queries, gallery, centre, fit_on, known, fit_rows)
    rotated = known[key]
    scale = rotated.found.scale(**kwargs)
    scale = (scale / scale.max()).astype(np.float32)
    kept = int(np.flatnonzero(scale)[-1]) + 1  # beyond, directions are empty
    searched, among = rotated.queries[:, :kept], rotated.gallery[:, :kept]
    if centre == "own":
        return searched - rotated.own[:kept], among, scale[:kept]
    shift = rotated.common[:kept]
    return searched - shift, among - shift if shift.any() else among, scale[:kept]


def _rotate(queries: Embeddings, gallery: Embeddings, centre: str, fit_on: str, known: dict, fit_rows) -> _Rotated:
    fitted = queries, gallery
    if fit_rows is not None:
        fitted = tuple(_some(side, most, known) for side, most in zip(fitted, fit_rows, strict=True))
    sources = {"gallery": fitted[1:], "queries": fitted[:1], "both": fitted}[fit_on]
    key, count = ("few", *map(id, sources), centre == "own"), sum(map(len, sources))
    if count > 0.9 * gallery.dim:
        found = whitening.directions(*fitted, centre=centre, fit_on=fit_on, known=known)
    else:
        if key not in known:
            known[key] = _directions_of_few(sources, centre == "own", known)
        found = known[key]
    mean, columns = moments.mean(fitted[1]), found.vectors.astype(np.float32)
    turned = [(side.block(0, len(side)) - mean.astype(np.float32)) @ columns for side in (queries, gallery)]
    own = (moments.mean(fitted[0]) - mean) @ found.vectors
    common = np.zeros(len(mean)) if fit_on == "gallery" else (found.moments.mean - mean) @ found.vectors
    means = own.astype(np.float32), common.astype(np.float32)
    return _Rotated(dataclasses.replace(found, vectors=None), *turned, *means)


def _some(side: Embeddings, most: int, known: dict) -> Embeddings:
    """Returns evenly spaced rows of a side, at most `most`; the same object for the same side."""
    if len(side) <= most:
        return side
    key = ("some", id(side), most)
    if key not in known:
        known[key] = side.take(spread(len(side), most))
    return known[key]


def _directions_of_few(sources: Sequence[Embeddings], own: bool, known: dict) -> whitening.Directions:
    """Returns what `whitening.directions` returns, by the products of rows: cheaper where they are few."""
    for side in sources:
        known[id(side)] = known.get(id(side)) or moments.measure(side)
    found = moments.pooled([known[id(side)] for side in sources], own and len(sources) > 1)
    centres = [known[id(side)].mean if own else found.mean for side in sources]
    rows = np.concatenate([side.block(0, len(side)) - mean for side, mean in zip(sources, centres, strict=True)])
    variance, mixed = np.linalg.eigh(rows @ rows.T / len(rows))
    kept = np.flatnonzero(variance > max(variance[-1], 0.0) * whitening.RANK_TOLERANCE)[::-1]
    directions = rows.T @ (mixed[:, kept] / np.sqrt(len(rows) * variance[kept]))
    whole, _ = np.linalg.qr(directions, mode="complete")  # the empty ones count where there is a relative ridge
    whole[:, : len(kept)] = directions
    return whitening.Directions(found, np.concatenate([variance[kept], np.zeros(len(whole) - len(kept))]), whole)


def _scaled(side: Embeddings, vectors: np.ndarray, scale: np.ndarray) -> Embeddings:
    """Returns embeddings of scaled unit vectors."""
    vectors = vectors * scale
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return Embeddings(side.ids, unit, side.meta)


def _same(queries: Embeddings, gallery: Embeddings, known: dict) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (query, row) pairs of one listing, which a search leaves out."""
    key = ("same", id(queries), id(gallery))
    if key not in known:
        known[key] = exact.Index(gallery).own_rows(queries.ids)
    return tuple(known[key].T)


def _nearest(queries: np.ndarray, gallery: np.ndarray, scale: np.ndarray, same, k: int) -> np.ndarray:
    """Returns the rows of highest cosine, [Q, k], after the columns of both sides are scaled; -1 for none.

    Args:
      queries, gallery: [n, D] float32.
      scale: [D] float32.
      same: from `_same`.
      k: rows per query.
    """
    weight = scale * scale
    length = np.sqrt((gallery * gallery) @ weight)
    scores = (queries * weight) @ gallery.T  # a query's own length does not change its order
    scores *= np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    scores[same] = -np.inf
    rows = np.sort(np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :], axis=1)
    best = np.take_along_axis(scores, rows, 1)
    order = np.argsort(-best, axis=1, kind="stable")
    rows = np.where(np.isneginf(best), -1, rows)
    return np.take_along_axis(rows, order, 1)
