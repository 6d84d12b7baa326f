"""Loads catalogues from datasets prepared by tensorflow-datasets (tfds), with a map of columns."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tqdm

from retrieval_jax import errors
from retrieval_jax.data.catalog import SPLITS, Catalog
from retrieval_jax.data.pictures import decoding, headers
from retrieval_jax.data.pictures.decoding import MAX_PIXELS, BadImage
from retrieval_jax.data.records import folders, prepared
from retrieval_jax.data.records import reading as records
from retrieval_jax.errors import InputError, first_line

if TYPE_CHECKING:
    from retrieval_jax.data.tables import columns as columns_lib
    from retrieval_jax.data.tables import row_checks
    from retrieval_jax.data.tables.left_out import Listed


def load_tfds(
    root: str | None = None,
    name: str | None = None,
    data_dir: str | None = None,
    splits: Mapping[str, str] | None = None,
    columns: Mapping[str, Any] | None = None,
    max_bad_share: float = 0.0,
    max_pixels: int = MAX_PIXELS,
    check_images: bool | str = True,
    decode_at_least: int | None = None,
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads a dataset that tfds or `retrieval_jax.prepare` prepared in ArrayRecord or Parquet.

    A folder that `retrieval_jax.prepare` wrote is a whole catalogue and needs nothing but its path. In any other
    dataset, every record is read once for its labels.

    Args:
      root: folder of the dataset, with dataset_info.json; or name and data_dir.
      name: as tfds knows it: "stanford_online_products", "name/config" or "name:1.0.0".
      data_dir: where tfds keeps datasets; None for its default.
      splits: {"train": "train", "query": "test", "gallery": "test"} and the like, ours to theirs; theirs may be a
        slice such as "test[:80%]". Default: the splits that have our names.
      columns: ours to theirs: image (default "image"), id (default: the record's split and number), title (default:
        none), categories (a tuple, coarse to fine; default none), product (query and gallery listings of equal
        product are relevant to each other; default none). Any other name is a further column with its kind, such as
        {"colour": ("base_colour", "category")}; see `tables.columns`.
      max_bad_share, max_pixels, decode_at_least, leave_out, set_aside_path: see `tables.loading.load_eproduct`.
      check_images: True looks at every picture's header and end, "decode" decodes it whole, False trusts all.

    Returns:
      The `Catalog`. If query and gallery are the same split, every listing is a query against all the others.

    Raises:
      InputError: see `data.loading.load`; or the dataset's format has no random access.
    """
    folder = _folder(root, name, data_dir)
    if prepared.is_prepared(folder):
        if splits or columns or max_bad_share:
            raise InputError(
                f"{folder} is a prepared catalogue, which has its own columns and splits: leave splits, "
                "columns and max_bad_share out of config.data.kwargs"
            )
        if leave_out:
            raise InputError(
                f"config.data.leave_out: {folder} is a prepared catalogue, which is used as a whole: "
                "prepare it again into another folder, with --config.data.leave_out set to this list"
            )
        return prepared.load(folder, max_pixels, decode_at_least, set_aside_path)
    # Not for prepared catalogues: a training on one needs no polars.
    from retrieval_jax.data.tables import building
    from retrieval_jax.data.tables import columns as columns_lib

    builder = records.dataset(folder)
    places = _splits(builder.info, splits)
    columns, further, kinds = _columns(builder.info, columns or {})
    levels = columns.pop("categories")
    wanted = {ours: theirs for ours, theirs in columns.items() if ours != "image"}
    labels = wanted | {f"category_{i}": level for i, level in enumerate(levels)} | columns_lib.in_listings(further)
    frames = {}
    for ours, (theirs, rows) in places.items():
        same = next(
            (
                frames[other]
                for other in frames
                if places[other][0] == theirs and np.array_equal(places[other][1], rows)
            ),
            None,
        )  # in SOP, the gallery is the queries
        if same is not None:
            frames[ours] = dataclasses.replace(same, name=ours, bad=dict(same.bad))
            continue
        frames[ours] = _read(folder, ours, theirs, rows, columns["image"], labels, kinds, check_images, max_pixels)
    return building.build(
        builder.info.name,
        frames,
        levels,
        (max_bad_share, set_aside_path),
        lambda split, kept: records.RecordImages(
            folder, places[split][0], places[split][1][kept], columns["image"], None, max_pixels, decode_at_least
        ),
        leave_out=leave_out,
        beyond=building.Beyond(further),
    )


