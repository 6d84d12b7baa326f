"""Prepared catalogues: a tfds dataset of resized pictures, and the tables that make it a whole catalogue again.

    FOLDER/<name>-<split>.array_record-00000-of-00012   records: id, row, image (encoded), title, category_0, ...
    FOLDER/dataset_info.json, features.json, ...        for tfds: `tfds.builder_from_directory(FOLDER)`
    FOLDER/set_aside.csv                                the rows that were left out
    FOLDER/catalogue/settings.json                      what it is made with; there from the start
    FOLDER/catalogue/shards/<file>.json                 per complete shard: what it was made of, its checksum
    FOLDER/catalogue/<split>.parquet, truth.npz         ids, titles, categories, further columns; relevant gallery rows
    FOLDER/catalogue/table-<name>-<split>.parquet       tables that refer to listings
    FOLDER/catalogue/*.npz                              the same columns as arrays, which are read without polars
    FOLDER/catalogue/catalogue.json                     the rest; written last, so a folder that has it is complete

The records of a split are in the order of its listings. Each also carries its id and row, to check the order. Columns
and tables that are computed on demand, those of the embedded catalogue, stay behind; catalogue.json lists them.
"""

from __future__ import annotations

import csv
import io
import pathlib
import re
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from retrieval_jax import output, paths
from retrieval_jax.data import catalog as catalog_lib
from retrieval_jax.data.catalog import PHOTO, SPLITS, Catalog, Lazy, Split, Table
from retrieval_jax.data.records import column_files
from retrieval_jax.data.records import reading as records
from retrieval_jax.data.records.shards import FORMAT, Shard, features
from retrieval_jax.data.tables import set_aside_file
from retrieval_jax.errors import InputError, first_line
from retrieval_jax.files import atomic, documents, versions
from retrieval_jax.files.arrays import load_npz
from retrieval_jax.files.opening import opened
from retrieval_jax.scoring import ranking

_FURTHER = "column "  # before the names of further columns


class _Shard(TypedDict):
    """A file of records in catalogue.json."""

    file: documents.FileName
    records: documents.Count
    bytes: documents.Count
    sha256: NotRequired[documents.Sha256]


class _Table(TypedDict):
    """A table that refers to listings, in catalogue.json."""

    rows_of: dict[str, str]


class _About(TypedDict):
    """catalogue.json."""

    format: int
    name: str
    category_levels: list[str]
    category_names: list[list[str]]
    counts: dict[str, dict[str, Any]]
    truth: bool
    ratings: NotRequired[list[Literal["grades", "rated_zero"]]]
    splits: dict[str, list[_Shard]]
    column_names: NotRequired[dict[str, list[str]]]
    tables: NotRequired[dict[str, _Table]]


# ------------------------------------------------------------------------------------------------------- writing


def splits_of(catalog: Catalog) -> list[str]:
    """Returns the names of the splits that are prepared: all, but photos only where the tables come along."""
    return [name for name in catalog.splits() if name != PHOTO or not isinstance(catalog.tables, Lazy)]


