"""Word counts of titles as tables that can be summed, so chunks, processes and clusters give the same result."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypedDict

import numpy as np
import polars as pl
import tqdm

from retrieval_jax import brief
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents, versions

CHUNK = 16_384  # titles tokenized at once: fits the CPU's caches, a third faster than 65,536
CHARACTERS = 16_000_000  # most text per chunk, unless a single title is longer
WORKERS = min(4, os.cpu_count() or 1)  # chunks counted at once
TABLES = ("tokens", "pairs", "by_category", "categories")

NAMES_FILE = "statistics.json"

_TOKENS = {"token": pl.String, "occurrences": pl.Int64, "titles": pl.Int64}
_PAIRS = {"first": pl.String, "second": pl.String, "occurrences": pl.Int64, "titles": pl.Int64}
_BY_CATEGORY = {"token": pl.String, "category": pl.Int64, "titles": pl.Int64}
_CATEGORIES = {"category": pl.Int64, "titles": pl.Int64}
_SCHEMAS = dict(zip(TABLES, (_TOKENS, _PAIRS, _BY_CATEGORY, _CATEGORIES), strict=True))


class _Names(TypedDict):
    """statistics.json."""

    rule: str
    num_titles: documents.Count
    tables: list[Literal["tokens", "pairs", "by_category", "categories"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Counts of tokens in titles, without stop words and left-over signs (`titles.DROPPED`).

    Attributes:
      num_titles: titles counted, including those without tokens.
      tokens: frame (token, occurrences, titles) sorted by token: how often it was seen, and in how many titles.
      pairs: frame (first, second, occurrences, titles) of adjacent tokens, sorted by both; None if not requested.
      by_category: frame (token, category int64, titles) sorted by both; None if not requested.
      categories: frame (category int64, titles), sorted; None if by_category is.
    """

    num_titles: int
    tokens: pl.DataFrame
    pairs: pl.DataFrame | None = None
    by_category: pl.DataFrame | None = None
    categories: pl.DataFrame | None = None

    __repr__ = brief.line


def count(
    columns: Sequence[Iterable[str]],
    *,
    categories: Sequence[Iterable[int]] | None = None,
    pairs: bool = False,
    tokenize: Callable[[Sequence[str]], pl.DataFrame] = title_rule.tokenize_many,
    progress: bool = True,
) -> Statistics:
    """Counts the tokens of titles, one chunk at a time; the tables do not depend on the chunk size.

    Args:
      columns: columns of titles, such as those of train and val; each is iterated over once.
      categories: category ids for each column, as many as titles, -1 if unknown; None makes no tables of categories.
      pairs: also count adjacent tokens.
      tokenize: turns n titles into the frame (title, token) of `titles.tokenize_many`.
      progress: show a progress bar.

    Returns:
      The `Statistics`.

    Raises:
      InputError: titles and categories have different numbers of columns, or of rows in a column.
    """
    parts, pending = [_count_chunk([], [] if categories is not None else None, pairs, tokenize)], 0
    given = categories if categories is not None else [None] * len(columns)
    if len(columns) != len(given):
        raise InputError(f"{len(columns)} columns of titles, but {len(given)} of categories; give one per column")
    chunks = itertools.chain.from_iterable(map(_chunks, columns, given, itertools.repeat(progress)))
    for part in _in_order(lambda chunk: _count_chunk(*chunk, pairs, tokenize), chunks):
        parts.append(part)
        pending += _rows(part)
        if pending > max(1_000_000, _rows(parts[0])):  # so that a row is summed a few times at most
            parts, pending = [_total(parts)], 0
    return total(parts)


def total(parts: Sequence[Statistics]) -> Statistics:
    """Adds up statistics of different titles; all parts must have the same tables.

    Args:
      parts: one or more.

    Returns:
      The `Statistics` of all titles; the order of the parts does not matter.
    """
    found = _total(parts)
    tables = {name: getattr(found, name) for name in TABLES}
    return Statistics(
        found.num_titles,
        **{name: None if table is None else table.sort(_keys(table)) for name, table in tables.items()},
    )


def from_rows(num_titles: int, **tables: Sequence[Sequence]) -> Statistics:
    """Builds statistics from plain rows in any order.

    Args:
      num_titles: titles counted.
      **tables: rows of the tables of `Statistics`, by name; `tokens` is required.

    Returns:
      The `Statistics`.
    """
    return total(
        [
            Statistics(
                num_titles,
                **{name: pl.DataFrame(rows, schema=_SCHEMAS[name], orient="row") for name, rows in tables.items()},
            )
        ]
    )


