"""Attention: heads-first on a CPU, where XLA runs it twice as fast as jax's own; jax's own elsewhere."""

import jax
import jax.numpy as jnp


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None, kernel: str = "xla"
) -> jax.Array:
    """Computes multi-head dot-product attention.

    Args:
      query: [B, T, N, H] with N heads.
      key: [B, S, N, H].
      value: [B, S, N, H].
      bias: added to the logits, broadcast to [B, N, T, S]; None for no bias.
      kernel: implementation of `jax.nn.dot_product_attention` on accelerators.

    Returns:
      [B, T, N, H]; the softmax is taken in float32.
    """
    if kernel != "xla" or jax.default_backend() != "cpu":
        return jax.nn.dot_product_attention(query, key, value, bias, implementation=kernel)
    query, key, value = (jnp.moveaxis(array, 2, 1) for array in (query, key, value))
    logits = jnp.einsum("bnth,bnsh->bnts", query * query.shape[-1] ** -0.5, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias.astype(jnp.float32)
    shares = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.moveaxis(jnp.einsum("bnts,bnsh->bnth", shares, value), 1, 2)
