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

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import arguments, brief, pairs
from retrieval_jax.errors import InputError, short
from retrieval_jax.scoring import intra_list
from retrieval_jax.scoring.ranking import Ranking

EDITED, WANTED, UNWANTED = "edited", "wanted", "unwanted"  # columns of the query split
DEPTH = 10
SETTINGS = {"kept": ("type",), "similarity": "colour_and_edges"}  # config.evaluate.edits before it could be set


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What the edits of Q queries ask for, in rows and values of the gallery's fields.

    Attributes:
      values: {field: its values by name}.
      sets: {field: int64 [G], equal for listings with equal values; -1 where unknown}.
      pairs: {field: int64, ascending, row * len(values) + value of all values that listings have}.
      edited: Q names of fields, "" where none is named.
      scored: bool [Q], whether it can be said if the edit happened.
      wanted, unwanted: int64 [Q], values of the field; -1 for none.
      reference: int64 [Q], gallery rows of the listings that the queries are about; -1 where not in the gallery.
      kept: names of the fields that should stay.
      counts: how many queries there are, and how many are not scored for which reason.
    """

    values: Mapping[str, Sequence[str]]
    sets: Mapping[str, np.ndarray]
    pairs: Mapping[str, np.ndarray]
    edited: Sequence[str]
    scored: np.ndarray
    wanted: np.ndarray
    unwanted: np.ndarray
    reference: np.ndarray
    kept: tuple[str, ...]
    counts: Mapping[str, int]

    __repr__ = brief.line

    def __len__(self) -> int:
        return len(self.edited)


def settings(config) -> dict[str, Any]:
    """Returns config.evaluate.edits as a dict, with what it was before it could be set."""
    return {**SETTINGS, **dict((config.get("evaluate") or {}).get("edits") or {})}


def there(catalog) -> bool:
    """Returns whether the queries of a catalogue are edits that can be scored: whether they have the columns."""
    query = catalog.query
    return query is not None and EDITED in query.columns and (WANTED in query.columns or UNWANTED in query.columns)


def of_catalog(catalog, kept: Sequence[str], read: Callable[[Any, str], Any]) -> Asked:
    """Returns what the queries of a catalogue ask for.

    Args:
      catalog: a `Catalog` whose queries are edits (see `there`).
      kept: see `check_kept`.
      read: of (split, name of a field), returns a `data.fields.Field`: `data.fields.read`.

    Raises:
      InputError: see `check_kept`.
    """
    query, gallery = catalog.query, catalog.gallery
    known = check_kept(catalog, kept)
    edited = _texts(query, EDITED)
    fields = {name: read(gallery, name) for name in dict.fromkeys((*kept, *edited)) if name in known}
    made = {name: _numbered(field) for name, field in fields.items()}
    number = {name: {value: row for row, value in enumerate(found[0])} for name, found in made.items()}
    asked, reasons = {}, [""] * len(query)
    for what in (WANTED, UNWANTED):
        rows = np.full(len(query), -1, np.int64)
        for at, (field, value) in enumerate(zip(edited, _texts(query, what), strict=True)):
            if value and field in number:
                rows[at] = number[field].get(value, -1)
                reasons[at] = reasons[at] or ("" if rows[at] >= 0 else "no_such_value")
        asked[what] = rows
    for at, field in enumerate(edited):
        if not field:
            reasons[at] = "no_field"
        elif field not in number:
            reasons[at] = "no_such_field"
        elif not reasons[at] and asked[WANTED][at] < 0 and asked[UNWANTED][at] < 0:
            reasons[at] = "no_value"
    counts = {"queries": len(query), "scored": reasons.count("")}
    counts |= {reason: reasons.count(reason) for reason in sorted(set(reasons) - {""})}
    row_of, about = {item: row for row, item in enumerate(gallery.ids)}, getattr(query.ids, "about", query.ids)
    reference = np.array([row_of.get(item, -1) for item in about], np.int64)
    return Asked(
        {name: found[0] for name, found in made.items()},
        {name: found[1] for name, found in made.items()},
        {name: found[2] for name, found in made.items()},
        edited,
        np.array([not reason for reason in reasons], bool),
        asked[WANTED],
        asked[UNWANTED],
        reference,
        tuple(kept),
        {**counts, "reference_in_gallery": int((reference >= 0).sum())},
    )


def check_kept(catalog, kept: Sequence[str]) -> list[str]:
    """Returns the names of the gallery's fields.

    Args:
      catalog: a `Catalog`.
      kept: names of the fields that should stay.

    Raises:
      InputError: one of them is not a field of the gallery.
    """
    gallery = catalog.gallery
    known = [*(name for name in gallery.column_names if name in gallery.columns), *gallery.category_levels]
    if unknown := [name for name in kept if name not in known]:
        raise InputError(
            f"config.evaluate.edits.kept: the gallery has no field {unknown[0]!r}{pairs.near(unknown[0], known)}; name "
            "those that an edit leaves as they are, () for none"
        )
    return known


def _texts(split, name: str) -> list[str]:
    """Returns a column of text, or the names of an attribute's values; "" where unknown or where there is no column."""
    if name not in split.columns:
        return [""] * len(split)
    column = split.columns[name]
    if not isinstance(column, np.ndarray):
        return [str(text) for text in column]
    names = [*map(str, split.column_names[name]), ""]
    return [names[code] for code in column.tolist()]  # -1, unknown, indexes the last


