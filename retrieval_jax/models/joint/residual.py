"""The picture's vector, gated by the words, plus what the words change about it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.models.layers.linear import Dense, gelu
from retrieval_jax.models.layers.norm import layer_norm


class Model(nn.Module):
    """Gated residual: sigmoid(gate) * picture + change, both functions of picture and words.

    Attributes:
      dim: of the result, which is that of the pictures.
      hidden: width of the hidden layers.
      dropout: share of hidden units that training drops.

    Source: TIRG, Vo et al., "Composing Text and Image for Image Retrieval", arXiv 1812.07119, with a layer norm in the
    place of batch norm. It begins as the picture itself: the gate is open and the change is near zero.
    """

    dim: int
    hidden: int = 1024
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, picture: jax.Array, words: jax.Array, states: jax.Array, mask: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Returns the query's vectors; see `models.joint`."""
        x = jnp.concatenate([picture * jnp.sqrt(picture.shape[-1]), words], axis=-1)
        x = layer_norm("norm")(Dense(self.hidden, name="fc1")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(gelu(x))
        x = gelu(Dense(self.hidden, name="fc2")(x))
        small = nn.initializers.normal(0.01 / jnp.sqrt(self.hidden))
        gate = Dense(self.dim, kernel_init=small, bias_init=nn.initializers.constant(2.0), name="gate")(x)
        return jax.nn.sigmoid(gate) * picture + Dense(self.dim, kernel_init=small, name="change")(x)
