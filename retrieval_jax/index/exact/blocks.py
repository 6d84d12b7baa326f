"""Helpers that all indexes share for blocks of queries and gallery rows: checks, lengths, unit vectors, sorting."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError, short


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
      InputError: a non-finite vector; the message has the count, and the first one's row and id.
    """
    out = np.empty(len(vectors))
    for start in range(0, len(vectors), 512):
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported below
            wide = np.asarray(vectors[start : start + 512], np.float32).astype(np.float64)
        out[start : start + 512] = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        if not np.isfinite(out[start : start + 512]).all():
            with np.errstate(over="ignore"):
                arguments.finite(np.asarray(vectors, np.float32), f"the {side} embeddings", ids, first)
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


def check_queries(queries: np.ndarray | Embeddings, width: int, k: int) -> tuple[Ids | None, np.ndarray, int]:
    """Returns the queries' ids (None for arrays), their vectors, and k.

    Args:
      queries: [Q, D] array or Embeddings.
      width: the gallery's D.
      k: results per query.

    Raises:
      InputError: not vectors of `width` dimensions, k below 1, or more results than fit in memory.
    """
    ids = queries.ids if isinstance(queries, Embeddings) else None
    vectors = arguments.vectors(queries.vectors if ids is not None else queries, "queries", "search")
    if vectors.shape[1] != width:
        raise InputError(
            f"queries of shape {tuple(vectors.shape)} cannot be searched in a gallery of {width} dimensions: embed "
            "both with the same model"
        )
    k = arguments.integer(k, "k", "search")
    arguments.memory(
        24 * len(vectors) * int(k), f"{k:,} results for each of {len(vectors):,} queries", "search", "lower k"
    )
    return ids, vectors, k


def check_gallery(gallery: np.ndarray | Embeddings, ids: Sequence[str] | None, where: str) -> tuple:
    """Returns the gallery's vectors and ids (None where there are none).

    Args:
      gallery: [G, D] array or Embeddings.
      ids: G ids, for arrays; None for those of the embeddings.
      where: name of the index.

    Raises:
      InputError: not vectors, or not one id per row.
    """
    if isinstance(gallery, Embeddings):
        gallery, ids = gallery.vectors, gallery.ids if ids is None else ids
    gallery = arguments.vectors(gallery, "gallery", where)
    ids = None if ids is None else Ids.of(ids)
    if ids is not None and len(ids) != len(gallery):
        raise InputError(f"the gallery has {len(gallery)} vectors but {len(ids)} ids: give one id per row")
    return gallery, ids


def zero_rows(vectors, scores: np.ndarray) -> np.ndarray:
    """Returns which queries are zero vectors, ascending; only those whose best cosine is 0 are read again.

    Args:
      vectors: [Q, D] queries.
      scores: [Q, k] their results' cosines.
    """
    suspects = np.flatnonzero(scores[:, 0] == 0).tolist()
    return np.array([row for row in suspects if not np.any(np.asarray(vectors[row : row + 1], np.float32))], np.int64)


def warn_zero(zero: np.ndarray, count: int, side: str, ids: Ids | None) -> None:
    """Warns of vectors without a direction: their cosine with everything is 0, and equal cosines are ordered by id.

    Args:
      zero: their rows.
      count: vectors of the side.
      side: "query" or "gallery".
      ids: ids of the side, or None.
    """
    if not len(zero):
        return
    row = int(zero[0])
    name = f" ({short(ids[row])})" if ids is not None else ""
    effect = "its results are in the order of their ids" if side == "query" else "it scores 0 with every query"
    warnings.warn(
        f"zero vectors: {len(zero):,} of {count:,} on the {side} side, first row {row}{name}. A zero vector has no "
        f"direction, so {effect} (an empty text, a black picture, an untrained network, or a step that removed it all)",
        stacklevel=3,
    )


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
    with np.errstate(over="ignore"):
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