def _numbered(field) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Returns the values of a field, each name once, and what listings have of them; see `Asked`."""
    names = list(dict.fromkeys(map(str, field.values)))
    place = {name: number for number, name in enumerate(names)}
    numbers = np.array([place[str(name)] for name in field.values], np.int64)
    values = numbers[np.asarray(field.value_ids)] if len(numbers) else np.zeros(0, np.int64)
    lengths = np.diff(field.indptr)
    found = np.unique(np.repeat(np.arange(len(field)), lengths) * max(1, len(names)) + values)
    rows, values = np.divmod(found, max(1, len(names)))
    sets, known = np.full(len(field), -1, np.int64), {}
    parts = np.split(values, np.searchsorted(rows, np.arange(1, len(field))))
    for row, part in enumerate(parts):
        if len(part):
            sets[row] = known.setdefault(part.tobytes(), len(known))
    return names, sets, found


def right(asked: Asked, rows: np.ndarray) -> np.ndarray:
    """Returns which results have the wanted value, and not the unwanted one, bool [Q, k].

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
    kept = [field for field in asked.kept if stays(asked, none, field)[1].any()]
    each = [f"kept_{field}@{depth}" for field in kept] if len(asked.kept) > 1 else []
    return [*([f"right@{depth}"] if asked.scored.any() else []), *([f"kept@{depth}"] if kept else []), *each]


def is_name(name: str) -> bool:
    """Returns whether a score has the form of those of `per_query`."""
    return re.fullmatch(r"(right|kept|kept_.+)@[1-9][0-9]{0,6}", name) is not None


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
      the edited field and without the unwanted one; "kept@K", the share with the reference's values, mean over the
      fields that should stay, and with several of them "kept_<field>@K" of each.

    Raises:
      InputError: another number of queries, or a depth below 1.
    """
    depth = arguments.integer(depth, "depth", "edits")
    if len(ranking) != len(asked):
        raise InputError(f"edits: a ranking of {len(ranking)} queries and {len(asked)} edits: search again")
    rows = ranking.item_rows[:, :depth]
    out = {f"right@{depth}": np.where(asked.scored, right(asked, rows).sum(1) / depth, np.nan)}
    if not asked.kept:
        return out
    each = {}
    for field in asked.kept:
        same, counts = stays(asked, rows, field)
        each[f"kept_{field}@{depth}"] = np.where(counts, same.sum(1) / depth, np.nan)
    table = np.stack(list(each.values()), 1)
    known = ~np.isnan(table)
    mean = np.where(known, table, 0.0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)
    return out | {f"kept@{depth}": mean} | (each if len(each) > 1 else {})


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
      queries, "slices": {kind: {slice: summary}}}]}.
    """
    stages, found = [], []
    for (model, stage), ranking in rankings.items():
        each = per_query(ranking, asked)
        if vectors is not None:
            each |= intra_list.similarity(ranking, vectors, thumbnails, max_difference=max_difference, depth=DEPTH)
        sliced = {
            kind: {name: summary(each, chosen) for name, chosen in slices.items()} for kind, slices in parts.items()
        }
        stages.append({"model": model, "stage": stage, **summary(each), "slices": sliced})
        found = list(each)
    return {"counts": dict(asked.counts), "kept": list(asked.kept), "names": found, "stages": stages}


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
    out, one = [], np.array([[row]])
    few = dataclasses.replace(
        asked,
        edited=[asked.edited[query]],
        scored=asked.scored[[query]],
        wanted=asked.wanted[[query]],
        unwanted=asked.unwanted[[query]],
        reference=asked.reference[[query]],
    )
    if asked.scored[query]:
        field = asked.edited[query]
        out.append(("edited", f"{field}: {_has(asked, field, row)}", bool(right(few, one)[0, 0])))
    for field in asked.kept:
        same, counts = stays(few, one, field)
        if counts[0]:
            out.append(("kept", f"{field}: {_has(asked, field, row)}", bool(same[0, 0])))
    return out


def _has(asked: Asked, field: str, row: int) -> str:
    """Returns the values of a listing in words."""
    count = max(1, len(asked.values[field]))
    start, stop = np.searchsorted(asked.pairs[field], [row * count, (row + 1) * count])
    found = [asked.values[field][int(key) % count] for key in asked.pairs[field][start:stop]]
    return short(" and ".join(found), 60) or "unknown"


def sentence(counts: Mapping[str, int]) -> str:
    """Returns how many edits are scored, in words; `counts` as in `Asked`."""
    words = {
        "no_field": "name no field",
        "no_such_field": "name a field that the gallery lacks",
        "no_such_value": "ask for a value that the field lacks",
        "no_value": "ask for no value",
    }
    left = [f"{counts[reason]:,} {text}" for reason, text in words.items() if counts.get(reason)]
    return (
        f"{counts['scored']:,} of {counts['queries']:,} edits are scored"
        + (f" ({'; '.join(left)})" if left else "")
        + f"; {counts['reference_in_gallery']:,} are about a listing of the gallery, which is left out of the results"
    )