def _folder(root: str | None, name: str | None, data_dir: str | None) -> pathlib.Path:
    from tensorflow_datasets.core import read_only_builder, registered
    from tensorflow_datasets.core.utils import error_utils

    if (root is None) == (name is None):
        raise InputError("config.data.kwargs takes either root, the folder of a prepared dataset, or name and data_dir")
    if root is not None:
        return pathlib.Path(root).expanduser()
    try:
        # Not builder_from_files, which also reads what it finds, before `folders.check` has looked at it.
        with error_utils.record_error_context():
            found = read_only_builder._find_builder_dir(name, data_dir=data_dir)
        if found is None:
            raise registered.DatasetNotFoundError(name)
        return pathlib.Path(found)
    except registered.DatasetNotFoundError:
        where = pathlib.Path(data_dir or "~/tensorflow_datasets").expanduser()
        there = sorted(child.name for child in where.iterdir() if child.is_dir()) if where.is_dir() else []
        near = difflib.get_close_matches(name, there) or there[:10]
        raise InputError(
            f"config.data.kwargs.name: there is no dataset {name!r} in {where} (available: "
            f"{', '.join(near) or 'none'}); prepare it with `tfds build {name} "
            "--file_format=array_record`, or give its folder as data_dir"
        ) from None
    except Exception as error:  # a name that tfds cannot parse, a folder that it cannot read
        raise InputError(f"config.data.kwargs.name: {name!r}: {first_line(error)}") from error


def _splits(info: Any, wanted: Mapping[str, str] | None) -> dict[str, tuple[str, np.ndarray]]:
    """Returns, for each of our splits, the dataset's split and the places of its records there."""
    from retrieval_jax.data.tables import loading as tables

    known = list(info.splits)
    wanted = wanted or {split: split for split in SPLITS if split in known}
    wanted = {ours: theirs for ours, theirs in wanted.items() if theirs}
    tables.check_names("splits", wanted, SPLITS)
    if not wanted:
        raise InputError(
            f"{info.name} has the splits {', '.join(known)}; map ours to them in config.data.kwargs.splits, "
            'such as {"train": "train", "query": "test", "gallery": "test"}'
        )
    found = {}
    for ours in SPLITS:
        if ours not in wanted:
            continue
        base = re.match(r"[^\[+]*", str(wanted[ours]))[0].strip()
        if base not in known or "+" in str(wanted[ours]):
            raise InputError(
                f"config.data.kwargs.splits.{ours} is {wanted[ours]!r}; {info.name} has "
                f"{', '.join(known)}, or a slice of one such as '{known[0]}[:80%]'"
            )
        folders.check_shards(info, base)
        whole = info.splits[base]
        starts = dict(
            zip([str(path) for path in whole.filepaths], np.cumsum([0, *whole.shard_lengths[:-1]]), strict=True)
        )
        try:
            parts = info.splits[wanted[ours]].file_instructions
        except Exception as error:  # tfds's own message about a slice that it cannot parse
            raise InputError(f"config.data.kwargs.splits.{ours}: {first_line(error)}") from error
        rows = [np.arange(part.skip, part.skip + part.take) + starts[str(part.filename)] for part in parts]
        found[ours] = base, np.concatenate([np.zeros(0, np.int64), *rows])
    return found


def _columns(info: Any, given: Mapping[str, Any]) -> tuple[dict, list[columns_lib.Further], dict]:
    """Returns the map of columns and further columns, checked, and the tfds feature of every column of the dataset."""
    from retrieval_jax.data.tables import columns as columns_lib

    own, further = columns_lib.declared(given, ("image", "id", "title", "categories", "product"))
    if wrong := [one.name for one in further if one.file or len(one.headers) > 1 or one.kind == "list"]:
        raise InputError(
            f"config.data.kwargs.columns.{wrong[0]}: a column of a tfds dataset has one value per record: give "
            "(column, kind) with the kind text, category or number"
        )
    columns = {"image": "image"} | {ours: theirs for ours, theirs in own.items() if theirs}
    levels = columns.get("categories", ())
    columns["categories"] = (levels,) if isinstance(levels, str) else tuple(levels)
    kinds = dict(_flat(info.features))
    levels = [("categories", level) for level in columns["categories"]]
    for ours, theirs in [*columns.items(), *levels, *((one.name, one.headers[0]) for one in further)]:
        if ours == "categories" and isinstance(theirs, tuple):
            continue
        if theirs not in kinds:
            near = difflib.get_close_matches(theirs, kinds, cutoff=0.4)
            raise InputError(
                f"{info.name} has no column {theirs!r} (our {ours}); it has {', '.join(kinds)}"
                f"{'; did you mean ' + ' or '.join(map(repr, near)) + '?' if near else ''}; map it in "
                "config.data.kwargs.columns"
            )
        kind = kinds[theirs]
        picture = type(kind).__name__ == "Image"
        if picture != (ours == "image") or (picture and np.dtype(kind.np_dtype) != np.uint8):
            what = f"{type(kind).__name__}{f' of {np.dtype(kind.np_dtype)}' if picture else ''}"
            raise InputError(
                f"column {theirs!r} of {info.name} (our {ours}) is {what}, "
                f"{'not a picture of 8 bits' if ours == 'image' else 'not text or a number'}; map another "
                "in config.data.kwargs.columns"
            )
        if not picture and (getattr(kind, "shape", None) != () or hasattr(kind, "feature")):
            raise InputError(
                f"column {theirs!r} of {info.name} (our {ours}) holds several values a record, not one "
                "text or number; map another in config.data.kwargs.columns"
            )
    return columns, further, kinds


