"""Loads a catalogue from one table of a shop and a folder of pictures: train and gallery at once, queries split off."""

from __future__ import annotations

import collections
import dataclasses
import logging
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax import paths
from retrieval_jax.data.catalog import Catalog
from retrieval_jax.data.exports import alike, facts, folders, matching, products, reading, roles, splitting
from retrieval_jax.data.exports.matching import Folder, Matched
from retrieval_jax.data.exports.products import Table
from retrieval_jax.data.exports.splitting import Splits
from retrieval_jax.data.pictures.sources import FileImages
from retrieval_jax.data.tables import columns as columns_lib
from retrieval_jax.data.tables import listing_tables, table_files
from retrieval_jax.data.tables.building import Beyond, build
from retrieval_jax.data.tables.left_out import Listed
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError

MAX_BAD_SHARE = 0.2  # of the pictures that the table names: shops keep naming some that are gone
NO_PICTURE = "names no picture"
# Reasons that are not damage: drafts without a picture, one placeholder for many products, lines below a table.
NOT_HELD = frozenset({NO_PICTURE, matching.SHARED, products.NOTHING, products.TOTAL, "repeated header"})


@dataclasses.dataclass(frozen=True)
class Shop:
    """A table with its pictures, before it becomes a catalogue.

    Attributes:
      table: products and the pictures that they name.
      matched: which of them are there.
      ids: id of every listing: the product's key and the picture's number in it, from 1.
      groups: what counts as one product, one key per listing.
      splits: numbers of listings.
      guessed: what the table does not say about which listings are one product, and what was taken for it, a sentence;
        "" where the table says it.
    """

    table: Table
    matched: Matched
    ids: list[str]
    groups: list[str]
    splits: Splits
    guessed: str


def product_of(listing: str) -> str:
    """Returns the key of the product that a listing is a picture of.

    Args:
      listing: its id, as `Shop` has it.
    """
    return listing.rpartition("-")[0]


def look(
    path,
    folder,
    columns: Mapping[str, Any] | None = None,
    *,
    encoding: str = "",
    delimiter: str = "",
    test_share: float = splitting.TEST_SHARE,
    val_share: float = splitting.VAL_SHARE,
    seed: int = 0,
    max_pixels: int = 0,
) -> Shop:
    """Returns what a table and a folder of pictures hold.

    Args:
      path: of the table.
      folder: of the pictures.
      columns: see `products.load`.
      encoding, delimiter: of the table; "" finds out.
      test_share, val_share, seed: see `splitting.split`.
      max_pixels: see `FileImages`, where pictures are compared; 0 for its default.

    Raises:
      InputError: no picture of the table is in the folder, or all are of one product.
    """
    path = pathlib.Path(path)
    form = reading.sniff(path, encoding, delimiter)
    there = Folder(folder)
    table = products.load(path, columns, form, there)
    matched = matching.match(table, there)
    if not matched.listings:
        raise InputError(nothing_found(table, matched))
    ids, counted = [], {}
    for one in matched.listings:
        counted[one.product] = counted.get(one.product, 0) + 1
        ids.append(f"{table.products[one.product].key}-{counted[one.product]}")  # see `product_of`
    owners = [table.products[one.product] for one in matched.listings]
    groups, guessed = [owner.key for owner in owners], _by_title(table)
    if max(counted.values()) == 1 and len(ids) > 1:
        paths = [one.path for one in matched.listings]
        images = FileImages(there.root, paths, max_pixels) if max_pixels else FileImages(there.root, paths)
        titles = [owner.title for owner in owners]
        firsts = alike.groups(titles, images)
        if len(set(firsts)) == 1:  # pictures so much alike tell nothing apart
            firsts = alike.groups(titles, None)
        if len(set(firsts)) == 1:
            firsts = list(range(len(ids)))
        groups = [ids[first] for first in firsts]
        if len(set(groups)) < len(groups):
            guessed = f"{_not_said(table)}: listings of equal titles or nearly equal pictures are taken for one product"
    if len(set(groups)) == 1:
        raise InputError(
            f"{path}: all {len(ids):,} pictures are of one product ({owners[0].key!r}), so there is nothing to tell "
            f"apart; {_how_to_say(table, 'product', 'product id')}"
        )
    titled = any(owner.title for owner in owners)
    usable = [bool(owner.title) or not titled for owner in owners]
    splits = splitting.split(groups, usable, test_share=test_share, val_share=val_share, seed=seed)
    return Shop(table, matched, ids, groups, splits, guessed)


def _not_said(table: Table) -> str:
    parts = table.recognised.roles
    if key := parts.product or parts.id:
        return f"no column says which listings are one product (every value of {key!r} has one picture)"
    return "no column says which listings are one product"


