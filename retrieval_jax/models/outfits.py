"""Networks over the items of an outfit: a projection for each type, and a transformer that scores a whole set."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.models.layers.linear import Dense
from retrieval_jax.models.text.transformer import Block


def projections(num_types: int, dim: int, out: int) -> jax.Array:
    """Returns one projection per type that starts as the identity, float32 [num_types, dim, out]."""
    return jnp.broadcast_to(jnp.eye(dim, out, dtype=jnp.float32), (num_types, dim, out))


def project(kernels: jax.Array, vectors: jax.Array, types: jax.Array) -> jax.Array:
    """Projects vectors by their types.

    Args:
      kernels: [T, D, E], of `projections`.
      vectors: [n, D].
      types: int [n], rows of the kernels; a negative one is not projected.

    Returns:
      float32 [n, E].

    Source: one projection per type, where Vasileva et al., "Learning Type-Aware Embeddings for Fashion Compatibility"
    (ECCV 2018), have one per pair of types: one point per item can be searched.
    """
    # All types are computed and one is chosen: a product of [n, D] with [T, D, E] gathers no [n, D, E].
    every = jnp.einsum("nd,tde->nte", vectors, kernels)
    chosen = jnp.take_along_axis(every, jnp.maximum(types, 0)[:, None, None], axis=1)[:, 0]
    plain = vectors @ jnp.eye(*kernels.shape[1:], dtype=kernels.dtype)
    return jnp.where((types >= 0)[:, None], chosen, plain)


class SetScorer(nn.Module):
    """Scores whole outfits: a transformer over items without an order, and a token that reads the score.

    Attributes:
      num_types: of items.
      width: of the states.
      depth: number of blocks.
      heads: of the attention; they divide the width.
      dropout: share of the states that training drops.

    Source: a transformer over the items with a token of its own for the score, OutfitTransformer, arXiv 2204.04812.
    """

    num_types: int
    width: int = 128
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1

    @nn.compact
    def __call__(self, vectors: jax.Array, types: jax.Array, there: jax.Array, train: bool = False) -> jax.Array:
        """Returns scores.

        Args:
          vectors: [B, k, D], unit length.
          types: int [B, k], negative where unknown.
          there: bool [B, k], False past the end of a shorter outfit.
          train: whether to drop states.

        Returns:
          float32 [B] logits: higher for sets that go together; equal for every order of the items.
        """
        x = Dense(self.width, name="items")(vectors * jnp.sqrt(vectors.shape[-1]))
        x += nn.Embed(self.num_types + 1, self.width, name="types")(types + 1)
        token = self.param("query", nn.initializers.normal(0.02), (self.width,))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
        seen = jnp.concatenate([jnp.ones((len(there), 1), bool), there], axis=1)
        for number in range(self.depth):
            block = Block(self.heads, 4 * self.width, jnp.float32, 1e-5, self.dropout, "auto", name=f"block{number}")
            x, _ = block((x, seen), 0.0, train)
        return Dense(1, name="out")(x[:, 0])[:, 0]