def _flat(features: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, feature in features.items():
        if hasattr(feature, "items"):
            yield from _flat(feature, f"{prefix}{name}/")
        else:
            yield prefix + name, feature


def _read(
    folder: pathlib.Path,
    ours: str,
    theirs: str,
    rows: np.ndarray,
    image: str,
    labels: dict[str, str],
    kinds: dict[str, Any],
    check_images: bool | str,
    max_pixels: int,
) -> row_checks.Rows:
    """Reads the labels of every record and checks its picture; "decode" decodes it whole, False does not check."""
    import polars as pl

    from retrieval_jax.data.tables import row_checks

    opened = records.open_records(str(folder), theirs)
    names = {column: kinds[column].names for column in labels.values() if getattr(kinds[column], "names", None)}
    values, marks = {column: [] for column in labels}, []
    for at, row in enumerate(tqdm.tqdm(rows.tolist(), desc=f"data: {ours} records", unit="record", mininterval=1)):
        try:
            fields = records.parse(opened[row])
        except Exception as error:  # a damaged file can raise anything
            errors.raise_shortage(error, f"record {row} of {folder}")
            detail = f"it cannot be read ({first_line(error)}); prepare the dataset again"
            marks.append((at, "damaged record", detail))
            fields = {}
        for column, theirs_column in labels.items():
            text, problem = _text(fields, theirs_column, names.get(theirs_column))
            values[column].append(text)
            if problem:
                marks.append((at, *problem))
        if check_images and fields:
            data = fields[image].bytes_list.value if image in fields else ()
            problem = BadImage("not an image file", "the record has none")
            if len(data) == 1:
                try:
                    problem = _look(data[0], max_pixels, whole=check_images == "decode")
                except (MemoryError, OSError) as error:
                    errors.raise_shortage(error, f"record {row} of {folder}")
                    raise
            if problem:
                marks.append((at, problem.reason, problem.sentence(f"its column {image!r}")))
    if "id" not in labels:
        width = len(str(max(1, len(opened) - 1)))
        values["id"] = [f"{theirs}-{row:0{width}d}" for row in rows.tolist()]
    frame = pl.DataFrame({column: pl.Series(column, texts, dtype=pl.String) for column, texts in values.items()})
    file = f"{folder.parent.name}/{folder.name}, split {theirs}"
    found = row_checks.Rows(ours, frame, [file], np.zeros(len(rows), np.int32), rows)
    for at, reason, detail in marks:
        found.mark(at, reason, detail)
    return found


def _text(fields: Any, column: str, names: list[str] | None) -> tuple[str, tuple[str, str] | None]:
    """Returns a record's value as text, "" where it has none, and (reason, detail) of what is wrong with it."""
    if column not in fields:
        return "", None
    kind = fields[column].WhichOneof("kind")
    values = getattr(fields[column], kind).value if kind else ()
    if not len(values):
        return "", None
    value = values[0]
    if isinstance(value, bytes):
        try:
            return value.decode(), None
        except UnicodeDecodeError:
            clean = value.decode("utf-8", "replace")
            return clean, ("not UTF-8 text", f"{column} is not UTF-8 text ({clean!r}); prepare it from UTF-8")
    if isinstance(value, int):
        if names and value >= len(names):
            return str(value), ("unknown class", f"{column} is class {value}, but only {len(names)} exist; correct it")
        return ("" if names and value < 0 else names[value] if names else str(value)), None
    return (str(int(value)) if value.is_integer() else str(value)), None


def _look(data: bytes, max_pixels: int, whole: bool) -> BadImage | None:
    """Returns what is wrong with an encoded picture, or None; decodes it if `whole`, or if its first and last bytes are
    not conclusive."""
    try:
        plain, size = headers.peek(data)
        if size is not None:
            decoding.check_size(size, max_pixels)
        if whole or size is None or not headers.ends_well(data[:8], data[-12:]):
            decoding.decode(data, max_pixels)
    except BadImage as error:
        return error
    return None
