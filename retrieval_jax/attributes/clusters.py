"""Pseudo-products: listings of one category with nearly identical titles and pictures share an instance.

Within each category, a nearest-neighbour graph is pruned of edges between dissimilar listings, and what is left is
clustered hierarchically by density (HDBSCAN). The leaves of the hierarchy are used: excess-of-mass selection joins
neighbouring products (benchmarks/clusters.py). Only the graph is passed to HDBSCAN, so memory grows linearly with the
listings of the largest category; time grows with the sum over categories of listings squared, in matrix products.

Source: Campello, Moulavi, Sander, "Density-Based Clustering Based on Hierarchical Density Estimates", PAKDD 2013.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tqdm
from scipy import sparse

from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.files.arrays import load_npz

DIMS = 128  # dimensions of a title vector, a random projection of its weighted tokens
NEIGHBOURS = 16  # per listing in the graph
_FAR = 100.0  # length of the edges that join unconnected components
_NEAREST = 1e-6  # edge length between identical listings: a sparse graph drops edges of length 0


def find(
    vectors: Callable[[np.ndarray], np.ndarray], categories: np.ndarray, max_difference: float, max_size: int = 50
) -> np.ndarray:
    """Clusters listings within their categories.

    Args:
      vectors: function of the rows of one category, int64 [m], that returns unit vectors float32 [m, D] (see
        `joined`).
      categories: int [n]; listings of category -1 (unknown) are not clustered.
      max_difference: neighbours farther apart than this (Euclidean, 0 to 2) are not linked.
      max_size: larger clusters are discarded: that many look-alikes are a kind of product, not one product.

    Returns:
      int32 [n], the cluster of each listing, numbered in the order of their first listings; -1 if not in a cluster.

    Raises:
      InputError: max_difference or max_size is out of range, or scikit-learn is not installed.
    """
    if not 0 < max_difference <= 2 or max_size < 2:
        raise InputError(
            f"config.mine.clusters: max_difference is {max_difference:g} and max_size is {max_size}; max_difference "
            "must be above 0 and at most 2, and max_size at least 2"
        )
    found, start = np.full(len(categories), -1, np.int64), 0
    order = np.argsort(categories, kind="stable")
    order = order[np.searchsorted(categories[order], 0) :]
    bounds = np.append(np.flatnonzero(np.diff(categories[order], prepend=-1)), len(order))
    with tqdm.tqdm(total=len(order), desc="mine: clusters", unit="listing", mininterval=1) as bar:
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            rows = order[first:last]
            if len(rows) > 1:
                labels = _cluster(vectors(rows), max_difference, max_size)
                found[rows] = np.where(labels >= 0, labels + start, -1)
                start += len(rows)
            bar.update(len(rows))
    _, at, numbers = np.unique(found, return_index=True, return_inverse=True)
    place = np.empty(len(at), np.int32)
    by_first = np.argsort(np.where(found[at] < 0, -1, at), kind="stable")  # -1 comes first, if present
    place[by_first] = np.arange(len(at)) - (found.min(initial=0) < 0)
    return place[numbers]


def _cluster(vectors: np.ndarray, max_difference: float, max_size: int) -> np.ndarray:
    """Clusters the listings of one category; returns int64 [m], below m, -1 for listings in no cluster."""
    try:
        from sklearn import cluster, neighbors  # an optional dependency, needed for clusters only
    except ImportError:
        raise InputError("config.mine.clusters needs scikit-learn: pip install -r requirements-clusters.txt") from None
    count = len(vectors)
    near = neighbors.NearestNeighbors(n_neighbors=min(NEIGHBOURS, count - 1), algorithm="brute").fit(vectors)
    others = near.kneighbors(return_distance=False)
    # Computed again in a fixed order from the vectors: the rounding of matrix products depends on their blocking.
    lengths = np.stack([np.linalg.norm(vectors - vectors[column], axis=1) for column in others.T], 1)
    lengths = np.maximum(lengths.astype(np.float64).ravel(), _NEAREST)
    keep = np.flatnonzero(lengths <= max_difference)
    ends = keep // others.shape[1], others.ravel()[keep]
    graph = sparse.csr_matrix((lengths[keep], ends), shape=(count, count))
    graph = graph.maximum(graph.T)
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    inside = np.flatnonzero(np.bincount(component)[component] > 1)
    labels = np.full(count, -1, np.int64)
    if not len(inside):
        return labels
    # HDBSCAN needs a connected graph and never returns all of it as one cluster. So one far edge each joins the
    # components, and a dummy pair of points that is dropped afterwards.
    _, firsts = np.unique(component[inside], return_index=True)
    graph = graph[inside][:, inside].tocoo()
    pair = len(inside), len(inside) + 1
    rows = np.concatenate([graph.row, firsts, pair[:1]])
    columns = np.concatenate([graph.col, firsts[1:], pair])
    lengths = np.concatenate([graph.data, np.full(len(firsts), _FAR), [_NEAREST]])
    graph = sparse.csr_matrix((lengths, (rows, columns)), shape=(len(inside) + 2, len(inside) + 2))
    found = cluster.HDBSCAN(
        min_cluster_size=2, min_samples=1, metric="precomputed", cluster_selection_method="leaf", copy=True
    ).fit_predict(graph.maximum(graph.T))[:-2]
    sizes = np.bincount(found[found >= 0], minlength=1)
    labels[inside] = np.where((found >= 0) & (sizes[found] <= max_size), found, -1)
    return labels


def title_vectors(titles: Sequence[str], rule: int = title_rule.DEFAULT) -> np.ndarray:
    """Returns unit vectors of one category's titles, float32 [m, DIMS].

    The distinct tokens of a title weigh 1 + log((1 + m) / (1 + titles with the token)). A random projection,
    deterministic given the titles, preserves distances within about 10 %. A title without tokens gets a random vector,
    so it is similar to no other.

    Args:
      titles: m texts.
      rule: 1 or 2, see `titles`.
    """
    import polars as pl

    rows = title_rule.tokenize_many(titles, rule)
    rows = rows.filter(~pl.col("token").is_in(sorted(title_rule.DROPPED))).unique()
    tokens = rows.group_by("token").agg(pl.len().alias("titles")).sort("token").with_row_index("place")
    rows = rows.join(tokens, on="token").sort("title", "place")
    weights = (1 + np.log((1 + len(titles)) / (1 + rows["titles"].to_numpy()))).astype(np.float32)
    ends = rows["title"].to_numpy(), rows["place"].to_numpy()
    table = sparse.csr_matrix((weights, ends), shape=(len(titles), len(tokens)))
    random = np.random.default_rng(0)
    vectors = table @ random.standard_normal((len(tokens), DIMS), np.float32)
    silent = np.diff(table.indptr) == 0
    vectors[silent] = random.standard_normal((int(silent.sum()), DIMS), np.float32)
    return _unit(vectors)


def picture_vectors(thumbnails: np.ndarray) -> np.ndarray:
    """Returns unit vectors of one category's pictures, float32 [m, D]: their differences from the mean picture.

    Args:
      thumbnails: uint8 [m, D], such as those of `data.pictures.noted`, or embeddings.
    """
    return _unit(thumbnails.astype(np.float32) - thumbnails.mean(0, dtype=np.float64).astype(np.float32))


def joined(titles: np.ndarray, pictures: np.ndarray, title_share: float) -> np.ndarray:
    """Joins title and picture vectors so that squared distances are a weighted mean of both.

    Args:
      titles: unit vectors [m, D1].
      pictures: unit vectors [m, D2].
      title_share: weight of the titles, 0 to 1; pictures have the rest.

    Returns:
      float32 [m, D1 + D2], of length 1.
    """
    return np.concatenate([np.sqrt(title_share) * titles, np.sqrt(1 - title_share) * pictures], 1, dtype=np.float32)


def vectors_of(
    titles: Sequence[str] | None,
    thumbnails: np.ndarray | None,
    title_share: float,
    rows: np.ndarray,
    rule: int = title_rule.DEFAULT,
) -> np.ndarray:
    """Returns unit vectors of one category's listings, float32 [m, D], for `find`.

    Args:
      titles: titles of all listings; may be None if title_share is 0.
      thumbnails: uint8 [n, D] of all listings; may be None if title_share is 1.
      title_share: 0 to 1, see `joined`.
      rows: int [m], rows of the category.
      rule: 1 or 2, the title rule.
    """
    parts = [title_vectors([titles[row] for row in rows], rule)] if title_share > 0 else []
    parts += [picture_vectors(thumbnails[rows])] if title_share < 1 else []
    return parts[0] if len(parts) == 1 else joined(*parts, title_share)


def with_own_instances(clusters: np.ndarray) -> np.ndarray:
    """Returns the clusters, int32 [n], with each unclustered listing in its own cluster, numbered after the rest."""
    out = clusters.copy()
    out[clusters < 0] = clusters.max(initial=-1) + 1 + np.arange((clusters < 0).sum())
    return out


def scores(clusters: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compares clusters with the true products of listings; each unclustered listing counts as a cluster of its own.

    Args:
      clusters: int [n], -1 for listings in no cluster.
      truth: int [n], the product of each listing.

    Returns:
      "clustered", the share of listings in a cluster; "purity", the share of these that show their cluster's most
      frequent product; "homogeneity", "completeness" and "v_measure"; "pair_precision", the share of pairs in one
      cluster that show one product, and "pair_recall", the share of pairs of one product that are in one cluster. A
      value is None if there are no such listings or pairs.
    """
    from sklearn import metrics

    inside = clusters >= 0
    _, own = np.unique(with_own_instances(clusters.astype(np.int64)), return_inverse=True)
    (_, wrong), (missed, right) = metrics.cluster.pair_confusion_matrix(truth, own)
    table = metrics.cluster.contingency_matrix(truth, own, sparse=True).tocsc()
    best = table.max(axis=0).toarray().ravel()[np.unique(own[inside])].sum()
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(truth, own)
    return {
        "clustered": float(inside.mean()),
        "purity": float(best / inside.sum()) if inside.any() else None,
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v_measure),
        "pair_precision": float(right / (right + wrong)) if right + wrong else None,
        "pair_recall": float(right / (right + missed)) if right + missed else None,
    }


