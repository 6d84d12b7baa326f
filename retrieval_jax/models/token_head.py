"""Predicts tokens from states, with the table of token embeddings as its last layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.models.layers.linear import Dense, gelu
from retrieval_jax.models.layers.norm import layer_norm


class TokenHead(nn.Module):
    """The head of masked language models: a layer, GELU and a norm, then the token table and a bias.

    Attributes:
      dtype: of the computation; the logits are float32.

    Source: Liu et al., "RoBERTa", arXiv 1907.11692; tied as in Press and Wolf, arXiv 1608.05859.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, states: jax.Array, table: jax.Array) -> jax.Array:
        """Maps states [..., H] and the table of tokens [V, W] to logits [..., V], float32."""
        tokens, width = table.shape
        x = gelu(Dense(width, dtype=self.dtype, name="dense")(states))
        x = layer_norm("norm", 1e-5, self.dtype)(x)
        product = jax.lax.dot_general(
            x, table.astype(self.dtype), (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        return product + self.param("bias", nn.initializers.zeros, (tokens,))
