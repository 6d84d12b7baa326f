"""Category codes, and the relevant gallery listings of every query, from the rows of a catalogue's files."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax.data.catalog import Split
from retrieval_jax.data.tables import row_checks, values
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError, short

_log = logging.getLogger(__name__)

_SHARED, _SHARE = 10, 0.2  # a product of that many gallery listings, and that share of them, may be a placeholder

# Ground-truth rows set aside because of a bad row of another file: counted, but not as bad rows of their own file.
FALLEN_QUERY = "its query was set aside"
FALLEN_GALLERY = "its gallery listings were set aside"


def categories(
    tables: dict[str, Rows], levels: tuple[str, ...], declared: Rows | None, whole_numbers: bool, needed: bool = True
) -> tuple[tuple[list[str], ...], dict[str, np.ndarray]]:
    """Returns the names of every level, and int32 [n, levels] for every split that has them.

    Args:
      tables: rows of every split; rows of train and val without a category are marked, where it is `needed`.
      levels: names, coarse to fine.
      declared: the categories that exist, or None to take those of train.
      whole_numbers: whether ids are declared to be whole numbers.
      needed: whether a listing that is trained on must have a category; otherwise it is -1.
    """
    if not levels:
        return (), {}
    if declared is not None:
        seen = set()
        for row, (level, key) in enumerate(zip(declared.frame["level"], declared.frame["id"], strict=True)):
            if level not in levels:
                declared.mark(row, "unknown level", f"the level is {level!r}; it must be one of {', '.join(levels)}")
            elif not row_checks.is_whole(key):
                declared.mark(
                    row, "category is not a whole number", f"the id is {key!r}; category ids are whole numbers"
                )
            elif (level, key) in seen:
                declared.mark(row, "duplicate id", f"{level} already has this id; remove one of them")
            seen.add((level, key))
    defining = tables.get("train", tables.get("val"))
    names, codes = [], {split: np.full((len(rows), len(levels)), -1, np.int32) for split, rows in tables.items()}
    for i, level in enumerate(levels):
        column = f"category_{i}"
        if declared is not None:
            mine = declared.frame.filter(pl.Series(declared.good()) & (pl.col("level") == level))
            titles, where = (
                {key: title or key for key, title in mine.select("id", "title").iter_rows()},
                declared.files[0],
            )
        else:
            found = _names(defining, column) if defining else []
            titles = {name: name for name in found if row_checks.is_whole(name) or not whole_numbers}
            where = f"the {defining.name} split" if defining else ""
        known = row_checks.by_value(titles)
        names.append([titles[key] for key in known])
        for split, rows in tables.items():
            if column in rows.frame.columns:
                # Query and gallery listings are not trained on: an unknown category is not an error there.
                codes[split][:, i] = row_checks.encode_categories(
                    rows, column, level, known, whole_numbers, where, mark=needed and split in ("train", "val")
                )
    has = {
        split
        for split, rows in tables.items()
        if any(f"category_{i}" in rows.frame.columns for i in range(len(levels)))
    }
    return tuple(names), {split: code for split, code in codes.items() if split in has}


def _names(rows: Rows, column: str) -> list[str]:
    """Returns the distinct categories of the good rows of a split."""
    found = values.cells(rows.frame[column].filter(pl.Series(rows.good()))).unique()
    names = found.filter(~pl.Series(values.nulls(found))).to_list()
    keys: dict[str, str] = {}
    for name in sorted(names):
        if not row_checks.is_whole(name) and (other := keys.setdefault(values.loose(name), name)) != name:
            _log.warning("two categories of the %s split are nearly the same: %r and %r", rows.name, other, name)
    return names


def check_truth(truth: Rows, tables: dict[str, Rows]) -> pl.DataFrame:
    """Marks rows that name unknown ids, or have a bad grade; returns the pairs (query id, gallery id) of the good ones,
    with "grade" where the truth has grades."""
    if "query" not in tables or "gallery" not in tables:
        raise InputError(
            f"{truth.files[0]}: a ground truth needs both a query and a gallery split; add them or leave it out"
        )
    lists = values.lists(truth.frame["gallery_ids"]).str.extract_all(r"\S+")
    for row in np.flatnonzero((lists.list.len() == 0).to_numpy()):
        truth.mark(int(row), "no relevant listing", "the row has no gallery listing; add one or remove the row")
    pairs = pl.DataFrame({"query": truth.frame["id"], "gallery": lists}).with_row_index("row")
    graded = "grade" in truth.frame.columns
    if graded:
        pairs = pairs.with_columns(grade=pl.Series(_grades(truth, lists), dtype=pl.List(pl.Float64)))
    pairs = pairs.explode("gallery", *(("grade",) if graded else ())).drop_nulls("gallery")
    state = {}
    for side in ("query", "gallery"):
        rows = tables[side]
        state[side] = (
            pl.DataFrame({side: rows.frame["id"], f"{side}_kept": rows.good()}).group_by(side).agg(pl.all().any())
        )
        pairs = pairs.join(state[side], on=side, how="left", maintain_order="left")
    for side, other, reason, remedy in (
        ("query", "gallery", "unknown query", "the row"),
        ("gallery", "query", "unknown gallery listing", "it"),
    ):
        unknown = pairs.filter(pl.col(f"{side}_kept").is_null()).select("row", side)
        near = values.near(unknown[side].unique(), tables[side].frame["id"].fill_null(""))
        swapped = set(unknown[side].filter(unknown[side].is_in(tables[other].frame["id"].implode())))
        for row, one in unknown.iter_rows():
            there = values.there_is(near, one)
            if one in swapped:
                there = f" (the {other} split has it: are the columns of the ground truth swapped?)"
            truth.mark(row, reason, f"{short(one)!r} is not in the {side} split{there}; correct it or remove {remedy}")
    for row, query in pairs.filter(~pl.col("query_kept")).select("row", "query").iter_rows():
        truth.mark(row, FALLEN_QUERY, f"its query {query!r} is a bad row of the query split")
    left = pairs.group_by("row").agg(pl.col("gallery_kept").any()).filter(~pl.col("gallery_kept"))
    for row in left["row"].sort():
        truth.mark(row, FALLEN_GALLERY, "all its gallery listings are bad rows of the gallery split")
    good = truth.good()
    pairs = pairs.filter(pl.col("gallery_kept") & pl.Series(good[pairs["row"].to_numpy()]))
    return pairs.select("query", "gallery", *(("grade",) if graded else ()))


def _grades(truth: Rows, lists: pl.Series) -> list[list[float]]:
    """Returns one grade per listing of every row; marks rows whose grades are not numbers, or not one each."""
    out = []
    for row, (text, items) in enumerate(zip(truth.frame["grade"].to_list(), lists.to_list(), strict=True)):
        try:
            grades = [float(value) for value in text.split()]
        except ValueError:
            grades = []
        if not grades or not np.isfinite(np.float32(grades)).all():
            truth.mark(row, "not a number", f"the grade is {short(text)!r}, not a finite number; correct it")
        elif len(grades) not in (1, len(items)):
            truth.mark(
                row,
                "wrong number of values",
                f"there are {len(grades)} grades for {len(items)} listings; give one each",
            )
        else:
            out.append(grades * (len(items) if len(grades) == 1 else 1))
            continue
        out.append([0.0] * len(items))
    return out


def same_product(tables: dict[str, Rows]) -> pl.DataFrame:
    """Returns the pairs (query id, gallery id) of equal, non-empty products; logs what makes such a truth doubtful."""
    sides = [
        rows.frame.select(pl.col("id").alias(side), "product").filter(
            pl.Series(rows.good()) & (pl.col("product") != "")
        )
        for side, rows in ((s, tables[s]) for s in ("query", "gallery"))
    ]
    _doubt(*sides)
    return sides[0].join(sides[1], on="product").select("query", "gallery")


def _doubt(queries: pl.DataFrame, gallery: pl.DataFrame) -> None:
    """Logs products of queries that are nearly those of the gallery, and a product that too many listings share."""
    near = values.near(queries["product"].unique().sort(), gallery["product"].unique().sort())
    alone = len(near.keys() - set(gallery["product"].unique()))
    if near:
        listed = ", ".join(f"{short(one)!r} (gallery: {short(other)!r})" for one, other in list(near.items())[:3])
        _log.warning(
            "products of queries that are nearly, but not exactly, those of gallery listings (%s) do not count as "
            "right answers: %s%s; write them alike in both files",
            f"{len(near):,}",
            listed,
            f"; {alone:,} of these have no equal product in the gallery" if alone else "",
        )
    elif len(queries) and len(gallery) and not queries["product"].is_in(gallery["product"].implode()).any():
        one, other = short(queries["product"][0]), short(gallery["product"][0])
        _log.warning(
            "no product of a query is in the gallery, so no query has a right answer: queries have products such as "
            "%r, gallery listings such as %r; check config.data.kwargs.columns.product",
            one,
            other,
        )
    sizes = gallery["product"].value_counts(sort=True)
    if len(sizes) > 1 and sizes["count"][0] >= max(_SHARED, len(gallery) * _SHARE):
        _log.warning(
            "%s of %s gallery listings have the product %r, and are right answers of every query with it: if it stands "
            "for a missing product, leave the cells empty",
            f"{sizes['count'][0]:,}",
            f"{len(gallery):,}",
            short(sizes["product"][0]),
        )


def truth(pairs: pl.DataFrame, splits: dict[str, Split]) -> Any:
    """Returns the `ranking.Truth` of pairs (query id, gallery id), perhaps with "grade"."""
    from retrieval_jax.scoring import ranking  # only a catalogue with a truth needs it

    for side in ("query", "gallery"):
        ids = splits[side].ids
        places = pl.DataFrame({side: ids, f"{side}_row": np.arange(len(ids), dtype=np.int64)})
        pairs = pairs.join(places, on=side)
    pairs = pairs.sort("query_row", "gallery_row")
    lengths = np.bincount(pairs["query_row"].to_numpy(), minlength=len(splits["query"]))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return ranking.Truth(
        splits["query"].ids,
        splits["gallery"].ids,
        indptr,
        pairs["gallery_row"].to_numpy().astype(np.int64),
        pairs["grade"].to_numpy().astype(np.float32) if "grade" in pairs.columns else None,
    )
