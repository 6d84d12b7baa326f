"""Embedder: a backbone, an optional projection, and heads on the embedding."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Pictures enter every network as (value / 255 - MEAN) / STD, per RGB channel: ImageNet's statistics, which public
# backbones expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(images: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """Maps pictures from bytes to the range that networks expect.

    Args:
      images: [B, H, W, 3] uint8, RGB.
      dtype: type of the result.

    Returns:
      [B, H, W, 3], per channel about zero mean and unit variance.
    """
    scale = 1.0 / (255.0 * jnp.asarray(STD))
    return (images.astype(jnp.float32) * scale - jnp.asarray(MEAN) / jnp.asarray(STD)).astype(dtype)


class Embedder(nn.Module):
    """Pictures in; an embedding and the logits of every head out.

    Attributes:
      backbone: module that returns {"embedding": [B, width]}.
      heads: {name: Head}, each applied to the embedding.
      projection: dimensions of the embedding, or 0 for the backbone's own width.
    """
    backbone: nn.Module
    heads: dict[str, nn.Module]
    projection: int = 0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, Any]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised.
          train: whether drop path is active.

        Returns:
          {"embedding": [B, D] float32, "logits": {head: [B, V] float32}}.
        """
        embedding = self.backbone(images, train=train)["embedding"]
        if self.projection:
            embedding = nn.Dense(self.projection, name="projection")(embedding)
            embedding = nn.LayerNorm(epsilon=1e-6, name="projection_norm")(embedding)
        return {"embedding": embedding, "logits": {name: head(embedding) for name, head in self.heads.items()}}
