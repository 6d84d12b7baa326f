"""Places of embeddings on a plane where neighbours stay neighbours, for those who have umap-learn installed."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np

LEAST = 30  # vectors: twice the neighbours that the layout is made of
NEIGHBOURS = 15


def umap(vectors: np.ndarray) -> np.ndarray | None:
    """Lays out embeddings on a plane by UMAP, the same for the same vectors and versions of its libraries.

    Args:
      vectors: [n, D], finite.

    Returns:
      [n, 2]; None where umap-learn is not installed, or cannot be loaded, or there are too few vectors.

    Source: McInnes et al., "UMAP: Uniform Manifold Approximation and Projection", arXiv 1802.03426.
    """
    if len(vectors) < LEAST or importlib.util.find_spec("umap") is None:
        return None
    try:
        from umap import UMAP  # brings numba, which compiles for seconds
    except (ImportError, AttributeError):  # an unrelated package of that name, or a numba that does not fit numpy
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one thread is used, because the result is to be the same every time
        made = UMAP(n_neighbors=NEIGHBOURS, min_dist=0.1, metric="cosine", random_state=0)
        return np.asarray(made.fit_transform(np.asarray(vectors, np.float32)), np.float64)
