"""The two stages of a search in a binary index: candidates by Hamming distance, then their exact cosines."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tqdm

from retrieval_jax.embeddings import Ids
from retrieval_jax.index import exact
from retrieval_jax.index.binary.codes import Coder

QUERY_BLOCK = 256  # queries whose candidates are fetched together


def cosines(query: np.ndarray, length: float, vectors: np.ndarray) -> np.ndarray:
    """Returns float32 cosines of one query with vectors [n, D], summed in float64 in an order that depends on D alone.

    Args:
      query: [D].
      length: length of the query, float64.
      vectors: [n, D].
    """
    vectors = np.asarray(vectors, np.float64)
    dot = np.einsum("nd,d->n", vectors, query.astype(np.float64))
    scale = np.sqrt(np.einsum("nd,nd->n", vectors, vectors)) * length
    score = np.divide(dot, scale, out=np.zeros_like(dot), where=scale > 0)
    return (score + 0.0).astype(np.float32)  # -0.0 becomes 0.0


def search(
    vectors: np.ndarray,
    ids: Ids | None,
    k: int,
    *,
    coder: Coder,
    probes: int,
    find: Callable[[slice, np.ndarray, np.ndarray], list[np.ndarray]],
    by_id: Callable[[np.ndarray], np.ndarray],
    fetch: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Finds candidates for every query and re-ranks them by exact cosine.

    Args:
      vectors: [Q, D] queries.
      ids: the queries' ids, for messages.
      k: results per query.
      coder: the coder that made the codes.
      probes: cells to search per query.
      find: maps a slice of the queries, their codes [n, bits / 8] and cells [n, probes] to n arrays of candidate rows,
        such as those of `codes.candidates`.
      by_id: see `codes.candidates`.
      fetch: maps ascending rows [m] to their vectors [m, D].

    Returns:
      Rows [Q, k] and cosines [Q, k], best first, ties by id; padded with -1 and -inf.

    Raises:
      InputError: a non-finite query.
    """
    rows, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)

    def rank(number: int, query: np.ndarray, length: float, candidate: np.ndarray) -> None:
        candidate = np.sort(candidate)  # sequential disk reads
        score = cosines(query, length, fetch(candidate))
        if len(candidate) > k:  # rows that cannot be among the best need no tie-breaking
            inside = score >= np.partition(score, len(score) - k)[len(score) - k]
            candidate, score = candidate[inside], score[inside]
        best = np.argsort(-score)
        if (np.diff(score[best]) == 0).any():
            best = np.lexsort((by_id(candidate), -score))
        best = best[:k]
        rows[number, : len(best)], scores[number, : len(best)] = candidate[best], score[best]

    starts = range(0, len(vectors), QUERY_BLOCK)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in tqdm.tqdm(starts, desc="search", unit="block", mininterval=1, disable=len(starts) < 16):
            block = np.asarray(vectors[start : start + QUERY_BLOCK], np.float32)
            lengths = exact.lengths_of(block, ids, "query", start)
            codes, cells = coder.encode(block, probes)
            found = find(slice(start, start + len(block)), codes, cells)
            numbers = range(start, start + len(block))
            if len(block) == 1:
                rank(start, block[0], lengths[0], found[0])
            else:
                list(pool.map(rank, numbers, block, lengths, found))
    return rows, scores
