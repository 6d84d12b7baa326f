"""BEiT: a ViT with learned attention biases by relative position, keys without a bias, and scaled branches.

Source: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", arXiv 2106.08254; Peng et al., "BEiT v2",
arXiv 2208.06366, is the same network. "micro" and "mini" are ours, for small pictures on CPUs.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones.convnext import Patches
from retrieval_jax.models.backbones.vit import grid_of_file, nearest_grid, patch_grid, resample_positions
from retrieval_jax.models.layers import blocks, positions, relative_bias
from retrieval_jax.models.layers.attention import attention
from retrieval_jax.models.layers.linear import Dense, gelu
from retrieval_jax.models.layers.norm import layer_norm
from retrieval_jax.models.layers.pooling import DropPath, Pool
from retrieval_jax.pairs import near

# variant: (blocks, width, attention heads)
VARIANTS = {
    "micro": (6, 128, 4),
    "mini": (8, 192, 4),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}

_EPSILON = 1e-6  # of all norms


class Attention(nn.Module):
    """Attention between a class token and patches, with a bias by relative position.

    Attributes:
      num_heads: heads; must divide the width.
      grid: (rows, columns) of the patches.
      made_for: (rows, columns) of the table of relative biases; None for those of the parameters.
      relative_bias: whether the block has its own table.
      qkv_bias: whether queries and values have a bias; keys never do.
      dtype: type of the computation.
      kernel: see `attention.attention`.
    """

    num_heads: int
    grid: tuple[int, int]
    made_for: tuple[int, int] | None = None
    relative_bias: bool = True
    qkv_bias: bool = True
    dtype: Any = jnp.float32
    kernel: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, table: jax.Array | None = None) -> jax.Array:
        """Maps [B, 1 + N, C] to the same shape; `table`, shared biases for the grid, is added to its own."""
        batch, tokens, width = x.shape
        if width % self.num_heads:
            raise InputError(f"{self.num_heads} heads do not divide a width of {width}")
        qkv = Dense(3 * width, use_bias=False, dtype=self.dtype, name="qkv")(x)
        if self.qkv_bias:
            query, value = (self.param(name, nn.initializers.zeros, (width,)) for name in ("q_bias", "v_bias"))
            qkv += jnp.concatenate([query, jnp.zeros_like(query), value]).astype(self.dtype)
        query, key, value = jnp.moveaxis(qkv.reshape(batch, tokens, 3, self.num_heads, -1), 2, 0)
        if self.relative_bias:
            own = relative_table(self, self.made_for, self.grid, self.num_heads)
            table = own if table is None else own + table
        bias = None if table is None else relative_bias.matrix(table, self.grid)[None]
        out = attention(query, key, value, bias, self.kernel)
        return Dense(width, dtype=self.dtype, name="proj")(out.reshape(batch, tokens, width))


def relative_table(
    module: nn.Module, made_for: tuple[int, int] | None, grid: tuple[int, int], num_heads: int
) -> jax.Array:
    """Returns the parameter "relative_bias" of a module, resampled to a grid: [offsets, heads]."""
    if made_for is None:
        made_for = grid
        if module.has_variable("params", "relative_bias"):
            distances = len(module.get_variable("params", "relative_bias")) - relative_bias.CLASS_ROWS
            distances = nearest_grid(distances, tuple(2 * side - 1 for side in grid))
            made_for = tuple((side + 1) // 2 for side in distances)
    table = module.param(
        "relative_bias", nn.initializers.zeros, (relative_bias.rows(made_for) + relative_bias.CLASS_ROWS, num_heads)
    )
    return relative_bias.resample(table, made_for, grid)


class Block(nn.Module):
    """One pre-norm block: attention, then an MLP, each branch with a learned scale."""

    num_heads: int
    grid: tuple[int, int]
    made_for: tuple[int, int] | None = None
    relative_bias: bool = True
    qkv_bias: bool = True
    mlp_ratio: float = 4.0
    layer_scale: float | None = 0.1
    dtype: Any = jnp.float32
    attention_kernel: str = "auto"

    @nn.compact
    def __call__(self, x, rate: float | jax.Array, train: bool):
        """Maps [B, 1 + N, C], or a pair of that and a table of biases, to the same; `rate` is the drop-path rate."""
        x, table = x if isinstance(x, tuple) else (x, None)
        y = layer_norm("norm1", _EPSILON, self.dtype)(x)
        y = Attention(
            self.num_heads,
            self.grid,
            self.made_for,
            self.relative_bias,
            self.qkv_bias,
            self.dtype,
            self.attention_kernel,
            name="attention",
        )(y, table)
        x = x + DropPath(rate)(self._scaled("attention_scale", y), train)
        y = layer_norm("norm2", _EPSILON, self.dtype)(x)
        y = Dense(int(x.shape[-1] * self.mlp_ratio), dtype=self.dtype, name="fc1")(y)
        y = Dense(x.shape[-1], dtype=self.dtype, name="fc2")(gelu(y))
        x = x + DropPath(rate)(self._scaled("mlp_scale", y), train)
        return x if table is None else (x, table)

    def _scaled(self, name: str, branch: jax.Array) -> jax.Array:
        if not self.layer_scale:
            return branch
        scale = self.param(name, nn.initializers.constant(self.layer_scale), branch.shape[-1:])
        return branch * scale.astype(self.dtype)


class Model(nn.Module):
    """A BEiT backbone: maps each picture to one vector.

    Attributes:
      variant: a key of VARIANTS.
      pooling: "token" (the class token), or, over the patches, "avg", "gem", ... as in `pooling.Pool`.
      drop_path: rate of the last block, growing linearly from 0 at the first.
      image_size: side, or (height, width), of the pictures that positions and biases are for; None for the size of the
        pictures that the parameters were initialised with. For other pictures both are resampled.
      patch_size: side of a patch, pixels.
      depth, width, num_heads: sizes; None for the variant's.
      mlp_ratio: width of the MLPs as a multiple of the model's.
      qkv_bias: whether queries and values have a bias.
      layer_scale: initial value of the scale of each branch; None or 0 for no scale.
      absolute_positions: whether learned positions are added to the tokens.
      relative_bias: whether each block has its own table of biases.
      shared_relative_bias: whether all blocks share one table.
      norm_after_pooling: whether the last norm comes after the pooling; None for unless the pooling is "token".
      dtype: type of the computation; parameters stay float32.
      attention_kernel: "auto", the fastest of the backend, "xla", or "cudnn"; see `attention.attention`.
      remat: recompute blocks in the backward pass to save memory.
      scan: run the blocks as one loop over stacked parameters.
    """

    variant: str = "base"
    pooling: str = "avg"
    drop_path: float = 0.0
    image_size: Any = None
    patch_size: int = 16
    depth: int | None = None
    width: int | None = None
    num_heads: int | None = None
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_scale: float | None = 0.1
    absolute_positions: bool = False
    relative_bias: bool = True
    shared_relative_bias: bool = False
    norm_after_pooling: bool | None = None
    dtype: Any = jnp.float32
    attention_kernel: str = "auto"
    remat: bool = False
    scan: bool = False

    def sizes(self) -> tuple[int, int, int]:
        """Returns (blocks, width, heads).

        Raises:
          InputError: unknown variant.
        """
        if self.variant not in VARIANTS:
            raise InputError(f"unknown BEiT variant {self.variant!r}{near(self.variant, VARIANTS)}")
        return tuple(
            mine if mine is not None else published
            for mine, published in zip((self.depth, self.width, self.num_heads), VARIANTS[self.variant], strict=True)
        )

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised.
          train: whether drop path is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, width] float32}.
        """
        depth, width, num_heads = self.sizes()
        x = Patches(width, self.patch_size, self.dtype, name="stem")(images.astype(self.dtype))
        grid = x.shape[1:3]
        made_for = None if self.image_size is None else patch_grid(self.image_size, self.patch_size)
        token = self.param("class_token", nn.initializers.truncated_normal(0.02), (1, 1, width))
        token = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, width))
        x = jnp.concatenate([token, x.reshape(x.shape[0], -1, width)], 1)
        if self.absolute_positions:
            x = positions.add(x, self._positions(made_for, grid, width).astype(self.dtype))

        def make(name):
            return Block(
                num_heads,
                grid,
                made_for,
                self.relative_bias,
                self.qkv_bias,
                self.mlp_ratio,
                self.layer_scale,
                self.dtype,
                self.attention_kernel,
                name=name,
            )

        if self.shared_relative_bias:  # carried along with the tokens: each block's output is the next one's input
            x = x, relative_table(self, made_for, grid, num_heads)
        x = blocks.apply(make, x, blocks.rates(self.drop_path, depth), train, remat=self.remat, scan=self.scan)
        x = x[0] if self.shared_relative_bias else x
        after = self.pooling != "token" if self.norm_after_pooling is None else self.norm_after_pooling
        if not after:
            x = layer_norm("norm", _EPSILON, self.dtype)(x)
        if self.pooling == "token":
            x = x[:, 0].astype(jnp.float32)
        else:
            x = Pool(self.pooling, num_heads, self.dtype, name="pool")(x[:, 1:])
        return {"embedding": layer_norm("head_norm", _EPSILON)(x) if after else x}

    def _positions(self, made_for: tuple[int, int] | None, grid: tuple[int, int], width: int) -> jax.Array:
        """Returns the position embeddings of the class token and a grid of patches, [1, 1 + rows * columns, width]."""
        if made_for is None:
            made_for = grid
            if self.has_variable("params", "positions"):
                made_for = nearest_grid(self.get_variable("params", "positions").shape[1] - 1, grid)
        table = self.param(
            "positions", nn.initializers.truncated_normal(0.02), (1, 1 + made_for[0] * made_for[1], width)
        )
        return resample_positions(table, made_for, grid, 1)


