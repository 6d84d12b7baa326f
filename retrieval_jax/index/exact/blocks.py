"""Helpers that all indexes share for blocks of queries and gallery rows: checks, lengths, unit vectors, sorting."""

from __future__ import annotations

import numpy as np

from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError


def lengths_of(vectors: np.ndarray, ids: Ids | None, side: str, first: int | np.ndarray = 0) -> np.ndarray:
    """Returns the lengths of vectors.

    Args:
      vectors: [n, D] array or array-like that reads slices.
      ids: ids of the whole side, for the message, or None.
      side: "query" or "gallery", for the message.
      first: the side's row number of the first vector, or of each vector [n]; for the message.

    Returns:
      [n] float64.

    Raises:
      InputError: a non-finite vector, named by row and id.
    """
    out = np.empty(len(vectors))
    for start in range(0, len(vectors), 512):
        wide = np.asarray(vectors[start : start + 512], np.float64)
        out[start : start + 512] = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        bad = ~np.isfinite(out[start : start + 512])
        if bad.any():
            row = start + int(bad.argmax())
            row = int(first[row]) if isinstance(first, np.ndarray) else first + row
            name = f" ({ids[row]})" if ids is not None else ""
            raise InputError(
                f"{side} embedding of row {row}{name} is non-finite: embed that listing again, or check its image and "
                "the checkpoint"
            )
    return out


def unit(block: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns vectors scaled to length 1, float32; a zero vector stays zero.

    Args:
      block: [n, D].
      lengths: [n] float64.
    """
    if ((lengths > 1e-30) & (lengths < 1e30)).all():
        return block * (1 / lengths[:, None]).astype(np.float32)
    out = np.zeros(block.shape, np.float32)
    np.divide(block, lengths[:, None], out=out, where=lengths[:, None] > 0, casting="same_kind")
    return out


def check_queries(queries: np.ndarray | Embeddings, width: int, k: int) -> tuple[Ids | None, np.ndarray]:
    """Returns the queries' ids (None for arrays) and vectors.

    Args:
      queries: [Q, D] array or Embeddings.
      width: the gallery's D.
      k: results per query.

    Raises:
      InputError: a dimension other than `width`, or k below 1.
    """
    ids = queries.ids if isinstance(queries, Embeddings) else None
    vectors = queries.vectors if isinstance(queries, Embeddings) else np.asarray(queries)
    if len(vectors.shape) != 2 or vectors.shape[1] != width:
        raise InputError(
            f"queries of shape {tuple(vectors.shape)} cannot be searched in a gallery of {width} dimensions: embed "
            "both with the same model"
        )
    if k < 1:
        raise InputError(f"search.k is {k}: ask for at least one result")
    return ids, vectors


def query_block(vectors, ids: Ids | None, own: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, ...]:
    """Reads the queries start .. stop - 1.

    Args:
      vectors: [Q, D] array or array-like that reads slices.
      ids: the queries' ids, for messages, or None.
      own: from `Index.own_rows`.
      start: first query.
      stop: query after the last.

    Returns:
      Vectors [n, D] float32, their lengths [n] float64, and their part of `own`, with queries counted from start.

    Raises:
      InputError: a non-finite vector.
    """
    block = np.asarray(vectors[start:stop], np.float32)
    mine = own[np.searchsorted(own[:, 0], start) : np.searchsorted(own[:, 0], stop)] - [start, 0]
    return block, lengths_of(block, ids, "query", start), mine


def best_first(query, row, score, place, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorts scored pairs by query, then score, then place.

    Args:
      query: [n] query of each pair, below count.
      row: [n] gallery row of each pair.
      score: [n].
      place: [G] each row's rank by id.
      count: number of queries.
      width: rows to keep per query.

    Returns:
      Rows [count, width] int64, padded with -1; scores [count, width] float32, padded with -inf.
    """
    order = np.lexsort((place[row], -score, query))
    query, row, score = query[order], row[order], score[order]
    many = np.bincount(query, minlength=count)
    slot = np.arange(len(query)) - np.repeat(np.cumsum(many) - many, many)
    first = slot < width
    rows, scores = np.full((count, width), -1, np.int64), np.full((count, width), -np.inf, np.float32)
    rows[query[first], slot[first]], scores[query[first], slot[first]] = row[first], score[first]
    return rows, scores
