"""Train listings that probably show the same product, by their titles and categories: stand-ins for a ground truth.

A title is a vector of its tokens, weighted by how rare they are. Two listings agree if they are of one leaf category
and the cosine of their titles is at least LEAST. Titles are noisy, so many pairs are of similar products only: enough
to compare search steps, not to report a score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import sparse

from retrieval_jax.attributes import titles as title_rule

LEAST = 0.5  # cosine of two titles that agree
MOST_AGREEING = 10  # listings per listing, the most similar ones
_BESIDE = 2  # most similar listings that are drawn together with a listing


def sample(
    titles: Sequence[str], categories: np.ndarray | None, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws train listings, many of which agree with others that are drawn; deterministic.

    Args:
      titles: n texts.
      categories: int [n], of the leaf level, -1 where unknown; None for no categories.
      most: listings to draw.

    Returns:
      rows: int64 [m], ascending, at most `most`.
      indptr: int64 [m + 1], and agreeing: int64, which of them agree with each: places in `rows`, most similar first.
    """
    vectors = _vectors(titles)
    codes = np.zeros(len(titles), np.int64) if categories is None else np.asarray(categories)
    order = np.argsort(codes, kind="stable")
    bounds = np.flatnonzero(np.diff(codes[order], prepend=codes[order[:1]] - 1 if len(order) else 0))
    members = {int(codes[part[0]]): part for part in np.split(order, bounds[1:]) if len(part)}
    drawn: dict[int, None] = {}
    for row in np.random.default_rng(0).permutation(len(titles)).tolist():
        if len(drawn) >= most:
            break
        others = members[int(codes[row])]
        likeness = np.asarray((vectors[others] @ vectors[row].T).todense()).ravel()
        likeness[others == row] = -1.0
        places = np.argsort(-likeness, kind="stable")[:_BESIDE]
        drawn.update(dict.fromkeys([row, *others[places[likeness[places] >= LEAST]].tolist()]))
    rows = np.sort(np.array(list(drawn)[:most], np.int64))
    return rows, *_agreeing(vectors[rows], codes[rows])


def _agreeing(vectors: sparse.csr_matrix, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indptr, found = [0], []
    for start in range(0, len(codes), 512):
        likeness = np.asarray((vectors[start : start + 512] @ vectors.T).todense())
        likeness[codes[start : start + 512, None] != codes[None]] = 0.0
        likeness[np.arange(len(likeness)), start + np.arange(len(likeness))] = 0.0  # not itself
        for row in likeness:
            near = np.argsort(-row, kind="stable")[:MOST_AGREEING]
            found.append(near[row[near] >= LEAST])
            indptr.append(indptr[-1] + len(found[-1]))
    return np.array(indptr, np.int64), np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64)


def _vectors(titles: Sequence[str]) -> sparse.csr_matrix:
    """Returns a unit vector of weighted tokens per title; zeros for a title without tokens."""
    rows = title_rule.tokenize_many(list(titles))
    rows = rows.filter(~pl.col("token").is_in(sorted(title_rule.DROPPED))).unique()
    tokens = rows.group_by("token").agg(pl.len().alias("titles")).sort("token").with_row_index("place")
    rows = rows.join(tokens, on="token").sort("title", "place")
    weights = np.log((1 + len(titles)) / rows["titles"].to_numpy())
    ends = rows["title"].to_numpy(), rows["place"].to_numpy()
    table = sparse.csr_matrix((weights, ends), shape=(len(titles), max(1, len(tokens))))
    length = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(length, 1e-12)) @ table)