def save(path: str | pathlib.Path, clusters: np.ndarray) -> None:
    """Writes clusters [n] as .npz, atomically."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic.write_npz(path, clusters=clusters.astype(np.int32))


def as_categories(path: str | pathlib.Path, num_rows: int, data_info: Any) -> tuple[np.ndarray, Any]:
    """Reads saved clusters as the finest category level.

    Args:
      path: file written by `save`.
      num_rows: number of listings in the split.
      data_info: a `data.info.DataInfo`.

    Returns:
      The column "category", int32 [num_rows], -1 for listings in no cluster; and data_info with the clusters as its
      last level.

    Raises:
      InputError: the file is missing or unreadable, belongs to another split, or has no cluster.
    """
    remedy = "set config.mine.clusters.max_difference and run mine in another --workdir"
    clusters = load_npz(path, {"clusters": (("int32",), 1)}, remedy=remedy)["clusters"]
    if clusters.shape != (num_rows,):
        raise InputError(
            f"{path} has {len(clusters)} rows, but the train split has {num_rows}; run mine again in another --workdir"
        )
    if clusters.max(initial=-1) < 0:
        raise InputError(f"{path}: no listing is in a cluster; raise config.mine.clusters.max_difference")
    if clusters.max() >= num_rows:
        raise InputError(
            f"{path}: cluster {clusters.max()} of {num_rows} listings; run mine again in another --workdir"
        )
    counts = np.bincount(clusters[clusters >= 0])
    names = [f"cluster {number}" for number in range(len(counts))]
    return clusters, dataclasses.replace(
        data_info,
        category_names=(*data_info.category_names, names),
        category_counts=(*data_info.category_counts, counts),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return (vectors / np.maximum(lengths, 1e-6)[:, None]).astype(np.float32)