def finish(
    folder: pathlib.Path,
    name: str,
    catalog: Catalog,
    abouts: dict[str, list[tuple[Shard, dict]]],
    settings: dict,
    summary: dict,
) -> dict:
    """Writes everything but the shards and catalogue.json, which is written last.

    Args:
      folder: of the prepared catalogue.
      name: of the dataset.
      catalog: what was prepared; its counts and set_aside include the pictures that could not be prepared.
      abouts: {split: its shards and what `shards.make` returned for them, in order}.
      settings: what it was made with.
      summary: of the run, kept in catalogue.json.

    Returns:
      The content of catalogue.json.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming

    inside = folder / "catalogue"
    kept, infos, left_behind = {}, [], []
    for split_name, made in abouts.items():
        split = catalog.split(split_name)
        rows = kept[split_name] = np.array([row for _, about in made for row in about["rows"]], np.int64)
        chosen = rows.tolist()
        columns = {"row": rows, "id": [split.ids[row] for row in chosen]}
        if split.titles is not None:
            columns["title"] = [split.titles[row] for row in chosen]
        if split.categories is not None:
            columns |= {f"category_{i}": column for i, column in enumerate(split.categories[rows].T)}
        if isinstance(split.columns, Lazy):
            left_behind += [column for column in split.columns if column not in left_behind]
        else:
            columns |= {f"{_FURTHER}{key}": catalog_lib.take(column, rows) for key, column in split.columns.items()}
        column_files.save(inside / split_name, columns)
        infos.append(
            tfds.core.SplitInfo(
                name=split_name,
                shard_lengths=[len(about["rows"]) for _, about in made],
                num_bytes=sum(about["bytes"] for _, about in made),
                filename_template=naming.ShardedFileTemplate(
                    folder, dataset_name=name, filetype_suffix="array_record", split=split_name
                ),
            )
        )
    if catalog.truth is not None:
        atomic.write_npz(inside / "truth.npz", **_truth(catalog.truth, kept["query"], kept["gallery"]))
    tables = {}
    if isinstance(catalog.tables, Lazy):
        left_behind += list(catalog.tables)
    else:
        places = {split_name: _places(rows, len(catalog.split(split_name))) for split_name, rows in kept.items()}
        for key, table in catalog.tables.items():
            moved = table.moved(places)
            column_files.save(inside / _table_file(key), moved.columns)
            tables[key] = {"rows_of": dict(moved.rows_of), "read": len(table), "kept": len(moved)}
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features(catalog.category_names),
        split_infos=infos,
        check_data=False,
        description=f"{catalog.name}, prepared by retrieval_jax.prepare: shorter side {settings['side']} pixels, "
        f"JPEG quality {settings['quality']}.",
    )
    set_aside_file.write(folder / "set_aside.csv", catalog.set_aside)
    return {
        "format": FORMAT,
        "name": catalog.name,
        "settings": settings,
        "summary": summary,
        "category_levels": list(catalog.category_levels),
        "category_names": [list(n) for n in catalog.category_names],
        "counts": catalog.counts,
        "truth": catalog.truth is not None,
        "ratings": [name for name in ("grades", "rated_zero") if getattr(catalog.truth, name, None) is not None],
        "column_names": {column: list(n) for column, n in catalog.column_names.items()},
        "tables": tables,
        "left_behind": left_behind,
        "splits": {
            split_name: [
                {
                    "file": shard.path.name,
                    "records": len(about["rows"]),
                    "bytes": about["bytes"],
                    "sha256": about["sha256"],
                }
                for shard, about in made
            ]
            for split_name, made in abouts.items()
        },
    }


def _truth(truth: Any, queries: np.ndarray, gallery: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the arrays of the truth for the queries and gallery listings that remain."""
    moved = truth.moved(
        [truth.query_ids[row] for row in queries.tolist()], [truth.gallery_ids[row] for row in gallery.tolist()]
    )
    found = {"indptr": moved.indptr, "rows": moved.rows}
    found |= {} if moved.grades is None else {"grades": moved.grades}
    return found | ({} if moved.rated_zero is None else {"rated_zero": moved.rated_zero})


def _places(kept: np.ndarray, count: int) -> np.ndarray:
    """Returns the new rows of `count` old ones, int64 [count], -1 for those that are not kept."""
    place = np.full(count, -1, np.int64)
    place[kept] = np.arange(len(kept))
    return place


def _table_file(key: str) -> str:
    return f"table-{key.replace('/', '-')}"


def dataset_name(folder: pathlib.Path, catalogue: str) -> str:
    """Returns the dataset's name: the folder's where it is laid out as tfds expects, .../name/1.0.0, else its own.

    Args:
      folder: of the prepared catalogue.
      catalogue: the catalogue's name.
    """
    own = folder.absolute().parent.name if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) else catalogue
    name = re.sub(r"\W+", "_", own.lower(), flags=re.ASCII).strip("_")
    return name if re.match(r"[a-z]", name) else f"catalogue_{name}".rstrip("_")


# ------------------------------------------------------------------------------------------------------- reading


def is_prepared(folder: pathlib.Path) -> bool:
    """Returns whether `retrieval_jax.prepare` wrote, or began to write, a folder."""
    return (folder / "catalogue" / "settings.json").is_file()


def load(folder: pathlib.Path, max_pixels: int, decode_at_least: int | None, set_aside_path: Any) -> Catalog:
    """Loads a prepared catalogue.

    Args:
      folder: of it.
      max_pixels, decode_at_least: see `sources.FileImages`.
      set_aside_path: CSV that receives the rows that were set aside, or None.

    Returns:
      The `Catalog` that was prepared, with the resized pictures.

    Raises:
      InputError: it is not complete, or files are missing or have another size.
    """
    arguments = folder, max_pixels, decode_at_least, set_aside_path
    return versions.read(folder / "catalogue", "catalogue.json", lambda _: _load(*arguments))


