"""Adds a table of positions to tokens, with a gradient that leaves the memory layout of a GPU's program alone.

The gradient of the table is a sum over the batch. As one reduction, XLA for GPUs lays out the whole residual stream of
a ViT with the batch as its innermost axis, and transposes it before and after nearly every kernel of the network.
"""

import math

import jax
import jax.numpy as jnp


def add(tokens: jax.Array, table: jax.Array) -> jax.Array:
    """Returns tokens [B, N, C] + table [1, N, C]."""
    return by_halves(tokens, table) if jax.default_backend() == "gpu" else tokens + table


@jax.custom_vjp
def by_halves(tokens: jax.Array, table: jax.Array) -> jax.Array:
    """Computes `add`; the gradient of the table is summed by halves of the batch, element by element."""
    return tokens + table


def _backward(_, cotangent):
    # Halves of what one device holds: the batch is sharded, and a sum across shards would send activations.
    shards = math.gcd(len(cotangent), jax.device_count())
    total = cotangent.reshape(shards, -1, *cotangent.shape[1:]).astype(jnp.float32)
    odd = []
    while total.shape[1] > 1:
        half = total.shape[1] // 2
        odd.append(total[:, 2 * half :])
        total = total[:, :half] + total[:, half : 2 * half]
    total = sum((rest for rest in odd if rest.shape[1]), total)
    total = total[:, 0] if shards == 1 else total.sum(0)
    return cotangent, total.astype(cotangent.dtype)


by_halves.defvjp(lambda tokens, table: (by_halves(tokens, table), None), _backward)