def _by_title(table: Table) -> str:
    """Returns a sentence about products whose rows were joined because their titles are equal, "" without any."""
    parts, columns = table.recognised.roles, table.sheet.columns
    if not parts.title:
        return ""
    saying = [columns[name] for name in (parts.product, parts.parent, parts.group, parts.kind) if name]
    rows_of = collections.defaultdict(list)
    for row, number in enumerate(table.of_row):
        if number >= 0 and facts.clean(columns[parts.title][row]):
            if not any(facts.clean(column[row], placeholders=True) for column in saying):
                rows_of[number].append(row)
    joined = {number: rows for number, rows in rows_of.items() if len(rows) > 1}
    if not joined:
        return ""
    most = max(joined, key=lambda number: len(joined[number]))
    missing = "no column says which rows are one product"
    if parts.product:
        missing = f"rows have no value of {parts.product!r}"
    return (
        f"{missing}: rows of equal titles are taken for one, in {len(joined):,} of {len(table.products):,} products, "
        f"such as {products.text(table.products[most].title)!r} ({len(joined[most]):,} rows)"
    )


def _how_to_say(table: Table, part: str, header: str) -> str:
    """Returns what to do where a column was taken for something else, with the columns of the table."""
    if len(table.sheet) == 1:
        return "a catalogue needs the rows of several products"
    taken = ", ".join(
        f"{name} = {value!r}" if isinstance(value, str) else f"{name} = {', '.join(map(repr, value))}"
        for name, value in table.recognised.roles.given().items()
    )
    return (
        f"columns are taken for {taken}; where that is wrong, call the right column {header!r} in the table's "
        f"header, or name it in a config as config.data.kwargs.columns.{part}. The columns are "
        f"{products.listed(table.recognised)}"
    )


_BASE64 = re.compile(r"['\"]?(?:data:image/[a-z]+;base64,)?(?:/9j/|iVBORw|R0lGOD|UklGR)")


def _with_pictures_inside(table: Table) -> str:
    """Returns the column whose cells hold pictures as text, "" without one."""
    for name, seen in table.recognised.seen.items():
        if _BASE64.match(seen.rpartition("such as ")[2]):
            return name
    return ""


def nothing_found(table: Table, matched: Matched) -> str:
    """Returns a sentence for a table of which no picture is in the folder: where was looked, and what to do."""
    root, path = matched.folder.root, table.path
    if (inside := _with_pictures_inside(table)) and len(matched.lost) == len(table.named):
        return (
            f"{path}: the cells of {inside!r} hold the pictures themselves, as base64; a table names files or "
            "addresses. Save each picture as a file that is named after its product's key, such as 'A-12.jpg', and "
            "give the folder as --images=... (in a config: image_root)"
        )
    if not table.named:
        return (
            f"{path}: no column names pictures, and no file of {root} ({len(matched.folder):,} pictures) is named "
            "after a column's values; call the column of their names 'image' in the table's header (or name it in a "
            "config as config.data.kwargs.columns.image), or name the files after a column, such as 'A-12_1.jpg'. The "
            f"columns are {products.listed(table.recognised)}"
        )
    reasons = {reason for _, reason, _ in matched.lost}
    if matched.lost and reasons <= {matching.SHARED, folders.AMBIGUOUS}:
        detail = matched.lost[0][2]
        if reasons == {folders.AMBIGUOUS}:
            remedy = "name them with their folders in the table, or put those of a product into a folder of its key"
        else:
            remedy = (
                "if they are variants of one product, give these rows equal values in a column 'product id'; "
                f"{_how_to_say(table, 'product', 'product id')}"
            )
        return (
            f"{path} names {len(table.named):,} pictures, and files of these names are in {root}, but none is of one "
            f"product alone: {detail}. What to do: {remedy}"
        )
    example = next((detail for _, _, detail in matched.lost), "")
    text = (
        f"{path} names {len(table.named):,} pictures, and none of them is in {root} ({len(matched.folder):,} pictures)"
    )
    if any(products.references.is_address(one.reference) for one in table.named):
        return f"{text}: {example}. Fetch them first: {paths.command('pictures', path, f'--out={root}')}"
    return f"{text}: {example}. Give their folder as --images=... (in a config: image_root)"