# Mapping to timm's models of this family; see pretrained.py.


def _timm() -> dict[str, dict]:
    table = {}
    for name, variant, img_size, layer_scale in (
        ("beit_base_patch16_224", "base", 224, 0.1),
        ("beit_base_patch16_384", "base", 384, 0.1),
        ("beit_large_patch16_224", "large", 224, 1e-5),
        ("beit_large_patch16_384", "large", 384, 1e-5),
        ("beit_large_patch16_512", "large", 512, 1e-5),
        ("beitv2_base_patch16_224", "base", 224, 1e-5),
        ("beitv2_large_patch16_224", "large", 224, 1e-5),
    ):
        depth, width, heads = VARIANTS[variant]
        table[name] = {
            "img_size": img_size,
            "patch_size": 16,
            "embed_dim": width,
            "depth": depth,
            "num_heads": heads,
            "use_abs_pos_emb": False,
            "use_rel_pos_bias": True,
            "init_values": layer_scale,
        }
    return table


TIMM = _timm()

# (our path, timm's name, kind); see pretrained.py.
_BLOCK = r"block(\d+)"
_THEIRS = r"blocks.\1"
TIMM_RULES = (
    (r"stem/kernel", "patch_embed.proj.weight", "conv"),
    (r"stem/bias", "patch_embed.proj.bias", "same"),
    (r"class_token", "cls_token", "same"),
    (r"positions", "pos_embed", "same"),
    (r"relative_bias", "rel_pos_bias.relative_position_bias_table", "same"),
    (_BLOCK + r"/(norm\d)/scale", _THEIRS + r".\2.weight", "same"),
    (_BLOCK + r"/(norm\d)/bias", _THEIRS + r".\2.bias", "same"),
    (_BLOCK + r"/attention/(qkv|proj)/kernel", _THEIRS + r".attn.\2.weight", "linear"),
    (_BLOCK + r"/attention/proj/bias", _THEIRS + r".attn.proj.bias", "same"),
    (_BLOCK + r"/attention/([qv]_bias)", _THEIRS + r".attn.\2", "same"),
    (_BLOCK + r"/attention/relative_bias", _THEIRS + r".attn.relative_position_bias_table", "same"),
    (_BLOCK + r"/attention_scale", _THEIRS + r".gamma_1", "same"),
    (_BLOCK + r"/mlp_scale", _THEIRS + r".gamma_2", "same"),
    (_BLOCK + r"/(fc\d)/kernel", _THEIRS + r".mlp.\2.weight", "linear"),
    (_BLOCK + r"/(fc\d)/bias", _THEIRS + r".mlp.\2.bias", "same"),
    (r"norm/scale", "norm.weight", "same"),
    (r"norm/bias", "norm.bias", "same"),
    (r"head_norm/scale", "fc_norm.weight", "same"),
    (r"head_norm/bias", "fc_norm.bias", "same"),
)


