"""ConvNeXt and ConvNeXt V2: depthwise 7x7 convolutions and pointwise MLPs in four stages.

Source: Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545; V2: Woo et al., "ConvNeXt V2", arXiv 2301.00808. Widths
and depths up to "nano" are those of timm's models of the same name; "micro" and "mini" are ours, for small pictures on
CPUs.

Longer than 400 lines: the network and its mapping to timm's models change together.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.models.layers import blocks, pooling
from retrieval_jax.models.layers.depthwise import depthwise_conv
from retrieval_jax.models.layers.linear import Dense, product
from retrieval_jax.models.layers.norm import layer_norm
from retrieval_jax.models.layers.pooling import ACTIVATIONS, DropPath, Pool, activation
from retrieval_jax.pairs import near

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
    "xxlarge": ((3, 4, 30, 3), (384, 768, 1536, 3072)),
    "huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}
# V2: the same sizes with a global response norm in each block and no layer scale.
VARIANTS |= {f"{name}_v2": VARIANTS[name] for name in VARIANTS if name != "xxlarge"}

STEMS = ("patch", "overlap", "overlap_tiered", "overlap_act")

# Scaled by fan-in instead of the published 0.02, with which the blocks of narrow networks contribute almost nothing and
# training from scratch starts on a plateau. Published weights replace it anyway.
_INIT = nn.initializers.lecun_normal()


class Patches(nn.Module):
    """A convolution whose stride is its size: cuts the map into patches and projects each.

    Rows and columns at the lower and right edge that do not fill a patch are ignored, as by an unpadded convolution.
    """

    channels: int
    size: int
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Projects [B, H, W, C] to [B, H // size, W // size, channels]."""
        batch, height, width, channels = images.shape
        rows, columns = height // self.size, width // self.size
        if not rows or not columns:
            raise InputError(
                f"a map of {height} x {width} does not contain a patch of {self.size} x {self.size}: the pictures are "
                "too small for this model; set a larger config.data.image_size or a smaller patch_size"
            )
        kernel = self.param("kernel", _INIT, (self.size, self.size, channels, self.channels))
        # A reshape and one matrix product: the fastest form of this convolution on every backend.
        patches = images[:, : rows * self.size, : columns * self.size].astype(self.dtype)
        patches = patches.reshape(batch, rows, self.size, columns, self.size, channels).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(batch, rows, columns, -1)
        patches = product(patches, kernel.reshape(-1, self.channels).astype(self.dtype))
        if not self.use_bias:
            return patches
        return patches + self.param("bias", nn.initializers.zeros, (self.channels,)).astype(self.dtype)


class ResponseNorm(nn.Module):
    """Global response norm: amplifies channels whose maps are strong relative to the others.

    Source: Woo et al., arXiv 2301.00808, section 3.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H, W, C] in the type of x; norms are computed in float32."""
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],)).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(x.dtype)
        squares = jnp.square(x.astype(jnp.float32)).sum(axis=(1, 2), keepdims=True)
        # The gradient of a root is infinite at 0: a channel that is zero everywhere gets norm 0 and no gradient.
        strength = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
        relative = strength / (strength.mean(axis=-1, keepdims=True) + 1e-6)
        return x + (bias + scale * (x * relative.astype(x.dtype)))


