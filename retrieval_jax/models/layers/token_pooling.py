"""Pools the states of a text's tokens into one vector, padding left out."""

import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.pairs import near

POOLINGS = ("mean", "first")


def check(pooling: str) -> None:
    """Raises InputError for a pooling that does not exist."""
    if pooling not in POOLINGS:
        raise InputError(f"unknown pooling={pooling!r}{near(pooling, POOLINGS)}")


def mean(states: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean of the states that count, float32; zeros for a row without any.

    Args:
      states: [B, L, H].
      mask: bool [B, L].
    """
    total = jnp.where(mask[..., None], states.astype(jnp.float32), 0.0).sum(1)
    return total / jnp.maximum(mask.sum(1, keepdims=True), 1)