def save(folder: str | pathlib.Path, found: Statistics, rule: str = title_rule.RULES[title_rule.DEFAULT]) -> None:
    """Writes statistics as one Parquet file per table, described by statistics.json; other files there stay.

    Args:
      folder: created if missing.
      found: the `Statistics`.
      rule: rules that titles were counted by, `words.Rules.counted_by`.
    """
    there = {name: getattr(found, name) for name in TABLES if getattr(found, name) is not None}
    content = {"rule": rule, "num_titles": found.num_titles, "tables": list(there)}

    def fill(new: pathlib.Path) -> None:
        for name, table in there.items():
            atomic.write(new / f"{name}.parquet", table.rechunk().write_parquet)
        atomic.write_text(new / NAMES_FILE, json.dumps(content, indent=1) + "\n")

    versions.replace(folder, NAMES_FILE, fill, whole=False)


def load(folder: str | pathlib.Path, rule: str = title_rule.RULES[title_rule.DEFAULT]) -> Statistics:
    """Reads statistics written by `save` or the Beam pipeline.

    Args:
      folder: folder of the tables.
      rule: rules they must have been counted by, `words.Rules.counted_by`.

    Raises:
      InputError: the statistics are missing, unreadable or counted by other rules.
    """
    return versions.read(folder, NAMES_FILE, lambda place: _load(place, rule))


def _load(folder: pathlib.Path, rule: str) -> Statistics:
    try:
        content = documents.read(folder / NAMES_FILE, _Names, remedy="count the titles again")
        counted_by, num_titles = content["rule"], content["num_titles"]
        tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in TABLES if name in content["tables"]}
    except FileNotFoundError:
        raise InputError(f"{folder}: one of its tables is missing; count the titles again") from None
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"{folder}: unreadable statistics ({error}); count the titles again") from None
    if counted_by != rule:
        raise InputError(
            f"{folder}: counted by the title rule {counted_by!r}, but config.mine.rule, normalise and "
            f"segment make {rule!r}; set these as they were, or count the titles again"
        )
    if "tokens" not in tables or any(dict(table.schema) != _SCHEMAS[name] for name, table in tables.items()):
        raise InputError(f"{folder}: a table is absent or has unexpected columns; count the titles again")
    if any(table[column].has_nulls() for table in tables.values() for column in table.columns):
        raise InputError(f"{folder}: a table has rows without a value; count the titles again")
    return Statistics(num_titles, **tables)


