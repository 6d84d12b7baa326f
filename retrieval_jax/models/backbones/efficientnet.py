"""EfficientNet-Lite 0 to 4: small convolutional networks whose public ImageNet weights run anywhere.

Inverted residual blocks without squeeze-and-excitation, with ReLU6. Batch norm is not a layer here: it is folded into
the convolution before it when weights are loaded, so each convolution has a kernel and a bias. That is exact for
embedding, and training continues from there, without batch statistics: an embedding does not depend on the other
pictures of its batch, on one device or on many. A separate scale per channel would be the same function, at the cost of
another pass over every map; Adam's steps are relative to the gradient's size either way.

Source: Tan and Le, "EfficientNet", arXiv 1905.11946; inverted residuals: Sandler et al., "MobileNetV2",
arXiv 1801.04381; the Lite variants are TensorFlow's, with the names and sizes of timm's models.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.models.layers import blocks, pooling, shifted
from retrieval_jax.models.layers.linear import product
from retrieval_jax.models.layers.pooling import DropPath, Pool
from retrieval_jax.pairs import near

# variant: (multiplier of the channels, multiplier of the blocks)
VARIANTS = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}

# Each stage: blocks, kernel size, stride of the first block, expansion, channels. Stem and head keep their width.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
HEAD = len(_STAGES)  # the number of the head's map, as in pool_stages

_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # He's, for ReLU6
_INIT_LINEAR = nn.initializers.lecun_normal()
_INIT_DEPTHWISE = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=(0, 1), out_axis=2)


@jax.custom_vjp
def relu6(x: jax.Array) -> jax.Array:
    """Returns x limited to 0..6; the backward pass needs the result alone, which the next layer keeps anyway."""
    return jnp.clip(x, 0, 6)


def _relu6_forward(x):
    y = jnp.clip(x, 0, 6)
    return y, y


def _relu6_backward(y, cotangent):
    return (jnp.where((y > 0) & (y < 6), cotangent, 0),)


relu6.defvjp(_relu6_forward, _relu6_backward)


@jax.custom_vjp
def plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns x [..., C] + bias [C]."""
    return x + bias


def _plus_backward(_, cotangent):
    # Without the barrier XLA on a CPU computes the cotangent again inside the sum, one number at a time.
    cotangent = jax.lax.optimization_barrier(cotangent) if jax.default_backend() == "cpu" else cotangent
    return cotangent, cotangent.sum(axis=tuple(range(cotangent.ndim - 1)))


plus.defvjp(lambda x, bias: (x + bias, None), _plus_backward)


