"""Reads TREC's judgements (`query 0 listing grade` in every line) as the rows of a ground truth."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax.data.tables import text_rows
from retrieval_jax.data.tables.row_checks import Rows
from retrieval_jax.errors import InputError

SUFFIXES = (".qrels", ".trec", ".txt")


def read(root: Any, path: str, encoding: str) -> Rows:
    """Reads a file of judgements; lines that do not have four fields are marked as bad rows.

    Args:
      root: folder that the path is relative to.
      path: of the file.
      encoding: of its text.

    Returns:
      The `Rows`, with the columns id (of the query), gallery_ids (one id) and grade, as texts.

    Raises:
      InputError: there is no such file, it is not text, or it has no lines.
    """
    full = pathlib.Path(root) / path
    if not full.is_file():
        raise InputError(f"{full}: there is no such file; correct config.data.kwargs.ground_truth or add the file")
    columns: dict[str, list[str]] = {"id": [], "gallery_ids": [], "grade": []}
    numbers, wrong = [], {}
    for number, line in text_rows.lines(full, path, encoding):
        fields = line.split()
        if len(fields) != 4:
            wrong[len(numbers)] = f"the line has {len(fields)} fields, expected four: query 0 listing grade"
            fields = [*fields[:1], "", "", ""] if fields else [""] * 4
        for name, value in zip(columns, (fields[0], fields[2], fields[3]), strict=True):
            columns[name].append(value)
        numbers.append(number)
    if not numbers:
        raise InputError(f"{path}: there are no rows; give at least one or leave the file out")
    frame = pl.DataFrame({name: pl.Series(values, dtype=pl.String) for name, values in columns.items()})
    rows = Rows("ground_truth", frame, [path], np.zeros(len(numbers), np.int32), np.asarray(numbers, np.int64))
    for row, detail in wrong.items():
        rows.mark(row, "wrong number of fields", f"{detail}; correct it")
    return rows
