"""ConvNeXt: depthwise 7x7 convolutions and pointwise MLPs in four stages.

Source: Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545. Widths and depths of the sizes up to "nano" are those
of timm's models of the same name; "micro" and "mini" are ours, for small pictures on CPUs.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.models.depthwise import depthwise_conv
from retrieval_jax.models.pooling import DropPath, Pool

# variant: (blocks of each stage, channels of each stage)
VARIANTS = {
    "micro": ((1, 1, 2, 1), (32, 64, 128, 256)),
    "mini": ((1, 2, 4, 1), (48, 96, 192, 384)),
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}

# By fan-in, not the published 0.02: in narrow networks that leaves the blocks almost silent, and training from scratch
# waits for them on a plateau. Published weights replace it anyway.
_INIT = nn.initializers.lecun_normal()


class Patches(nn.Module):
    """A convolution whose stride is its size: cuts the map into patches and projects each.

    Rows and columns at the lower and right edge that do not fill a patch are left out, as a convolution without padding
    does.
    """
    channels: int
    size: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Projects [B, H, W, C] to [B, H // size, W // size, channels]."""
        batch, height, width, channels = images.shape
        rows, columns = height // self.size, width // self.size
        if not rows or not columns:
            raise InputError(f"a map of {height} x {width} has no patch of {self.size} x {self.size}: the pictures are "
                             "too small for this model; set a larger config.data.image_size or a smaller patch_size")
        kernel = self.param("kernel", _INIT, (self.size, self.size, channels, self.channels))
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        # A reshape and one matrix product: the fastest form of this convolution on every backend.
        patches = images[:, :rows * self.size, :columns * self.size].astype(self.dtype)
        patches = patches.reshape(batch, rows, self.size, columns, self.size, channels).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(batch, rows, columns, -1)
        return patches @ kernel.reshape(-1, self.channels).astype(self.dtype) + bias.astype(self.dtype)


class Block(nn.Module):
    """One residual block: depthwise convolution, norm, pointwise MLP, learned scale."""
    kernel_size: int
    drop_path: float
    layer_scale: float
    dtype: jnp.dtype
    epsilon: float = 1e-6
    tanh_gelu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param("dw_kernel", _INIT, (self.kernel_size, self.kernel_size, channels))
        bias = self.param("dw_bias", nn.initializers.zeros, (channels,))
        branch = depthwise_conv(x, kernel) + bias.astype(self.dtype)
        branch = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(branch)
        branch = nn.Dense(4 * channels, kernel_init=_INIT, dtype=self.dtype, name="fc1")(branch)
        branch = nn.gelu(branch, approximate=self.tanh_gelu)
        branch = nn.Dense(channels, kernel_init=_INIT, dtype=self.dtype, name="fc2")(branch)
        scale = self.param("scale", nn.initializers.constant(self.layer_scale), (channels,))
        return x + DropPath(self.drop_path)(branch * scale.astype(self.dtype), train)


class Model(nn.Module):
    """A ConvNeXt backbone: pictures in, one vector each out.

    Attributes:
      variant: a key of VARIANTS.
      pooling: "avg", "gem" or "map".
      drop_path: rate of the last block; grows linearly from 0 at the first.
      layer_scale: first value of every block's learned scale.
      patch_size: size and stride of the stem, pixels.
      kernel_size: size of the depthwise kernels.
      pool_stages: stages whose maps are pooled and normalised; more than the last (3) make the embedding their
        concatenation, in this order: early stages keep the colours and textures that the last one gives up.
      dtype: type of the computation; parameters stay float32.
      epsilon: added to the variance in every norm; the published models have 1e-6, some of timm's 1e-5.
      tanh_gelu: whether GELU is the tanh approximation, as in some of timm's models.
    """
    variant: str = "tiny"
    pooling: str = "avg"
    drop_path: float = 0.0
    layer_scale: float = 1e-6
    patch_size: int = 4
    kernel_size: int = 7
    pool_stages: tuple[int, ...] = (3,)
    dtype: Any = jnp.float32
    epsilon: float = 1e-6
    tanh_gelu: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised.
          train: whether drop path is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, sum of the widths of pool_stages] float32}.
        """
        if self.variant not in VARIANTS:
            raise InputError(f"unknown ConvNeXt variant {self.variant!r}; there are: {', '.join(VARIANTS)}")
        depths, widths = VARIANTS[self.variant]
        x = images.astype(self.dtype)
        block, pooled = 0, {}
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage == 0:
                x = Patches(width, self.patch_size, self.dtype, name="stem")(x)
                x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="stem_norm")(x)
            else:
                x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=f"stage{stage}_norm")(x)
                x = Patches(width, 2, self.dtype, name=f"stage{stage}_down")(x)
            for i in range(depth):
                rate = self.drop_path * block / max(1, sum(depths) - 1)
                x = Block(self.kernel_size, rate, self.layer_scale, self.dtype, self.epsilon, self.tanh_gelu,
                          name=f"stage{stage}_block{i}")(x, train)
                block += 1
            if stage in self.pool_stages:
                suffix = "" if stage == 3 else f"_stage{stage}"
                vector = Pool(self.pooling, dtype=self.dtype, name=f"pool{suffix}")(x)
                pooled[stage] = nn.LayerNorm(epsilon=self.epsilon, name=f"head_norm{suffix}")(vector)
        return {"embedding": jnp.concatenate([pooled[stage] for stage in self.pool_stages], axis=-1)}