class Pointwise(nn.Module):
    """A 1x1 convolution as a matrix product, with bias and, for `act`, ReLU6."""

    channels: int
    act: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, channels]."""
        kernel = self.param("kernel", _INIT if self.act else _INIT_LINEAR, (x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x = plus(product(x.astype(self.dtype), kernel.astype(self.dtype)), bias.astype(self.dtype))
        return relu6(x) if self.act else x


class Depthwise(nn.Module):
    """A depthwise convolution with bias and ReLU6."""

    size: int
    stride: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), C]."""
        kernel = self.param("kernel", _INIT_DEPTHWISE, (self.size, self.size, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = shifted.depthwise_conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        return relu6(plus(x, bias.astype(self.dtype)))


class Stem(nn.Module):
    """A 3x3 convolution with stride 2, with bias and ReLU6."""

    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps [B, H, W, 3] to [B, ceil(H / 2), ceil(W / 2), channels]."""
        kernel = self.param("kernel", _INIT, (3, 3, images.shape[-1], self.channels)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        images = images.astype(self.dtype)
        if jax.default_backend() == "cpu":  # as one matrix product: the gradient of XLA's own is slow there
            rows, columns = (-(-side // 2) for side in images.shape[1:3])
            inputs = shifted.padded(images, 3, 2)
            taps = [inputs[:, y : y + 2 * rows : 2, x : x + 2 * columns : 2] for y in range(3) for x in range(3)]
            taps = [tap[:, :rows, :columns] for tap in taps]
            x = product(jnp.concatenate(taps, axis=-1), kernel.reshape(-1, self.channels))
        else:
            x = jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return relu6(plus(x, bias.astype(self.dtype)))


class Block(nn.Module):
    """An inverted residual: expansion (unless 1), depthwise convolution, linear projection; a shortcut if it fits."""

    size: int
    stride: int
    expansion: int
    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, rate: float, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]; `rate` is the drop-path rate."""
        branch = x
        if self.expansion != 1:
            branch = Pointwise(self.expansion * x.shape[-1], True, self.dtype, name="expand")(branch)
        branch = Depthwise(self.size, self.stride, self.dtype, name="depthwise")(branch)
        branch = Pointwise(self.channels, False, self.dtype, name="project")(branch)
        if self.stride != 1 or x.shape[-1] != self.channels:
            return branch
        return x + DropPath(rate)(branch, train)


class Model(nn.Module):
    """An EfficientNet-Lite backbone: maps each picture to one vector.

    Attributes:
      variant: a key of VARIANTS.
      pooling: "avg", "gem", ... as in `pooling.Pool`.
      drop_path: rate of the last block, growing linearly from 0 at the first; blocks without a shortcut have none.
      pool_stages: maps that are pooled; the embedding concatenates them in this order. 0 to 6 are the stages, whose
        pooled maps are normalised (they have 16 to 320 channels in lite0); 7 is the map of the head, with 1,280
        channels, pooled as published.
      pool_bands: number of horizontal bands, or (rows, columns) of a grid, that each of these maps is cut into before
        pooling, as in `convnext.Model`; empty for 1 each.
      dtype: type of the computation; parameters stay float32.
      channel_multiplier: of the stages' widths; None for the variant's.
      depth_multiplier: of the number of blocks, except in the first and last stage; None for the variant's.
      epsilon: that weight files have added to the variances of their batch norms.
      remat: recompute blocks in the backward pass to save memory.
    """

    variant: str = "lite0"
    pooling: str = "avg"
    drop_path: float = 0.0
    pool_stages: tuple[int, ...] = (HEAD,)
    pool_bands: tuple[int | tuple[int, int], ...] = ()
    dtype: Any = jnp.float32
    channel_multiplier: float | None = None
    depth_multiplier: float | None = None
    epsilon: float = 1e-3
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised.
          train: whether drop path is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, sum of bands * width over pool_stages], "pooled": [B, sum of widths]}, both float32; they
          are equal without bands; "maps", those of pool_stages, [B, h, w, C] each.

        Raises:
          InputError: an unknown variant, or pool_stages and pool_bands that do not fit it.
        """
        stages = self._stages()
        grids = pooling.grids(self.pool_bands, len(self.pool_stages))
        if not self.pool_stages or not all(0 <= stage <= HEAD for stage in self.pool_stages):
            raise InputError(
                f"pool_stages={self.pool_stages}, but an EfficientNet has the stages 0 to {HEAD - 1}, and {HEAD} for "
                "its head"
            )
        rates = iter(blocks.rates(self.drop_path, sum(depth for depth, *_ in stages)))
        x, maps = Stem(_STEM, self.dtype, name="stem")(images), {}
        for stage, (depth, size, stride, expansion, channels) in enumerate(stages):
            for number in range(depth):
                name, rate = f"stage{stage}_block{number}", next(rates) if train else 0.0
                block = Block(size, 1 if number else stride, expansion, channels, self.dtype, name=name)
                if self.remat:
                    x = nn.remat(lambda block, x, rate=rate: block(x, rate, train))(block, x)
                else:
                    x = block(x, rate, train)
            maps[stage] = x
        if HEAD in self.pool_stages:
            maps[HEAD] = Pointwise(_HEAD, True, self.dtype, name="conv_head")(x)
        pooled = [self._pooled(maps[stage], stage, grid) for stage, grid in zip(self.pool_stages, grids, strict=True)]
        return {
            "embedding": jnp.concatenate([part for _, parts in pooled for part in parts], axis=-1),
            "pooled": jnp.concatenate([whole for whole, _ in pooled], axis=-1),
            "maps": tuple(maps[stage] for stage in self.pool_stages),
        }

    def _stages(self) -> list[tuple[int, int, int, int, int]]:
        """Returns `_STAGES` with the blocks and channels of this variant."""
        if self.variant not in VARIANTS:
            raise InputError(f"unknown EfficientNet variant {self.variant!r}{near(self.variant, VARIANTS)}")
        width, depth = _multipliers(self)
        if not width > 0 or not depth > 0:
            raise InputError(f"channel_multiplier={width}, depth_multiplier={depth}: both must be above 0")
        return [
            (
                number if stage in (0, HEAD - 1) else math.ceil(number * depth),
                size,
                stride,
                expansion,
                _rounded(channels * width),
            )
            for stage, (number, size, stride, expansion, channels) in enumerate(_STAGES)
        ]

    def _pooled(self, x: jax.Array, stage: int, grid: tuple[int, int]) -> tuple[jax.Array, list[jax.Array]]:
        """Pools the map of a stage; returns (the whole map's vector, the vectors of its cells)."""
        suffix = "" if stage == HEAD else f"_stage{stage}"
        pool = Pool(self.pooling, dtype=self.dtype, name=f"pool{suffix}")
        # The head's map is bounded by its ReLU6; the others are linear, each of a scale of its own.
        norm = (lambda x: x) if stage == HEAD else nn.LayerNorm(epsilon=1e-6, name=f"head_norm{suffix}")
        whole = norm(pool(x))
        return whole, [whole] if grid == (1, 1) else [norm(pool(cell)) for cell in pooling.cells(x, grid)]


def _multipliers(model: Model) -> tuple[float, float]:
    width, depth = VARIANTS[model.variant]
    return (
        width if model.channel_multiplier is None else model.channel_multiplier,
        depth if model.depth_multiplier is None else model.depth_multiplier,
    )


def _rounded(channels: float) -> int:
    """Returns the nearest multiple of 8, at least 8 and not more than 10 % below."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 * (near < 0.9 * channels)


# Mapping to timm's models of this family; see pretrained.py.

TIMM = {
    f"tf_efficientnet_{name}": {"channel_multiplier": width, "depth_multiplier": depth}
    for name, (width, depth) in VARIANTS.items()
}

# timm's functions set these themselves and do not take them.
IMPLIED = ("channel_multiplier", "depth_multiplier")

# (our path, timm's name, kind, batch norm that is folded into it); see pretrained.py.
TIMM_RULES = (
    (r"stem/kernel", "conv_stem.weight", "conv", "bn1"),
    (r"stem/bias", "bn1.bias", "same", "bn1"),
    (r"stage0_block(\d+)/depthwise/kernel", r"blocks.0.\1.conv_dw.weight", "depthwise", r"blocks.0.\1.bn1"),
    (r"stage0_block(\d+)/depthwise/bias", r"blocks.0.\1.bn1.bias", "same", r"blocks.0.\1.bn1"),
    (r"stage0_block(\d+)/project/kernel", r"blocks.0.\1.conv_pw.weight", "1x1", r"blocks.0.\1.bn2"),
    (r"stage0_block(\d+)/project/bias", r"blocks.0.\1.bn2.bias", "same", r"blocks.0.\1.bn2"),
    (r"stage(\d)_block(\d+)/expand/kernel", r"blocks.\1.\2.conv_pw.weight", "1x1", r"blocks.\1.\2.bn1"),
    (r"stage(\d)_block(\d+)/expand/bias", r"blocks.\1.\2.bn1.bias", "same", r"blocks.\1.\2.bn1"),
    (r"stage(\d)_block(\d+)/depthwise/kernel", r"blocks.\1.\2.conv_dw.weight", "depthwise", r"blocks.\1.\2.bn2"),
    (r"stage(\d)_block(\d+)/depthwise/bias", r"blocks.\1.\2.bn2.bias", "same", r"blocks.\1.\2.bn2"),
    (r"stage(\d)_block(\d+)/project/kernel", r"blocks.\1.\2.conv_pwl.weight", "1x1", r"blocks.\1.\2.bn3"),
    (r"stage(\d)_block(\d+)/project/bias", r"blocks.\1.\2.bn3.bias", "same", r"blocks.\1.\2.bn3"),
    (r"conv_head/kernel", "conv_head.weight", "1x1", "bn2"),
    (r"conv_head/bias", "bn2.bias", "same", "bn2"),
)

# A network that pools earlier maps only has no head.
LEFT_OUT = {r"conv_head\.weight|bn2\.\w+": lambda model: HEAD not in model.pool_stages}


def from_timm(
    channel_multiplier=1.0,
    depth_multiplier=1.0,
    bn_eps=None,
    act_layer="relu6",
    pad_type="same",
    norm_layer=None,
    output_stride=32,
    global_pool="avg",
    drop_path_rate=0.0,
    img_size=None,
) -> Model:
    """Returns the backbone that timm's constructor builds from these arguments, with timm's meaning.

    `img_size` has no effect: the network accepts pictures of any size.

    Raises:
      InputError: an argument that is not supported here.
    """
    del img_size
    refused = {
        "act_layer": act_layer not in (None, "", "relu6"),
        "pad_type": pad_type != "same",
        "norm_layer": norm_layer not in (None, "", "batchnorm", "batchnorm2d"),
        "output_stride": output_stride != 32,
        "global_pool": global_pool not in ("avg", "max", "avgmax"),
    }
    if wrong := [name for name, is_wrong in refused.items() if is_wrong]:
        raise InputError(
            f"an EfficientNet with this {', '.join(wrong)} is not supported; leave it at timm's default "
            "(for other poolings use the field pooling)"
        )
    variant = next((name for name, sizes in VARIANTS.items() if sizes == (channel_multiplier, depth_multiplier)), None)
    return Model(
        variant or "lite0",
        pooling=global_pool,
        drop_path=drop_path_rate,
        channel_multiplier=None if variant else channel_multiplier,
        depth_multiplier=None if variant else depth_multiplier,
        epsilon=1e-3 if bn_eps is None else bn_eps,
    )


def to_timm(model: Model) -> dict:
    """Returns the arguments of timm's constructor for this backbone: the inverse of `from_timm`."""
    width, depth = _multipliers(model)
    return {
        "channel_multiplier": width,
        "depth_multiplier": depth,
        "bn_eps": model.epsilon,
        "global_pool": model.pooling if model.pooling in ("avg", "max", "avgmax") else "avg",
    }
