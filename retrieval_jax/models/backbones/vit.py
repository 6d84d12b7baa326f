"""Vision Transformer: patches as tokens, pre-norm attention blocks, learned positions.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; sizes S/B/L also as in Touvron et al.,
arXiv 2012.12877; registers and layer scale as in DINOv2 (arXiv 2304.07193, 2309.16588), attention pooling as in SigLIP
(arXiv 2303.15343), the "so400m" shape of Alabdulmohsin et al., arXiv 2305.13035. "mini" and "micro" are ours, for small
pictures on CPUs.

Longer than 400 lines: the network and its mapping to timm's models change together.
"""

import math
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones.convnext import Patches
from retrieval_jax.models.layers import blocks, positions
from retrieval_jax.models.layers.attention import attention
from retrieval_jax.models.layers.linear import Dense
from retrieval_jax.models.layers.norm import layer_norm
from retrieval_jax.models.layers.pooling import DropPath, Pool, activation
from retrieval_jax.models.timm import checkpoints as timm_checkpoints
from retrieval_jax.pairs import near

# variant: (blocks, width, attention heads)
VARIANTS = {
    "micro": (6, 128, 4),
    "mini": (8, 192, 4),
    "tiny": (12, 192, 3),
    "small": (12, 384, 6),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
    "huge": (32, 1280, 16),
    "so400m": (27, 1152, 16),
}


class Attention(nn.Module):
    """Self-attention with query, key and value from one matrix product."""

    num_heads: int
    dtype: jnp.dtype
    qkv_bias: bool = True
    kernel: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        if width % self.num_heads:
            raise InputError(f"{self.num_heads} attention heads do not divide a width of {width}")
        qkv = Dense(3 * width, use_bias=self.qkv_bias, dtype=self.dtype, name="qkv")(x)
        query, key, value = jnp.moveaxis(qkv.reshape(batch, length, 3, self.num_heads, -1), 2, 0)
        x = attention(query, key, value, kernel=self.kernel)
        return Dense(width, dtype=self.dtype, name="proj")(x.reshape(batch, length, width))


class Block(nn.Module):
    """One pre-norm block: attention, then an MLP."""

    num_heads: int
    dtype: jnp.dtype
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_scale: float | None = None
    act: str = "gelu"
    epsilon: float = 1e-6
    attention_kernel: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array, train: bool) -> jax.Array:
        """Maps tokens [B, N, C] to the same shape; `rate` is the drop-path rate."""
        width = x.shape[-1]
        y = layer_norm("norm1", self.epsilon, self.dtype)(x)
        y = Attention(self.num_heads, self.dtype, self.qkv_bias, self.attention_kernel, name="attention")(y)
        x = x + DropPath(rate)(self._scaled("attention_scale", y), train)
        y = layer_norm("norm2", self.epsilon, self.dtype)(x)
        y = activation(self.act)(Dense(int(width * self.mlp_ratio), dtype=self.dtype, name="fc1")(y))
        y = Dense(width, dtype=self.dtype, name="fc2")(y)
        return x + DropPath(rate)(self._scaled("mlp_scale", y), train)

    def _scaled(self, name: str, branch: jax.Array) -> jax.Array:
        if self.layer_scale is None:
            return branch
        scale = self.param(name, nn.initializers.constant(self.layer_scale), (branch.shape[-1],))
        return branch * scale.astype(branch.dtype)


