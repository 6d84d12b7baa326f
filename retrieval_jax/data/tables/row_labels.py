"""Category codes, and the relevant gallery listings of every query, from the rows of a catalogue's files."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from retrieval_jax.data.catalog import Split
from retrieval_jax.data.tables import row_checks
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError, short

# Ground-truth rows set aside because of a bad row of another file: counted, but not as bad rows of their own file.
FALLEN_QUERY = "its query was set aside"
FALLEN_GALLERY = "its gallery listings were set aside"


def categories(
    tables: dict[str, Rows], levels: tuple[str, ...], declared: Rows | None, whole_numbers: bool
) -> tuple[tuple[list[str], ...], dict[str, np.ndarray]]:
    """Returns the names of every level, and int32 [n, levels] for every split that has them."""
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
            values = (
                defining.frame[column].filter(pl.Series(defining.good())).str.strip_chars().unique() if defining else []
            )
            titles = {value: value for value in values if value and (row_checks.is_whole(value) or not whole_numbers)}
            where = f"the {defining.name} split" if defining else ""
        known = row_checks.by_value(titles)
        names.append([titles[key] for key in known])
        for split, rows in tables.items():
            if column in rows.frame.columns:
                # Query and gallery listings are not trained on: an unknown category is not an error there.
                codes[split][:, i] = row_checks.encode_categories(
                    rows, column, level, known, whole_numbers, where, mark=split in ("train", "val")
                )
    has = {
        split
        for split, rows in tables.items()
        if any(f"category_{i}" in rows.frame.columns for i in range(len(levels)))
    }
    return tuple(names), {split: code for split, code in codes.items() if split in has}


def check_truth(truth: Rows, tables: dict[str, Rows]) -> pl.DataFrame:
    """Marks rows that name unknown ids; returns the pairs (query id, gallery id) of the good ones."""
    if "query" not in tables or "gallery" not in tables:
        raise InputError(
            f"{truth.files[0]}: a ground truth needs both a query and a gallery split; add them or leave it out"
        )
    lists = truth.frame["gallery_ids"].str.extract_all(r"\S+")
    for row in np.flatnonzero((lists.list.len() == 0).to_numpy()):
        truth.mark(int(row), "no relevant listing", "the row has no gallery listing; add one or remove the row")
    pairs = pl.DataFrame({"query": truth.frame["id"], "gallery": lists}).with_row_index("row")
    pairs = pairs.explode("gallery").drop_nulls("gallery")
    state = {}
    for side in ("query", "gallery"):
        rows = tables[side]
        state[side] = (
            pl.DataFrame({side: rows.frame["id"], f"{side}_kept": rows.good()}).group_by(side).agg(pl.all().any())
        )
        pairs = pairs.join(state[side], on=side, how="left", maintain_order="left")
    for side, reason, remedy in (("query", "unknown query", "the row"), ("gallery", "unknown gallery listing", "it")):
        unknown = pairs.filter(pl.col(f"{side}_kept").is_null()).select("row", side)
        near = row_checks.near_ids(tables[side], unknown[side].unique())
        for row, one in unknown.iter_rows():
            there = f" (there is {short(near[one])!r})" if one in near else ""
            truth.mark(row, reason, f"{short(one)!r} is not in the {side} split{there}; correct it or remove {remedy}")
    for row, query in pairs.filter(~pl.col("query_kept")).select("row", "query").iter_rows():
        truth.mark(row, FALLEN_QUERY, f"its query {query!r} is a bad row of the query split")
    left = pairs.group_by("row").agg(pl.col("gallery_kept").any()).filter(~pl.col("gallery_kept"))
    for row in left["row"].sort():
        truth.mark(row, FALLEN_GALLERY, "all its gallery listings are bad rows of the gallery split")
    good = truth.good()
    return pairs.filter(pl.col("gallery_kept") & pl.Series(good[pairs["row"].to_numpy()])).select("query", "gallery")


def same_product(tables: dict[str, Rows]) -> pl.DataFrame:
    """Returns the pairs (query id, gallery id) of equal, non-empty products."""
    sides = [
        rows.frame.select(pl.col("id").alias(side), pl.col("product").str.strip_chars()).filter(
            pl.Series(rows.good()) & (pl.col("product") != "")
        )
        for side, rows in ((s, tables[s]) for s in ("query", "gallery"))
    ]
    return sides[0].join(sides[1], on="product").select("query", "gallery")


def truth(pairs: pl.DataFrame, splits: dict[str, Split]) -> Any:
    """Returns the `ranking.Truth` of pairs (query id, gallery id)."""
    from retrieval_jax.scoring import ranking  # only a catalogue with a truth needs it

    for side in ("query", "gallery"):
        ids = splits[side].ids
        places = pl.DataFrame({side: ids, f"{side}_row": np.arange(len(ids), dtype=np.int64)})
        pairs = pairs.join(places, on=side)
    pairs = pairs.select("query_row", "gallery_row").unique().sort("query_row", "gallery_row")
    lengths = np.bincount(pairs["query_row"].to_numpy(), minlength=len(splits["query"]))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return ranking.Truth(
        splits["query"].ids, splits["gallery"].ids, indptr, pairs["gallery_row"].to_numpy().astype(np.int64)
    )
