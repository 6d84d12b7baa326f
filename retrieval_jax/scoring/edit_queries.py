"""What queries that are edits, "this shirt, but in denim", ask for: read from a catalogue, as rows and values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import brief, pairs
from retrieval_jax.errors import InputError

EDITED, WANTED, UNWANTED = "edited", "wanted", "unwanted"  # columns of the query split
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
      own: int64 [Q], gallery rows with the queries' own ids, which are not results either; -1 for none.
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
    own: np.ndarray
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
    reference, own = (np.array([row_of.get(item, -1) for item in ids], np.int64) for ids in (about, query.ids))
    return Asked(
        {name: found[0] for name, found in made.items()},
        {name: found[1] for name, found in made.items()},
        {name: found[2] for name, found in made.items()},
        edited,
        np.array([not reason for reason in reasons], bool),
        asked[WANTED],
        asked[UNWANTED],
        reference,
        own,
        tuple(kept),
        counts,
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


def one(asked: Asked, query: int) -> Asked:
    """Returns what a single query asks for."""
    return dataclasses.replace(
        asked,
        edited=[asked.edited[query]],
        scored=asked.scored[[query]],
        wanted=asked.wanted[[query]],
        unwanted=asked.unwanted[[query]],
        reference=asked.reference[[query]],
        own=asked.own[[query]],
    )


def sentence(counts: Mapping[str, int]) -> str:
    """Returns how many edits are scored, in words; `counts` as in `Asked`."""
    words = {
        "no_field": "name no field",
        "no_such_field": "name a field that the gallery lacks",
        "no_such_value": "ask for a value that the field lacks",
        "no_value": "ask for no value",
    }
    left = [f"{counts[reason]:,} {text}" for reason, text in words.items() if counts.get(reason)]
    return f"{counts['scored']:,} of {counts['queries']:,} edits are scored" + (f" ({'; '.join(left)})" if left else "")
