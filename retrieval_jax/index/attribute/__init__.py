"""Attribute index: exact conditions on attributes and numbers beside the vectors, facets, and reasons for each result.

`Index(gallery, fields=...)` searches an existing gallery, with exact search or another index inside. `create` and
`open` manage an index on disk, which listings can be added to and deleted from. docs/attributes_search.md has examples.

What holds for every search: all results meet what is required and nothing that is excluded; with the exact engine they
are those of exact search over the matching rows alone; and there are k results if k listings match, whatever is inside.

Source: the inverted index of Kim et al., "Visual Fashion-Product Search at SK Planet", arXiv 1609.07859.
"""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import atomic
from retrieval_jax.index import exact
from retrieval_jax.index.attribute import candidates, facets, finding, storage
from retrieval_jax.index.attribute import inner as inner_lib
from retrieval_jax.index.attribute.conditions import Clause, Conditions, both, from_words, of_query, parse
from retrieval_jax.index.attribute.encoding import build
from retrieval_jax.index.attribute.explain import Explanation, Reason, explain, reasons
from retrieval_jax.index.attribute.fields import Field
from retrieval_jax.index.attribute.finding import Found
from retrieval_jax.index.attribute.scan import Scan
from retrieval_jax.index.attribute.store import Store, create, open
from retrieval_jax.index.attribute.table import Table
from retrieval_jax.scoring.ranking import Ranking

__all__ = [
    "Clause",
    "Conditions",
    "Explanation",
    "Field",
    "Found",
    "Index",
    "Reason",
    "Store",
    "Table",
    "both",
    "build",
    "create",
    "from_words",
    "of_query",
    "open",
    "parse",
    "reasons",
]