class Block(nn.Module):
    """One residual block: depthwise convolution, norm, pointwise MLP, learned scale."""

    kernel_size: int
    layer_scale: float | None
    dtype: jnp.dtype = jnp.float32
    epsilon: float = 1e-6
    act: str = "gelu"
    response_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to the same shape; `rate` is the drop-path rate."""
        channels = x.shape[-1]
        kernel = self.param("dw_kernel", _INIT, (self.kernel_size, self.kernel_size, channels))
        bias = self.param("dw_bias", nn.initializers.zeros, (channels,))
        branch = depthwise_conv(x, kernel) + bias.astype(self.dtype)
        branch = layer_norm("norm", self.epsilon, self.dtype)(branch)
        branch = Dense(4 * channels, kernel_init=_INIT, dtype=self.dtype, name="fc1")(branch)
        branch = activation(self.act)(branch)
        if self.response_norm:
            branch = ResponseNorm(name="response_norm")(branch)
        branch = Dense(channels, kernel_init=_INIT, dtype=self.dtype, name="fc2")(branch)
        if self.layer_scale is not None:
            scale = self.param("scale", nn.initializers.constant(self.layer_scale), (channels,))
            branch = branch * scale.astype(self.dtype)
        return x + DropPath(rate)(branch, train)


class Model(nn.Module):
    """A ConvNeXt backbone: maps each picture to one vector.

    Attributes:
      variant: a key of VARIANTS.
      pooling: "avg", "gem", ... as in `pooling.Pool`.
      drop_path: rate of the last block, growing linearly from 0 at the first.
      layer_scale: initial value of each block's learned scale; None for no scale. V2 never has one.
      patch_size: size and stride of the stem "patch", pixels.
      kernel_size: size of the depthwise kernels, one for all stages or one per stage.
      pool_stages: stages whose maps are pooled and normalised; the embedding concatenates them in this order. Early
        stages keep colours and textures that the last one (3) discards.
      pool_bands: number of horizontal bands, or (rows, columns) of a grid, that the map of each of pool_stages is cut
        into before pooling; each cell is a part of the embedding, because position in an upright picture distinguishes
        products. Empty for 1 each. Cells add no parameters and are not trained (heads read "pooled"), so they may be
        chosen after training. Source: the stripes of Sun et al., "Beyond Part Models", arXiv 1711.09349.
      dtype: type of the computation; parameters stay float32.
      epsilon: added to the variance in each norm; the published models have 1e-6, some of timm's 1e-5.
      act: activation of the blocks, a key of `pooling.ACTIVATIONS`.
      response_norm: whether blocks have V2's global response norm; None for the variant's choice.
      depths: blocks per stage; None for the variant's.
      dims: channels per stage; None for the variant's.
      stem: "patch", or two strided 3x3 convolutions: "overlap", "overlap_tiered" (the first half as wide),
        "overlap_act" (an activation between them).
      head_hidden: width of a layer with GELU after the last norm; 0 for no such layer.
      first_down: whether the first stage also begins with a downsampling.
      conv_mlp: whether weight files hold the pointwise layers as 1x1 convolutions; the output is the same.
      remat: recompute blocks in the backward pass to save memory.
      scan: run the blocks of a stage as one loop over stacked parameters.
    """

    variant: str = "tiny"
    pooling: str = "avg"
    drop_path: float = 0.0
    layer_scale: float | None = 1e-6
    patch_size: int = 4
    kernel_size: int | tuple[int, ...] = 7
    pool_stages: tuple[int, ...] = (3,)
    pool_bands: tuple[int | tuple[int, int], ...] = ()
    dtype: Any = jnp.float32
    epsilon: float = 1e-6
    act: str = "gelu"
    response_norm: bool | None = None
    depths: tuple[int, ...] | None = None
    dims: tuple[int, ...] | None = None
    stem: str = "patch"
    head_hidden: int = 0
    first_down: bool = False
    conv_mlp: bool = False
    remat: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised.
          train: whether drop path is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, sum of bands * width over pool_stages], "pooled": [B, sum of widths]}, both float32; they
          are equal without bands; "maps", those of pool_stages, [B, h, w, C] each.
        """
        if self.variant not in VARIANTS:
            raise InputError(f"unknown ConvNeXt variant {self.variant!r}{near(self.variant, VARIANTS)}")
        depths, dims = VARIANTS[self.variant]
        depths, dims = self.depths or depths, self.dims or dims
        v2 = self.variant.endswith("_v2")
        response_norm = v2 if self.response_norm is None else self.response_norm
        sizes = (self.kernel_size,) * len(dims) if isinstance(self.kernel_size, int) else self.kernel_size
        if not len(depths) == len(dims) == len(sizes):
            raise InputError(
                f"each stage needs a depth, a width and a kernel size, but depths={depths}, "
                f"dims={dims}, kernel_size={sizes}"
            )
        grids = pooling.grids(self.pool_bands, len(self.pool_stages))
        if not all(0 <= stage < len(dims) for stage in self.pool_stages):
            raise InputError(f"pool_stages={self.pool_stages}, but the stages are 0 to {len(dims) - 1}")
        x = self._stem(images.astype(self.dtype), dims[0])
        rates, whole, parts, maps = blocks.rates(self.drop_path, sum(depths)), {}, {}, {}
        for stage, (depth, width, size) in enumerate(zip(depths, dims, sizes, strict=True)):
            if stage > 0 or self.first_down:
                x = layer_norm(f"stage{stage}_norm", self.epsilon, self.dtype)(x)
                x = Patches(width, 2, self.dtype, name=f"stage{stage}_down")(x)

            def make(name, size=size):
                return Block(
                    size, None if v2 else self.layer_scale, self.dtype, self.epsilon, self.act, response_norm, name=name
                )

            first = sum(depths[:stage])
            x = blocks.apply(
                make, x, rates[first : first + depth], train, prefix=f"stage{stage}_", remat=self.remat, scan=self.scan
            )
            if stage in self.pool_stages:
                suffix = "" if stage == 3 else f"_stage{stage}"
                pool = Pool(self.pooling, dtype=self.dtype, name=f"pool{suffix}")
                norm = layer_norm(f"head_norm{suffix}", self.epsilon)
                hidden = Dense(self.head_hidden, name="hidden") if self.head_hidden and stage == 3 else None

                def vector(part, pool=pool, norm=norm, hidden=hidden):
                    pooled = norm(pool(part))
                    return pooled if hidden is None else activation("gelu")(hidden(pooled))

                # The cells of a stage share their parameters with the whole map.
                grid = grids[self.pool_stages.index(stage)]
                whole[stage], maps[stage] = vector(x), x
                parts[stage] = [whole[stage]] if grid == (1, 1) else [vector(cell) for cell in pooling.cells(x, grid)]
        return {
            "embedding": jnp.concatenate(sum((parts[stage] for stage in self.pool_stages), []), axis=-1),
            "pooled": jnp.concatenate([whole[stage] for stage in self.pool_stages], axis=-1),
            "maps": tuple(maps[stage] for stage in self.pool_stages),
        }

    def _stem(self, x: jax.Array, width: int) -> jax.Array:
        if self.stem not in STEMS:
            raise InputError(f"unknown ConvNeXt stem {self.stem!r}{near(self.stem, STEMS)}")
        if self.stem == "patch":
            x = Patches(width, self.patch_size, self.dtype, name="stem")(x)
            return layer_norm("stem_norm", self.epsilon, self.dtype)(x)
        # Each stem has its own names, because timm names layers by their index.
        name = "stem_act" if self.stem == "overlap_act" else "stem_overlap"
        first = width
        if self.stem == "overlap_tiered":  # half the width, rounded to a multiple of 8 not more than 10 % below it
            first = max(8, (width // 2 + 4) // 8 * 8)
            first += 8 * (first < 0.9 * (width // 2))
        for i, channels in enumerate((first, width)):
            x = nn.Conv(channels, (3, 3), 2, padding=1, dtype=self.dtype, kernel_init=_INIT, name=f"{name}{i}")(x)
            if self.stem == "overlap_act" and i == 0:
                x = activation(self.act)(x)
        return layer_norm(f"{name}_norm", self.epsilon, self.dtype)(x)


# Mapping to timm's models of this family; see pretrained.py.


def _timm() -> dict[str, dict]:
    table = {}
    for name in ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge"):
        depths, dims = VARIANTS[name]
        table[f"convnext_{name}"] = {
            "depths": depths,
            "dims": dims,
            "conv_mlp": name in ("atto", "femto", "pico", "nano"),
        }
    for name in ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "huge"):
        depths, dims = VARIANTS[name]
        table[f"convnextv2_{name}"] = {
            "depths": depths,
            "dims": dims,
            "use_grn": True,
            "ls_init_value": None,
            "conv_mlp": name in ("atto", "femto", "pico", "nano"),
        }
    table["convnext_xxlarge"] = dict(zip(("depths", "dims"), VARIANTS["xxlarge"], strict=True), norm_eps=1e-5)
    table["convnext_large_mlp"] = table["convnext_large"] | {"head_hidden_size": 1536}
    for name in ("atto", "femto", "pico"):
        table[f"convnext_{name}_ols"] = table[f"convnext_{name}"] | {"stem_type": "overlap_tiered"}
    table["convnext_nano_ols"] = table["convnext_nano"] | {"stem_type": "overlap"}
    small = {"dims": (32, 64, 96, 128), "depths": (1, 1, 1, 1), "norm_eps": 1e-5, "act_layer": "gelu_tanh"}
    table["test_convnext"] = small | {"depths": (1, 2, 4, 2), "dims": (24, 32, 48, 64)}
    table["test_convnext2"] = small
    table["test_convnext3"] = small | {"kernel_sizes": (7, 5, 5, 3), "act_layer": "silu"}
    return table


TIMM = _timm()

# (our path, timm's name, kind); see pretrained.py.
TIMM_RULES = (
    (r"stem/kernel", "stem.0.weight", "conv"),
    (r"stem/bias", "stem.0.bias", "same"),
    (r"stem_norm/scale", "stem.1.weight", "same"),
    (r"stem_norm/bias", "stem.1.bias", "same"),
    (r"stem_(?:overlap|act)0/kernel", "stem.0.weight", "conv"),
    (r"stem_(?:overlap|act)0/bias", "stem.0.bias", "same"),
    (r"stem_overlap1/kernel", "stem.1.weight", "conv"),
    (r"stem_overlap1/bias", "stem.1.bias", "same"),
    (r"stem_overlap_norm/scale", "stem.2.weight", "same"),
    (r"stem_overlap_norm/bias", "stem.2.bias", "same"),
    (r"stem_act1/kernel", "stem.2.weight", "conv"),
    (r"stem_act1/bias", "stem.2.bias", "same"),
    (r"stem_act_norm/scale", "stem.3.weight", "same"),
    (r"stem_act_norm/bias", "stem.3.bias", "same"),
    (r"stage(\d)_norm/scale", r"stages.\1.downsample.0.weight", "same"),
    (r"stage(\d)_norm/bias", r"stages.\1.downsample.0.bias", "same"),
    (r"stage(\d)_down/kernel", r"stages.\1.downsample.1.weight", "conv"),
    (r"stage(\d)_down/bias", r"stages.\1.downsample.1.bias", "same"),
    (r"stage(\d)_block(\d+)/dw_kernel", r"stages.\1.blocks.\2.conv_dw.weight", "depthwise"),
    (r"stage(\d)_block(\d+)/dw_bias", r"stages.\1.blocks.\2.conv_dw.bias", "same"),
    (r"stage(\d)_block(\d+)/norm/scale", r"stages.\1.blocks.\2.norm.weight", "same"),
    (r"stage(\d)_block(\d+)/norm/bias", r"stages.\1.blocks.\2.norm.bias", "same"),
    (r"stage(\d)_block(\d+)/(fc\d)/kernel", r"stages.\1.blocks.\2.mlp.\3.weight", "pointwise"),
    (r"stage(\d)_block(\d+)/(fc\d)/bias", r"stages.\1.blocks.\2.mlp.\3.bias", "same"),
    (r"stage(\d)_block(\d+)/response_norm/scale", r"stages.\1.blocks.\2.mlp.grn.weight", "same"),
    (r"stage(\d)_block(\d+)/response_norm/bias", r"stages.\1.blocks.\2.mlp.grn.bias", "same"),
    (r"stage(\d)_block(\d+)/scale", r"stages.\1.blocks.\2.gamma", "same"),
    (r"head_norm/scale", "head.norm.weight", "same"),
    (r"head_norm/bias", "head.norm.bias", "same"),
    (r"hidden/kernel", "head.pre_logits.fc.weight", "pointwise"),
    (r"hidden/bias", "head.pre_logits.fc.bias", "same"),
)

# A network that pools earlier maps only does not normalise the last one.
LEFT_OUT = {r"head\.norm\.\w+": lambda model: 3 not in model.pool_stages}


def from_timm(
    depths=(3, 3, 9, 3),
    dims=(96, 192, 384, 768),
    kernel_sizes=7,
    ls_init_value=1e-6,
    stem_type="patch",
    patch_size=4,
    head_hidden_size=None,
    head_norm_first=False,
    conv_mlp=False,
    conv_bias=True,
    use_grn=False,
    act_layer="gelu",
    norm_layer=None,
    norm_eps=None,
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
    if not len(depths) == len(dims) == 4:
        raise InputError(f"depths={depths}, dims={dims}: timm's ConvNeXt has four stages; give four numbers each")
    refused = {
        "head_norm_first": head_norm_first,
        "conv_bias": not conv_bias,
        "output_stride": output_stride != 32,
        "norm_layer": norm_layer not in (None, "", "layernorm", "layernorm2d"),
        "global_pool": global_pool not in ("avg", "max", "avgmax"),
    }
    if wrong := [name for name, is_wrong in refused.items() if is_wrong]:
        raise InputError(
            f"a ConvNeXt with this {', '.join(wrong)} is not supported; leave it at timm's default "
            "(for other poolings use the field pooling)"
        )
    if stem_type == "patch" and patch_size >= 8:
        raise InputError(
            f"patch_size={patch_size}: timm dilates the last stages of such a ConvNeXt to keep its output "
            "stride of 32, which is not supported; give at most 7"
        )
    if act_layer not in ACTIVATIONS:
        raise InputError(f"unknown act_layer={act_layer!r}{near(act_layer, ACTIVATIONS)}")
    if stem_type not in STEMS:
        raise InputError(f"unknown stem_type={stem_type!r}{near(stem_type, STEMS)}")
    variant = next(
        (
            name
            for name, sizes in VARIANTS.items()
            if sizes == (tuple(depths), tuple(dims)) and name.endswith("_v2") == (use_grn and ls_init_value is None)
        ),
        None,
    )
    return Model(
        variant or "tiny",
        pooling=global_pool,
        drop_path=drop_path_rate,
        layer_scale=ls_init_value,
        patch_size=patch_size,
        kernel_size=kernel_sizes if isinstance(kernel_sizes, int) else tuple(kernel_sizes),
        epsilon=1e-6 if norm_eps is None else norm_eps,
        act=act_layer,
        response_norm=use_grn,
        depths=None if variant else tuple(depths),
        dims=None if variant else tuple(dims),
        stem=stem_type,
        head_hidden=head_hidden_size or 0,
        first_down=stem_type == "patch" and patch_size == 2,
        conv_mlp=conv_mlp,
    )


def to_timm(model: Model) -> dict:
    """Returns the arguments of timm's constructor for this backbone: the inverse of `from_timm`."""
    depths, dims = VARIANTS[model.variant]
    v2 = model.variant.endswith("_v2")
    return {
        "depths": model.depths or depths,
        "dims": model.dims or dims,
        "kernel_sizes": model.kernel_size,
        "ls_init_value": None if v2 else model.layer_scale,
        "stem_type": model.stem,
        "patch_size": model.patch_size,
        "head_hidden_size": model.head_hidden or None,
        "conv_mlp": model.conv_mlp,
        "use_grn": v2 if model.response_norm is None else model.response_norm,
        "act_layer": model.act,
        "norm_eps": model.epsilon,
        "global_pool": model.pooling if model.pooling in ("avg", "max", "avgmax") else "avg",
    }
