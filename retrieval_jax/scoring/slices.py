"""Slices of the queries that are scored separately: an overall mean hides failures on rare products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments, pairs
from retrieval_jax.errors import InputError

RELEVANT = ((1, 1), (2, 2), (3, 5), (6, 10), (11, None))  # numbers of relevant listings, inclusive
MOST = 50  # slices per category level; queries of any further categories go to "(other)"
OTHER, UNKNOWN = "(other)", "(unknown)"
KIND = "kind"  # the column of the queries whose values are always slices


def of_catalog(catalog, truth, columns: Sequence[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """Returns the slices of a catalogue's queries, {kind: {slice: bool [Q]}}: by the column "kind" and further columns,
    by number of relevant listings, and by category.

    Args:
      catalog: a `Catalog` with queries; if the queries have no categories, the gallery's are used.
      truth: ground truth of the queries, a `ranking.Truth`.
      columns: names of further columns of the queries whose values are slices.

    Raises:
      InputError: see `check_columns`.
    """
    check_columns(catalog, columns)
    query, out = catalog.query, {}
    for column in dict.fromkeys((*([KIND] if KIND in query.columns else []), *columns)):
        codes, names = query.columns[column], query.column_names.get(column)
        if names is None:  # a column of text
            names, codes = np.unique(np.asarray(codes, str), return_inverse=True)
        out[column] = by_category(np.asarray(codes), [str(name) for name in names])
    out["relevant listings"] = by_relevant(truth.num_relevant)
    codes = query.categories
    if codes is None and catalog.gallery.categories is not None:
        has = truth.num_relevant > 0
        codes = np.full((len(truth), catalog.gallery.categories.shape[1]), -1)
        codes[has] = catalog.gallery.categories[truth.rows[truth.indptr[:-1][has]]]
    if codes is not None:
        for level, name in enumerate(catalog.category_levels):
            out[f"category {name}"] = by_category(codes[:, level], catalog.category_names[level])
    return out


def check_columns(catalog, columns: Sequence[str]) -> None:
    """Raises InputError where queries lack a column, or it has numbers or several values, which make no slices."""
    query = catalog.query
    for name in columns:
        if name not in query.columns:
            raise InputError(
                f"config.evaluate.slices: the queries have no column {name!r}{pairs.near(name, query.columns)}"
            )
        numbers = isinstance(query.columns[name], np.ndarray) and name not in query.column_names
        if numbers or hasattr(query.columns[name], "indptr"):
            raise InputError(
                f"config.evaluate.slices: the column {name!r} has {'numbers' if numbers else 'several values'}; "
                "slices need one name per query, so declare it as a category or as text"
            )


def by_relevant(num_relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Slices queries by their number of relevant listings: "1", "2", "3-5", "6-10", ">10".

    Args:
      num_relevant: int [Q].

    Returns:
      {name: bool [Q]} of the non-empty slices; every query with a relevant listing is in exactly one.
    """
    num_relevant = arguments.array(num_relevant, "num_relevant", "by_relevant", ("Q",), kind="integers")
    out = {}
    for low, high in RELEVANT:
        name = f">{low - 1}" if high is None else str(low) if low == high else f"{low}-{high}"
        chosen = (num_relevant >= low) & (num_relevant <= (np.inf if high is None else high))
        if chosen.any():
            out[name] = chosen
    return out


def by_category(codes: np.ndarray, names: Sequence[str], most: int = MOST) -> dict[str, np.ndarray]:
    """Slices queries by one category level, largest category first.

    Args:
      codes: int [Q], rows of `names`, below 0 if unknown.
      names: names of the categories.
      most: categories with a slice of their own; the smaller ones share "(other)".

    Returns:
      {name: bool [Q]}; every query is in exactly one. Categories with the same name have their row appended.
    """
    codes = arguments.array(codes, "codes", "by_category", ("Q",), kind="integers").astype(np.int64, copy=False)
    names = [arguments.text(name, "names", "by_category") for name in arguments.sequence(names, "names", "by_category")]
    most = arguments.integer(most, "most", "by_category", low=0)
    if codes.size and codes.max() >= len(names):
        raise InputError(f"by_category: code {codes.max()} has no name: there are {len(names)} names")
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    order = [code for code in np.argsort(-counts, kind="stable").tolist() if counts[code]]
    out = {}
    for code in order[:most]:
        name = names[code]
        out[f"{name} ({code})" if name in out or name in (OTHER, UNKNOWN) else name] = codes == code
    if rest := order[most:]:
        out[OTHER] = np.isin(codes, rest)
    if (codes < 0).any():
        out[UNKNOWN] = codes < 0
    return out
