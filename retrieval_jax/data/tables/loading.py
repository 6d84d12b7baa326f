"""Loads catalogues from files: in eProduct's layout, or tables and an image folder with a map of columns."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import pairs
from retrieval_jax.data.catalog import PHOTO, SPLITS, Catalog
from retrieval_jax.data.exports import loading as one_table
from retrieval_jax.data.exports import splitting
from retrieval_jax.data.pictures.decoding import MAX_PIXELS
from retrieval_jax.data.pictures.sources import FileImages, NoPictures
from retrieval_jax.data.tables import columns as columns_lib
from retrieval_jax.data.tables import listing_tables, qrels, row_checks, table_files
from retrieval_jax.data.tables.building import Beyond, build
from retrieval_jax.data.tables.left_out import Listed
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError

EPRODUCT_LEVELS = ("META_CATEG_ID", "CATEG_LVL2_ID", "LEAF_CATEG_ID")
EPRODUCT_TRUTH = "metadata/ground_truth.csv"
_COLUMNS = ("id", "image", "title", "categories", "product")


def load_eproduct(
    root: str,
    max_bad_share: float = 0.0,
    ground_truth: str | None = EPRODUCT_TRUTH,
    max_pixels: int = MAX_PIXELS,
    check_images: bool | str = True,
    decode_at_least: int | None = None,
    encoding: str = "utf-8",
    columns: Mapping[str, Any] | None = None,
    tables: Mapping[str, Any] | None = None,
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads a folder in eProduct's layout: metadata/{train,val,index,query}.csv and Images/.

    The queries may also be in parts: query_part1.csv and so on. metadata/categories.csv (LEVEL, ID, NAME), where
    present, declares the categories; otherwise those of train count. metadata/photo.csv (UUID, IMAGE_PATH), where
    present, lists shoppers' photos that clicks refer to.

    Args:
      root: the folder.
      max_bad_share: largest share of bad rows of a file that is set aside; 0 refuses the first bad row.
      ground_truth: CSV with QUERY_UUID and INDEX_UUIDS (blank-separated); the default may be absent, None ignores it.
      max_pixels: a larger picture makes a bad row.
      check_images: True looks at every picture's header and end, "decode" decodes it whole, False trusts all.
      decode_at_least: see `sources.FileImages`.
      encoding: of the text files, where it is not UTF-8 and the file has no byte-order mark.
      columns: further columns of the listings, such as {"colour": ("baseColour", "category", "attributes.csv")}; see
        `tables.columns`.
      tables: files of tables that refer to listings, such as {"clicks": "clicks.csv"}; see `tables.listing_tables`.
      leave_out: listings to set aside, whatever max_bad_share.
      set_aside_path: CSV that receives the bad rows.

    Returns:
      The `Catalog`; its gallery is eProduct's index split.

    Raises:
      InputError: see `data.loading.load`.

    Source: eProduct, arXiv 2107.05856.
    """
    check_arguments(root, max_bad_share, check_images)
    _, further = columns_lib.declared(columns or {}, ())
    folder = pathlib.Path(root) / "metadata"
    parts = sorted(folder.glob("query_part*.csv"), key=lambda f: (int(re.sub(r"\D", "", f.stem) or 0), f.name))
    whole = folder / "query.csv"
    files = {
        "train": ["train.csv"],
        "val": ["val.csv"],
        "query": ["query.csv"] if whole.exists() or not parts else [part.name for part in parts],
        "gallery": ["index.csv"],
        PHOTO: ["photo.csv"],
    }
    if whole.exists() and parts:
        raise InputError(f"{folder} has query.csv and {parts[0].name}: keep either the whole or the parts")
    files = {
        split: [f"metadata/{name}" for name in names] for split, names in files.items() if (folder / names[0]).exists()
    }
    if not set(files) - {PHOTO}:
        found = ", ".join(sorted(f.name for f in folder.glob("*"))) if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: none of train.csv, val.csv, index.csv, query.csv is there (found: {found})")
    listing = {"id": "UUID", "image": "IMAGE_PATH"}
    labels = {"title": "AUCT_TITL"} | {f"category_{i}": level for i, level in enumerate(EPRODUCT_LEVELS)}
    splits = {
        split: table_files.read(
            split,
            root,
            names,
            listing | (labels if split in ("train", "val") else {}),
            columns_lib.in_listings(further),
            encoding,
            lists=columns_lib.lists(further),
        )
        for split, names in files.items()
    }
    columns_lib.check_found(further, splits, root, encoding)
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
        splits,
        EPRODUCT_LEVELS,
        (max_bad_share, set_aside_path),
        *picture_files(pathlib.Path(root) / "Images", splits, max_pixels, check_images, decode_at_least),
        declared=declared,
        whole_numbers=True,
        truth=truth,
        leave_out=leave_out,
        beyond=Beyond(
            further,
            columns_lib.read_beside(further, root, "UUID", encoding),
            listing_tables.read(tables, root, encoding),
        ),
    )


