"""Pseudo-products: listings of one category that are nearly identical by title and by picture share an instance.

In every category, a graph of each listing's nearest neighbours is cut where neighbours differ too much, and what is
left is clustered hierarchically by density (HDBSCAN). Leaves of the hierarchy are taken, not the clusters of most
excess mass: those join neighbouring products (benchmarks/clusters.py). The graph alone is handed over, so memory grows
with the listings of the largest category, and time with the sum of their squares over the categories, as matrix
products.

Source: Campello, Moulavi, Sander, "Density-Based Clustering Based on Hierarchical Density Estimates", PAKDD 2013.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import tqdm
from scipy import sparse

from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic

DIMS = 128  # of a title's vector: a random projection of its weighted tokens
NEIGHBOURS = 16  # of every listing in the graph
_FAR = 100.0  # length of the edges that join what is not connected
_NEAREST = 1e-6  # of identical listings: in a sparse graph a length of 0 is no edge


def find(
    vectors: Callable[[np.ndarray], np.ndarray], categories: np.ndarray, max_difference: float, max_size: int = 50
) -> np.ndarray:
    """Clusters listings inside their categories.

    Args:
      vectors: function of rows int64 [m], those of one category -> float32 [m, D], of length 1 (see `joined`).
      categories: int [n]; listings of category -1 (unknown) are in no cluster.
      max_difference: neighbours whose vectors are farther apart (Euclidean, 0 to 2) are not linked.
      max_size: a cluster of more listings is none: so many alike are of one kind, not of one product.

    Returns:
      int32 [n], the cluster of every listing, numbered in the order of their first listings; -1 for those in none.

    Raises:
      InputError: max_difference or max_size out of range, or scikit-learn is not installed.
    """
    if not 0 < max_difference <= 2 or max_size < 2:
        raise InputError(
            f"config.mine.clusters: max_difference is {max_difference:g} and max_size {max_size}; give "
            "more than 0 and at most 2, and 2 or more"
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
    by_first = np.argsort(np.where(found[at] < 0, -1, at), kind="stable")  # -1, where there are any, comes first
    place[by_first] = np.arange(len(at)) - (found.min(initial=0) < 0)
    return place[numbers]


def _cluster(vectors: np.ndarray, max_difference: float, max_size: int) -> np.ndarray:
    """Clusters the listings of one category; returns int64 [m], below m, -1 for none."""
    try:
        from sklearn import cluster, neighbors  # an extra: only those who want clusters need it
    except ImportError:
        raise InputError("config.mine.clusters needs scikit-learn: pip install -r requirements-clusters.txt") from None
    count = len(vectors)
    near = neighbors.NearestNeighbors(n_neighbors=min(NEIGHBOURS, count - 1), algorithm="brute").fit(vectors)
    others = near.kneighbors(return_distance=False)
    # again, in a fixed order and from the vectors themselves: matrix products round differently by their blocks
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
    # HDBSCAN wants one component, and never takes all of it for a cluster: those that there are, and a pair that is no
    # listing, hang together by one far edge each.
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


def title_vectors(titles: Sequence[str]) -> np.ndarray:
    """Returns the vectors of one category's titles, float32 [m, DIMS] of length 1.

    The distinct tokens of a title weigh 1 + log((1 + m) / (1 + titles that have the token)); a random projection, the
    same at every call with the same titles, keeps their distances within about a tenth. A title without a token
    has a random vector, and so is like no other.

    Args:
      titles: m texts.
    """
    rows = title_rule.tokenize_many(titles)
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
    """Returns the vectors of one category's pictures, float32 [m, D] of length 1: what differs from their mean.

    Args:
      thumbnails: uint8 [m, D], such as `data.noted` notes, or embeddings.
    """
    return _unit(thumbnails.astype(np.float32) - thumbnails.mean(0, dtype=np.float64).astype(np.float32))


def joined(titles: np.ndarray, pictures: np.ndarray, title_share: float) -> np.ndarray:
    """Returns vectors whose squared distance is title_share of that of the titles, and the rest that of the pictures.

    Args:
      titles: [m, D1] of length 1.
      pictures: [m, D2] of length 1.
      title_share: 0 to 1.
    """
    return np.concatenate([np.sqrt(title_share) * titles, np.sqrt(1 - title_share) * pictures], 1, dtype=np.float32)


def vectors_of(
    titles: Sequence[str] | None, thumbnails: np.ndarray | None, title_share: float, rows: np.ndarray
) -> np.ndarray:
    """Returns the vectors of one category's listings, float32 [m, D] of length 1: what `find` asks for.

    Args:
      titles: of all listings; None at a title_share of 0.
      thumbnails: uint8 [n, D] of all listings; None at a title_share of 1.
      title_share: 0 to 1, see `joined`.
      rows: int [m], the category's.
    """
    parts = [title_vectors([titles[row] for row in rows])] if title_share > 0 else []
    parts += [picture_vectors(thumbnails[rows])] if title_share < 1 else []
    return parts[0] if len(parts) == 1 else joined(*parts, title_share)


def with_own_instances(clusters: np.ndarray) -> np.ndarray:
    """Returns the clusters, int32 [n], with each listing of none in one of its own, numbered after the others."""
    out = clusters.copy()
    out[clusters < 0] = clusters.max(initial=-1) + 1 + np.arange((clusters < 0).sum())
    return out


def scores(clusters: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compares clusters with the products that listings are of; those in no cluster count as one each.

    Args:
      clusters: int [n], -1 for none.
      truth: int [n], the product of every listing.

    Returns:
      "clustered", share of the listings in a cluster; "purity" of these, the share that is of its cluster's most
      frequent product; "homogeneity", "completeness" and "v_measure"; "pair_precision" and "pair_recall": of pairs in
      one cluster those of one product, and of pairs of one product those in one cluster (None where there are none).
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
    """Writes clusters [n] as .npz, whole or not at all."""
    content = io.BytesIO()
    np.savez(content, clusters=clusters.astype(np.int32))
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, content.getvalue())


def as_categories(path: str | pathlib.Path, num_rows: int, data_info: Any) -> tuple[np.ndarray, Any]:
    """Reads saved clusters as the finest level of categories.

    Args:
      path: file of `save`.
      num_rows: listings of the split.
      data_info: a `data.info.DataInfo`.

    Returns:
      The column "category" of a batch, int32 [num_rows], -1 for listings in no cluster; and the data_info with the
      clusters as its last level.

    Raises:
      InputError: no such file, clusters of another split, or none at all.
    """
    try:
        with np.load(io.BytesIO(pathlib.Path(path).read_bytes()), allow_pickle=False) as content:
            clusters = content["clusters"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: no readable clusters ({error}); set config.mine.clusters.max_difference and run "
            "mine in another --workdir"
        ) from None
    if clusters.shape != (num_rows,):
        raise InputError(
            f"{path} has {len(clusters)} rows, the train split {num_rows}: run mine again in another --workdir"
        )
    if clusters.max(initial=-1) < 0:
        raise InputError(f"{path}: no listing is in a cluster; raise config.mine.clusters.max_difference")
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
