"""Losses: pure functions of logits and targets that return one value per picture, in optax's style."""

import jax
import jax.numpy as jnp


def reduce(losses: jax.Array, where: jax.Array | None, weights: jax.Array | None) -> jax.Array:
    """Applies per-picture weights and zeroes the pictures that `where` excludes.

    Args:
      losses: [B].
      where: [B] bool, or None to include all.
      weights: [B], or None for 1.
    """
    if weights is not None:
        losses = losses * weights
    return losses if where is None else jnp.where(where, losses, 0.0)
