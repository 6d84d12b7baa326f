"""Catalogues of users: eProduct's layout as it is, or tables and an image folder with a map of columns."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax.data.catalog import SPLITS, Catalog, Split
from retrieval_jax.data.pictures.decoding import MAX_PIXELS
from retrieval_jax.data.pictures.sources import FileImages
from retrieval_jax.data.tables import left_out, row_checks, row_labels, table_files
from retrieval_jax.data.tables.left_out import Listed
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError

EPRODUCT_LEVELS = ("META_CATEG_ID", "CATEG_LVL2_ID", "LEAF_CATEG_ID")
EPRODUCT_TRUTH = "metadata/ground_truth.csv"

# Reasons that are held against no file.
_NOT_HELD = frozenset({row_labels.FALLEN_QUERY, row_labels.FALLEN_GALLERY, left_out.REASON})


def load_eproduct(
    root: str,
    max_bad_share: float = 0.0,
    ground_truth: str | None = EPRODUCT_TRUTH,
    max_pixels: int = MAX_PIXELS,
    check_images: bool | str = True,
    decode_at_least: int | None = None,
    encoding: str = "utf-8",
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads a folder in eProduct's layout: metadata/{train,val,index,query}.csv and Images/.

    The queries may also be in parts: query_part1.csv and so on.

    metadata/categories.csv (LEVEL, ID, NAME), where present, declares the categories; otherwise those of train count.

    Args:
      root: the folder.
      max_bad_share: largest share of bad rows of a file that is set aside; 0 refuses the first bad row.
      ground_truth: CSV with QUERY_UUID and INDEX_UUIDS (blank-separated); the default may be absent, None ignores it.
      max_pixels: a larger picture makes a bad row.
      check_images: True looks at every picture's header and end, "decode" decodes it whole, False trusts all.
      decode_at_least: see `sources.FileImages`.
      encoding: of the CSV files' text, where it is not UTF-8 and the file has no byte-order mark.
      leave_out: listings to set aside, whatever max_bad_share.
      set_aside_path: CSV that receives the bad rows.

    Returns:
      The `Catalog`; its gallery is eProduct's index split.

    Raises:
      InputError: see `catalog.load`.

    Source: eProduct, arXiv 2107.05856.
    """
    _check_arguments(root, max_bad_share, check_images)
    folder = pathlib.Path(root) / "metadata"
    parts = sorted(folder.glob("query_part*.csv"), key=lambda f: (int(re.sub(r"\D", "", f.stem) or 0), f.name))
    whole = folder / "query.csv"
    files = {
        "train": ["train.csv"],
        "val": ["val.csv"],
        "gallery": ["index.csv"],
        "query": ["query.csv"] if whole.exists() or not parts else [part.name for part in parts],
    }
    if whole.exists() and parts:
        raise InputError(f"{folder} has query.csv and {parts[0].name}: keep either the whole or the parts")
    files = {
        split: [f"metadata/{name}" for name in names] for split, names in files.items() if (folder / names[0]).exists()
    }
    if not files:
        found = ", ".join(sorted(f.name for f in folder.glob("*"))) if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: none of train.csv, val.csv, index.csv, query.csv is there (found: {found})")
    listing = {"id": "UUID", "image": "IMAGE_PATH"}
    labels = {"title": "AUCT_TITL"} | {f"category_{i}": level for i, level in enumerate(EPRODUCT_LEVELS)}
    tables = {
        split: table_files.read(
            split, root, files[split], listing | (labels if split in ("train", "val") else {}), encoding=encoding
        )
        for split in SPLITS
        if split in files
    }
    declared = None
    if (folder / "categories.csv").exists():
        declared = table_files.read(
            "categories",
            root,
            ["metadata/categories.csv"],
            {"id": "ID", "level": "LEVEL", "title": "NAME"},
            encoding=encoding,
        )
    truth = None
    if ground_truth and ((pathlib.Path(root) / ground_truth).exists() or ground_truth != EPRODUCT_TRUTH):
        truth = table_files.read(
            "ground_truth",
            root,
            [ground_truth],
            {"id": "QUERY_UUID", "gallery_ids": "INDEX_UUIDS"},
            encoding=encoding,
            lists={"gallery_ids": " "},
        )
        row_checks.check_ids(truth)
    return build(
        pathlib.Path(root).resolve().name,
        tables,
        EPRODUCT_LEVELS,
        (max_bad_share, set_aside_path),
        *_files(pathlib.Path(root) / "Images", tables, max_pixels, check_images, decode_at_least),
        declared=declared,
        whole_numbers=True,
        truth=truth,
        leave_out=leave_out,
    )


