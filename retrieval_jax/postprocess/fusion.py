"""Fusion of the members' rankings: what each found is joined, without a search over their joined vectors.

"reciprocal_rank" looks at places alone, so members need not even score alike. "scores" gives every listing that any
member found the weighted mean of all members' cosines, which is the cosine of their joined vectors (ensemble). With
whole lists that is the ranking of the joined vectors; with lists of k, listings that no member has among its k best are
missing.

Source: Cormack, Clarke & Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods"
  (SIGIR 2009); the sum of scores is CombSUM, Fox & Shaw (TREC-2, 1994).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from retrieval_jax.embeddings import Embeddings, Ids, places
from retrieval_jax.errors import InputError
from retrieval_jax.index.exact import best_first
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.ensemble import align, concatenate, shares
from retrieval_jax.scoring.ranking import Ranking

PAIRS = 1 << 22  # numbers gathered at once when pairs are scored
METHODS = ("reciprocal_rank", "scores")


def _check(rankings: Sequence[Ranking], k: int) -> None:
    if not rankings or k < 1:
        raise InputError(f"fusion of {len(rankings)} rankings to k={k}: give at least one ranking, and k of 1 or more")
    for number, ranking in enumerate(rankings):
        if ranking.query_ids != rankings[0].query_ids or ranking.gallery_sha256 != rankings[0].gallery_sha256:
            raise InputError(
                f"rankings 0 and {number} to fuse are of other queries or of another gallery: search the same "
                "catalogue, in one order, with all members"
            )


def _union(rankings: Sequence[Ranking]) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns query [P] and row [P] of all listings found, distinct, and for each ranking (pairs' number, place)."""
    width = 1 + max(int(ranking.item_rows.max(initial=0)) for ranking in rankings)
    found = []
    for ranking in rankings:
        query, place = np.nonzero(ranking.item_rows >= 0)
        found.append((query * width + ranking.item_rows[query, place], place))
    keys = np.unique(np.concatenate([key for key, _ in found]))
    query, row = np.divmod(keys, width)
    return query, row, [(np.searchsorted(keys, key), place) for key, place in found]


def _best(
    rankings: Sequence[Ranking], query: np.ndarray, row: np.ndarray, score: np.ndarray, k: int, gallery_ids: Ids | None
) -> Ranking:
    """Returns the k best of every query's pairs; equal scores ascend by id, or by row where ids are not known."""
    seen, where = np.unique(row, return_inverse=True)  # only what was found needs a place by id
    place = np.arange(len(seen)) if gallery_ids is None else places(gallery_ids[seen])
    found, scores = best_first(query, where, score.astype(np.float32), place, len(rankings[0]), k)
    rows = np.full(found.shape, -1, np.int64)
    rows[found >= 0] = seen[found[found >= 0]]
    return dataclasses.replace(rankings[0], item_rows=rows, scores=scores)


def reciprocal_rank(
    rankings: Sequence[Ranking],
    k: int,
    *,
    constant: float = 60.0,
    weights: Sequence[float] | None = None,
    gallery_ids: Ids | None = None,
) -> Ranking:
    """Fuses rankings by sum of weight / (constant + place), places counted from 1; a listing not found adds nothing.

    Args:
      rankings: of the same queries over the same gallery.
      k: results a query.
      constant: how little the first places stand out; the source's 60.
      weights: one a ranking, default all alike; used as shares of 1.
      gallery_ids: ids by which ties are put in order; by default by row.

    Returns:
      Ranking of k results, padded where all members together found fewer.

    Raises:
      InputError: rankings of other queries or another gallery, k or constant out of range, or weights that do not fit.
    """
    _check(rankings, k)
    if constant < 0:
        raise InputError(f"reciprocal rank fusion with constant={constant}: give 0 or more, the source takes 60")
    query, row, found = _union(rankings)
    score = np.zeros(len(query))
    for share, (pair, place) in zip(shares(weights, len(rankings)), found, strict=True):
        score[pair] += share / (constant + 1.0 + place)
    return _best(rankings, query, row, score, k, gallery_ids)


