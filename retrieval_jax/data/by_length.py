"""Sorts rows of text by length before a prediction, so that a batch is as wide as its texts need, and undoes it."""

import dataclasses

import numpy as np

from retrieval_jax.data.examples import WIDTHS, Ragged


def ordered(columns, rows, whole):
    """Orders rows of text by length.

    Args:
      columns: {name: column}; texts alone are sorted, because where there are pictures those take the time.
      rows: int [n], or None for all.
      whole: whether this process reads whole batches: widths must be the same for all processes.

    Returns:
      (columns, rows, order int [n], the places of the new rows among those before); order is None where nothing is
      sorted.
    """
    if not whole or not all(isinstance(column, Ragged) for column in columns.values()):
        return columns, rows, None
    rows = np.arange(len(next(iter(columns.values())))) if rows is None else np.asarray(rows, np.int64)
    lengths = np.max([np.diff(column.indptr)[rows] for column in columns.values()], axis=0)
    order = np.argsort(lengths, kind="stable")
    columns = {name: dataclasses.replace(column, widths=WIDTHS) for name, column in columns.items()}
    return columns, rows[order], order


def undone(value, order):
    """Returns rows [n, ...] in the order that they had before they were sorted.

    Args:
      value: of the sorted rows, [n, ...].
      order: int [n], of `ordered`.
    """
    out = np.empty_like(value)
    out[order] = value
    return out