class Model(nn.Module):
    """A ViT backbone: maps each picture to one vector.

    Attributes:
      variant: a key of VARIANTS.
      pooling: "token" (the class token), or, over the patch tokens, "avg", "gem", "map", ... as in `pooling.Pool`.
      drop_path: rate of the last block, growing linearly from 0 at the first.
      patch_size: side of a patch, pixels.
      dtype: type of the computation; parameters stay float32.
      depth: number of blocks; None for the variant's.
      width: width of the tokens; None for the variant's.
      num_heads: attention heads; None for the variant's.
      mlp_ratio: width of the MLPs as a multiple of the tokens'; None for 4, or 4304 / 1152 for "so400m".
      qkv_bias: whether query, key and value have biases.
      class_token: whether there is a class token; None for only if it is pooled.
      registers: number of extra tokens that are not patches.
      prefix_positions: whether the class token and registers have positions too.
      positions: whether there are learned positions.
      prefix_pooled: whether the class token and registers are pooled with the patches.
      layer_scale: initial value of the learned scales of each block; None for no scales.
      pre_norm: normalise tokens before the first block; the stem then has no bias.
      norm: position of the last norm: "before" the pooling, "after" it, or "none".
      act: activation of the MLPs, a key of `pooling.ACTIVATIONS`.
      epsilon: added to the variance in each norm.
      image_size: (height, width) or side, pixels, of the position table; None for the size of the pictures that the
        parameters were initialised with. For other pictures the table is resampled (bicubic, antialiased).
      attention_kernel: "auto", the fastest of the backend, "xla", or "cudnn"; see `attention.attention`.
      remat: recompute blocks in the backward pass to save memory.
      scan: run the blocks as one loop over stacked parameters.
    """

    variant: str = "small"
    pooling: str = "avg"
    drop_path: float = 0.0
    patch_size: int = 16
    dtype: Any = jnp.float32
    depth: int | None = None
    width: int | None = None
    num_heads: int | None = None
    mlp_ratio: float | None = None
    qkv_bias: bool = True
    class_token: bool | None = None
    registers: int = 0
    prefix_positions: bool = True
    positions: bool = True
    prefix_pooled: bool = False
    layer_scale: float | None = None
    pre_norm: bool = False
    norm: str = "before"
    act: str = "gelu"
    epsilon: float = 1e-6
    image_size: int | tuple[int, int] | None = None
    attention_kernel: str = "auto"
    remat: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised; rows and columns that do not fill a patch are ignored.
          train: whether drop path is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, width] float32}.
        """
        if self.variant not in VARIANTS:
            raise InputError(f"unknown ViT variant {self.variant!r}{near(self.variant, VARIANTS)}")
        if self.norm not in ("before", "after", "none"):
            raise InputError(f"unknown norm={self.norm!r}{near(self.norm, ('before', 'after', 'none'))}")
        depth, width, num_heads = VARIANTS[self.variant]
        depth, width, num_heads = self.depth or depth, self.width or width, self.num_heads or num_heads
        mlp_ratio = self.mlp_ratio or (4304 / 1152 if self.variant == "so400m" else 4.0)
        class_token = self.pooling == "token" if self.class_token is None else self.class_token
        if self.pooling == "token" and not class_token:
            raise InputError('pooling="token" needs the class token; remove class_token=False')
        prefix = class_token + self.registers

        x = Patches(width, self.patch_size, self.dtype, not self.pre_norm, name="stem")(images.astype(self.dtype))
        batch, grid = x.shape[0], x.shape[1:3]
        x = x.reshape(batch, -1, width)
        table = self._positions(grid, width, prefix if self.prefix_positions else 0) if self.positions else None
        if table is not None and not self.prefix_positions:
            x = positions.add(x, table)
        tokens = []
        if class_token:
            tokens.append(self.param("class_token", nn.initializers.normal(0.02), (1, 1, width)))
        if self.registers:
            tokens.append(self.param("registers", nn.initializers.normal(0.02), (1, self.registers, width)))
        tokens = [jnp.broadcast_to(token.astype(self.dtype), (batch, *token.shape[1:])) for token in tokens]
        x = jnp.concatenate([*tokens, x], axis=1)
        if table is not None and self.prefix_positions:
            x = positions.add(x, table)
        if self.pre_norm:
            x = layer_norm("stem_norm", self.epsilon, self.dtype)(x)

        def make(name):
            return Block(
                num_heads,
                self.dtype,
                mlp_ratio,
                self.qkv_bias,
                self.layer_scale,
                self.act,
                self.epsilon,
                self.attention_kernel,
                name=name,
            )

        x = blocks.apply(make, x, blocks.rates(self.drop_path, depth), train, remat=self.remat, scan=self.scan)
        if self.norm == "before":
            x = layer_norm("norm", self.epsilon, self.dtype)(x)
        if self.pooling == "token":
            vector = x[:, 0].astype(jnp.float32)
        else:
            vector = Pool(self.pooling, num_heads, self.dtype, self.epsilon, mlp_ratio, self.act, name="pool")(
                x if self.prefix_pooled else x[:, prefix:]
            )
        if self.norm == "after":
            vector = layer_norm("pool_norm", self.epsilon)(vector)
        return {"embedding": vector}

    def _positions(self, grid: tuple[int, int], width: int, prefix: int) -> jax.Array:
        """Returns the position embeddings of a grid of patches, [1, prefix + rows * columns, width]."""
        made_for = grid
        if self.image_size is not None:
            made_for = patch_grid(self.image_size, self.patch_size)
        elif self.has_variable("params", "positions"):
            made_for = nearest_grid(self.get_variable("params", "positions").shape[1] - prefix, grid)
        shape = (1, prefix + math.prod(made_for), width)
        table = self.param("positions", nn.initializers.normal(0.02), shape)
        return resample_positions(table, made_for, grid, prefix).astype(self.dtype)


def patch_grid(image_size, patch_size: int) -> tuple[int, int]:
    """Returns (rows, columns) of whole patches in pictures of (height, width), or a side, in pixels."""
    height, width = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    return height // patch_size, width // patch_size


def nearest_grid(tokens: int, like: tuple[int, int]) -> tuple[int, int]:
    """Returns the grid (rows, columns) with a number of tokens whose aspect ratio is nearest to another grid's."""
    grids = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    return min(grids, key=lambda grid: abs(math.log(grid[0] * like[1] / (grid[1] * like[0]))))