def encode(
    titles: Iterable[str],
    tokens: Sequence[str],
    tokenize: Callable[[Sequence[str]], pl.DataFrame] = title_rule.tokenize_many,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the given tokens in titles.

    Args:
      titles: n texts, iterated over once.
      tokens: V distinct tokens; the id of a token is its index.
      tokenize, progress: as for `count`.

    Returns:
      Sparse rows (indptr int64 [n + 1], ids int32): title i has `ids[indptr[i]:indptr[i + 1]]`, distinct, ascending.
    """
    known = pl.Enum(pl.Series(tokens, dtype=pl.String))
    lengths, ids = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
    for found, many in _in_order(
        lambda chunk: _encode_chunk(chunk[0], known, tokenize), _chunks(titles, None, progress)
    ):
        lengths.append(many)
        ids.append(found)
    return np.cumsum(np.concatenate(lengths)), np.concatenate(ids)


def _encode_chunk(chunk: Sequence[str], known: pl.Enum, tokenize: Callable) -> tuple[np.ndarray, np.ndarray]:
    rows = tokenize(chunk)
    place = rows["token"].cast(known, strict=False).to_physical()
    keys = _distinct(rows["title"].to_numpy()[place.is_not_null().to_numpy()], place.drop_nulls().to_numpy())
    return (keys & 0xFFFFFFFF).astype(np.int32), np.bincount(keys >> 32, minlength=len(chunk))


def _count_chunk(chunk: Sequence[str], categories: Sequence[int] | None, pairs: bool, tokenize: Callable) -> Statistics:
    rows = tokenize(chunk)
    title = rows["title"].to_numpy().astype(np.int64)
    # Integers from here on: a token is its index among the chunk's tokens, and one row of each says how it is spelt.
    code = rows["token"].cast(pl.Categorical).to_physical().to_numpy()
    spelt = np.full(int(code.max()) + 1 if len(code) else 0, -1)
    spelt[code] = np.arange(len(code))
    token = (np.cumsum(spelt >= 0) - 1)[code]
    tokens = rows["token"].gather(spelt[spelt >= 0])
    kept = ~tokens.is_in(sorted(title_rule.DROPPED)).to_numpy()
    occurrences = np.bincount(token, minlength=len(tokens))
    keys = _distinct(title, token)
    titles = np.bincount(keys & 0xFFFFFFFF, minlength=len(tokens))
    made = {
        "tokens": pl.DataFrame(
            {"token": tokens, "occurrences": occurrences, "titles": titles}, schema_overrides=_TOKENS
        ).filter(kept)
    }
    if pairs:
        both = (title[1:] == title[:-1]) & kept[token[1:]] & kept[token[:-1]]
        pair, place, occurrences = np.unique(
            token[:-1][both] << 32 | token[1:][both], return_inverse=True, return_counts=True
        )
        titles = np.bincount(_distinct(title[1:][both], place) & 0xFFFFFFFF, minlength=len(pair))
        made["pairs"] = pl.DataFrame(
            {
                "first": tokens[pair >> 32],
                "second": tokens[pair & 0xFFFFFFFF],
                "occurrences": occurrences,
                "titles": titles,
            },
            schema_overrides=_PAIRS,
        )
    if categories is not None:
        category = np.asarray(categories, np.int64).reshape(len(chunk))
        known, titles = np.unique(category[category >= 0], return_counts=True)
        made["categories"] = pl.DataFrame({"category": known, "titles": titles}, schema_overrides=_CATEGORIES)
        keys = keys[kept[keys & 0xFFFFFFFF] & (category[keys >> 32] >= 0)]
        there, titles = np.unique(
            (keys & 0xFFFFFFFF) << 32 | np.searchsorted(known, category[keys >> 32]), return_counts=True
        )
        made["by_category"] = pl.DataFrame(
            {"token": tokens[there >> 32], "category": known[there & 0xFFFFFFFF], "titles": titles},
            schema_overrides=_BY_CATEGORY,
        )
    return Statistics(len(chunk), **made)


def _distinct(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Returns the distinct pairs of two columns (below 2^31 and 2^32) as sorted int64, high * 2^32 + low."""
    keys = np.sort(high.astype(np.int64) << 32 | low)
    return keys[np.diff(keys, prepend=-1) != 0]


def _chunks(
    column: Iterable[str], categories: Iterable[int] | None, progress: bool = True
) -> Iterator[tuple[list, list | None]]:
    """Yields chunks of titles, limited in number and in characters, with their categories."""
    size = len(column) if hasattr(column, "__len__") else None
    titles, ids = iter(column), iter(categories) if categories is not None else None
    with tqdm.tqdm(total=size, desc="mine: titles", unit="title", mininterval=1, disable=not progress) as bar:
        while chunk := list(itertools.islice(titles, CHUNK)):
            ends = [len(chunk)]
            if sum(map(len, chunk)) > CHARACTERS:
                piece = np.cumsum([len(title) for title in chunk]) // CHARACTERS
                ends = [*(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(chunk)]
            for start, end in zip([0, *ends[:-1]], ends, strict=True):
                part = None if ids is None else list(itertools.islice(ids, end - start))
                if part is not None and len(part) != end - start:
                    raise InputError("there are fewer categories than titles; give every title one, -1 if unknown")
                yield chunk[start:end], part
            bar.update(len(chunk))
    if ids is not None and next(ids, None) is not None:
        raise InputError("there are more categories than titles; give every title one, -1 if unknown")


def _in_order(function: Callable, values: Iterable) -> Iterator:
    """Yields function(value) for each value, in order, a few threads at once: most of the work releases the GIL."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        waiting = collections.deque()
        for value in values:
            waiting.append(pool.submit(function, value))
            if len(waiting) > WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _keys(table: pl.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in ("occurrences", "titles")]


def _total(parts: Sequence[Statistics]) -> Statistics:
    return Statistics(
        sum(part.num_titles for part in parts),
        **{name: _summed([getattr(part, name) for part in parts]) for name in TABLES},
    )


def _summed(tables: list[pl.DataFrame | None]) -> pl.DataFrame | None:
    if tables[0] is None or len(tables) == 1:
        return tables[0]
    keys = _keys(tables[0])
    return pl.concat(tables).group_by(keys).agg(pl.exclude(keys).sum())


def _rows(part: Statistics) -> int:
    return sum(len(table) for table in (part.tokens, part.pairs, part.by_category) if table is not None)