def load_table(
    root: str,
    files: Mapping[str, str],
    columns: Mapping[str, Any] | None = None,
    image_root: str = "",
    ground_truth: str | Mapping[str, str] | None = None,
    max_bad_share: float = 0.0,
    max_pixels: int = MAX_PIXELS,
    check_images: bool | str = True,
    decode_at_least: int | None = None,
    encoding: str = "utf-8",
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads CSV, JSONL or Parquet tables beside an image folder.

    Args:
      root: folder of everything.
      files: {"train": path, "val": ..., "query": ..., "gallery": ...} below root; leave out what there is not.
      columns: names in the files: id (default "id"), image (default "image"), title (default: no titles),
        categories (a tuple, coarse to fine; default none), product (listings of equal product are relevant to
        each other; default none). Query and gallery may lack title and categories.
      image_root: folder below root that the image paths are relative to.
      ground_truth: a table with the columns "query" and "gallery" (blank-separated ids, a JSON or Parquet list,
        or one id a row), or dict(file=..., query=..., gallery=...) with its own names. It goes before `product`.
      max_bad_share, max_pixels, check_images, decode_at_least, encoding, leave_out, set_aside_path: see
        `load_eproduct`.

    Returns:
      The `Catalog`; categories are numbered by their sorted names in train (numbers by value).

    Raises:
      InputError: see `catalog.load`.
    """
    _check_arguments(root, max_bad_share, check_images)
    columns = {"id": "id", "image": "image"} | {ours: theirs for ours, theirs in (columns or {}).items() if theirs}
    check_names("columns", columns, ("id", "image", "title", "categories", "product"))
    if not isinstance(files, Mapping) or not all(isinstance(path, (str, type(None))) for path in files.values()):
        raise InputError(f"config.data.kwargs.files is {files!r}; it maps each of {', '.join(SPLITS)} to one file")
    files = {split: path for split, path in files.items() if path}
    check_names("files", files, SPLITS)
    if not files:
        raise InputError(f"config.data.kwargs.files is empty; it maps {', '.join(SPLITS)} to files")
    categories = columns.get("categories", ())
    levels = (categories,) if isinstance(categories, str) else tuple(categories)
    listing = {"id": columns["id"], "image": columns["image"]}
    labels = {f"category_{i}": level for i, level in enumerate(levels)}
    if "title" in columns:
        labels["title"] = columns["title"]
    product = {"product": columns["product"]} if "product" in columns else {}
    tables = {}
    for split in SPLITS:
        if split in files:
            trained = split in ("train", "val")
            wanted = listing | (labels if trained else {} if ground_truth else product)
            tables[split] = table_files.read(split, root, [files[split]], wanted, {} if trained else labels, encoding)
    truth = None
    if ground_truth:
        named = {"file": ground_truth} if isinstance(ground_truth, str) else dict(ground_truth)
        check_names("ground_truth", named, ("file", "query", "gallery"))
        if "file" not in named:
            raise InputError("config.data.kwargs.ground_truth has no file; give dict(file=..., query=..., gallery=...)")
        wanted = {"id": named.get("query", "query"), "gallery_ids": named.get("gallery", "gallery")}
        truth = table_files.read(
            "ground_truth", root, [named["file"]], wanted, encoding=encoding, lists={"gallery_ids": " "}
        )
        row_checks.check_ids(truth, unique=False)
    return build(
        pathlib.Path(root).resolve().name,
        tables,
        levels,
        (max_bad_share, set_aside_path),
        *_files(pathlib.Path(root) / image_root, tables, max_pixels, check_images, decode_at_least),
        truth=truth,
        leave_out=leave_out,
    )


def _check_arguments(root: str, max_bad_share: float, check_images: bool | str) -> None:
    if not isinstance(root, (str, pathlib.Path)) or not pathlib.Path(root).is_dir():
        raise InputError(f"config.data.kwargs.root: {root} is no folder")
    if not isinstance(max_bad_share, (int, float)) or not 0 <= max_bad_share <= 1:
        raise InputError(f"config.data.kwargs.max_bad_share is a share from 0 to 1, not {max_bad_share!r}")
    if check_images not in (True, False, "decode"):
        raise InputError(f"config.data.kwargs.check_images is {check_images!r}; it takes True, False or 'decode'")


def check_names(what: str, given: Mapping, known: tuple[str, ...]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"config.data.kwargs.{what} has {unknown[0]!r}; it takes {', '.join(known)}")


def _files(
    root: pathlib.Path, tables: dict[str, Rows], max_pixels: int, check: bool | str, decode_at_least: int | None
) -> tuple[Callable[[str, np.ndarray], FileImages], Callable[[Rows], None] | None]:
    """Returns what `build` wants of pictures in files below root."""
    if check and not root.is_dir():
        raise InputError(f"{root}: the folder of the pictures is not there")

    def images(split: str, kept: np.ndarray) -> FileImages:
        return FileImages(root, tables[split].frame["image"][kept].to_list(), max_pixels, decode_at_least)

    return images, (
        lambda rows: row_checks.check_images(rows, root, max_pixels, whole=check == "decode")
    ) if check else None


def build(
    name: str,
    tables: dict[str, Rows],
    levels: tuple[str, ...],
    bad_rows: tuple[float, Any],
    images: Callable[[str, np.ndarray], Any],
    check_images: Callable[[Rows], None] | None = None,
    *,
    declared: Rows | None = None,
    whole_numbers: bool = False,
    truth: Rows | None = None,
    leave_out: Sequence[Listed] = (),
) -> Catalog:
    """Checks every row, settles what is set aside, and makes the catalogue of the rest.

    Args:
      name: of the catalogue.
      tables: the rows of every split, text columns under our names.
      levels: names of the category levels, coarse to fine.
      bad_rows: (max_bad_share, set_aside_path), see `load_eproduct`.
      images: (split, kept rows) -> random access to their pictures.
      check_images: marks rows of a split whose picture cannot be used, or None.
      declared: the categories there are, or None to take those of train.
      whole_numbers: whether category ids are whole numbers by declaration.
      truth: rows of the ground truth, or None to take equal products, where there are any.
      leave_out: see `load_eproduct`.

    Returns:
      The `Catalog`.
    """
    for rows in [*tables.values(), *([declared] if declared is not None else [])]:
        _mend(rows)
    left_out.mark(tables, leave_out)
    for split, rows in tables.items():
        row_checks.check_ids(rows)
        if "title" in rows.frame.columns:
            row_checks.check_titles(rows)
        later = {"train": ("val", "query", "gallery"), "val": ("query", "gallery")}.get(split, ())
        row_checks.check_splits(rows, [tables[other] for other in later if other in tables])
    names, codes = row_labels.categories(tables, levels, declared, whole_numbers)
    if check_images is not None:
        for rows in tables.values():
            check_images(rows)
    pairs = row_labels.check_truth(truth, tables) if truth is not None else None
    checked = [*tables.values(), *(rows for rows in (declared, truth) if rows is not None)]
    counts, set_aside = row_checks.settle(checked, *bad_rows, not_held=_NOT_HELD)
    kept = {split: np.flatnonzero(rows.good()) for split, rows in tables.items()}
    splits = {}
    for split, rows in tables.items():
        frame = rows.frame[kept[split]]
        if not len(frame):
            raise InputError(f"{', '.join(rows.files)}: no row is left; leave the {split} split out of the catalogue")
        splits[split] = Split(
            split,
            frame["id"].to_list(),
            frame["title"].to_list() if "title" in frame.columns else None,
            codes[split][kept[split]] if split in codes else None,
            images(split, kept[split]),
        )
    if pairs is None and all(
        side in tables and "product" in tables[side].frame.columns for side in ("query", "gallery")
    ):
        pairs = row_labels.same_product(tables)
    return Catalog(
        name=name,
        **splits,
        truth=row_labels.truth(pairs, splits) if pairs is not None else None,
        category_levels=levels,
        category_names=names,
        counts=counts,
        set_aside=set_aside,
    )


def _mend(rows: Rows) -> None:
    """Rewrites what can be meant in one way only: paths with backslashes, whole numbers stored as floats ("12.0")."""
    mended = []
    for column in rows.frame.columns:
        if column == "image":
            mended.append(pl.col(column).str.replace_all("\\", "/", literal=True))
        elif column.startswith("category_") or (column == "id" and rows.name == "categories"):
            mended.append(pl.col(column).str.strip_chars().str.replace(r"^(-?[0-9]+)\.0+$", "${1}"))
    rows.frame = rows.frame.with_columns(mended)