def grid_of_file(tokens: int, stated: tuple[int, int] | None, new: tuple[int, int]) -> tuple[int, int]:
    """Returns the grid (rows, columns) of a file's position table: the stated one, `new`, or a square one.

    Like timm, uses a table with the wanted number of positions unchanged and assumes that any other is square.

    Args:
      tokens: positions in the file's table.
      stated: grid according to the file, or None.
      new: grid that is wanted.

    Raises:
      ValueError: none of them has that many positions.
    """
    side = math.isqrt(max(tokens, 0))
    for grid in (stated, new, (side, side)):
        if grid is not None and math.prod(grid) == tokens:
            return grid
    raise ValueError(f"a table of {tokens} positions does not match a square grid")


def resample_positions(table, old: tuple[int, int], new: tuple[int, int], prefix: int) -> jax.Array:
    """Resamples a position table to another grid (bicubic, antialiased); the first `prefix` rows are kept.

    Args:
      table: [1, prefix + rows * columns, C].
      old: (rows, columns) of the table.
      new: (rows, columns) to resample to.
      prefix: number of tokens that are not patches.

    Returns:
      [1, prefix + new rows * new columns, C].
    """
    if tuple(old) == tuple(new):
        return table
    patches = jnp.asarray(table)[:, prefix:].reshape(1, *old, -1)
    patches = jax.image.resize(patches, (1, *new, patches.shape[-1]), "cubic").reshape(1, -1, patches.shape[-1])
    return jnp.concatenate([table[:, :prefix], patches], axis=1)


# Mapping to timm's models of this family; see pretrained.py.

# Width, blocks, heads, and the MLP ratio if it is not 4.
_SIZES = {
    "tiny": (192, 12, 3),
    "xsmall": (256, 10, 4),
    "wee": (256, 14, 4, 5.0),
    "little": (320, 14, 5, 5.6),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "mediumd": (512, 20, 8),
    "betwixt": (640, 12, 10),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "so400m": (1152, 27, 16, 3.7362),
    "huge": (1280, 32, 16),
    "giant": (1408, 40, 16, 48 / 11),
    "giantopt": (1536, 40, 16),
    "gigantic": (1664, 48, 16, 64 / 13),
}


def _arguments(name: str) -> dict:
    """Returns the arguments of timm's constructor for a name such as "vit_base_patch16_siglip_224"."""
    parts = re.fullmatch(r"vit_([a-z0-9]+)_patch(\d+)_(?:([a-z0-9_]+?)_?)??(\d{3})?", name)
    size, patch, flavour, side = parts.groups("")
    arguments = dict(zip(("embed_dim", "depth", "num_heads", "mlp_ratio"), _SIZES[size], strict=False))
    arguments |= {"patch_size": int(patch), "img_size": int(side or 518)}  # 518 is DINOv2's
    if flavour.startswith("clip"):
        arguments |= {"pre_norm": True, "norm_eps": 1e-5} | ({"act_layer": "quick_gelu"} if "gelu" in flavour else {})
    if flavour.startswith("siglip"):
        arguments |= {"class_token": False, "global_pool": "map"}
        if size == "giantopt" or patch == "32" or (size, patch) == ("so400m", "16") or (size, side) == ("large", "512"):
            arguments["act_layer"] = "gelu_tanh"
    if flavour.endswith("gap"):
        arguments |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
    if flavour == "gap":
        arguments |= {"qkv_bias": False, "init_values": 1e-6}
    if flavour.startswith("reg"):
        arguments |= {"reg_tokens": int(flavour[3]), "no_embed_class": True, "init_values": 1e-5, "fc_norm": None}
    if flavour == "dinov2":
        arguments["init_values"] = 1e-5
    return arguments


