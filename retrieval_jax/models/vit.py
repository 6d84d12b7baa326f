"""Vision Transformer: patches as tokens, pre-norm attention blocks, learned positions.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; sizes S/B/L also as in Touvron et al.,
arXiv 2012.12877. "mini" and "micro" are ours, for small pictures on CPUs.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.models.convnext import Patches
from retrieval_jax.models.pooling import DropPath, Pool

# variant: (blocks, width, attention heads)
VARIANTS = {
    "micro": (6, 128, 4),
    "mini": (8, 192, 4),
    "tiny": (12, 192, 3),
    "small": (12, 384, 6),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


class Block(nn.Module):
    """One pre-norm block: attention, then an MLP four times as wide."""
    num_heads: int
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = x.shape[-1]
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")(x)
        y = nn.MultiHeadDotProductAttention(self.num_heads, dtype=self.dtype, name="attention")(y, y)
        x = x + DropPath(self.drop_path)(y, train)
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")(x)
        y = nn.Dense(4 * width, dtype=self.dtype, name="fc1")(y)
        y = nn.Dense(width, dtype=self.dtype, name="fc2")(nn.gelu(y, approximate=False))
        return x + DropPath(self.drop_path)(y, train)


class Model(nn.Module):
    """A ViT backbone: pictures in, one vector each out.

    Attributes:
      variant: a key of VARIANTS.
      pooling: "avg", "gem" or "map" over the patch tokens (there is no class token).
      drop_path: rate of the last block; grows linearly from 0 at the first.
      patch_size: side of a patch, pixels.
      dtype: type of the computation; parameters stay float32.
    """
    variant: str = "small"
    pooling: str = "avg"
    drop_path: float = 0.0
    patch_size: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised; positions are learned for this H and W.
          train: whether drop path is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, width] float32}.
        """
        if self.variant not in VARIANTS:
            raise InputError(f"unknown ViT variant {self.variant!r}; there are: {', '.join(VARIANTS)}")
        depth, width, num_heads = VARIANTS[self.variant]
        x = Patches(width, self.patch_size, self.dtype, name="stem")(images.astype(self.dtype))
        positions = self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = (x + positions.astype(self.dtype)).reshape(x.shape[0], -1, width)
        for i in range(depth):
            rate = self.drop_path * i / max(1, depth - 1)
            x = Block(num_heads, rate, self.dtype, name=f"block{i}")(x, train)
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        return {"embedding": Pool(self.pooling, num_heads, self.dtype, name="pool")(x)}
