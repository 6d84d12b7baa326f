"""Counts, places, weights and judgements of the table "queries", and one query of rows with equal text."""

from __future__ import annotations

import numpy as np

from retrieval_jax.data.catalog import Column
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.tables.row_checks import Rows

MOST_WEIGHT = 500.0  # of a logarithm; its exponential must be a number


def weight(text: str) -> float | None:
    """Returns a weight; None for what is not a number from 0 to `MOST_WEIGHT`."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 <= found <= MOST_WEIGHT else None


def values(rows: Rows, entries: np.ndarray) -> dict[str, np.ndarray]:
    """Returns counts, positions, weights and judgements of some of the clicked ids, by their numbers.

    Args:
      rows: of the table; without counts each is 1; positions, weights and judgements ("wrong") are optional. A weight
        that a row does not have is log(1 + count).
      entries: int [m], numbers among all clicked ids of the table.
    """
    out = {}
    kinds = ("count", 1, int), ("position", -1, int), ("weight", np.nan, float), ("wrong", 0, int)
    for column, unknown, kind in kinds:
        if column in rows.frame.columns:
            out[column] = numbers(rows, column, "clicked", unknown, kind)[entries]
            if kind is float:
                out[column] = np.where(np.isnan(out[column]), np.log1p(out["count"]), out[column])
        elif column == "count":
            out[column] = np.ones(len(entries), np.int64)
    return out


def numbers(rows: Rows, column: str, listings: str, unknown: float, kind: type) -> np.ndarray:
    """Returns a column with a number per listing of another one, int64 or float64, in the order of all listings.

    Args:
      rows: of the table.
      column: its name.
      listings: the column of the listings.
      unknown: where a row has no numbers, or bad ones.
      kind: int or float.
    """
    found = []
    counts = rows.frame[listings].str.extract_all(r"\S+").list.len().to_list()
    for text, ids in zip(rows.frame[column].to_list(), counts, strict=True):
        given = text.split()
        read = [
            weight(one) if kind is float else int(one) if one.isdecimal() and len(one) <= 9 else None for one in given
        ]
        usable = len(given) == ids and None not in read  # of a bad row, nothing is used
        found += read if usable else [unknown] * ids
    return np.array(found, np.int64 if kind is int else np.float64)


def added_up(
    texts: list[str], clicked: Ragged, values: dict[str, np.ndarray], part: list[str] | None
) -> dict[str, Column]:
    """Makes one query of those with equal texts: counts add up, and so do the clicks that weights are logarithms of;
    the first position and part count; most clicked first.

    Args:
      texts: n texts.
      clicked: n lists of listings.
      values: "count" and perhaps "position", "weight" and "wrong", one per clicked listing.
      part: of each text; None where the file does not say.
    """
    codes: dict[str, int] = {}
    query = np.array([codes.setdefault(text.strip(), len(codes)) for text in texts], np.int64)
    query = np.repeat(query, np.diff(clicked.indptr))
    both, first, back = np.unique(np.stack([query, clicked.values], 1), axis=0, return_index=True, return_inverse=True)
    back = back.reshape(-1)
    count = np.bincount(back, values["count"], minlength=len(both)).astype(np.int32)
    order = np.lexsort((first, -count, both[:, 0]))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(both[:, 0], minlength=len(codes)))])
    out = {"text": list(codes), "clicked": Ragged(indptr, both[order, 1]), "count": Ragged(indptr, count[order])}
    if part is not None:
        own: dict[str, str] = {}
        for text, one in zip(texts, part, strict=True):
            own.setdefault(text.strip(), one.strip().lower())
        out["part"] = [own[text] for text in codes]
    if "weight" in values:
        summed = np.log1p(np.bincount(back, np.expm1(values["weight"]), minlength=len(both)))
        out["weight"] = Ragged(indptr, summed[order].astype(np.float32))
    if "wrong" in values:
        wrong = np.bincount(back, values["wrong"], minlength=len(both))
        out["wrong"] = Ragged(indptr, wrong[order].astype(np.int32))
    if "position" in values:
        unknown = np.iinfo(np.int32).max
        position = np.full(len(both), unknown)
        np.minimum.at(position, back, np.where(values["position"] > 0, values["position"], unknown))
        position = np.where(position == unknown, -1, position).astype(np.int32)
        out["position"] = Ragged(indptr, position[order])
    return out
