"""Weights of an ensemble's parts, fitted on pairs of listings that are known to show the same product.

Where nothing is known, `ensemble` with weights "chosen" finds weights without labels.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize

from retrieval_jax import arguments
from retrieval_jax.errors import InputError


def fit(same: np.ndarray, other: np.ndarray, *, penalty: float = 1e-3) -> np.ndarray:
    """Finds the weights with which the same product is most often more alike than another.

    Args:
      same: [n, parts], cosines of a listing and one of the same product, one column per part (appearance, colour ...).
      other: [n, parts], cosines of the same listing and one of another product.
      penalty: of the squared weights, which keeps them finite where the parts separate all pairs.

    Returns:
      [parts] float64, 0 or more, with the sum 1; only their ratios matter for a ranking.

    Raises:
      InputError: arrays that do not match or are non-finite.

    Source: logistic loss on differences of pairs: Burges et al., "Learning to Rank using Gradient Descent", ICML 2005.
    """
    same = arguments.array(same, "same", "fitted_weights", ("n", "parts")).astype(np.float64)
    other = arguments.array(other, "other", "fitted_weights", same.shape).astype(np.float64)
    gaps = same - other
    if not len(gaps) or not np.isfinite(gaps).all():
        raise InputError("fitted_weights: give at least one pair of each kind, with finite cosines")

    def loss(weights):
        margins = gaps @ weights
        value = np.logaddexp(0, -margins).mean() + penalty * (weights**2).sum()
        shares = 1 / (1 + np.exp(np.clip(margins, -500, 500)))
        return value, -(shares[:, None] * gaps).mean(0) + 2 * penalty * weights

    parts = gaps.shape[1]
    found = optimize.minimize(loss, np.ones(parts), jac=True, method="L-BFGS-B", bounds=[(0, None)] * parts)
    return found.x / found.x.sum() if found.x.sum() > 0 else np.full(parts, 1 / parts)