def load_table(
    root: str,
    files: str | Mapping[str, str],
    columns: Mapping[str, Any] | None = None,
    image_root: str = "",
    ground_truth: str | Mapping[str, str] | None = None,
    max_bad_share: float | None = None,
    max_pixels: int = MAX_PIXELS,
    check_images: bool | str = True,
    decode_at_least: int | None = None,
    encoding: str = "utf-8",
    tables: Mapping[str, Any] | None = None,
    test_share: float = splitting.TEST_SHARE,
    val_share: float = splitting.VAL_SHARE,
    split_seed: int = 0,
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads CSV, JSONL or Parquet tables beside an image folder.

    One file alone, `files="products.csv"`, is a table as shop systems write them: `columns` maps parts of
    `exports.roles.Roles` (without it, the columns are recognised), its pictures are found by name below image_root,
    and products are split, so that train and gallery overlap but queries are in neither; see `data.exports`.

    Args:
      root: folder of everything.
      files: one path; or {"train": path, "val": ..., "query": ..., "gallery": ...} below root; leave out splits that
        do not exist. "photo" lists shoppers' photos (id, image) that clicks refer to.
      columns: names in the files: id (default "id"), image (default "image"; "" where nothing has pictures; queries
        with a text column may lack it), title (default: no titles), categories (a tuple, coarse to fine; default none),
        product (listings of equal product are relevant to each other; default none). Query and gallery may lack title
        and categories. Any other name is a further column with its kind, such as {"colour": ("base_colour",
        "category")}; see `tables.columns`.
      image_root: folder below root that the image paths are relative to.
      ground_truth: a table with the columns "query" and "gallery" (blank-separated ids, a JSON or Parquet list,
        or one id per row) and perhaps "grade" (one number per row, or one per id; 0 or below: judged not relevant), or
        dict(file=..., query=..., gallery=..., grade=...) with its own names, or TREC's judgements in a file that ends
        in .qrels, .trec or .txt. It overrides `product`.
      tables: files of tables that refer to listings, such as {"clicks": "clicks.csv"}; see `tables.listing_tables`.
      max_bad_share: largest share of bad rows of a file that is set aside; by default 0 (the first bad row is
        refused), and for one table 0.2 of its pictures.
      test_share, val_share, split_seed: of one table: shares of its products, see `exports.splitting.split`.
      max_pixels, check_images, decode_at_least, encoding, leave_out, set_aside_path: see `load_eproduct`.

    Returns:
      The `Catalog`; categories are numbered by their sorted names in train (numbers by value).

    Raises:
      InputError: see `data.loading.load`.
    """
    check_arguments(root, 0.0 if max_bad_share is None else max_bad_share, check_images)
    if isinstance(files, str):
        if ground_truth:
            raise InputError(
                "config.data.kwargs.ground_truth: the queries of one table are split off by product, so it has no "
                "ground truth of its own; give files=dict(train=..., query=..., gallery=...) to use one"
            )
        for name, share in (("test_share", test_share), ("val_share", val_share)):
            if not isinstance(share, (int, float)) or not 0 <= share < 1:
                raise InputError(f"config.data.kwargs.{name} is a share from 0 to below 1, not {share!r}")
        return one_table.load(
            root,
            files,
            columns,
            image_root,
            (max_bad_share, set_aside_path),
            lambda folder, splits: picture_files(folder, splits, max_pixels, check_images, decode_at_least),
            encoding=encoding,
            tables=tables,
            leave_out=leave_out,
            test_share=test_share,
            val_share=val_share,
            seed=split_seed,
            max_pixels=max_pixels,
        )
    columns, further = columns_lib.declared(columns or {}, _COLUMNS)
    pictured = bool(columns.get("image", "image"))
    columns = {"id": "id", "image": "image"} | {ours: theirs for ours, theirs in columns.items() if theirs}
    if not isinstance(files, Mapping) or not all(isinstance(path, (str, type(None))) for path in files.values()):
        raise InputError(
            f"config.data.kwargs.files is {files!r}; give one table, or map each of {', '.join(SPLITS)} to a file"
        )
    files = {split: path for split, path in files.items() if path}
    check_names("files", files, (*SPLITS, PHOTO))
    if not set(files) - {PHOTO}:
        raise InputError(f"config.data.kwargs.files is empty; it maps {', '.join(SPLITS)} to files")
    categories = columns.get("categories", ())
    levels = (categories,) if isinstance(categories, str) else tuple(categories)
    listing = {"id": columns["id"]} | ({"image": columns["image"]} if pictured else {})
    labels = {f"category_{i}": level for i, level in enumerate(levels)}
    if "title" in columns:
        labels["title"] = columns["title"]
    product = {"product": columns["product"]} if "product" in columns else {}
    splits = {}
    for split in (*SPLITS, PHOTO):
        if split not in files:
            continue
        wanted, optional = listing, columns_lib.in_listings(further)
        if split in ("train", "val"):
            wanted = listing | labels
        elif split != PHOTO:
            wanted, optional = listing | ({} if ground_truth else product), labels | optional
        if split == "query" and _typed(table_files.header(root, files[split], encoding), columns["image"], further):
            wanted = {ours: theirs for ours, theirs in wanted.items() if ours != "image"}
        splits[split] = table_files.read(
            split, root, [files[split]], wanted, optional, encoding, lists=columns_lib.lists(further)
        )
    columns_lib.check_found(further, splits, root, encoding)
    truth = None
    if ground_truth:
        truth = _truth(ground_truth, root, encoding)
    return build(
        pathlib.Path(root).resolve().name,
        splits,
        levels,
        (max_bad_share or 0.0, set_aside_path),
        *picture_files(pathlib.Path(root) / image_root, splits, max_pixels, check_images, decode_at_least),
        truth=truth,
        leave_out=leave_out,
        beyond=Beyond(
            further,
            columns_lib.read_beside(further, root, columns["id"], encoding),
            listing_tables.read(tables, root, encoding),
        ),
    )


def _typed(header: Sequence[str], image: str, further: Sequence[columns_lib.Further]) -> bool:
    """Returns whether a file of queries holds texts without pictures."""
    texts = {one.headers[0] for one in further if one.kind == "text" and not one.file}
    return image not in header and not texts.isdisjoint(header)


def _truth(given: str | Mapping[str, str], root: str, encoding: str) -> Rows:
    """Returns the rows of a ground truth: ids of queries, lists of gallery ids, and perhaps grades."""
    setting = "config.data.kwargs.ground_truth"
    named = {"file": given} if isinstance(given, str) else dict(given)
    check_names("ground_truth", named, ("file", "query", "gallery", "grade"))
    if "file" not in named:
        raise InputError(f"{setting} has no file; give dict(file=..., query=..., gallery=...)")
    if pathlib.Path(named["file"]).suffix.lower() in qrels.SUFFIXES:
        rows = qrels.read(root, named["file"], encoding)
    else:
        wanted = {"id": named.get("query", "query"), "gallery_ids": named.get("gallery", "gallery")}
        grade = {"grade": named.get("grade", "grade")}
        wanted, optional = (wanted | grade, {}) if "grade" in named else (wanted, grade)
        lists = dict.fromkeys(("gallery_ids", "grade"), " ")
        rows = table_files.read(
            "ground_truth", root, [named["file"]], wanted, optional, encoding, lists=lists, setting=setting
        )
    row_checks.check_ids(rows, unique=False)
    return rows


def check_arguments(root: str, max_bad_share: float, check_images: bool | str) -> None:
    if not isinstance(root, (str, pathlib.Path)) or not pathlib.Path(root).is_dir():
        raise InputError(f"config.data.kwargs.root: {root} is not a folder")
    if not isinstance(max_bad_share, (int, float)) or not 0 <= max_bad_share <= 1:
        raise InputError(f"config.data.kwargs.max_bad_share is a share from 0 to 1, not {max_bad_share!r}")
    if check_images not in (True, False, "decode"):
        raise InputError(f"config.data.kwargs.check_images is {check_images!r}; it takes True, False or 'decode'")


def check_names(what: str, given: Mapping, known: tuple[str, ...]) -> None:
    """Raises InputError where an argument that is a map has an unknown name.

    Args:
      what: the argument.
      given: its value.
      known: the names it takes.
    """
    for name in given:
        if name not in known:
            raise InputError(f"config.data.kwargs.{what} has {name!r}{pairs.near(name, known)}")


def picture_files(
    root: pathlib.Path, splits: dict[str, Rows], max_pixels: int, check: bool | str, decode_at_least: int | None
) -> tuple[Callable[[str, np.ndarray], FileImages | NoPictures], Callable[[Rows], None] | None]:
    """Returns the arguments of `build` for pictures in files below root; splits without paths have no pictures."""
    if check and not root.is_dir():
        raise InputError(f"{root}: the folder of the pictures does not exist")

    def images(split: str, kept: np.ndarray) -> FileImages | NoPictures:
        if "image" not in splits[split].frame.columns:
            return NoPictures(len(kept), split)
        return FileImages(root, splits[split].frame["image"][kept].to_list(), max_pixels, decode_at_least)

    def look(rows: Rows) -> None:
        if "image" in rows.frame.columns:
            row_checks.check_images(rows, root, max_pixels, whole=check == "decode")

    return images, look if check else None
