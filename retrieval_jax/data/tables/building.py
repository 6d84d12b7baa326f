"""Makes a catalogue from the rows of its files: checks every row, settles what is set aside, numbers the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.tables import columns as columns_lib
from retrieval_jax.data.tables import left_out, listing_tables, row_checks, row_labels, values
from retrieval_jax.data.tables.columns import Further
from retrieval_jax.data.tables.left_out import Listed
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError

# Reasons that count towards no file's share of bad rows.
_NOT_HELD = frozenset(
    {
        row_labels.FALLEN_QUERY,
        row_labels.FALLEN_GALLERY,
        left_out.REASON,
        columns_lib.NO_LISTING,
        columns_lib.FALLEN,
        listing_tables.FALLEN,
    }
)


@dataclasses.dataclass(frozen=True)
class Beyond:
    """What a catalogue has beyond ids, titles, categories and pictures.

    Attributes:
      further: further columns of the listings.
      beside: rows of the files that hold some of them beside the listings.
      tables: {name: rows} of tables that refer to listings.
    """

    further: Sequence[Further] = ()
    beside: Sequence[Rows] = ()
    tables: Mapping[str, Rows] = dataclasses.field(default_factory=dict)


def build(
    name: str,
    splits: dict[str, Rows],
    levels: tuple[str, ...],
    bad_rows: tuple[float, Any],
    images: Callable[[str, np.ndarray], Any],
    check_images: Callable[[Rows], None] | None = None,
    *,
    declared: Rows | None = None,
    whole_numbers: bool = False,
    truth: Rows | None = None,
    leave_out: Sequence[Listed] = (),
    beyond: Beyond | None = None,
    also: Sequence[Rows] = (),
    not_held: frozenset[str] = frozenset(),
    labels_needed: bool = True,
    shared: Sequence[str] = ("gallery",),
) -> Catalog:
    """Checks every row, settles what is set aside, and makes the catalogue of the rest.

    Args:
      name: of the catalogue.
      splits: the rows of every split, text columns under our names.
      levels: names of the category levels, coarse to fine.
      bad_rows: (max_bad_share, set_aside_path), see `loading.load_eproduct`.
      images: (split, kept rows) -> random access to their pictures.
      check_images: marks rows of a split whose picture cannot be used, or None.
      declared: the categories that exist, or None to take those of train.
      whole_numbers: whether category ids are declared to be whole numbers.
      truth: rows of the ground truth, or None to take equal products, where there are any.
      leave_out: see `loading.load_eproduct`.
      beyond: further columns and tables.
      also: further rows to count, already marked.
      not_held: further reasons that count towards no file's share of bad rows.
      shared: the splits whose listings may be those of train and val: what is trained on may be searched.
      labels_needed: whether a row of train or val without a category is a bad one.

    Returns:
      The `Catalog`.

    Raises:
      InputError: more bad rows than max_bad_share, or a split without a good row.
    """
    beyond = beyond or Beyond()
    for rows in [*splits.values(), *([declared] if declared is not None else [])]:
        _mend(rows)
    left_out.mark(splits, leave_out)
    columns_lib.settle_numbers(list(splits.values()), beyond.further)
    for split, rows in splits.items():
        row_checks.check_ids(rows)
        if "title" in rows.frame.columns:
            row_checks.check_titles(rows, needed=split in ("train", "val"))
        if "product" in rows.frame.columns:
            row_checks.check_products(rows)
        later = {"train": ("val", "query", "gallery"), "val": ("query", "gallery")}.get(split, ())
        row_checks.check_splits(rows, [splits[other] for other in later if other in splits and other not in shared])
        columns_lib.check(rows, beyond.further)
    names, codes = row_labels.categories(splits, levels, declared, whole_numbers, labels_needed)
    if check_images is not None:
        for rows in splits.values():
            check_images(rows)
    for rows in beyond.beside:
        columns_lib.settle_numbers([rows], beyond.further)
        columns_lib.check(rows, beyond.further)
        columns_lib.attach(splits, rows, beyond.further)
    pairs = row_labels.check_truth(truth, splits) if truth is not None else None
    found = {table: listing_tables.check(table, rows, splits) for table, rows in beyond.tables.items()}
    checked = [*splits.values(), *(rows for rows in (declared, truth) if rows is not None)]
    counts, set_aside = row_checks.settle(
        [*checked, *beyond.beside, *beyond.tables.values(), *also], *bad_rows, not_held=_NOT_HELD | not_held
    )
    kept = {split: np.flatnonzero(rows.good()) for split, rows in splits.items()}
    column_names = columns_lib.names(splits, beyond.further)
    made = {}
    for split, rows in splits.items():
        frame = rows.frame[kept[split]]
        if not len(frame):
            raise InputError(f"{', '.join(rows.files)}: no row is left; leave the {split} split out of the catalogue")
        made[split] = Split(
            split,
            frame["id"].to_list(),
            frame["title"].to_list() if "title" in frame.columns else None,
            codes[split][kept[split]] if split in codes else None,
            images(split, kept[split]),
            columns=columns_lib.of_split(rows, kept[split], beyond.further, column_names),
        )
    if pairs is None and all(
        side in splits and "product" in splits[side].frame.columns for side in ("query", "gallery")
    ):
        pairs = row_labels.same_product(splits)
    tables = {}
    for table, rows in beyond.tables.items():
        tables |= listing_tables.make(table, rows, found[table], kept)
    return Catalog(
        name=name,
        **made,
        truth=row_labels.truth(pairs, made) if pairs is not None else None,
        category_levels=levels,
        category_names=names,
        counts=counts,
        set_aside=set_aside,
        column_names=column_names,
        tables=tables,
    )


def _mend(rows: Rows) -> None:
    """Rewrites what can be meant in one way only: paths with backslashes, ids such as "12.0" (see `values.cell`)."""
    mended = {"id": values.cells(rows.frame["id"])}
    if "image" in rows.frame.columns:
        mended["image"] = rows.frame["image"].str.replace_all("\\", "/", literal=True)
    rows.frame = rows.frame.with_columns(**mended)
