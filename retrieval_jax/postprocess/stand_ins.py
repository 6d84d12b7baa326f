"""Stand-ins for the queries of a search, whose right answers are known without a label (see `choosing`)."""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax import brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.evidence import Evidence
from retrieval_jax.embeddings.vectors import spread

LEAST_QUERIES = 100  # real or stand-in queries, below which nothing is concluded from them
MOST_QUERIES, MOST_GALLERY = 800, 4000  # rows of each side that are tried
APART = 0.75  # area under the ROC curve from which the two sides count as different


@dataclasses.dataclass(frozen=True)
class Trial:
    """Stand-ins for a search.

    Attributes:
      name: "titles", "altered", or "queries" for the real ones.
      queries, gallery: the two sides.
      right: the gallery rows that are right for each of the first queries; () where they are not known.
      fit_rows: most rows of each side that a whitening is fitted on: no more than the search itself has, because a
        covariance of few rows is another one.
    """

    name: str
    queries: Embeddings
    gallery: Embeddings
    right: tuple[np.ndarray, ...]
    fit_rows: tuple[int, int] | None = None

    __repr__ = brief.line


def likeness(queries: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Finds the direction in which queries differ from the gallery (a regularised linear discriminant).

    Args:
      queries, gallery: [n, D] vectors.

    Returns:
      The direction [D], its threshold, and how well it tells held-out rows apart (area under the ROC curve, 0.5 to 1).
    """

    def fit(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
        within = (np.cov(first.T, bias=True) + np.cov(second.T, bias=True)) / 2
        within += np.eye(len(within)) * 0.1 * np.trace(within) / len(within)
        direction = np.linalg.solve(within, first.mean(0) - second.mean(0))
        return direction, float(direction @ (first.mean(0) + second.mean(0)) / 2)

    direction, _ = fit(queries[::2], gallery[::2])
    held = np.concatenate([queries[1::2] @ direction, gallery[1::2] @ direction])
    ranks, count, others = np.argsort(np.argsort(held, kind="stable")), len(queries[1::2]), len(gallery[1::2])
    area = (ranks[:count].sum() - count * (count - 1) / 2) / max(1, count * others)
    return *fit(queries, gallery), float(area)


def trials(queries: Embeddings, gallery: Embeddings, evidence: Evidence) -> tuple[list[Trial], list[str]]:
    """Returns the stand-ins that can be had, and a sentence about each that cannot."""
    found, notes = [], []
    for make in (_titles, _altered):
        made = make(queries, gallery, evidence)
        found.extend([made] if isinstance(made, Trial) else [])
        notes.extend([made] if isinstance(made, str) else [])
    return found, notes


def _titles(queries: Embeddings, gallery: Embeddings, evidence: Evidence) -> Trial | str:
    agreeing = evidence.agreeing
    if evidence.train is None or not agreeing:
        return "titles: no train listings with titles were embedded with this model"
    vectors = evidence.train.block(0, len(evidence.train)).astype(np.float64)
    if len(queries) >= LEAST_QUERIES:
        sides = (_wide(side, MOST_QUERIES) for side in (queries, gallery))
        direction, threshold, area = likeness(*sides)
    else:
        area = 0.5
    asks = vectors @ direction > threshold if area >= APART else np.arange(len(vectors)) % 3 == 0
    place = np.cumsum(~asks) - 1
    right = [place[rows[~asks[rows]]] for rows in agreeing]
    rows = [row for row in np.flatnonzero(asks) if len(right[row])][:MOST_QUERIES]
    if len(rows) < LEAST_QUERIES:
        return (
            f"titles: {len(rows)} of {len(vectors):,} train listings could stand in for queries, and "
            f"{LEAST_QUERIES} are needed"
        )
    train, chosen = evidence.train, np.array(rows)
    others = np.flatnonzero(asks)  # all of them, as queries have a mean and covariance of their own
    order = np.concatenate([chosen, np.setdiff1d(others, chosen)])
    sides = train.take(order), train.take(np.flatnonzero(~asks))
    return Trial("titles", *sides, tuple(right[row] for row in rows), (len(queries), len(gallery)))


def _altered(queries: Embeddings, gallery: Embeddings, evidence: Evidence) -> Trial | str:
    del queries
    if evidence.altered is None:
        return "altered: no altered pictures were embedded with this model"
    at = {name: row for row, name in enumerate(gallery.ids)}
    rows = np.array([at.get(name, -1) for name in evidence.altered.ids])
    known = np.flatnonzero(rows >= 0)
    if len(known) < LEAST_QUERIES:
        return f"altered: {len(known)} altered pictures of this gallery, and {LEAST_QUERIES} are needed"
    few = known[:: max(1, -(-len(known) // MOST_QUERIES))]
    searched = np.union1d(spread(len(gallery), MOST_GALLERY), rows[few])
    right = tuple(np.searchsorted(searched, rows[few])[:, None])
    altered = evidence.altered.take(few)
    ids = [f"altered {name}" for name in altered.ids]  # a search leaves out the listing that has the query's id
    return Trial("altered", dataclasses.replace(altered, ids=ids), gallery.take(searched), right)


def _wide(side: Embeddings, most: int) -> np.ndarray:
    return np.asarray(side.vectors[spread(len(side), most)], np.float64)
