"""What titles say of words, as tables that can be summed: chunks, processes and clusters of machines make the same."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import polars as pl
import tqdm

from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.errors import InputError

CHUNK = 65_536  # titles that are tokenized at once
CHARACTERS = 16_000_000  # and no more text than this, but for one title alone

_TOKENS = {"token": pl.String, "occurrences": pl.Int64, "titles": pl.Int64}
_PAIRS = {"first": pl.String, "second": pl.String, "occurrences": pl.Int64, "titles": pl.Int64}
_BY_CATEGORY = {"token": pl.String, "category": pl.Int64, "titles": pl.Int64}
_CATEGORIES = {"category": pl.Int64, "titles": pl.Int64}


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Counts of tokens in titles. Stop words and left-over signs (`titles.DROPPED`) are in none of the tables.

    Attributes:
        num_titles: titles that were counted, those without a token included.
        tokens: frame (token, occurrences, titles) sorted by token: how often it was seen, and in how many titles.
        pairs: frame (first, second, occurrences, titles) of tokens next to each other in a title, sorted by both;
            None where it was not asked for.
        by_category: frame (token, category int64, titles) sorted by both; None where it was not asked for.
        categories: frame (category int64, titles) sorted; None where by_category is.
    """

    num_titles: int
    tokens: pl.DataFrame
    pairs: pl.DataFrame | None = None
    by_category: pl.DataFrame | None = None
    categories: pl.DataFrame | None = None


def count(
    columns: Sequence[Iterable[str]],
    *,
    categories: Sequence[Iterable[int]] | None = None,
    pairs: bool = False,
    tokenize: Callable[[Sequence[str]], pl.DataFrame] = title_rule.tokenize_many,
) -> Statistics:
    """Counts the tokens of titles, a chunk of titles at a time; the tables do not depend on the size of a chunk.

    Args:
        columns: columns of titles, such as those of train and val; each is gone through once.
        categories: for every column as many category ids, -1 for an unknown one; None makes no table of them.
        pairs: also count the tokens that stand next to each other.
        tokenize: makes of n titles the frame (title, token) of `titles.tokenize_many`.

    Returns:
        The `Statistics`.

    Raises:
        InputError: a column has more or fewer categories than titles.
    """
    parts, pending = [_count_chunk([], [] if categories is not None else None, pairs, tokenize)], 0
    given = categories if categories is not None else [None] * len(columns)
    for column, column_categories in zip(columns, given, strict=True):
        for chunk, ids in _chunks(column, column_categories):
            parts.append(_count_chunk(chunk, ids, pairs, tokenize))
            pending += _rows(parts[-1])
            if pending > max(1_000_000, _rows(parts[0])):  # every row is summed a few times at most
                parts, pending = [total(parts)], 0
    return total(parts)


def total(parts: Sequence[Statistics]) -> Statistics:
    """Adds up statistics of different titles, which have the same tables.

    Args:
        parts: one or more.

    Returns:
        The `Statistics` of all titles together, whatever the order of the parts.
    """
    tables = ("tokens", "pairs", "by_category", "categories")
    return Statistics(sum(part.num_titles for part in parts),
                      **{name: _summed([getattr(part, name) for part in parts]) for name in tables})


