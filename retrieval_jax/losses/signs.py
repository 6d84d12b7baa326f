"""Signs of embeddings as codes: a sign that gradients pass through, and a loss that keeps values near +1 and -1."""

import jax
import jax.numpy as jnp

from retrieval_jax.losses import reduce, unit


def spread(vectors: jax.Array) -> jax.Array:
    """Returns vectors [..., D] with length sqrt(D), float32, so that values of +1 and -1 are where they can all be."""
    return unit(vectors) * vectors.shape[-1] ** 0.5


def through(values: jax.Array) -> jax.Array:
    """Returns signs, +1 or -1, with the gradient of the values themselves where these are small.

    Args:
      values: [..., D], from `spread`; up to 1.5 in size they pass the gradient on.

    Source: Bengio, Leonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons",
      arXiv 1308.3432 (straight-through estimator).
    """
    signs = jnp.where(values > 0, 1.0, -1.0)
    kept = jnp.where(jnp.abs(values) <= 1.5, values, jax.lax.stop_gradient(values))
    return jax.lax.stop_gradient(signs - kept) + kept


def quantisation(values: jax.Array, where: jax.Array | None = None, weights: jax.Array | None = None) -> jax.Array:
    """Returns how far values are from their signs: the mean square, per picture.

    Args:
      values: [B, D], from `spread`.
      where: [B] bool, or None to include all.
      weights: [B], or None for 1.

    Returns:
      [B].

    Source: Zhu, Long, Wang and Cao, "Deep Hashing Network for Efficient Similarity Retrieval", AAAI 2016.
    """
    return reduce(jnp.square(jnp.abs(values) - 1).mean(-1), where, weights)
