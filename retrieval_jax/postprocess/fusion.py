"""Rank fusion: merges the members' rankings without searching their concatenated vectors.

"reciprocal_rank" uses ranks only, so the members' scores need not be comparable. "scores" gives every listing that any
member found the weighted mean of all members' cosines, which is the cosine of their concatenated vectors (ensemble).
With full lists that equals the ranking by concatenated vectors; with lists of k, listings outside every member's top k
are missing. "min_max" is for scores of different kinds, such as BM25 and cosines: each member's scores of a query run
from 0, its last result, to 1, its best; a listing that it did not find has 0.

A member without vectors (`State.beside`: lexical search) takes part in the first and the last. All methods add up one
part per member times its weight, so `fused` can say what each member gave to a result.

Source: Cormack, Clarke & Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods"
  (SIGIR 2009); the sum of scores is CombSUM, Fox & Shaw (TREC-2, 1994), with the normalisation of Lee, "Analyses of
  Multiple Evidence Combination" (SIGIR 1997).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_jax import arguments, pairs
from retrieval_jax.embeddings import Embeddings, Ids, places
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.index.exact import best_first
from retrieval_jax.postprocess import State, _fusion_weights
from retrieval_jax.postprocess.ensemble import align, concatenate, shares
from retrieval_jax.scoring.ranking import Ranking

PAIRS = 1 << 22  # floats gathered at once when pairs are scored
METHODS = ("reciprocal_rank", "scores", "min_max")
CHOSEN = "chosen"
FILE = "fusion.json"


def check(rankings: Sequence[Ranking], k: int) -> int:
    """Returns k; raises InputError unless rankings are of the same queries and gallery, and k is at least 1."""
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
    k = check(rankings, k)
    constant = arguments.number(constant, "constant", "fusion", low=0)
    if gallery_ids is not None:
        gallery_ids, last = Ids.of(gallery_ids), max(int(ranking.item_rows.max(initial=-1)) for ranking in rankings)
        if last >= len(gallery_ids):
            raise InputError(f"fusion: the rankings refer to row {last}, but there are {len(gallery_ids)} gallery_ids")
    query, row, parts = contributions(rankings, "reciprocal_rank", constant=constant)
    return _best(rankings, query, row, _added(parts, shares(weights, len(rankings))), k, gallery_ids)


def min_max(
    rankings: Sequence[Ranking], k: int, *, weights: Sequence[float] | None = None, gallery_ids: Ids | None = None
) -> Ranking:
    """Fuses rankings by the weighted sum of their scores, each put on a scale from 0 to 1 per query; see the module.

    Args:
      rankings, k, weights, gallery_ids: see `reciprocal_rank`.

    Returns:
      Ranking of k results, padded where all members together found fewer.

    Raises:
      InputError: see `reciprocal_rank`.
    """
    k = check(rankings, k)
    query, row, parts = contributions(rankings, "min_max")
    return _best(rankings, query, row, _added(parts, shares(weights, len(rankings))), k, gallery_ids)


def contributions(
    rankings: Sequence[Ranking], method: str, *, constant: float = 60.0, members: Sequence = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what every member gives to every listing that any of them found, before its weight.

    Args:
      rankings: of the same queries over the same gallery.
      method: one of METHODS.
      constant: of "reciprocal_rank".
      members: (queries, gallery) of each, for "scores".

    Returns:
      query [P], row [P] and parts [P, members] float64, ascending by query and row.
    """
    query, row, found = _union(rankings)
    parts = np.zeros((len(query), len(rankings)))
    for number, (pair, place) in enumerate(found):
        if method == "reciprocal_rank":
            parts[pair, number] = 1 / (constant + 1.0 + place)
        elif method == "scores":
            parts[:, number] = _cosines(*members[number], query, row)
        else:
            scores = rankings[number].scores.astype(np.float64)
            last = np.where(np.isfinite(scores), scores, np.inf).min(1, initial=np.inf)
            best = scores.max(1, initial=-np.inf)
            with np.errstate(invalid="ignore"):
                width = best - last
            asked = query[pair]
            scaled = (scores[asked, place] - last[asked]) / np.where(width[asked] > 0, width[asked], 1.0)
            parts[pair, number] = np.where(width[asked] > 0, scaled, 1.0)  # one result, or equal ones: all are best
    return query, row, parts


def _added(parts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the weighted sums of parts [P, members], added member by member so that the bits never differ."""
    score = np.zeros(len(parts))
    for number, weight in enumerate(weights.tolist()):
        score += weight * parts[:, number]
    return score


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
    k = check(rankings, k)
    members = _checked_members(rankings, members)
    query, row, parts = contributions(rankings, "scores", members=members)
    return _best(rankings, query, row, _added(parts, shares(weights, len(members))), k, members[0][1].ids)


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
    weights: Sequence[float] | Mapping[str, float] | str | None = None,
    k: int | None = None,
) -> State:
    """Fuses the members' rankings into one and the members into one (as `ensemble` does) for the steps that follow.

    Args:
      state: with the members' rankings; fusion.json is saved if it has a folder.
      method: one of METHODS.
      constant: see `reciprocal_rank`.
      weights: one per member, in their order, those without vectors last; or {name: weight}, 0 for a member that is not
        named; equal by default. "chosen": found on the judged queries (`_fusion_weights`), and printed. The
        concatenated vectors use those of the members that have vectors.
      k: results per query; the longest of the members' rankings by default.

    Raises:
      InputError: an unknown method or name, or members that were not searched.
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
    if method == "scores" and state.beside:
        raise InputError(
            f"fusion: method='scores' needs vectors, and {state.beside[0][0]} has none: take 'min_max' or "
            "'reciprocal_rank'"
        )
    rankings = [*state.rankings, *(ranking for _, ranking in state.beside)]
    names = [*(state.name(number) for number in range(len(state.members))), *(name for name, _ in state.beside)]
    k = check(rankings, max(ranking.k for ranking in rankings) if k is None else k)
    sides = [align(side, state.names) for side in zip(*state.members, strict=True)]
    members = _checked_members(state.rankings, list(zip(*sides, strict=True))) if method == "scores" else ()
    query, row, parts = contributions(rankings, method, constant=constant, members=members)
    record = {"method": method, "constant": constant, "names": names}
    if isinstance(weights, str):
        if weights != CHOSEN:
            raise InputError(f"fusion: weights={weights!r}: give one number for each member, or {CHOSEN!r}")

        def rank(weights: np.ndarray, chosen: np.ndarray, depth: int) -> Ranking:
            pairs_of = chosen[query]
            return _best(
                rankings, query[pairs_of], row[pairs_of], _added(parts[pairs_of], weights), depth, sides[1][0].ids
            )

        first = len(state.members) if state.beside else 0
        weights, record["tried"], record["why"] = _fusion_weights.choose(rank, names, first, state.judged)
        print(f"fusion: {record['why']}", flush=True)
    elif isinstance(weights, Mapping):
        pairs.check_arguments("weights", weights, names, "fusion", "member")
        weights = [weights.get(name, 0.0) for name in names]
    weights = shares(weights, len(rankings))
    record["weights"] = dict(zip(names, weights.tolist(), strict=True))
    ranking = _best(rankings, query, row, _added(parts, weights), k, sides[1][0].ids)
    if state.folder is not None:
        atomic.write_json(state.folder / FILE, record)
    own = weights[: len(state.members)]
    joined = tuple(concatenate(side, own if own.any() else None, state.names) for side in sides)
    return dataclasses.replace(
        state, members=[joined], ranking=ranking, rankings=(), beside=(), names=("ensemble",), evidence=()
    )
