"""Searching by vectors and conditions: in tiers, so that what a shop prefers comes first and k results come back."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from pyroaring import BitMap

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact
from retrieval_jax.index.attribute import conditions as condition_lib
from retrieval_jax.index.attribute import inner as inner_lib
from retrieval_jax.index.attribute.conditions import Clause, Conditions
from retrieval_jax.index.attribute.scan import FEW, Scan
from retrieval_jax.index.attribute.table import Table, to_rows
from retrieval_jax.scoring.ranking import Ranking

QUERIES = 256  # queries searched at once


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a search found, and how it came about.

    Attributes:
      ranking: rows and cosines per query. Results that meet more of the preferred clauses come first, then those of
        higher cosine, ties by id.
      conditions: those of each query, Q.
      relaxed: [Q, k] int64, how many preferred clauses, counted from the last, were relaxed to find each result; -1
        for padding.
      matches: [Q] int64, rows that meet the required and excluded clauses, the query's own left out.
      preferred: [Q] int64, how many of these meet all preferred clauses as well.
      exactly: [Q] bool, whether an inner index found too few and the query was searched exactly instead.
      generation: of the files of a `Store`, whose rows are numbered anew by each compaction; None for an `Index`.
    """

    ranking: Ranking
    conditions: list[Conditions]
    relaxed: np.ndarray
    matches: np.ndarray
    preferred: np.ndarray
    exactly: np.ndarray
    generation: int | None = None

    __repr__ = brief.line

    def relaxed_clauses(self, query: int) -> tuple[Clause, ...]:
        """Returns the preferred clauses that were relaxed for a query, in the order in which they were: last first."""
        clauses = self.conditions[query].preferred[::-1]
        return clauses[: int(self.relaxed[query].max(initial=0))]

    def note(self, query: int) -> str:
        """Returns a sentence on what a query did not get as it asked; "" where it did."""
        k, matches = self.ranking.k, int(self.matches[query])
        parts = []
        if relaxed := self.relaxed_clauses(query):
            named = ", ".join(f"'{clause}'" for clause in relaxed)
            count = _listings(int(self.preferred[query]))
            parts.append(f"all preferred conditions are met by {count}, so these were relaxed, in this order: {named}")
        if matches < k:
            parts.append(f"what is required is met by {_listings(matches)}, fewer than the {k} asked for")
        return "; ".join(parts)

    def to_json(self, query: int) -> dict:
        """Returns what is known about a query's results as JSON-able values."""
        return {
            "conditions": self.conditions[query].to_json(),
            "matches": int(self.matches[query]),
            "all_preferred": int(self.preferred[query]),
            "relaxed": [clause.to_json() for clause in self.relaxed_clauses(query)],
            "note": self.note(query),
        }


def _listings(count: int) -> str:
    return f"{count:,} listing{'' if count == 1 else 's'}" if count else "no listing"


def per_query(
    given: Conditions | Mapping | str | Sequence | None, queries: int, table: Table, where: str = "conditions"
) -> list[Conditions]:
    """Returns the conditions of every query, parsed and checked.

    Args:
      given: one for all queries, or a list of one per query; see `conditions.parse`.
      queries: number of queries.
      table: what they are about.
      where: names them in messages.

    Raises:
      InputError: see `conditions.parse` and `Table.check`; or not one per query.
    """
    if given is None or isinstance(given, (Conditions, Mapping, str, bytes)) or hasattr(given, "items"):
        out = [condition_lib.parse(given, where)] * queries
    else:
        several = arguments.sequence(given, where, "attribute search")
        if len(several) != queries:
            raise InputError(f"{len(several)} conditions for {queries} queries: give one for all, or one per query")
        out = [condition_lib.parse(one, f"{where}[{number}]") for number, one in enumerate(several)]
    for one in dict.fromkeys(out):
        table.check(one, where)
    return out


