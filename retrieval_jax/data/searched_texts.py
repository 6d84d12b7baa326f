"""What a lexical search reads: the text of every listing, and of every typed query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_jax.data.catalog import Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError

QUERY = "query"  # the column of typed queries where nothing else is set


def of(split: Split, names: Sequence[str], setting: str) -> list[str]:
    """Returns one text per listing: its columns, separated by line breaks.

    Args:
      split: the listings.
      names: of text columns, "title" for the titles, or of attributes, whose names are read.
      setting: the setting that names them, for messages.

    Raises:
      InputError: no names, no such column, or one of numbers.
    """
    if not names:
        raise InputError(f"{setting} is empty: name a text column of the {split.name} split, such as 'title'")
    columns = [_texts(split, name, setting) for name in names]
    return ["\n".join(filter(None, texts)) for texts in zip(*columns, strict=True)]


def _texts(split: Split, name: str, setting: str) -> Sequence[str]:
    column = split.column(name)
    values = split.column_names.get(name)
    if values is None and not isinstance(column, np.ndarray | Ragged):
        return column
    if values is None:
        raise InputError(f"{setting} names {name!r}, which holds numbers: name text columns, 'title' or attributes")
    if isinstance(column, Ragged):
        return [" ".join(values[value] for value in column[row]) for row in range(len(column))]
    return [values[value] if value >= 0 else "" for value in np.asarray(column).tolist()]
