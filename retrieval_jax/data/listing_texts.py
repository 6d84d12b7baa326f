"""The text of listings, as networks of text and lexical search read it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_jax.data.catalog import Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError


def of(
    split: Split, columns: Sequence[str] = ("title",), setting: str = "config.train.task_kwargs.text_columns"
) -> list[str]:
    """Returns the text of listings: their titles, text columns, and the names of attributes and categories, joined.

    Args:
      split: the listings.
      columns: "title", names of text columns and attributes, and of category levels.
      setting: that names the columns, for messages.

    Returns:
      n texts, "" for a listing of which nothing is known.

    Raises:
      InputError: the split has no such column, or one that holds numbers.
    """
    parts = [_texts(split, name, setting) for name in columns]
    return [" ".join(filter(None, texts)) for texts in zip(*parts, strict=True)] if parts else [""] * len(split)


def _texts(split: Split, name: str, setting: str) -> list[str]:
    if name in split.category_levels and split.categories is not None:
        level = split.category_levels.index(name)
        names = [*split.category_names[level], ""]  # -1, unknown, is the last
        return [names[row] for row in split.categories[:, level]]
    column = split.column(name)
    if name not in split.column_names:
        if isinstance(column, Ragged) or (isinstance(column, np.ndarray) and column.dtype.kind in "biuf"):
            raise InputError(
                f"{setting}: {name!r} of the {split.name} split holds numbers: name text columns, 'title', attributes "
                "or category levels"
            )
        return [text or "" for text in column]
    names = [*split.column_names[name], ""]
    if isinstance(column, Ragged):
        return [" ".join(names[row] for row in column[number] if row >= 0) for number in range(len(column))]
    return [names[row] for row in column]
