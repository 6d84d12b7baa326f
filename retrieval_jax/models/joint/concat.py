"""Picture and words side by side through an MLP."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.models.layers.linear import Dense, gelu


class Model(nn.Module):
    """MLP of the concatenated vectors.

    Attributes:
      dim: of the result.
      hidden: width of the hidden layers.
      dropout: share of hidden units that training drops.

    Source: the late concatenation of Vo et al., "Composing Text and Image for Image Retrieval", arXiv 1812.07119.
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
        for name in ("fc1", "fc2"):
            x = gelu(Dense(self.hidden, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.dim, name="out")(x)
