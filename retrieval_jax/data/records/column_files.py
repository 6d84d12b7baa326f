"""Columns of listings and tables as data frames, for Parquet files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from retrieval_jax.data.catalog import Column
from retrieval_jax.data.examples import Ragged

_TYPES = {"int32": pl.Int32, "int64": pl.Int64, "float32": pl.Float32}


def frame(columns: Mapping[str, Column]) -> pl.DataFrame:
    """Returns columns as a data frame: texts as strings, `Ragged` as lists, [n, k] as arrays.

    Args:
      columns: n entries each; numbers are int32, int64 or float32.
    """
    out = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            kind = _TYPES[column.values.dtype.name]
            out[name] = pl.Series([column[row].tolist() for row in range(len(column))], dtype=pl.List(kind))
        elif isinstance(column, np.ndarray):
            kind = _TYPES[column.dtype.name]
            out[name] = pl.Series(column, dtype=kind if column.ndim == 1 else pl.Array(kind, column.shape[1]))
        else:
            out[name] = pl.Series(column, dtype=pl.String)
    return pl.DataFrame(out)


def columns(found: pl.DataFrame) -> dict[str, Column]:
    """Returns the columns of a data frame that `frame` made; see there."""
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