def encode(
    titles: Iterable[str],
    tokens: Sequence[str],
    tokenize: Callable[[Sequence[str]], pl.DataFrame] = title_rule.tokenize_many,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds which of some tokens titles have.

    Args:
        titles: n texts, gone through once.
        tokens: V distinct tokens; the id of one is its place.
        tokenize: as for `count`.

    Returns:
        Sparse rows (indptr int64 [n + 1], ids int32): title i has `ids[indptr[i]:indptr[i + 1]]`, distinct, ascending.
    """
    known = pl.Enum(pl.Series(tokens, dtype=pl.String))
    lengths, ids = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
    for chunk, _ in _chunks(titles, None):
        rows = tokenize(chunk)
        place = rows["token"].cast(known, strict=False).to_physical()
        there = place.is_not_null().to_numpy()
        keys = _distinct(rows["title"].to_numpy()[there], place.drop_nulls().to_numpy())
        lengths.append(np.bincount(keys >> 32, minlength=len(chunk)))
        ids.append((keys & 0xFFFFFFFF).astype(np.int32))
    return np.cumsum(np.concatenate(lengths)), np.concatenate(ids)


def _count_chunk(chunk: Sequence[str], categories: Sequence[int] | None, pairs: bool, tokenize: Callable) -> Statistics:
    rows = tokenize(chunk)
    tokens = rows["token"].unique().sort()
    # From here on whole numbers: a token is its place in the order of all tokens of the chunk.
    title = rows["title"].to_numpy().astype(np.int64)
    token = rows["token"].cast(pl.Enum(tokens)).to_physical().to_numpy().astype(np.int64)
    kept = ~tokens.is_in(sorted(title_rule.DROPPED)).to_numpy()
    occurrences = np.bincount(token, minlength=len(tokens))
    keys = _distinct(title, token)
    titles = np.bincount(keys & 0xFFFFFFFF, minlength=len(tokens))
    made = {"tokens": pl.DataFrame({"token": tokens, "occurrences": occurrences, "titles": titles},
                                   schema_overrides=_TOKENS).filter(kept)}
    if pairs:
        both = (title[1:] == title[:-1]) & kept[token[1:]] & kept[token[:-1]]
        pair, place, occurrences = np.unique(
            token[:-1][both] << 32 | token[1:][both], return_inverse=True, return_counts=True)
        titles = np.bincount(_distinct(title[1:][both], place) & 0xFFFFFFFF, minlength=len(pair))
        made["pairs"] = pl.DataFrame({"first": tokens[pair >> 32], "second": tokens[pair & 0xFFFFFFFF],
                                      "occurrences": occurrences, "titles": titles}, schema_overrides=_PAIRS)
    if categories is not None:
        category = np.asarray(categories, np.int64).reshape(len(chunk))
        known, titles = np.unique(category[category >= 0], return_counts=True)
        made["categories"] = pl.DataFrame({"category": known, "titles": titles}, schema_overrides=_CATEGORIES)
        keys = keys[kept[keys & 0xFFFFFFFF] & (category[keys >> 32] >= 0)]
        # The token's place goes first, so that the table comes out sorted.
        there, titles = np.unique((keys & 0xFFFFFFFF) << 32 | np.searchsorted(known, category[keys >> 32]),
                                  return_counts=True)
        made["by_category"] = pl.DataFrame({"token": tokens[there >> 32], "category": known[there & 0xFFFFFFFF],
                                            "titles": titles}, schema_overrides=_BY_CATEGORY)
    return Statistics(len(chunk), **made)


def _distinct(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Returns the distinct pairs of two columns below 2^31 and 2^32, sorted, as int64 high * 2^32 + low."""
    keys = np.sort(high.astype(np.int64) << 32 | low)
    return keys[np.diff(keys, prepend=-1) != 0]


def _chunks(column: Iterable[str], categories: Iterable[int] | None) -> Iterator[tuple[list, list | None]]:
    """Yields titles, never many nor much text at once, with their categories."""
    size = len(column) if hasattr(column, "__len__") else None
    titles, ids = iter(column), iter(categories) if categories is not None else None
    with tqdm.tqdm(total=size, desc="mine: titles", unit="title", mininterval=1) as bar:
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


def _summed(tables: list[pl.DataFrame | None]) -> pl.DataFrame | None:
    if tables[0] is None or len(tables) == 1:
        return tables[0]
    keys = [name for name in tables[0].columns if name not in ("occurrences", "titles")]
    return pl.concat(tables).group_by(keys).agg(pl.exclude(keys).sum()).sort(keys)


def _rows(part: Statistics) -> int:
    return sum(len(table) for table in (part.tokens, part.pairs, part.by_category) if table is not None)
