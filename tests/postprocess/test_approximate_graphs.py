"""Steps over the neighbour graph with lists from faiss: an exhaustive search gives the same as the exact index."""

import numpy as np
import pytest

from retrieval_jax import postprocess
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.index.exact import Index
from retrieval_jax.postprocess import State

FLAT = {"index": "faiss_index", "index_kwargs": {"factory": "Flat", "candidates": 300}}


@pytest.mark.parametrize("name, kwargs", [("database_augmentation", {"depth": 5}), ("diffusion", {"k": 8, "depth": 60}),
                                          ("global_reranking", {"k1": 6, "k2": 3, "depth": 60})])  # fmt: skip
def test_an_exhaustive_index_matches_the_exact_one(name, kwargs):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 16))
    queries, gallery = (
        Embeddings([f"{side}{row:03}" for row in range(count)],
                   (centres[rng.integers(20, size=count)] + 0.6 * rng.standard_normal((count, 16))).astype(np.float32))
        for side, count in (("q", 12), ("g", 200))
    )  # fmt: skip
    state, step = State([(queries, gallery)], Index(gallery).search(queries, 60)), postprocess.get(name).step
    exact, approximate = step(state, **kwargs), step(state, **kwargs, **FLAT)
    if name == "database_augmentation":
        np.testing.assert_allclose(approximate.members[0][1].vectors[:], exact.members[0][1].vectors[:], atol=1e-6)
    else:
        assert np.array_equal(approximate.ranking.item_rows, exact.ranking.item_rows)
        np.testing.assert_allclose(approximate.ranking.scores, exact.ranking.scores, atol=1e-6)
        assert not np.array_equal(exact.ranking.item_rows, state.ranking.item_rows)