TIMM = {name: _arguments(name) for name in timm_checkpoints.architectures("vit_")}
_TEST = {"patch_size": 16, "embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3.0, "img_size": 160}
TIMM |= {
    "test_vit": _TEST,
    "test_vit2": _TEST | {"depth": 8, "class_token": False, "reg_tokens": 1, "global_pool": "avg", "init_values": 1e-5},
    "test_vit3": _TEST
    | {
        "embed_dim": 96,
        "depth": 9,
        "num_heads": 3,
        "mlp_ratio": 2.0,
        "class_token": False,
        "reg_tokens": 1,
        "global_pool": "map",
        "pool_include_prefix": True,
        "init_values": 1e-5,
    },
}

_BLOCK, _THEIRS = r"block(\d+)/", r"blocks.\1."
TIMM_RULES = (
    (r"positions", "pos_embed", "same"),
    (r"class_token", "cls_token", "same"),
    (r"registers", "reg_token", "same"),
    (r"stem/kernel", "patch_embed.proj.weight", "conv"),
    (r"stem/bias", "patch_embed.proj.bias", "same"),
    (r"stem_norm/scale", "norm_pre.weight", "same"),
    (r"stem_norm/bias", "norm_pre.bias", "same"),
    (_BLOCK + r"(norm\d)/scale", _THEIRS + r"\2.weight", "same"),
    (_BLOCK + r"(norm\d)/bias", _THEIRS + r"\2.bias", "same"),
    (_BLOCK + r"attention/(qkv|proj)/kernel", _THEIRS + r"attn.\2.weight", "linear"),
    (_BLOCK + r"attention/(qkv|proj)/bias", _THEIRS + r"attn.\2.bias", "same"),
    (_BLOCK + r"(fc\d)/kernel", _THEIRS + r"mlp.\2.weight", "linear"),
    (_BLOCK + r"(fc\d)/bias", _THEIRS + r"mlp.\2.bias", "same"),
    (_BLOCK + r"attention_scale", _THEIRS + "ls1.gamma", "same"),
    (_BLOCK + r"mlp_scale", _THEIRS + "ls2.gamma", "same"),
    (r"norm/scale", "norm.weight", "same"),
    (r"norm/bias", "norm.bias", "same"),
    (r"pool_norm/scale", "fc_norm.weight", "same"),
    (r"pool_norm/bias", "fc_norm.bias", "same"),
    (r"pool/query", "attn_pool.latent", "same"),
    (r"pool/(q|kv|proj)/kernel", r"attn_pool.\1.weight", "linear"),
    (r"pool/(q|kv|proj)/bias", r"attn_pool.\1.bias", "same"),
    (r"pool/(fc\d)/kernel", r"attn_pool.mlp.\1.weight", "linear"),
    (r"pool/(fc\d)/bias", r"attn_pool.mlp.\1.bias", "same"),
    (r"pool/norm/scale", "attn_pool.norm.weight", "same"),
    (r"pool/norm/bias", "attn_pool.norm.bias", "same"),
)
_POOLS = ("token", "avg", "map", "max", "avgmax")
RESAMPLED = "positions"
# The attention pool is ignored if another pooling is used, as in timm; "pre_logits" are layers of old classifiers.
LEFT_OUT = {r"attn_pool\..*": lambda model: model.pooling != "map", r"pre_logits\..*": lambda model: True}


def from_timm(
    img_size=224,
    patch_size=16,
    global_pool="token",
    embed_dim=768,
    depth=12,
    num_heads=12,
    mlp_ratio=4.0,
    qkv_bias=True,
    qk_norm=False,
    scale_attn_norm=False,
    scale_mlp_norm=False,
    proj_bias=True,
    init_values=None,
    class_token=True,
    pos_embed="learn",
    no_embed_class=False,
    reg_tokens=0,
    pre_norm=False,
    final_norm=True,
    fc_norm=None,
    pool_include_prefix=False,
    dynamic_img_size=False,
    dynamic_img_pad=False,
    norm_layer=None,
    norm_eps=1e-6,
    act_layer=None,
    drop_path_rate=0.0,
) -> Model:
    """Returns the backbone that timm's constructor builds from these arguments, with timm's meaning.

    `norm_eps` is ours: timm has it inside `norm_layer`. `dynamic_img_size` has no effect, because pictures of any size
    are accepted.

    Raises:
      InputError: an argument that is not supported here.
    """
    del dynamic_img_size
    if isinstance(patch_size, tuple | list):
        if len(set(patch_size)) > 1:
            raise InputError(f"patch_size={patch_size}: patches are square here; give one number")
        patch_size = patch_size[0]
    refused = {
        "qk_norm": qk_norm,
        "scale_attn_norm": scale_attn_norm,
        "scale_mlp_norm": scale_mlp_norm,
        "proj_bias": not proj_bias,
        "dynamic_img_pad": dynamic_img_pad,
        "norm_layer": norm_layer not in (None, "", "layernorm"),
        "global_pool": global_pool not in _POOLS,
        "pos_embed": pos_embed not in ("learn", "none", ""),
    }
    if wrong := [name for name, is_wrong in refused.items() if is_wrong]:
        raise InputError(
            f"a ViT with this {', '.join(wrong)} is not supported; leave it at timm's default"
            f" (global_pool may be {', '.join(_POOLS)}; for other poolings use the field pooling)"
        )
    after = global_pool in ("avg", "avgmax", "max") if fc_norm is None else fc_norm
    sizes = (depth, embed_dim, num_heads)
    variant = next((name for name, known in VARIANTS.items() if known == sizes), None)
    depth, embed_dim, num_heads = (None,) * 3 if variant else sizes
    return Model(
        variant or "base",
        pooling=global_pool,
        drop_path=drop_path_rate,
        patch_size=patch_size,
        depth=depth,
        width=embed_dim,
        num_heads=num_heads,
        mlp_ratio=float(mlp_ratio),
        qkv_bias=qkv_bias,
        class_token=class_token,
        registers=reg_tokens,
        prefix_positions=not no_embed_class,
        positions=pos_embed == "learn",
        prefix_pooled=pool_include_prefix,
        layer_scale=init_values or None,
        pre_norm=pre_norm,
        norm="none" if not final_norm else "after" if after else "before",
        act=act_layer or "gelu",
        epsilon=norm_eps,
        image_size=tuple(img_size) if isinstance(img_size, tuple | list) else img_size,
    )


def to_timm(model: Model) -> dict:
    """Returns the arguments of timm's constructor for this backbone: the inverse of `from_timm`."""
    depth, width, num_heads = VARIANTS[model.variant]
    return {
        "img_size": model.image_size,
        "patch_size": model.patch_size,
        "embed_dim": model.width or width,
        "depth": model.depth or depth,
        "num_heads": model.num_heads or num_heads,
        "mlp_ratio": model.mlp_ratio or (3.7362 if model.variant == "so400m" else 4.0),
        "qkv_bias": model.qkv_bias,
        "global_pool": model.pooling if model.pooling in _POOLS else "avg",
        "init_values": model.layer_scale,
        "reg_tokens": model.registers,
        "class_token": model.pooling == "token" if model.class_token is None else model.class_token,
        "pos_embed": "learn" if model.positions else "none",
        "no_embed_class": not model.prefix_positions,
        "pre_norm": model.pre_norm,
        "final_norm": model.norm != "none",
        "fc_norm": model.norm == "after",
        "pool_include_prefix": model.prefix_pooled,
        "act_layer": model.act,
    }


def resample(path: str, tensor: np.ndarray, model: Model, source_size: tuple[int, int] | None) -> np.ndarray:
    """Resamples a file's positions [1, tokens, C] to the model's picture size; ValueError as in `grid_of_file`."""
    del path
    class_token = model.pooling == "token" if model.class_token is None else model.class_token
    prefix = class_token + model.registers if model.prefix_positions else 0
    if model.image_size is None:  # the model's grid follows the parameters
        return tensor
    new, stated = (size and patch_grid(size, model.patch_size) for size in (model.image_size, source_size))
    return np.asarray(resample_positions(tensor, grid_of_file(tensor.shape[1] - prefix, stated, new), new, prefix))
