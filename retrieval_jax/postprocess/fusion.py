"""Rank fusion: merges the members' rankings without searching their concatenated vectors.

"reciprocal_rank" uses ranks only, so the members' scores need not be comparable. "scores" gives every listing that any
member found the weighted mean of all members' cosines, which is the cosine of their concatenated vectors (ensemble).
With full lists that equals the ranking by concatenated vectors; with lists of k, listings outside every member's top k
are missing.

Source: Cormack, Clarke & Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods"
  (SIGIR 2009); the sum of scores is CombSUM, Fox & Shaw (TREC-2, 1994).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments, pairs
from retrieval_jax.embeddings import Embeddings, Ids, places
from retrieval_jax.errors import InputError
from retrieval_jax.index.exact import best_first
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess.ensemble import align, concatenate, shares
from retrieval_jax.scoring.ranking import Ranking

PAIRS = 1 << 22  # floats gathered at once when pairs are scored
METHODS = ("reciprocal_rank", "scores")


def _check(rankings: Sequence[Ranking], k: int) -> int:
    k = arguments.integer(k, "k", "fusion")
    rankings = arguments.sequence(rankings, "rankings", "fusion")
    if not len(rankings) or not all(isinstance(ranking, Ranking) for ranking in rankings):
        raise InputError("fusion: give rankings, at least one")
    arguments.memory(24 * len(rankings[0]) * int(k), f"{k:,} results per query", "fusion", "lower k")
    for number, ranking in enumerate(rankings):
        if ranking.query_ids != rankings[0].query_ids or ranking.gallery_sha256 != rankings[0].gallery_sha256:
            raise InputError(
                f"fusion: rankings 0 and {number} have different queries or galleries: search the same catalogue, in "
                "the same order, with all members"
            )
    return k


def _union(rankings: Sequence[Ranking]) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns query [P] and row [P] of all distinct pairs found, and per ranking (which pairs, at which place)."""
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
    """Returns the k best of every query's pairs; ties go by id, or by row if there are no ids."""
    seen, where = np.unique(row, return_inverse=True)  # only rows that were found need their place by id
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
    """Fuses rankings by the sum of weight / (constant + rank), ranks from 1; a listing not found contributes nothing.

    Args:
      rankings: of the same queries over the same gallery.
      k: results per query.
      constant: the larger, the less the top ranks stand out; 60 in the source.
      weights: one per ranking, equal by default; normalised to sum to 1.
      gallery_ids: ids that break ties; by row if None.

    Returns:
      Ranking of k results, padded where all members together found fewer.

    Raises:
      InputError: different queries or galleries, k or constant out of range, or weights that do not match.
    """
    k = _check(rankings, k)
    constant = arguments.number(constant, "constant", "fusion", low=0)
    if gallery_ids is not None:
        gallery_ids, last = Ids.of(gallery_ids), max(int(ranking.item_rows.max(initial=-1)) for ranking in rankings)
        if last >= len(gallery_ids):
            raise InputError(f"fusion: the rankings refer to row {last}, but there are {len(gallery_ids)} gallery_ids")
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
      members: queries and gallery of each, rows in the same order.
      k: results per query.
      weights: see `reciprocal_rank`.

    Returns:
      Ranking of k results; scores are the cosines of the concatenated vectors (`ensemble.concatenate`), except that a
      member's zero vector contributes 0 here.

    Raises:
      InputError: see `reciprocal_rank`.
    """
    k = _check(rankings, k)
    members = _checked_members(rankings, members)
    query, row, _ = _union(rankings)
    score = np.zeros(len(query))
    for share, (queries, gallery) in zip(shares(weights, len(members)), members, strict=True):
        score += share * _cosines(queries, gallery, query, row)
    return _best(rankings, query, row, score, k, members[0][1].ids)


def _checked_members(rankings: Sequence[Ranking], members: Sequence) -> list[tuple[Embeddings, Embeddings]]:
    size = max((int(ranking.item_rows.max(initial=-1)) for ranking in rankings), default=-1)
    members = State(members).members
    for number, (queries, gallery) in enumerate(members):
        if len(queries) != len(rankings[0]) or len(gallery) <= size or queries.dim != gallery.dim:
            raise InputError(
                f"fusion: member {number} has {len(queries)} queries of {queries.dim} and {len(gallery)} listings of "
                f"{gallery.dim} dimensions, which the rankings do not match: search these members"
            )
    return members


def _cosines(queries: Embeddings, gallery: Embeddings, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns the cosines [P] float64 of pairs, reading each gallery row once; 0 if either vector is zero."""
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
    """Fuses the members' rankings into one and the members into one (as `ensemble` does) for the steps that follow.

    Args:
      state: with the members' rankings.
      method: "reciprocal_rank" or "scores".
      constant: see `reciprocal_rank`.
      weights: see `reciprocal_rank`; the concatenated vectors use them too.
      k: results per query; the longest of the members' rankings by default.

    Raises:
      InputError: an unknown method, or members that were not searched.
    """
    arguments.instance(state, State, "state", "fusion")
    if method not in METHODS:
        raise InputError(f"fusion: there is no method named {method!r}{pairs.near(method, METHODS)}")
    if len(state.members) == 1 and not state.rankings:
        raise InputError(
            "fusion merges the rankings of several members, but there is only one: list the members in "
            "search.members, or remove fusion from search.steps"
        )
    if len(state.rankings) != len(state.members):
        raise InputError(
            f"fusion needs a ranking from each of the {len(state.members)} members, but there are "
            f"{len(state.rankings)}: add the stage before it to search.stages, or leave search.stages empty"
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