def from_timm(
    img_size=224,
    patch_size=16,
    global_pool="avg",
    embed_dim=768,
    depth=12,
    num_heads=12,
    qkv_bias=True,
    mlp_ratio=4.0,
    init_values=None,
    use_abs_pos_emb=True,
    use_rel_pos_bias=False,
    use_shared_rel_pos_bias=False,
    use_fc_norm=None,
    drop_path_rate=0.0,
) -> Model:
    """Returns the backbone that timm's constructor builds from these arguments, with timm's meaning."""
    sizes = depth, embed_dim, num_heads
    variant = next((name for name, known in VARIANTS.items() if known == sizes), None)
    after = global_pool == "avg" if use_fc_norm is None else use_fc_norm
    return Model(
        variant or "base",
        pooling=global_pool,
        drop_path=drop_path_rate,
        image_size=tuple(img_size) if isinstance(img_size, (list, tuple)) else img_size,
        patch_size=patch_size,
        **({} if variant else dict(zip(("depth", "width", "num_heads"), sizes, strict=True))),
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
        layer_scale=init_values,
        absolute_positions=use_abs_pos_emb,
        relative_bias=use_rel_pos_bias,
        shared_relative_bias=use_shared_rel_pos_bias,
        norm_after_pooling=after,
    )


def to_timm(model: Model) -> dict:
    """Returns the arguments of timm's constructor for this backbone: the inverse of `from_timm`."""
    depth, width, heads = model.sizes()
    after = model.pooling != "token" if model.norm_after_pooling is None else model.norm_after_pooling
    return {
        "img_size": model.image_size,
        "patch_size": model.patch_size,
        "global_pool": model.pooling,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "qkv_bias": model.qkv_bias,
        "mlp_ratio": model.mlp_ratio,
        "init_values": model.layer_scale or 0.0,
        "use_abs_pos_emb": model.absolute_positions,
        "use_rel_pos_bias": model.relative_bias,
        "use_shared_rel_pos_bias": model.shared_relative_bias,
        "use_fc_norm": after,
    }


# Tables that depend on the picture size.
RESAMPLED = r"positions|(.*/)?relative_bias"


def resample(path: str, tensor: np.ndarray, model: Model, source_size: tuple[int, int] | None) -> np.ndarray:
    """Resamples a file's positions or relative biases to the model's picture size."""
    if model.image_size is None:  # the model's grid follows the parameters
        return tensor
    new, old = (size and patch_grid(size, model.patch_size) for size in (model.image_size, source_size))
    if path == "positions":
        return np.asarray(resample_positions(tensor, grid_of_file(tensor.shape[1] - 1, old, new), new, 1))
    if old is None or len(tensor) - relative_bias.CLASS_ROWS != relative_bias.rows(old):
        old = relative_bias.source_window(len(tensor) - relative_bias.CLASS_ROWS, new)
    return relative_bias.resample(tensor, old, new)
