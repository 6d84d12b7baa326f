"""A transformer over the picture and the tokens of the words."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.models.layers.linear import Dense
from retrieval_jax.models.text.transformer import Block


class Model(nn.Module):
    """Blocks over one token of the picture and the states of the words; the picture's token is what changes it.

    Attributes:
      dim: of the result, which is that of the pictures.
      width: of the states.
      depth: number of blocks.
      heads: of the attention.
      dropout: share of the states that training drops.

    Source: the joint encoder of Hosseinzadeh and Wang, "Composed Query Image Retrieval Using Locally Bounded Features",
    CVPR 2020, with one token per picture.
    """

    dim: int
    width: int = 256
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, picture: jax.Array, words: jax.Array, states: jax.Array, mask: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Returns the query's vectors; see `models.joint`.

        Raises:
          InputError: heads that do not divide the width.
        """
        if self.width % self.heads:
            raise InputError(
                f"joint network: {self.heads} heads do not divide a width of {self.width}: change "
                "config.train.task_kwargs.joint_kwargs.heads or width"
            )
        first = Dense(self.width, name="picture")(picture * jnp.sqrt(picture.shape[-1]))
        second = Dense(self.width, name="whole")(words)  # there even where no token is
        rest = Dense(self.width, name="words")(states)
        x = jnp.concatenate([first[:, None], second[:, None], rest], axis=1)
        seen = jnp.concatenate([jnp.ones((len(mask), 2), bool), mask], axis=1)
        for number in range(self.depth):
            block = Block(self.heads, 4 * self.width, jnp.float32, 1e-5, self.dropout, "auto", name=f"block{number}")
            x, _ = block((x, seen), 0.0, train)
        small = nn.initializers.normal(0.01 / jnp.sqrt(self.width))
        return picture + Dense(self.dim, kernel_init=small, name="out")(x[:, 0])
