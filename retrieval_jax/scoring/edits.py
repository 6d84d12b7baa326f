"""Scores of edits, "this shirt, but in denim": did the edit happen, and did the rest stay.

An edit names a field, such as the colour, and a value that results should have ("in red") or should not ("without
stripes"). What an edit asks for is read from columns of the query split: "reference", "edited", "wanted", "unwanted".
What listings have is read from the gallery's fields.

Rules:
- The first K results count; where a ranking has fewer, the missing ones count as wrong.
- A listing whose value is unknown does not have the wanted value, and does not have the unwanted one either.
- Something stays where a result has the same values as the reference. A field that is unknown for the reference, or
  the one that is edited, is not scored for that query; without a reference in the gallery nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import arguments, pairs
from retrieval_jax.errors import InputError, short
from retrieval_jax.scoring import intra_list
from retrieval_jax.scoring.edit_queries import Asked, check_kept, of_catalog, one, sentence, settings, there
from retrieval_jax.scoring.ranking import Ranking

__all__ = [
    "Asked",
    "chance",
    "check_kept",
    "evaluate",
    "is_name",
    "likeness",
    "named",
    "names",
    "notes",
    "of_catalog",
    "per_query",
    "right",
    "sentence",
    "settings",
    "stays",
    "summary",
    "there",
]

DEPTH = 10


def right(asked: Asked, rows: np.ndarray) -> np.ndarray:
    """Returns which results have the wanted value, and not the unwanted one, in the field that is edited, bool [Q, k].

    Args:
      asked: what the queries ask for; all False for those whose edit is not scored.
      rows: int [Q, k], gallery rows; -1 for none.
    """
    out = np.zeros(rows.shape, bool)
    edited = np.asarray(asked.edited, object)
    for field in dict.fromkeys(edited[asked.scored].tolist()):
        queries = np.flatnonzero((edited == field) & asked.scored)
        some, good = rows[queries], rows[queries] >= 0
        for values, has in ((asked.wanted[queries], True), (asked.unwanted[queries], False)):
            keys = some * max(1, len(asked.values[field])) + values[:, None]
            good &= (values < 0)[:, None] | (np.isin(keys, asked.pairs[field]) == has)
        out[queries] = good
    return out


def stays(asked: Asked, rows: np.ndarray, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns which results have the reference's values in a field, bool [Q, k], and for which queries that counts [Q].

    Args:
      asked: what the queries ask for.
      rows: int [Q, k], gallery rows; -1 for none.
      field: one of `asked.kept`.
    """
    sets = np.append(asked.sets[field], -1)
    wanted = sets[asked.reference]
    counts = (wanted >= 0) & (np.asarray(asked.edited, object) != field)
    return (sets[rows] == wanted[:, None]) & (rows >= 0) & counts[:, None], counts


def names(asked: Asked, depth: int = DEPTH) -> list[str]:
    """Returns the names of the scores of `per_query` that any query has."""
    none = np.zeros((len(asked), 0), np.int64)
    counts = {field: stays(asked, none, field)[1] for field in asked.kept}
    kept = [field for field in asked.kept if counts[field].any()]
    out = [f"right@{depth}"] if asked.scored.any() else []
    out += [f"kept@{depth}"] if kept else []
    out += [f"both@{depth}"] if any((counts[field] & asked.scored).any() for field in kept) else []
    return out + ([f"kept_{field}@{depth}" for field in kept] if len(asked.kept) > 1 else [])


def is_name(name: str) -> bool:
    """Returns whether a score has the form of those of `per_query`."""
    return re.fullmatch(r"(right|kept|both|kept_.+)@[1-9][0-9]{0,6}", name) is not None


