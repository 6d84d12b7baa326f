"""Losses: pure functions of logits and targets that return one value per picture, in optax's style."""

import jax
import jax.numpy as jnp

from retrieval_jax import arguments


def reduce(losses: jax.Array, where: jax.Array | None, weights: jax.Array | None) -> jax.Array:
    """Applies per-picture weights and zeroes the pictures that `where` excludes.

    Args:
      losses: [B].
      where: [B] bool, or None to include all.
      weights: [B], or None for 1.

    Raises:
      InputError: another shape.
    """
    for name, value in (("where", where), ("weights", weights)):
        if value is not None:  # [B, 1] would broadcast to [B, B]
            arguments.shape_of(value, name, "losses", losses.shape)
    if weights is not None:
        losses = losses * weights
    return losses if where is None else jnp.where(where, losses, 0.0)


def unit(vectors: jax.Array) -> jax.Array:
    """Returns vectors [..., D] divided by their lengths, float32; zeros stay zeros."""
    vectors = vectors.astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.maximum((vectors**2).sum(axis=-1, keepdims=True), 1e-12))
