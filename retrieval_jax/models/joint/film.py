"""The words scale and shift the hidden units of the picture."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.models.layers.linear import Dense, gelu
from retrieval_jax.models.layers.norm import layer_norm


class Model(nn.Module):
    """Feature-wise modulation: layers of the picture's vector, scaled and shifted by the words, added to the picture.

    Attributes:
      dim: of the result, which is that of the pictures.
      hidden: width of the hidden layers.
      depth: modulated layers.
      dropout: share of hidden units that training drops.

    Source: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", arXiv 1709.07871.
    """

    dim: int
    hidden: int = 1024
    depth: int = 2
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, picture: jax.Array, words: jax.Array, states: jax.Array, mask: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Returns the query's vectors; see `models.joint`."""
        x = picture * jnp.sqrt(picture.shape[-1])
        for number in range(self.depth):
            x = layer_norm(f"norm{number}")(Dense(self.hidden, name=f"fc{number}")(x))
            scale, shift = jnp.split(Dense(2 * self.hidden, name=f"film{number}")(words), 2, axis=-1)
            x = nn.Dropout(self.dropout, deterministic=not train)(gelu((1 + scale) * x + shift))
        small = nn.initializers.normal(0.01 / jnp.sqrt(self.hidden))
        return picture + Dense(self.dim, kernel_init=small, name="out")(x)
