"""The running top-k against a full sort."""

import numpy as np
import pytest

from retrieval_jax.index.exact.running_best import WORD, Best


@pytest.mark.parametrize("keep, k", [(1, 1), (5, 3), (70, 60), (300, 10)])
@pytest.mark.parametrize("order", ["shuffled", "rising", "falling", "equal"])
def test_equals_a_full_sort(keep, k, order):
    rng = np.random.default_rng(keep)
    cosines = rng.normal(size=(9, 10 * WORD)).astype(np.float32)
    if order in ("rising", "falling"):
        cosines.sort(1)
        cosines = cosines if order == "rising" else np.ascontiguousarray(cosines[:, ::-1])
    if order == "equal":
        cosines[:] = 0.5
    cosines[:, 17] = -np.inf  # never kept
    best, error = Best(9, keep), 1e-3
    for first in range(0, 10 * WORD, 2 * WORD):
        block = np.ascontiguousarray(cosines[:, first : first + 2 * WORD])
        best.add(first, block, np.empty(block.shape, bool))
    rows, floor = best.finish(k, error)
    ordered = -np.sort(-cosines, axis=1)
    np.testing.assert_array_equal(floor, ordered[:, keep - 1])
    for query in range(9):
        found = rows[query][rows[query] >= 0]
        assert len(set(found)) == len(found) and 17 not in found
        assert set(np.flatnonzero(cosines[query] > floor[query])) >= set(found) - set(
            np.flatnonzero(cosines[query] == floor[query]))  # fmt: skip
        needed = np.flatnonzero(cosines[query] >= ordered[query, k - 1] - 2 * error)
        assert set(found) >= set(needed[cosines[query, needed] > floor[query]])
        assert (cosines[query, found] >= ordered[query, k - 1] - 3 * error).all() and len(found) >= k