def load(
    root: str,
    file: str,
    columns: Mapping[str, Any] | None,
    image_root: str,
    bad_rows: tuple[float | None, Any],
    images: Any,
    *,
    encoding: str,
    tables: Mapping[str, Any] | None,
    leave_out: Sequence[Listed],
    **splitting_arguments,
) -> Catalog:
    """Loads a catalogue from one table.

    Args:
      root, image_root: see `tables.loading.load_table`.
      file: the table, below the root.
      columns: which column is what, see `Roles`, and further columns; without it the columns are recognised.
      bad_rows: (max_bad_share or None for the default, set_aside_path).
      images: (folder, {split: Rows}) -> the last arguments of `build`.
      encoding: of the table; "utf-8" is checked, and another one found where the table is not.
      tables, leave_out: see `tables.loading.load_table`.
      **splitting_arguments: see `look`.

    Returns:
      The `Catalog`. Its counts have, beside the splits, the rows of the table, its products and its pictures.
    """
    own, further = columns_lib.declared(columns or {}, roles.PARTS)
    path, folder = pathlib.Path(root) / file, pathlib.Path(root) / image_root
    shop = look(path, folder, own, encoding="" if encoding == "utf-8" else encoding, **splitting_arguments)
    if unreadable := shop.matched.folder.unreadable:
        logging.getLogger(__name__).warning(
            "%s: %d of its folders cannot be read and are left out, such as %s", folder, len(unreadable), unreadable[0]
        )
    wanted = columns_lib.in_listings(further)
    beyond = {}
    if wanted:
        form = shop.table.sheet.form
        names = list(reading.read(path, form, most=1).columns)
        table_files.check_columns(file, names, wanted, wanted, columns_lib.SETTING)
        sheet = reading.read(path, form, list(wanted.values()))
        beyond = {name: sheet.columns[header] for name, header in wanted.items()}
        for name in [ours for one in further if one.kind == "number" for ours in one.wanted if ours in beyond]:
            beyond[name] = columns_lib.plain_numbers(beyond[name])  # the whole column says what a comma means
    splits = {
        name: rows for name in ("train", "val", "query", "gallery") if len(rows := _rows(shop, name, file, beyond))
    }
    if "train" not in splits:
        raise InputError(
            f"{path}: no product is left to train on beside the {len(shop.splits.query):,} queries; lower "
            "config.data.kwargs.test_share and val_share, or bring more products"
        )
    share, set_aside_path = bad_rows
    levels = ("category",) if any(product.category for product in shop.table.products) else ()
    catalog = build(
        path.stem,
        splits,
        levels,
        (MAX_BAD_SHARE if share is None else share, set_aside_path),
        *images(folder, splits),
        leave_out=leave_out,
        beyond=Beyond(
            further, columns_lib.read_beside(further, root, "id", "utf-8"), listing_tables.read(tables, root, "utf-8")
        ),
        also=_counted(shop, file),
        not_held=NOT_HELD,
        labels_needed=False,
        shared=("gallery",) if shop.splits.scored else ("gallery", "query"),
    )
    if not shop.splits.scored:
        logging.getLogger(__name__).warning(
            "%s: no product has two pictures, so there is no ground truth: %s listings are searched with, among all",
            path,
            f"{len(shop.splits.query):,}",
        )
    return catalog


def _rows(shop: Shop, split: str, file: str, beyond: Mapping[str, Sequence[str]]) -> Rows:
    """Returns the rows of a split, one per listing."""
    chosen = getattr(shop.splits, split)
    listings = [shop.matched.listings[number] for number in chosen]
    owners = [shop.table.products[one.product] for one in listings]
    columns = {"id": [shop.ids[number] for number in chosen], "image": [one.path for one in listings]}
    if shop.table.recognised.roles.title:
        columns["title"] = [owner.title for owner in owners]
    if any(product.category for product in shop.table.products):
        columns["category_0"] = [owner.category for owner in owners]
    if shop.splits.scored:
        columns["product"] = [shop.groups[number] for number in chosen]
    for name, values in beyond.items():
        columns[name] = [values[one.row] or values[owner.row] for one, owner in zip(listings, owners, strict=True)]
    frame = pl.DataFrame({name: pl.Series(values, dtype=pl.String) for name, values in columns.items()})
    lines = np.array([shop.table.sheet.lines[one.row] for one in listings], np.int64)
    return Rows(split, frame, [file], np.zeros(len(listings), np.int32), lines)


def _counted(shop: Shop, file: str) -> list[Rows]:
    """Returns the rows of the table, its products and its pictures, those marked that no listing came from."""
    table, matched = shop.table, shop.matched
    lines = table.sheet.lines

    def rows(name: str, ids: list[str], at: list[int]) -> Rows:
        frame = pl.DataFrame({"id": pl.Series(ids, dtype=pl.String)})
        return Rows(name, frame, [file], np.zeros(len(ids), np.int32), np.array(at, np.int64))

    aside = table.sheet.set_aside
    kept = [(line, number) for line, number in zip(lines, table.of_row, strict=True) if number >= 0]
    ids = [table.products[number].key for _, number in kept]
    of_table = rows(
        "rows of the table", ids + [""] * len(aside), [line for line, _ in kept] + [one[0] for one in aside]
    )
    for number, (_, reason, detail) in enumerate(aside, len(kept)):
        of_table.mark(number, reason, detail)
    named = {one.product for one in table.named}
    of_products = rows("products", [one.key for one in table.products], [lines[one.row] for one in table.products])
    for number in range(len(table.products)):
        if number not in named:
            of_products.mark(number, NO_PICTURE, "the product names no picture")
    of_pictures = rows(
        "pictures",
        [table.products[one.product].key for one in table.named],
        [lines[one.row] for one in table.named],
    )
    places = {id(one): number for number, one in enumerate(table.named)}
    for one, reason, detail in matched.lost:
        of_pictures.mark(places[id(one)], reason, detail)
    return [of_table, of_products, of_pictures]