class Index:
    """Cosine search among the listings that meet conditions.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings; need not be normalised.
      ids: G ids, for arrays; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      fields: {name: a `Field`, or numbers [G], NaN where unknown}, a `Table`, or the folder of one that `save` wrote.
      conditions: those of every search that gives none of its own; see `conditions.parse`.
      conditions_of: {id of a query: its conditions}, which are added to those of every search.
      words_of: {id of a query: its words}, whose terms such as "-striped" are added as conditions; see
        `retrieval_jax.terms`.
      inner: name of the index that searches where many listings match: "exact", or one that may miss results, such as
        "binary", "faiss_index" or "milvus".
      inner_kwargs: its arguments.

    Raises:
      InputError: fields that do not match the gallery, or were saved of other ids; unknown or contradictory conditions;
        or an inner index that cannot be made.
    """

    def __repr__(self) -> str:
        return f"attribute.Index({brief.size(self.exact.gallery)}, {self.table!r})"

    def __init__(
        self,
        gallery: np.ndarray | Embeddings,
        ids: Sequence[str] | None = None,
        *,
        fields: Mapping[str, Field | np.ndarray] | Table | str | os.PathLike,
        conditions: Conditions | Mapping | str | None = None,
        conditions_of: Mapping[str, Conditions | Mapping | str] | None = None,
        words_of: Mapping[str, str] | None = None,
        inner: str = "exact",
        inner_kwargs: Mapping | None = None,
    ):
        self.exact = exact.Index(gallery, ids)
        rows = len(self.exact.gallery)
        if isinstance(fields, (str, os.PathLike)):
            fields = storage.read(pathlib.Path(fields), self._ids_sha256())
        self.table = fields if isinstance(fields, Table) else build(fields, rows)
        if self.table.rows != rows:
            raise InputError(f"index attribute: fields of {self.table.rows} listings for a gallery of {rows}")
        (self.conditions,) = finding.per_query(conditions, 1, self.table)
        own = arguments.mapping(conditions_of, "conditions_of", "index attribute")
        words = arguments.mapping(words_of, "words_of", "index attribute")
        self.conditions_of, values = {}, self.table.values() if words else {}
        for query in dict.fromkeys((*own, *words)):
            where = f"conditions of the query {short(str(query))}"
            given = of_query(self.conditions, own.get(query), words.get(query, ""), values, where)
            self.table.check(given, where)
            self.conditions_of[query] = given
        self.scan = Scan(self.exact)
        kwargs = arguments.mapping(inner_kwargs, "inner_kwargs", "index attribute")
        self.inner = inner_lib.make(inner, gallery, ids, kwargs, self.table)

    def _ids_sha256(self) -> str:
        return "" if self.exact.ids is None else self.exact.ids.sha256()

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns the ranking of `find` under the index's own conditions; warns if they could not be met as asked."""
        found = self.find(queries, k)
        finding.warn(found, queries.ids if isinstance(queries, Embeddings) else None)
        return found.ranking

    def find(
        self,
        queries: np.ndarray | Embeddings,
        k: int = 10,
        conditions: Conditions | Mapping | str | Sequence | None = None,
    ) -> Found:
        """Returns the k best listings that meet the conditions of every query, and how they came about.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: results per query; the ranking is padded if fewer listings meet what is required.
          conditions: for all queries, or a list with those of each; None for those of the index: `conditions`, and
            those that `conditions_of` and `words_of` add for the ids of the queries.

        Raises:
          InputError: unknown or contradictory conditions, a dimension that differs from the gallery's, k below 1, or a
            non-finite vector.
        """
        ids, vectors, k = self.exact.check(queries, k)
        given = [self.conditions_of.get(query, self.conditions) for query in ids or [""] * len(vectors)]
        if conditions is not None:
            given = finding.per_query(conditions, len(vectors), self.table)
        found = finding.find(self.table, self.scan, self.inner, ids, vectors, k, given, self.exact.own_rows(ids))
        exact.warn_zero(exact.zero_rows(vectors, found.ranking.scores), len(vectors), "query", ids)
        return found

    def facets(self, conditions=None, fields: Iterable[str] | None = None, top: int | None = None) -> dict:
        """Returns how many of the listings that meet the conditions have each value.

        Args:
          conditions: see `find`; the preferred ones count only if given as required.
          fields, top: see `facets.count`.

        Returns:
          {field: [(value, listings)]}, largest first, ties by name.
        """
        (given,) = [self.conditions] if conditions is None else finding.per_query(conditions, 1, self.table)
        return facets.count(self.table, self.table.matching(given, 0), None if fields is None else list(fields), top)

    def candidates(self, attributes: Mapping[str, Mapping[str, float]], budget: int) -> np.ndarray:
        """Returns the rows that share the most predicted attributes with a query; see `candidates.choose`."""
        return candidates.choose(self.table, attributes, budget, self.exact.place)

    def among(self, queries: np.ndarray | Embeddings, rows: Sequence[np.ndarray], k: int = 10) -> Ranking:
        """Returns the k best of given rows for every query, such as those of `candidates`.

        Args:
          queries: see `find`.
          rows: per query the rows to search, in any order.
          k: results per query; the ranking is padded, with a warning, where fewer rows are given.

        Raises:
          InputError: not one list of rows per query, rows that do not exist, or queries that `find` refuses.
        """
        ids, vectors, k = self.exact.check(queries, k)
        several, count = arguments.sequence(rows, "rows", "among"), len(self.exact.gallery)
        if len(several) != len(vectors):
            raise InputError(f"among: {len(several)} lists of rows for {len(vectors)} queries: give one per query")
        rows = [
            np.unique(arguments.rows(some, f"rows[{query}]", "among", ("n",), count))
            for query, some in enumerate(several)
        ]
        own = self.exact.own_rows(ids)
        out = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        for query, some in enumerate(rows):
            block, lengths, mine = exact.query_block(vectors, ids, own, query, query + 1)
            for part, found in zip(out, self.scan.search(block, lengths, k, some, mine), strict=True):
                part[query] = found[0]
        if few := int((out[0] < 0).any(1).sum()):
            warnings.warn(
                f"among: {few:,} of {len(vectors):,} queries have fewer than {k} results: give more rows, such as a "
                "larger budget of candidates, or a smaller k",
                stacklevel=2,
            )
        return self.exact.ranking(ids, *out, vectors)

    def explain(self, found: Found, query: int, parts=None, weights=None) -> list[Explanation]:
        """Explains the results of a query; see `explain.explain`."""
        ids = self.exact.ids

        def names(rows: np.ndarray) -> list[str]:
            return [str(row) if ids is None else ids[row] for row in rows.tolist()]

        return explain(self.table, found, query, names, parts, weights)

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Writes the attributes whole; `Index(gallery, fields=folder)` reads them, memory-mapped.

        Args:
          folder: where to write them; an older index there is replaced.
        """
        return atomic.replace_folder(folder, lambda new: storage.write(self.table, new, self._ids_sha256()))