def named(ranking: Ranking, asked: Asked, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns scores of `per_query` by their names, at any depth.

    Args:
      ranking, asked: see `per_query`.
      wanted: names such as "right@10" (see `is_name`).

    Raises:
      InputError: there is no such score.
    """
    out = {}
    for name in wanted:
        found = per_query(ranking, asked, int(name.rpartition("@")[2]))
        if name not in found:
            raise InputError(f"edits: there is no score named {name!r}{pairs.near(name, found)}")
        out[name] = found[name]
    return out


def per_query(ranking: Ranking, asked: Asked, depth: int = DEPTH) -> dict[str, np.ndarray]:
    """Scores every query.

    Args:
      ranking: [Q, k] results.
      asked: what the same queries ask for.
      depth: results that count.

    Returns:
      {name: [Q] float64, NaN where a query is not scored}: "right@K", the share of the first K with the wanted value in
      the edited field and without the unwanted one. Where there are fields that should stay also "kept@K", the share
      with the reference's values, mean over these fields; "both@K", the share that is right and has the reference's
      values in all of them; and with several of them "kept_<field>@K" of each.

    Raises:
      InputError: another number of queries, or a depth below 1.
    """
    depth = arguments.integer(depth, "depth", "edits")
    if len(ranking) != len(asked):
        raise InputError(f"edits: a ranking of {len(ranking)} queries and {len(asked)} edits: search again")
    rows = ranking.item_rows[:, :depth]
    good = right(asked, rows)
    same = {field: stays(asked, rows, field) for field in asked.kept}
    every = good.copy()
    for found, counts in same.values():
        every &= found | ~counts[:, None]
    shares = {field: (found.sum(1) / depth, counts) for field, (found, counts) in same.items()}
    return _named(asked, depth, good.sum(1) / depth, every.sum(1) / depth, shares)


def chance(asked: Asked, depth: int = DEPTH) -> dict[str, np.ndarray]:
    """Returns the scores of `per_query` to expect of a gallery in random order, with as many results as count.

    Args:
      asked: what the queries ask for.
      depth: of the names.
    """
    size = len(next(iter(asked.sets.values()), ()))
    every, masks = np.arange(size)[None], {}
    good, both = np.zeros(len(asked)), np.zeros(len(asked))
    counts = {field: stays(asked, np.zeros((len(asked), 0), np.int64), field)[1] for field in asked.kept}
    left_out = np.stack([asked.reference, np.where(asked.own == asked.reference, -1, asked.own)], 1)
    for query in np.flatnonzero(asked.scored).tolist():
        reference, gone = asked.reference[query], left_out[query][left_out[query] >= 0]
        key = asked.edited[query], asked.wanted[query], asked.unwanted[query]
        if key not in masks:
            masks[key] = right(one(asked, query), every)[0]
        mask = masks[key]
        good[query] = mask.sum() - mask[gone].sum()
        for field in asked.kept:
            if counts[field][query]:
                mask = mask & (asked.sets[field] == asked.sets[field][reference])
        both[query] = mask.sum() - mask[gone].sum()
    others, shares = np.maximum(1, size - (left_out >= 0).sum(1)), {}
    for field in asked.kept:
        sets = asked.sets[field]
        sizes, wanted = np.bincount(sets[sets >= 0], minlength=1), np.append(sets, -1)[asked.reference]
        same = (np.append(sets, -2)[left_out] == wanted[:, None]).sum(1)
        shares[field] = (sizes[np.maximum(wanted, 0)] - same) / others, counts[field]
    return _named(asked, depth, good / others, both / others, shares)


def _named(asked: Asked, depth: int, good: np.ndarray, both: np.ndarray, shares: Mapping) -> dict[str, np.ndarray]:
    """Returns shares [Q] under the names of `per_query`, NaN where a query is not scored."""
    out = {f"right@{depth}": np.where(asked.scored, good, np.nan)}
    if not shares:
        return out
    table = np.stack([np.where(counts, share, 0.0) for share, counts in shares.values()], 1)
    known = np.stack([counts for _, counts in shares.values()], 1).sum(1)
    out[f"kept@{depth}"] = table.sum(1) / np.where(known, known, np.nan)
    out[f"both@{depth}"] = np.where(asked.scored & (known > 0), both, np.nan)
    each = {f"kept_{field}@{depth}": np.where(counts, share, np.nan) for field, (share, counts) in shares.items()}
    return out | (each if len(each) > 1 else {})


def summary(each: Mapping[str, np.ndarray], chosen: np.ndarray | None = None) -> dict[str, float | int | None]:
    """Averages scores over the queries that have each of them.

    Args:
      each: {name: [Q]}, NaN where a query is not scored.
      chosen: bool [Q], which queries; all by default.

    Returns:
      {name: mean, "<name>_se": its standard error, "<name>_scored": number of queries}, None where there are too few.
    """
    out = {}
    for name, values in each.items():
        values = np.asarray(values)[slice(None) if chosen is None else chosen]
        values = values[~np.isnan(values)]
        out[name] = float(values.mean()) if len(values) else None
        out[f"{name}_se"] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        out[f"{name}_scored"] = len(values)
    return out


def evaluate(
    rankings: Mapping[tuple[str, str], Ranking],
    asked: Asked,
    parts: Mapping[str, Mapping[str, np.ndarray]],
    vectors=None,
    thumbnails: np.ndarray | None = None,
    max_difference: float = 0.05,
) -> dict[str, Any]:
    """Scores rankings over all queries and over slices.

    Args:
      rankings: {(model, stage): ranking}.
      asked: what the queries ask for.
      parts: {kind: {slice: bool [Q]}}.
      vectors, thumbnails, max_difference: see `intra_list.similarity`; without vectors it is not measured.

    Returns:
      {"counts", "kept": names of fields, "names": of the scores, "stages": [{"model", "stage", the `summary` of all
      queries, "slices": {kind: {slice: summary}}}], "chance": the same of a gallery in random order}.
    """

    def summed(each: dict[str, np.ndarray]) -> dict[str, Any]:
        by = {kind: {name: summary(each, chosen) for name, chosen in part.items()} for kind, part in parts.items()}
        return {**summary(each), "slices": by}

    stages, found = [], []
    for (model, stage), ranking in rankings.items():
        each = per_query(ranking, asked)
        if vectors is not None:
            each |= intra_list.similarity(ranking, vectors, thumbnails, max_difference=max_difference, depth=DEPTH)
        stages.append({"model": model, "stage": stage, **summed(each)})
        found = list(each)
    about = {"counts": dict(asked.counts), "kept": list(asked.kept), "names": found}
    return {**about, "stages": stages, "chance": summed(chance(asked))}


def notes(asked: Asked, query: int, row: int) -> list[tuple[str, str, bool]]:
    """Returns what a result changed and kept, as (kind, text, whether it is as asked).

    Args:
      asked: what the queries ask for.
      query: number of the query.
      row: gallery row of the result.

    Returns:
      Of the edited field ("edited", "colour: red", True), then of each field that should stay ("kept", "type: shirt",
      True); what is not scored is left out.
    """
    out, result, few = [], np.array([[row]]), one(asked, query)
    if asked.scored[query]:
        field = asked.edited[query]
        out.append(("edited", f"{field}: {_has(asked, field, row)}", bool(right(few, result)[0, 0])))
    for field in asked.kept:
        same, counts = stays(few, result, field)
        if counts[0]:
            out.append(("kept", f"{field}: {_has(asked, field, row)}", bool(same[0, 0])))
    return out


def _has(asked: Asked, field: str, row: int) -> str:
    """Returns the values of a listing in words."""
    count = max(1, len(asked.values[field]))
    start, stop = np.searchsorted(asked.pairs[field], [row * count, (row + 1) * count])
    found = [asked.values[field][int(key) % count] for key in asked.pairs[field][start:stop]]
    return short(" and ".join(found), 60) or "unknown"


def likeness(found: Mapping[str, Any]) -> str:
    """Returns what the similarity of results was measured by, or why it was not, in words.

    Args:
      found: from `evaluate`, with "similarity_of" or "similarity_not_measured".
    """
    if "similarity_of" not in found:
        return f"the similarity of results was not measured: {found.get('similarity_not_measured', 'an older version')}"
    model = found["similarity_of"]
    text = f"similarity is the mean cosine between the results of a query by {model}; copies of one picture raise it"
    if any(name.startswith("near_duplicates") for name in found["names"]):
        text += ", so 'distinct' leaves out pairs of near-duplicates, whose share is 'duplicates'"
    judged = any(row["model"] == model for row in found["stages"])
    return text + (f". The rows of {model} itself prove nothing: it finds what it calls similar" if judged else "")
