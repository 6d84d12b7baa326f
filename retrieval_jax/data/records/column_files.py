"""Columns of listings and tables in files: Parquet for everyone, and arrays for a training, which needs no polars."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from retrieval_jax.data.catalog import Column
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.files.arrays import load_npz

if TYPE_CHECKING:
    import polars as pl

_NUMBERS = ("int32", "int64", "float32")


class _Column(TypedDict):
    """A column in the list "columns" of a file of arrays."""

    name: str
    kind: Literal["text", "ragged", "array", "matrix"]


def save(stem: pathlib.Path, columns: Mapping[str, Column]) -> None:
    """Writes columns of equal length as <stem>.parquet, and again as <stem>.npz, which `load` prefers.

    Args:
      stem: path of the files without their extensions.
      columns: n entries each; numbers are int32, int64 or float32.
    """
    atomic.write(stem.with_name(f"{stem.name}.parquet"), frame(columns).write_parquet)
    about, arrays = [], {}
    for place, (name, column) in enumerate(columns.items()):
        if isinstance(column, Ragged):
            about.append({"name": name, "kind": "ragged"})
            arrays |= {f"{place}_indptr": column.indptr, f"{place}_values": column.values}
        elif isinstance(column, np.ndarray):
            about.append({"name": name, "kind": "array" if column.ndim == 1 else "matrix"})
            arrays[f"{place}_values"] = column
        else:
            about.append({"name": name, "kind": "text"})
            texts = [text.encode() for text in column]
            arrays[f"{place}_indptr"] = np.cumsum([0, *map(len, texts)]).astype(np.int64)
            arrays[f"{place}_values"] = np.frombuffer(b"".join(texts), np.uint8)
    arrays["columns"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    atomic.write_npz(stem.with_name(f"{stem.name}.npz"), **arrays)


def load(stem: pathlib.Path, remedy: str) -> dict[str, Column]:
    """Reads columns that `save` wrote; catalogues of earlier versions have Parquet alone.

    Args:
      stem: path of the files without their extensions.
      remedy: what the user can do about a file that cannot be used.

    Raises:
      InputError: the file is missing or damaged.
    """
    file = stem.with_name(f"{stem.name}.npz")
    if not file.is_file():
        from retrieval_jax.data import parquet

        return columns(parquet.read(stem.with_name(f"{stem.name}.parquet")))
    about = load_npz(file, {"columns": (("uint8",), 1)}, remedy=remedy)["columns"]
    about = documents.parse(about.tobytes(), list[_Column], name=str(file), remedy=remedy)
    found, rows = {}, set()
    for place, column in enumerate(about):
        kind = column["kind"]
        wanted = {f"{place}_values": (("uint8",) if kind == "text" else _NUMBERS, 2 if kind == "matrix" else 1)}
        wanted |= {f"{place}_indptr": (("int64",), 1)} if kind in ("text", "ragged") else {}
        arrays = load_npz(file, wanted, remedy=remedy)
        value = arrays[f"{place}_values"]
        if kind in ("text", "ragged"):
            value = Ragged(arrays[f"{place}_indptr"], value)
            value = _texts(value, file, remedy) if kind == "text" else value
        found[column["name"]] = value
        rows.add(len(value))
    if len(rows) > 1 or len(found) < len(about):
        raise InputError(f"{file} has columns of different lengths or the same name: {remedy}")
    return found


def _texts(value: Ragged, file: pathlib.Path, remedy: str) -> list[str]:
    try:
        return [value[row].tobytes().decode() for row in range(len(value))]
    except UnicodeDecodeError as error:
        raise InputError(f"{file} has texts that are not UTF-8: {remedy}") from error


def frame(columns: Mapping[str, Column]) -> pl.DataFrame:
    """Returns columns as a data frame: texts as strings, `Ragged` as lists, [n, k] as arrays.

    Args:
      columns: n entries each; numbers are int32, int64 or float32.
    """
    import polars as pl

    types, out = {"int32": pl.Int32, "int64": pl.Int64, "float32": pl.Float32}, {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            kind = types[column.values.dtype.name]
            out[name] = pl.Series([column[row].tolist() for row in range(len(column))], dtype=pl.List(kind))
        elif isinstance(column, np.ndarray):
            kind = types[column.dtype.name]
            out[name] = pl.Series(column, dtype=kind if column.ndim == 1 else pl.Array(kind, column.shape[1]))
        else:
            out[name] = pl.Series(column, dtype=pl.String)
    return pl.DataFrame(out)


def columns(found: pl.DataFrame) -> dict[str, Column]:
    """Returns the columns of a data frame that `frame` made; see there."""
    import polars as pl

    out: dict[str, Column] = {}
    for column in found:
        if column.dtype == pl.String:
            out[column.name] = column.to_list()
        elif isinstance(column.dtype, pl.List):
            indptr = np.concatenate([[0], np.cumsum(column.list.len().to_numpy())])
            out[column.name] = Ragged(indptr, column.explode().drop_nulls().to_numpy(writable=True))
        else:
            out[column.name] = column.to_numpy(writable=True)
    return out
