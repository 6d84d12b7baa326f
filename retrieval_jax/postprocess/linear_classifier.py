"""Linear classifier on finished vectors: categories for a network that learned none, fitted in a minute.

Multinomial logistic regression on vectors of length 1, each dimension less its mean and divided by its standard
deviation, with a penalty on the squared weights. A run that learned from titles alone gets the logits of categories
this way, and the network is not touched.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np
from scipy import optimize

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.files.arrays import load_npz
from retrieval_jax.postprocess.l2 import normalize

WHERE = "linear_classifier"
BLOCK = 8192  # vectors at once


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """Weights of a linear classifier.

    Attributes:
      weights: float32 [D, C], on vectors of length 1.
      bias: float32 [C].
    """

    weights: np.ndarray
    bias: np.ndarray

    __repr__ = brief.line

    def logits(self, vectors: np.ndarray | Embeddings) -> np.ndarray:
        """Returns the logits of categories, float32 [n, C].

        Args:
          vectors: [n, D], of any length but 0.

        Raises:
          InputError: another number of dimensions, or a non-finite vector.
        """
        found = _read(vectors, "vectors", len(self.weights))
        return found @ self.weights + self.bias

    def save(self, file: str | os.PathLike) -> None:
        """Writes the weights as .npz, whole or not at all.

        Args:
          file: its name.
        """
        atomic.write_npz(file, weights=self.weights, bias=self.bias)


def load(file: str | os.PathLike) -> Classifier:
    """Returns a classifier that `Classifier.save` wrote.

    Args:
      file: its name.

    Raises:
      InputError: the file is missing or damaged, or its arrays do not fit each other.
    """
    remedy = "fit the classifier again"
    wanted = {"weights": (("float32",), 2), "bias": (("float32",), 1)}
    found = load_npz(pathlib.Path(file), wanted, remedy=remedy)
    if found["weights"].shape[1] != len(found["bias"]):
        raise InputError(f"{file}: weights and bias are of different numbers of categories: {remedy}")
    return Classifier(**found)


def fit(
    vectors: np.ndarray | Embeddings,
    categories: np.ndarray,
    count: int,
    *,
    penalty: float = 1e-4,
    iterations: int = 100,
) -> Classifier:
    """Fits the classifier that makes the categories of listings likeliest, less a penalty.

    Args:
      vectors: [n, D] of the listings.
      categories: integers [n], below `count`; -1 where unknown: those listings are left out.
      count: number of categories, C. One that no listing has is all but ruled out by its bias.
      penalty: half of this times the squared weights of the scaled dimensions is added to the mean loss.
      iterations: of L-BFGS at most; each reads all vectors twice.

    Returns:
      The `Classifier`.

    Raises:
      InputError: arrays that do not fit each other, a non-finite vector, or listings of fewer than two categories.

    Source: Bishop, "Pattern Recognition and Machine Learning", 2006, 4.3.4; L-BFGS: Liu & Nocedal, "On the limited
    memory BFGS method for large scale optimization", 1989.
    """
    count = arguments.integer(count, "count", WHERE, low=2)
    penalty = arguments.number(penalty, "penalty", WHERE, low=0)
    iterations = arguments.integer(iterations, "iterations", WHERE)
    labels = arguments.rows(categories, "categories", WHERE, (len(vectors),), count, padding=True)
    units = _read(vectors, "vectors")[labels >= 0]
    labels = labels[labels >= 0]
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"{WHERE}: the {len(labels):,} listings of known category have {len(np.unique(labels))} of them: give "
            "listings of at least two categories"
        )
    mean = units.mean(0, dtype=np.float64).astype(np.float32)
    units -= mean
    scale = np.maximum(units.std(0, dtype=np.float64), 1e-6).astype(np.float32)
    units /= scale
    dim, rows = units.shape[1], np.arange(len(labels))

    def loss(flat):
        weights, bias = flat[:-count].reshape(dim, count), flat[-count:]
        small, value = weights.astype(np.float32), 0.0
        slope, shift = np.zeros((dim, count)), np.zeros(count)
        for start in range(0, len(units), BLOCK):
            block, own = units[start : start + BLOCK], labels[start : start + BLOCK]
            logits = block @ small + bias.astype(np.float32)
            logits -= logits.max(1, keepdims=True)
            chances = np.exp(logits)
            total = chances.sum(1)
            value += float((np.log(total) - logits[rows[: len(own)], own]).sum(dtype=np.float64))
            chances /= total[:, None]
            chances[rows[: len(own)], own] -= 1
            slope += block.T @ chances
            shift += chances.sum(0, dtype=np.float64)
        value = value / len(units) + penalty / 2 * (weights**2).sum()
        return value, np.concatenate([(slope / len(units) + penalty * weights).reshape(-1), shift / len(units)])

    start = np.zeros((dim + 1) * count)
    start[-count:] = np.log(np.bincount(labels, minlength=count) + 1e-3)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations}).x
    weights = (found[:-count].reshape(dim, count) / scale[:, None]).astype(np.float32)
    return Classifier(weights, (found[-count:] - mean.astype(np.float64) @ weights).astype(np.float32))


def _read(vectors: np.ndarray | Embeddings, name: str, dim: int | None = None) -> np.ndarray:
    """Returns vectors of length 1 in memory, float32 [n, D]."""
    source = vectors.vectors if isinstance(vectors, Embeddings) else vectors
    found = np.array(arguments.vectors(source, name, WHERE, dim)[:], np.float32)
    arguments.finite(found, f"{WHERE}: {name}", vectors.ids if isinstance(vectors, Embeddings) else None)
    return normalize(found)