def _load(folder: pathlib.Path, max_pixels: int, decode_at_least: int | None, set_aside_path: Any) -> Catalog:
    inside = folder / "catalogue"
    if not (inside / "catalogue.json").is_file():
        raise InputError(
            f"{folder} is not completely prepared: run `{paths.command('prepare', '--config=...', f'--out={folder}')}` "
            "again with the same --config; it resumes from there"
        )
    remedy = "run prepare again with the same --out: complete files are kept"
    about = documents.read(inside / "catalogue.json", _About, remedy=remedy)
    if about["format"] != FORMAT:
        raise InputError(
            f"{folder} is in format {about['format']} of prepared catalogues, and this version reads "
            f"{FORMAT}: prepare it again"
        )
    if len(about["category_levels"]) != len(about["category_names"]):
        raise InputError(
            f"{inside / 'catalogue.json'} names {len(about['category_levels'])} levels of categories, but "
            f"has names for {len(about['category_names'])}: {remedy}"
        )
    try:
        splits = {
            name: _split(folder, name, shards, about["category_names"], max_pixels, decode_at_least, remedy)
            for name, shards in about["splits"].items()
            if name in (*SPLITS, PHOTO)
        }
        truth = None
        if about["truth"]:
            wanted = dict.fromkeys(("indptr", "rows"), (("int64",), 1))
            kinds = {"grades": (("float32",), 1), "rated_zero": (("int64",), 2)}
            wanted |= {name: kinds[name] for name in about.get("ratings", ())}
            found = load_npz(inside / "truth.npz", wanted, remedy=remedy)
            truth = ranking.Truth(splits["query"].ids, splits["gallery"].ids, **found)
        tables = {
            key: Table(column_files.load(inside / _table_file(key), remedy), table["rows_of"])
            for key, table in about.get("tables", {}).items()
        }
        with io.TextIOWrapper(opened(folder / "set_aside.csv"), encoding="utf-8", newline="") as file:
            set_aside = [
                {name: output.from_cell(value) for name, value in row.items()} | {"row": int(row["row"])}
                for row in csv.DictReader(file)
            ]
        catalog = Catalog(
            about["name"],
            **splits,
            truth=truth,
            category_levels=tuple(about["category_levels"]),
            category_names=tuple(about["category_names"]),
            counts=about["counts"],
            set_aside=set_aside,
            column_names=about.get("column_names", {}),
            tables=tables,
        )
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Parquet and CSV readers each raise their own
        raise InputError(f"{folder}: its tables cannot be read ({first_line(error)}); {remedy}") from error
    if set_aside_path is not None:
        set_aside_file.write(set_aside_path, set_aside)
    return catalog


def _split(
    folder: pathlib.Path,
    name: str,
    shards: list[dict],
    category_names: list[list[str]],
    max_pixels: int,
    decode_at_least: int | None,
    remedy: str,
) -> Split:
    for shard in shards:
        file = folder / shard["file"]
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            wrong = "has another size than when it was written" if file.is_file() else "is missing"
            raise InputError(f"{file} {wrong}: copy it again, or run prepare again with the same --out")
        if shard["records"] > shard["bytes"]:
            raise InputError(f"{file} cannot hold {shard['records']:,} records: run prepare again with the same --out")
    columns = column_files.load(folder / "catalogue" / name, remedy)
    if missing := [column for column in ("id", "row") if column not in columns]:
        raise ValueError(f"the split {name} has no column {missing[0]!r}")
    ids, titles, rows = columns["id"], columns.get("title"), columns["row"]
    count = sum(shard["records"] for shard in shards)
    if len(ids) != count:
        raise InputError(
            f"{folder}: the split {name} has {len(ids):,} listings, but its files have {count:,} "
            "records; run prepare again with the same --out"
        )
    texts = {"id": ids} | ({} if titles is None else {"title": titles})
    wrong = [key for key, column in texts.items() if not isinstance(column, list) or None in column]
    if not isinstance(rows, np.ndarray) or rows.dtype != np.int64:
        wrong.append("row")
    if wrong:
        raise ValueError(f"the column {wrong[0]!r} of the split {name} is not what it was written as")
    categories, levels = None, len(category_names)
    if levels and "category_0" in columns:
        categories = np.stack([columns[f"category_{i}"] for i in range(levels)], axis=1).astype(np.int32)
        most = [len(names) for names in category_names]
        if ((categories < -1) | (categories >= most)).any():
            raise ValueError(f"the split {name} has categories without a name")
    images = records.RecordImages(folder, name, np.arange(len(ids)), "image", rows, max_pixels, decode_at_least)
    further = {key: column for key, column in columns.items() if key.startswith(_FURTHER)}
    return Split(
        name,
        ids,
        titles,
        categories,
        images,
        columns={key.removeprefix(_FURTHER): column for key, column in further.items()},
    )