def find(
    table: Table,
    scan: Scan,
    inner: inner_lib.Search | None,
    ids: Ids | None,
    vectors: np.ndarray,
    k: int,
    given: list[Conditions],
    own: np.ndarray,
) -> Found:
    """Searches among the rows that meet the conditions of each query.

    Args:
      table: attributes of the rows.
      scan: exact search among some of them.
      inner: search of another index for many rows, or None to search exactly.
      ids: of the queries, or None.
      vectors: [Q, D] queries.
      k: results per query.
      given: checked conditions per query.
      own: (query, row) pairs to leave out, ascending.
    """
    count = len(vectors)
    rows, scores = np.full((count, k), -1, np.int64), np.full((count, k), -np.inf, np.float32)
    relaxed, exactly = np.full((count, k), -1, np.int64), np.zeros(count, bool)
    matches, preferred = np.zeros((2, count), np.int64)
    groups: dict[Conditions, list[int]] = {}
    for query, one in enumerate(given):
        groups.setdefault(one, []).append(query)
    for one, queries in groups.items():
        asked = np.array(queries)
        tiers = _tiers(table, one)
        total = np.zeros(len(asked), np.int64)
        filled = np.zeros(len(asked), np.int64)
        for level, tier in enumerate(tiers):
            here = own[np.isin(own[:, 0], asked)]
            mine = here[[int(row) in tier for row in here[:, 1]]] if len(here) else here
            size = len(tier) - np.bincount(np.searchsorted(asked, mine[:, 0]), minlength=len(asked))
            total += size
            if not level:
                preferred[asked] = size
            short = np.flatnonzero((filled < k) & (size > 0))
            selected = to_rows(tier) if len(short) else None
            mask = np.zeros(table.rows, bool) if inner is not None and len(short) and len(selected) > FEW else None
            if mask is not None:
                mask[selected] = True
            for start in range(0, len(short), QUERIES):
                some = short[start : start + QUERIES]
                query = asked[some]
                block = np.asarray(vectors[query], np.float32)
                lengths = exact.lengths_of(block, ids, "query", query)
                there = mine[np.isin(mine[:, 0], query)]
                there = np.stack([np.searchsorted(query, there[:, 0]), there[:, 1]], 1)
                if mask is None:
                    found = scan.search(block, lengths, k, selected, there)
                else:
                    extra = int(np.bincount(there[:, 0]).max(initial=0)) if len(there) else 0
                    asks = dataclasses.replace(one, preferred=one.preferred[: len(one.preferred) - level])
                    extra += int(filled[some].max())  # found in earlier tiers, and so masked out of this one
                    found = inner_lib.kept(inner(block, k + extra, asks, mask), mask, there, k)
                    few = (found[0] >= 0).sum(1) < np.minimum(k, size[some])
                    if few.any():  # the inner index is approximate
                        number = np.flatnonzero(few)
                        its = there[few[there[:, 0]]]
                        its = np.stack([np.searchsorted(number, its[:, 0]), its[:, 1]], 1)
                        again = scan.search(block[few], lengths[few], k, selected, its)
                        found[0][few], found[1][few], exactly[query[few]] = *again, True
                free = np.arange(k)[None] - filled[some][:, None]  # the slot of its own result that goes to each slot
                fits = (free >= 0) & (np.take_along_axis(found[0], np.maximum(free, 0), 1) >= 0)
                number, slot = np.nonzero(fits)
                place = free[number, slot]
                rows[query[number], slot] = found[0][number, place]
                scores[query[number], slot] = found[1][number, place]
                relaxed[query[number], slot] = level
                filled[some] += np.bincount(number, minlength=len(some))
        matches[asked] = total
    return Found(
        Ranking(ids if ids is not None else [str(query) for query in range(count)], rows, scores,
                scan.engine.ids.sha256() if scan.engine.ids is not None else ""),
        given, relaxed, matches, preferred, exactly,
    )  # fmt: skip


def _tiers(table: Table, given: Conditions) -> list[BitMap]:
    """Returns disjoint sets of rows: those that meet all clauses, then those that the relaxing of each one adds."""
    tiers, before = [], BitMap()
    levels = [table.matching(given, 0)]
    for clause in given.preferred:
        levels.append(levels[-1] & table.of_clause(clause))
    for found in reversed(levels):
        tiers.append(found - before)
        before = found
    return tiers


def warn(found: Found, ids: Sequence[str] | None) -> None:
    """Warns, once, of queries whose conditions were relaxed or whose results are fewer than asked for."""
    notes = [(query, note) for query in range(len(found.ranking)) if (note := found.note(query))]
    if notes:
        query, note = notes[0]
        name = f" ({ids[query]})" if ids is not None else ""
        warnings.warn(
            f"conditions of {len(notes):,} of {len(found.ranking):,} queries could not be met as asked, first query "
            f"{query}{name}: {note}",
            stacklevel=3,
        )