def sum_of_scores(
    rankings: Sequence[Ranking],
    members: Sequence[tuple[Embeddings, Embeddings]],
    k: int,
    *,
    weights: Sequence[float] | None = None,
) -> Ranking:
    """Fuses rankings by the weighted mean of all members' cosines, of every listing that any member found.

    Args:
      rankings: of the same queries over the same gallery.
      members: queries and gallery of each, in one order of rows.
      k: results a query.
      weights: see `reciprocal_rank`.

    Returns:
      Ranking of k results; a score is the cosine of the members' joined vectors (`ensemble.concatenate`), but for a
      member's zero vector, which counts 0 here.

    Raises:
      InputError: see `reciprocal_rank`.
    """
    _check(rankings, k)
    query, row, _ = _union(rankings)
    score = np.zeros(len(query))
    for share, (queries, gallery) in zip(shares(weights, len(members)), members, strict=True):
        score += share * _cosines(queries, gallery, query, row)
    return _best(rankings, query, row, score, k, members[0][1].ids)


def _cosines(queries: Embeddings, gallery: Embeddings, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns the cosines [P] float64 of pairs, each gallery row read once; 0 with a zero vector."""
    out = np.empty(len(query))
    order = np.argsort(row, kind="stable")
    step = max(1, PAIRS // gallery.dim)
    for start in range(0, len(order), step):
        some = order[start : start + step]
        rows, where = np.unique(row[some], return_inverse=True)
        items = np.asarray(gallery.vectors[rows], np.float64)[where]
        asked, which = np.unique(query[some], return_inverse=True)
        wanted = np.asarray(queries.vectors[asked], np.float64)[which]
        dot = np.einsum("pd,pd->p", wanted, items)
        length = np.sqrt(np.einsum("pd,pd->p", wanted, wanted) * np.einsum("pd,pd->p", items, items))
        out[some] = np.divide(dot, length, out=np.zeros_like(dot), where=length > 0)
    return out


def step(
    state: State,
    *,
    method: str = "reciprocal_rank",
    constant: float = 60.0,
    weights: Sequence[float] | None = None,
    k: int | None = None,
) -> State:
    """Makes one ranking of the members' rankings, and one member of all (joined as by ensemble) for what comes after.

    Args:
      state: with the members' rankings.
      method: "reciprocal_rank" or "scores".
      constant: see `reciprocal_rank`.
      weights: see `reciprocal_rank`; also of the joined vectors.
      k: results a query; by default as many as the members' rankings have.

    Raises:
      InputError: an unknown method, or members that were not searched.
    """
    if method not in METHODS:
        raise InputError(f"fusion by {method!r}: there are {', '.join(METHODS)}")
    if len(state.members) == 1 and not state.rankings:
        raise InputError(
            "fusion joins the rankings of several members, there is one: name them in search.members, or "
            "take fusion out of search.steps"
        )
    if len(state.rankings) != len(state.members):
        raise InputError(
            f"fusion needs the ranking of each of the {len(state.members)} members, there are {len(state.rankings)}: "
            "name the stage before it in search.stages, or leave that empty"
        )
    k = max(ranking.k for ranking in state.rankings) if k is None else k
    sides = [align(side, state.names) for side in zip(*state.members, strict=True)]
    if method == "scores":
        ranking = sum_of_scores(state.rankings, list(zip(*sides, strict=True)), k, weights=weights)
    else:
        ids = sides[1][0].ids
        ranking = reciprocal_rank(state.rankings, k, constant=constant, weights=weights, gallery_ids=ids)
    joined = tuple(concatenate(side, weights, state.names) for side in sides)
    return dataclasses.replace(state, members=[joined], ranking=ranking, rankings=(), names=("ensemble",))
