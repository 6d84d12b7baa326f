"""Lexical search: BM25 over the words of the gallery's texts; finds names, numbers and brands that vectors blur.

bm25s computes the weight of every word in every text once, as a sparse matrix; a search adds up the weights of the
query's words, always in the same order, and ties go by id, so the result has the same bits for every block of queries.
A query that has no word of the gallery gets an empty ranking.

Sources: Robertson et al., "Okapi at TREC-3" (1994), with Lucene's form of the inverse document frequency, which is
never negative; Lu, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring", arXiv 2407.03618.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np
from scipy import sparse

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings, Ids, places
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents, versions
from retrieval_jax.files.arrays import load_npy
from retrieval_jax.index.exact import best_first
from retrieval_jax.index.lexical import words as words_lib
from retrieval_jax.scoring.ranking import Ranking

WHERE = "index lexical"
PAIRS = 1 << 22  # (query, listing) pairs scored at once, about
FORMAT = 1
_REMEDY = "save the index again"


class _Info(TypedDict):
    """index.json."""

    format: int
    k1: float
    b: float
    typos: bool
    listings: documents.Count
    words: list[str]


class Index:
    """BM25 over texts, one per listing.

    Args:
      gallery: G texts; "" for a listing without one, which is never found.
      ids: G ids; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      k1: how much a repeated word counts, 0 or more.
      b: how much a long text counts less, 0 to 1.
      typos: read a query's word that no text has as the known word one edit away, if there is one (`words.Spelling`).

    Raises:
      InputError: vectors in place of texts, ids that do not match, or a setting out of range.
    """

    def __init__(
        self,
        gallery: Sequence[str],
        ids: Sequence[str] | None = None,
        *,
        k1: float = 1.5,
        b: float = 0.75,
        typos: bool = True,
    ):
        texts = _texts(gallery, "gallery")
        self.k1 = arguments.number(k1, "k1", WHERE, low=0)
        self.b, self.typos = arguments.number(b, "b", WHERE, low=0, high=1), arguments.flag(typos, "typos", WHERE)
        listed = [words_lib.split(text) for text in texts]
        names = sorted({word for one in listed for word in one})  # sorted: sums never depend on the order of a set
        self._set(_weights(listed, names, self.k1, self.b), names, ids)

    def _set(self, weights: sparse.csr_matrix, names: list[str], ids: Sequence[str] | None) -> None:
        self.weights, self.names, self.ids = weights, names, None if ids is None else Ids.of(ids)
        if self.ids is not None and len(self.ids) != len(self):
            raise InputError(f"{WHERE}: {len(self)} texts and {len(self.ids)} ids: give one id per text")
        self.place = np.arange(len(self)) if self.ids is None else places(self.ids)
        self._number = {word: number for number, word in enumerate(names)}
        counts = dict(zip(names, np.diff(weights.indptr).tolist(), strict=True))
        self._spelling = words_lib.Spelling(counts) if self.typos else None
        self._rows: dict[str, list[int]] | None = None

    def __len__(self) -> int:
        return self.weights.shape[1]

    def __repr__(self) -> str:
        return f"lexical.Index({len(self):,} texts, {len(self.names):,} words)"

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        query_ids: Sequence[str] | None = None,
        among: Sequence[np.ndarray | None] | None = None,
    ) -> Ranking:
        """Returns the k texts with the highest BM25 score for every query, best first.

        Args:
          queries: Q texts; a word counts as often as it occurs.
          k: results per query; the ranking is padded where fewer texts share a word with the query.
          query_ids: Q ids; by default the queries are numbered. A listing with the query's own id is left out.
          among: per query a mask [G] bool of the rows that may be found, or None for all of them.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k].

        Raises:
          InputError: vectors in place of texts, ids that do not match, or k below 1.
        """
        texts = _texts(queries, "queries")
        k = arguments.integer(k, "k", WHERE)
        arguments.memory(12 * len(texts) * k, f"{k:,} results per query", WHERE, "lower k")
        ids = Ids.of(query_ids if query_ids is not None else [str(number) for number in range(len(texts))])
        if len(ids) != len(texts):
            raise InputError(f"{WHERE}: {len(texts)} queries and {len(ids)} query_ids: give one id per query")
        asked = self._asked(texts)
        own, masks = self._own(ids) if query_ids is not None else {}, self._masks(among, len(texts))
        rows, scores = np.full((len(texts), k), -1, np.int64), np.full((len(texts), k), -np.inf, np.float32)
        hits = asked.astype(bool) @ np.diff(self.weights.indptr)  # pairs to score, at most
        start = 0
        while start < len(texts):
            stop = start + max(1, int(np.searchsorted(np.cumsum(hits[start:]), PAIRS, side="right")))
            found = (asked[start:stop] @ self.weights).tocsr()
            mine = [own.get(at, ()) for at in range(start, stop)]
            rows[start:stop], scores[start:stop] = self._best(found, mine, masks[start:stop], k)
            start = stop
        return Ranking(ids, rows, scores, self.ids.sha256() if self.ids is not None else "")

    def explain(self, query: str, row: int) -> dict[str, float]:
        """Returns what each word of a query gave to the score of one listing, {word of the gallery: score}.

        Args:
          query: a text.
          row: of the gallery.

        Raises:
          InputError: there is no such row.
        """
        row = arguments.integer(row, "row", WHERE, low=0, high=len(self) - 1)
        asked = self._asked([arguments.text(query, "query", WHERE)])
        column, found = self.weights[:, [row]].toarray()[:, 0], {}
        for number, times in zip(asked.indices.tolist(), asked.data.tolist(), strict=True):
            if column[number]:
                found[self.names[number]] = float(column[number] * times)
        return found

    def _asked(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Returns how often each query has each known word, [Q, words] float64."""
        indptr, indices, data = [0], [], []
        for text in texts:
            counts: dict[int, int] = {}
            for word in words_lib.split(text):
                known = self._spelling.known(word) if self._spelling is not None else word
                if known is not None and (number := self._number.get(known)) is not None:
                    counts[number] = counts.get(number, 0) + 1
            indices += sorted(counts)
            data += [counts[number] for number in sorted(counts)]
            indptr.append(len(indices))
        shape = len(texts), len(self.names)
        return sparse.csr_matrix((np.array(data, np.float64), np.array(indices, np.int64), indptr), shape=shape)

    def _own(self, ids: Ids) -> dict[int, list[int]]:
        """Returns {query: rows of the gallery that are never its results}; see `Ids.left_out`."""
        if self.ids is None:
            return {}
        if self._rows is None:
            self._rows = {}
            for row, name in enumerate(self.ids):
                self._rows.setdefault(name, []).append(row)
        found = {
            query: [row for name in names for row in self._rows.get(name, ())]
            for query, names in enumerate(ids.left_out())
        }
        return {query: rows for query, rows in found.items() if rows}

    def _masks(self, among: Sequence[np.ndarray | None] | None, queries: int) -> Sequence[np.ndarray | None]:
        if among is None:
            return [None] * queries
        if len(among) != queries or any(one is not None and one.shape != (len(self),) for one in among):
            raise InputError(f"{WHERE}: give among a mask of {len(self)} rows, or None, for each of {queries} queries")
        return among

    def _best(self, found: sparse.csr_matrix, own: Iterable[Sequence[int]], masks, k: int) -> tuple:
        """Returns the k best rows and scores of each row of a matrix of scores."""
        query, row, score = [], [], []
        for number, (skipped, mask) in enumerate(zip(own, masks, strict=True)):
            part = slice(found.indptr[number], found.indptr[number + 1])
            rows, values = found.indices[part].astype(np.int64), found.data[part].astype(np.float32)
            keep = values > 0
            if mask is not None:
                keep &= mask[rows]
            if len(skipped):
                keep &= ~np.isin(rows, skipped)
            if keep.sum() > k:  # those that tie with the last one too: ids decide among them
                keep &= values >= np.partition(values[keep], -k)[-k]
            query.append(np.full(int(keep.sum()), number))
            row.append(rows[keep])
            score.append(values[keep])
        return best_first(*map(np.concatenate, (query, row, score)), self.place, found.shape[0], k)

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Writes the index as a folder, which is replaced as a whole: index.json and arrays; nothing is pickled."""

        def fill(new: pathlib.Path) -> None:
            for name in ("data", "indices", "indptr"):
                array = getattr(self.weights, name)
                atomic.write_npy(new / f"{name}.npy", array.astype(np.float32 if name == "data" else np.int64))
            if self.ids is not None:
                self.ids.save(new, "gallery_")
            about = {"format": FORMAT, "k1": self.k1, "b": self.b, "typos": self.typos, "listings": len(self)}
            atomic.write_text(new / "index.json", json.dumps({**about, "words": self.names}))

        return versions.replace(folder, "index.json", fill)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Index:
        """Loads an index that `save` wrote.

        Raises:
          InputError: a missing or damaged file; the message names it.
        """
        return versions.read(folder, "index.json", cls._load)

    @classmethod
    def _load(cls, folder: pathlib.Path) -> Index:
        about = documents.read(folder / "index.json", _Info, remedy=_REMEDY)
        if about["format"] != FORMAT:
            raise InputError(
                f"{folder} is a lexical index of format {about['format']}, and this version reads {FORMAT}: {_REMEDY}"
            )
        arrays = {
            name: load_npy(folder / f"{name}.npy", mmap=False, dtypes=(dtype,), ndim=1, remedy=_REMEDY)
            for name, dtype in (("data", "float32"), ("indices", "int64"), ("indptr", "int64"))
        }
        data, indices, indptr = arrays.values()
        if (
            len(indptr) != len(about["words"]) + 1
            or indptr[0] != 0
            or indptr[-1] != len(indices)
            or len(indices) != len(data)
            or (np.diff(indptr) < 0).any()
            or (indices.size and not 0 <= indices.min() <= indices.max() < about["listings"])
            or not np.isfinite(data).all()
        ):
            raise InputError(f"{folder}: its arrays do not match each other: {_REMEDY}")
        index = cls.__new__(cls)
        index.k1, index.b, index.typos = about["k1"], about["b"], about["typos"]
        shape = len(about["words"]), about["listings"]
        ids = Ids.load(folder, "gallery_") if (folder / "gallery_ids.npy").exists() else None
        index._set(sparse.csr_matrix((data, indices, indptr), shape=shape), about["words"], ids)
        return index


def _texts(given: Sequence[str], name: str) -> Sequence[str]:
    if isinstance(given, Embeddings) or (isinstance(given, np.ndarray) and given.dtype.kind not in "UO"):
        raise InputError(
            f"{WHERE}: {name}={brief.line(given) if isinstance(given, Embeddings) else given.dtype}, expected texts: "
            "BM25 reads words; add 'lexical' to config.embed.models instead of naming it as config.search.index"
        )
    given = arguments.sequence(given, name, WHERE)
    for row, text in enumerate(given):
        if not isinstance(text, str):
            raise InputError(f"{WHERE}: {name}[{row}] is a {type(text).__name__}, expected a text")
    return given


def _weights(listed: list[list[str]], names: list[str], k1: float, b: float) -> sparse.csr_matrix:
    """Returns the BM25 weight of every word in every text, [words, texts] float32."""
    shape = len(names), len(listed)
    if not names:
        return sparse.csr_matrix(shape, dtype=np.float32)
    import bm25s

    number = {word: at for at, word in enumerate(names)}
    numbered = [[number[word] for word in one] for one in listed]
    made = bm25s.BM25(k1=k1, b=b, method="lucene", csc_backend="numpy")
    found = made.build_index_from_ids(list(range(len(names))), numbered, show_progress=False)
    matrix = sparse.csr_matrix((found["data"], found["indices"], found["indptr"]), shape=shape)  # columns of the CSC
    matrix.sort_indices()
    return matrix
