"""Texts of products and queries as token columns, and the towers that read them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from retrieval_jax import pairs
from retrieval_jax.data import text as text_lib
from retrieval_jax.data.catalog import Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.models import text as networks
from retrieval_jax.tasks.parts.columns import columns as listing_columns

# Options of every task that reads texts; retrieval_jax.settings.tasks explains them.
TEXTS = {
    "tokenizer": "",
    "vocabulary": 8000,
    "text_columns": (),
    "query_column": "query",
    "query_length": 16,
    "product_length": 32,
}


def product_texts(split: Split, names: Sequence[str]) -> list[str]:
    """Returns what is known about each listing in words: its title, then the columns of these names.

    Args:
      split: of a catalogue.
      names: columns of text, or attributes, whose values are written by their names.

    Raises:
      InputError: there is no such column, or neither titles nor columns.
    """
    found = [] if split.titles is None else [list(split.titles)]
    for name in names:
        column = split.column(name)
        if name in split.column_names:
            values = split.column_names[name]
            rows = column if isinstance(column, Ragged) else [[value] for value in np.asarray(column).tolist()]
            found.append([" ".join(values[int(value)] for value in row if value >= 0) for row in rows])
        elif isinstance(column, np.ndarray | Ragged):
            raise InputError(f"the column {name!r} of the {split.name} split holds numbers, not text: leave it out")
        else:
            found.append([str(one) for one in column])
    if not found:
        raise InputError(
            f"the {split.name} split has no titles, so its products have no text: name a text column or attributes in "
            "config.train.task_kwargs.text_columns"
        )
    return [" ".join(filter(None, parts)) for parts in zip(*found, strict=True)]


def columns(config, options, split, workdir, names: Sequence[str] = ("query", "product")) -> dict[str, Callable]:
    """Returns what predict functions may read of a split: those of `parts.columns`, and token columns.

    Args:
      config: the whole config of the run.
      options: of the task, with TEXTS.
      split: of a catalogue.
      workdir: the work directory of the run, with its tokenizer; None gives no token columns.
      names: of the token columns of queries and of products. With equal names it is the query's text where the split
        has one.
    """
    found = listing_columns(config, split, workdir)
    if workdir is None:
        return found
    loaded = []

    def tokens(texts, length):
        if not loaded:
            loaded.append(text_lib.load(pathlib.Path(workdir) / text_lib.FOLDER))
        return loaded[0].encode(texts(), length)

    query, product = names
    if split.titles is not None or options["text_columns"]:
        found[product] = lambda: tokens(
            lambda: product_texts(split, options["text_columns"]), options["product_length"]
        )
    if options["query_column"] in split.columns:
        found[query] = lambda: tokens(lambda: split.column(options["query_column"]), options["query_length"])
    return found


def tower(config, vocabulary: int, dim: int):
    """Builds the network of texts that a config names.

    Args:
      config: the train block: model.name, model.kwargs and dtype.
      vocabulary: number of tokens.
      dim: of the embedding; 0 for the network's own.

    Returns:
      A linen module, (tokens, mask) -> {"embedding": [B, dim], "states": [B, L, H]}.

    Raises:
      InputError: an unknown network or argument.
    """
    module = networks.get(config.model.name).Model
    known = {field.name for field in dataclasses.fields(module)} - {"parent", "name", "vocabulary", "dim", "dtype"}
    pairs.check_arguments(
        config.model.name, config.model.kwargs, sorted(known), "config.train.model.kwargs", "network of text"
    )
    return module(vocabulary=vocabulary, dim=dim, dtype=jnp.dtype(config.dtype), **config.model.kwargs)
