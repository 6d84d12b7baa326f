"""Typed queries and products as token columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from retrieval_jax import terms
from retrieval_jax.data import listing_texts
from retrieval_jax.tasks.parts.columns import columns as listing_columns
from retrieval_jax.tasks.parts.text import TEXT, tokenizer

# Options of every task with typed queries; retrieval_jax.settings.tasks explains them.
QUERIES = {**TEXT, "query_column": "query", "query_length": 16}


def columns(config, options, split, workdir, names: Sequence[str] = ("query", "product")) -> dict[str, Callable]:
    """Returns what predict functions may read of a split: those of `parts.columns`, and token columns.

    Args:
      config: the whole config of the run.
      options: of the task, with QUERIES.
      split: of a catalogue.
      workdir: the work directory of the run, with its tokenizer; None gives no token columns.
      names: of the token columns of queries and of products. With equal names it is the query's text where the split
        has one. Terms of queries that exclude (-striped) are conditions, and are left out (`terms.spoken`).
    """
    found = listing_columns(config, split, workdir)
    if workdir is None:
        return found
    query, product = names
    there = {*split.columns, *(() if split.titles is None else ("title",))}
    there |= {*(split.category_levels if split.categories is not None else ())}

    def products():
        texts = listing_texts.of(split, options["text_columns"])
        return tokenizer(config, None, workdir).encode(texts, options["length"])

    def queries():
        texts = [terms.spoken(text) for text in split.columns[options["query_column"]]]
        return tokenizer(config, None, workdir).encode(texts, options["query_length"])

    if set(options["text_columns"]) <= there:
        found[product] = products
    if options["query_column"] in split.columns:
        found[query] = queries
    return found
