"""A bidirectional GRU over token embeddings: a small tower for typed queries."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.models.layers import token_pooling
from retrieval_jax.models.layers.linear import Dense

# Name of a size -> fields of `Model`.
VARIANTS = {"mini": {"width": 100, "hidden": 100}, "small": {"width": 200, "hidden": 256}}
_UNROLL = 8  # tokens per step of the loop


class Model(nn.Module):
    """Bidirectional GRU of token ids.

    Attributes:
      vocabulary: rows of the table of tokens.
      dim: dimensions of the embedding; 0 for 2 * hidden.
      pooling: "mean" of the tokens' states, or "first": the last state of each direction.
      dtype: of the computation; parameters and the state between tokens stay float32.
      width: of the tokens' embeddings.
      hidden: width of the state of each direction.
      dropout: share of the tokens' embeddings that training drops.

    Source: Cho et al., arXiv 1406.1078, with the reset gate behind the product, as in cuDNN and PyTorch; the sizes are
    those of arXiv 2107.08291.
    """

    vocabulary: int
    dim: int = 0
    pooling: str = "mean"
    dtype: Any = jnp.float32
    width: int = 100
    hidden: int = 100
    dropout: float = 0.0

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Embeds texts.

        Args:
          tokens: int32 [B, L]; what they hold behind a text does not matter.
          mask: bool [B, L], True for the tokens of a text, which come first.
          train: whether dropout is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, dim] float32, "states": [B, L, 2 * hidden]}.

        Raises:
          InputError: an unknown pooling.
        """
        token_pooling.check(self.pooling)
        init = nn.initializers.normal(self.width**-0.5)
        table = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, embedding_init=init, name="stem_tokens")
        x = nn.Dropout(self.dropout, deterministic=not train)(table(jnp.where(mask, tokens, 0)))
        forward, last = Direction(self.hidden, self.dtype, False, name="forward")(x, mask)
        backward, first = Direction(self.hidden, self.dtype, True, name="backward")(x, mask)
        states = jnp.concatenate([forward, backward], axis=-1)
        if self.pooling == "mean":
            vector = token_pooling.mean(states, mask)
        else:
            vector = jnp.concatenate([last, first], axis=-1)
        if self.dim:
            vector = Dense(self.dim, name="projection")(vector)
        return {"embedding": vector, "states": states}


class Direction(nn.Module):
    """One direction of a GRU.

    Attributes:
      hidden, dtype: see `Model`.
      reverse: whether it reads from the last token to the first.
    """

    hidden: int
    dtype: Any
    reverse: bool

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps [B, L, W] with mask [B, L] to the states [B, L, hidden] and the last one [B, hidden]."""
        given = Dense(3 * self.hidden, dtype=self.dtype, name="input")(x)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.hidden, 3 * self.hidden))
        bias = self.param("new_bias", nn.initializers.zeros, (self.hidden,))

        def step(state, token):
            own, there = token
            own = own.astype(jnp.float32)
            product = (state.astype(self.dtype) @ kernel.astype(self.dtype)).astype(jnp.float32)
            reset, update = jnp.split(
                jax.nn.sigmoid(own[:, : 2 * self.hidden] + product[:, : 2 * self.hidden]), 2, axis=-1
            )
            new = jnp.tanh(own[:, 2 * self.hidden :] + reset * (product[:, 2 * self.hidden :] + bias))
            # Padding leaves the state as it is, so that a text's result does not depend on what is behind it.
            state = jnp.where(there[:, None], new + update * (state - new), state)
            return state, state.astype(self.dtype)

        start = jnp.zeros((x.shape[0], self.hidden), jnp.float32)
        by_token = given.swapaxes(0, 1), mask.T
        last, states = jax.lax.scan(step, start, by_token, reverse=self.reverse, unroll=min(_UNROLL, x.shape[1]))
        return states.swapaxes(0, 1), last
