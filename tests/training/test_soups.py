"""Averages of checkpoints."""

import ml_dtypes
import numpy as np

from retrieval_jax.training import soups

PARAMS = {
    1: {"a": {"w": np.float32([1, 2])}, "b": np.array([1.0], ml_dtypes.bfloat16)},
    2: {"a": {"w": np.float32([3, 4])}, "b": np.array([2.0], ml_dtypes.bfloat16)},
    3: {"a": {"w": np.float32([-100, 6])}, "b": np.array([6.0], ml_dtypes.bfloat16)},
}


def test_uniform_is_the_mean_in_the_parameter_types():
    mean = soups.uniform(PARAMS.get, [1, 2, 3])
    assert mean["a"]["w"].dtype == np.float32 and mean["b"].dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(mean["a"]["w"], [-32, 4])
    assert mean["b"].astype(np.float32) == 3


def test_greedy_keeps_checkpoints_that_do_not_lower_the_score():
    tried = []

    def score(params):
        tried.append(params["a"]["w"][0])
        return -abs(params["a"]["w"][0] - 2.5)

    mean, members = soups.greedy(PARAMS.get, [2, 3, 1], score)
    np.testing.assert_allclose(tried, [3, -48.5, 2])
    assert members == [2, 1] and mean["a"]["w"].tolist() == [2, 3]
    assert soups.greedy(PARAMS.get, [3], score)[1] == [3]
