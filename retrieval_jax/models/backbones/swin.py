"""Swin Transformer: attention within windows that shift from block to block, in four stages.

Source: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", arXiv 2103.14030. Sizes T
to L are the paper's; "s3_tiny" to "s3_base" those of Chen et al., arXiv 2111.14725; "micro" and "mini" are ours, for
small pictures on CPUs.

Longer than 400 lines: the network and its mapping to timm's models change together.
"""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones.convnext import Patches
from retrieval_jax.models.backbones.vit import patch_grid
from retrieval_jax.models.layers import attention, blocks, relative_bias
from retrieval_jax.models.layers.linear import Dense, gelu
from retrieval_jax.models.layers.norm import layer_norm
from retrieval_jax.models.layers.pooling import DropPath, Pool
from retrieval_jax.pairs import near

# variant: (channels of the first stage, blocks per stage, heads per stage, window side, one for all or per stage)
VARIANTS = {
    "micro": (32, (2, 2, 2, 1), (1, 2, 4, 8), 4),
    "mini": (48, (2, 2, 4, 2), (2, 4, 8, 16), 4),
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 7),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48), 7),
    "s3_tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), (7, 7, 14, 7)),
    "s3_small": (96, (2, 2, 18, 2), (3, 6, 12, 24), (14, 14, 14, 7)),
    "s3_base": (96, (2, 2, 30, 2), (3, 6, 12, 24), (7, 7, 14, 7)),
}

_EPSILON = 1e-5  # of all norms
# Added to the attention logits between positions that share a window only because of the shift.
_APART = -100.0


def _pair(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _regions(side: int, window: int, shift: int) -> np.ndarray:
    """Returns [windows, window], the region of the unshifted map that each position of an axis came from."""
    places = np.arange(side)
    return ((places >= side - window).astype(np.int8) + (places >= side - shift)).reshape(-1, window)


@functools.cache
def _together(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> np.ndarray:
    """Returns [windows, N, N] bool: which pairs of positions of a shifted window may attend to each other."""
    rows, columns = (_regions(*axis) for axis in zip(size, window, shift, strict=True))
    regions = (rows[:, None, :, None] * 3 + columns[None, :, None, :]).reshape(-1, window[0] * window[1])
    return regions[:, :, None] == regions[:, None, :]


class WindowAttention(nn.Module):
    """Attention within each window of a map.

    Attributes:
      num_heads: heads; must divide the channels.
      window: (rows, columns) of a window; windows at the lower and right edge are padded with zeros.
      shift: (rows, columns) by which the map is rolled before it is cut into windows.
      table: (rows, columns) of the window of the table of relative biases, at least `window`.
      qkv_bias: whether queries, keys and values have a bias.
      dtype: type of the computation.
      kernel: see `attention.attention`.
    """

    num_heads: int
    window: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    table: tuple[int, int] | None = None
    qkv_bias: bool = True
    dtype: Any = jnp.float32
    kernel: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to the same shape."""
        batch, height, width, channels = x.shape
        if channels % self.num_heads:
            raise InputError(f"{self.num_heads} heads do not divide {channels} channels")
        shifted = any(self.shift)
        if shifted:
            x = jnp.roll(x, (-self.shift[0], -self.shift[1]), (1, 2))
        rows, columns = (-(-side // part) for side, part in zip((height, width), self.window, strict=True))
        size = rows * self.window[0], columns * self.window[1]
        if size != (height, width):
            x = jnp.pad(x, ((0, 0), (0, size[0] - height), (0, size[1] - width), (0, 0)))
        qkv = Dense(3 * channels, use_bias=self.qkv_bias, dtype=self.dtype, name="qkv")(x)
        # Cut into windows only here, so that one transpose serves windows and heads.
        qkv = qkv.reshape(batch, rows, self.window[0], columns, self.window[1], 3, self.num_heads, -1)
        made_for = self.table or self.window
        table = self.param(
            "relative_bias", nn.initializers.truncated_normal(0.02), (relative_bias.rows(made_for), self.num_heads)
        )
        bias, mask = relative_bias.matrix(table, made_for, self.window), None
        if shifted:
            mask = jnp.where(_together(size, self.window, self.shift), 0.0, _APART)[:, None]
        flash = attention.uses_flash(self.dtype, channels // self.num_heads, self.kernel)
        out = (windows_as_heads if flash else windows_apart)(qkv, bias, mask)
        out = out.reshape(batch, *size, channels)[:, :height, :width]
        out = Dense(channels, dtype=self.dtype, name="proj")(out)
        return jnp.roll(out, self.shift, (1, 2)) if shifted else out


def windows_apart(qkv: jax.Array, bias: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Computes the attention of all windows as products of XLA.

    Args:
      qkv: queries, keys and values [B, rows, h, columns, w, 3, heads, d] of rows x columns windows of h x w positions.
      bias: [heads, N, N], added to the logits of every window; N = h w.
      mask: [windows, 1, N, N], added to the logits of all heads; None for no mask.

    Returns:
      [B, rows, h, columns, w, heads, d].
    """
    batch, rows, height, columns, width, _, heads, dim = qkv.shape
    qkv = qkv.transpose(5, 0, 1, 3, 6, 2, 4, 7)
    query, key, value = qkv.reshape(3, batch, rows * columns, heads, height * width, dim)
    logits = jnp.einsum("bwhnd,bwhmd->bwhnm", query * dim**-0.5, key, preferred_element_type=jnp.float32)
    logits += bias
    if mask is not None:
        logits += mask
    weights = jax.nn.softmax(logits).astype(value.dtype)
    out = jnp.einsum("bwhnm,bwhmd->bwhnd", weights, value)
    return out.reshape(batch, rows, columns, heads, height, width, dim).transpose(0, 1, 4, 2, 5, 3, 6)


def windows_as_heads(
    qkv: jax.Array, bias: jax.Array, mask: jax.Array | None, implementation: str = "cudnn"
) -> jax.Array:
    """Computes `windows_apart` as flash attention whose heads are all heads of all windows.

    So the mask of a window is part of the bias of its heads, and all pictures share the bias.

    Args:
      qkv, bias, mask: see `windows_apart`.
      implementation: see `attention.flash`.

    Returns:
      [B, rows, h, columns, w, heads, d].
    """
    batch, rows, height, columns, width, _, heads, dim = qkv.shape
    positions = height * width
    qkv = qkv.transpose(5, 0, 2, 4, 1, 3, 6, 7).reshape(3, batch, positions, rows * columns * heads, dim)
    bias = bias if mask is None else bias + mask
    bias = jnp.broadcast_to(bias.astype(qkv.dtype), (rows * columns, heads, positions, positions))
    out = attention.flash(*qkv, bias.reshape(1, -1, positions, positions), implementation)
    return out.reshape(batch, height, width, rows, columns, heads, dim).transpose(0, 3, 1, 4, 2, 5, 6)


class Block(nn.Module):
    """One pre-norm block: window attention, then an MLP."""

    num_heads: int
    window: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    table: tuple[int, int] | None = None
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    dtype: Any = jnp.float32
    attention_kernel: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to the same shape; `rate` is the drop-path rate."""
        channels = x.shape[-1]
        y = layer_norm("norm1", _EPSILON, self.dtype)(x)
        y = WindowAttention(
            self.num_heads,
            self.window,
            self.shift,
            self.table,
            self.qkv_bias,
            self.dtype,
            self.attention_kernel,
            name="attention",
        )(y)
        x = x + DropPath(rate)(y, train)
        y = layer_norm("norm2", _EPSILON, self.dtype)(x)
        y = Dense(int(channels * self.mlp_ratio), dtype=self.dtype, name="fc1")(y)
        y = Dense(channels, dtype=self.dtype, name="fc2")(gelu(y))
        return x + DropPath(rate)(y, train)


def _neighbours(x: jax.Array) -> jax.Array:
    """Concatenates the channels of 2 x 2 positions: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), 4 C]."""
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    x = x.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, channels).transpose(0, 1, 3, 4, 2, 5)
    return x.reshape(*x.shape[:3], -1)


class Model(nn.Module):
    """A Swin backbone: maps each picture to one vector.

    Attributes:
      variant: a key of VARIANTS.
      pooling: "avg", "gem", ... as in `pooling.Pool`.
      drop_path: rate of the last block, growing linearly from 0 at the first.
      image_size: side, or (height, width), of the pictures that the windows are for: if their map is smaller than a
        window, window and table shrink; other pictures use the same windows, as in timm. None: the variant's windows,
        clipped to the map of each picture, with full tables, so that the parameters fit any picture.
      patch_size: side of a patch, pixels.
      width, depths, num_heads: sizes; None for the variant's.
      window_size: side, or (rows, columns), of the windows, or one of these per stage; None for the variant's.
      always_partition: never clip windows to the map, pad the map instead.
      mlp_ratio: width of the MLPs as a multiple of the channels.
      qkv_bias: whether queries, keys and values have a bias.
      dtype: type of the computation; parameters stay float32.
      attention_kernel: "auto", the fastest of the backend, "xla", or "cudnn"; see `attention.attention`.
      remat: recompute blocks in the backward pass to save memory.
    """

    variant: str = "tiny"
    pooling: str = "avg"
    drop_path: float = 0.0
    image_size: Any = None
    patch_size: int = 4
    width: int | None = None
    depths: tuple[int, ...] | None = None
    num_heads: tuple[int, ...] | None = None
    window_size: Any = None
    always_partition: bool = False
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    dtype: Any = jnp.float32
    attention_kernel: str = "auto"
    remat: bool = False

    def sizes(self) -> tuple:
        """Returns (width, depths, heads, windows), the last three with one entry per stage, windows as pairs.

        Raises:
          InputError: unknown variant, or inconsistent sizes.
        """
        if self.variant not in VARIANTS:
            raise InputError(f"unknown Swin variant {self.variant!r}{near(self.variant, VARIANTS)}")
        width, depths, heads, windows = (
            mine if mine is not None else published
            for mine, published in zip(
                (self.width, self.depths, self.num_heads, self.window_size), VARIANTS[self.variant], strict=True
            )
        )
        whole = isinstance(windows, int) or (len(windows) == 2 and all(isinstance(side, int) for side in windows))
        windows = tuple(map(_pair, (windows,) * len(depths) if whole else windows))
        if not len(depths) == len(heads) == len(windows):
            raise InputError(
                f"depths={depths}, num_heads={heads} and window_size={windows} of a Swin need one entry per stage each"
            )
        if min(min(window) for window in windows) < 1:
            raise InputError(f"window_size={self.window_size} of a Swin must be positive in every stage")
        return width, tuple(depths), tuple(heads), windows

    def table(self, stage: int) -> tuple[int, int]:
        """Returns (rows, columns) of the window of a stage's tables of relative biases."""
        window = self.sizes()[3][stage]
        return window if self.image_size is None else self._cut(window, stage, self._grid())[0]

    def _grid(self) -> tuple[int, int]:
        return patch_grid(self.image_size, self.patch_size)

    def _cut(self, window: tuple[int, int], stage: int, grid: tuple[int, int]) -> tuple:
        """Returns the window, and the shift of odd blocks, for pictures whose first map has the size `grid`."""
        shift = tuple(side // 2 for side in window)
        if self.always_partition:
            return window, shift
        size = tuple(-(-side // 2**stage) for side in grid)
        shift = tuple(0 if side <= part else part // 2 for side, part in zip(size, window, strict=True))
        return tuple(map(min, size, window)), shift

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised.
          train: whether drop path is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, channels of the last stage] float32}.
        """
        width, depths, heads, windows = self.sizes()
        rates = blocks.rates(self.drop_path, sum(depths))
        x = Patches(width, self.patch_size, self.dtype, name="stem")(images.astype(self.dtype))
        x = layer_norm("stem_norm", _EPSILON, self.dtype)(x)
        grid = x.shape[1:3] if self.image_size is None else self._grid()
        for stage, depth in enumerate(depths):
            if stage > 0:
                x = layer_norm(f"stage{stage}_norm", _EPSILON, self.dtype)(_neighbours(x))
                x = Dense(width * 2**stage, use_bias=False, dtype=self.dtype, name=f"stage{stage}_down")(x)
            window, shift = self._cut(windows[stage], stage, grid)

            def make(name, stage=stage, window=window, shift=shift):
                odd = int(name.rpartition("block")[2]) % 2
                return Block(
                    heads[stage],
                    window,
                    shift if odd else (0, 0),
                    self.table(stage),
                    self.mlp_ratio,
                    self.qkv_bias,
                    self.dtype,
                    self.attention_kernel,
                    name=name,
                )

            first = sum(depths[:stage])
            x = blocks.apply(make, x, rates[first : first + depth], train, prefix=f"stage{stage}_", remat=self.remat)
        x = layer_norm("norm", _EPSILON, self.dtype)(x)
        return {"embedding": Pool(self.pooling, heads[-1], self.dtype, name="pool")(x)}


# Mapping to timm's models of this family; see pretrained.py.


def _timm() -> dict[str, dict]:
    table = {}
    for variant, img_size, name in (
        *((variant, 224, f"{variant}_patch4_window7_224") for variant in ("tiny", "small", "base", "large")),
        *((variant, 384, f"{variant}_patch4_window12_384") for variant in ("base", "large")),
        *((variant, 224, f"{variant}_224") for variant in ("s3_tiny", "s3_small", "s3_base")),
    ):
        width, depths, heads, window = VARIANTS[variant]
        table[f"swin_{name}"] = {
            "img_size": img_size,
            "patch_size": 4,
            "embed_dim": width,
            "depths": depths,
            "num_heads": heads,
            "window_size": 12 if img_size == 384 else window,
        }
    return table


TIMM = _timm()

# (our path, timm's name, kind); see pretrained.py.
_BLOCK = r"stage(\d)_block(\d+)"
_THEIRS = r"layers.\1.blocks.\2"
TIMM_RULES = (
    (r"stem/kernel", "patch_embed.proj.weight", "conv"),
    (r"stem/bias", "patch_embed.proj.bias", "same"),
    (r"stem_norm/scale", "patch_embed.norm.weight", "same"),
    (r"stem_norm/bias", "patch_embed.norm.bias", "same"),
    (r"stage(\d)_norm/scale", r"layers.\1.downsample.norm.weight", "same"),
    (r"stage(\d)_norm/bias", r"layers.\1.downsample.norm.bias", "same"),
    (r"stage(\d)_down/kernel", r"layers.\1.downsample.reduction.weight", "linear"),
    (_BLOCK + r"/(norm\d)/scale", _THEIRS + r".\3.weight", "same"),
    (_BLOCK + r"/(norm\d)/bias", _THEIRS + r".\3.bias", "same"),
    (_BLOCK + r"/attention/(qkv|proj)/kernel", _THEIRS + r".attn.\3.weight", "linear"),
    (_BLOCK + r"/attention/(qkv|proj)/bias", _THEIRS + r".attn.\3.bias", "same"),
    (_BLOCK + r"/attention/relative_bias", _THEIRS + r".attn.relative_position_bias_table", "same"),
    (_BLOCK + r"/(fc\d)/kernel", _THEIRS + r".mlp.\3.weight", "linear"),
    (_BLOCK + r"/(fc\d)/bias", _THEIRS + r".mlp.\3.bias", "same"),
    (r"norm/scale", "norm.weight", "same"),
    (r"norm/bias", "norm.bias", "same"),
)


def from_timm(
    img_size=224,
    patch_size=4,
    embed_dim=96,
    depths=(2, 2, 6, 2),
    num_heads=(3, 6, 12, 24),
    window_size=7,
    always_partition=False,
    mlp_ratio=4.0,
    qkv_bias=True,
    global_pool="avg",
    drop_path_rate=0.0,
    strict_img_size=True,
) -> Model:
    """Returns the backbone that timm's constructor builds from these arguments, with timm's meaning.

    `strict_img_size` has no effect, because pictures of any size are accepted.

    Raises:
      InputError: widths or ratios per stage, which timm supports but we do not.
    """
    if isinstance(embed_dim, list | tuple) or isinstance(mlp_ratio, list | tuple):
        raise InputError(
            f"embed_dim={embed_dim}, mlp_ratio={mlp_ratio}: a Swin has one number of each here, not one per stage"
        )

    del strict_img_size

    def frozen(value):
        return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value

    sizes = embed_dim, frozen(depths), frozen(num_heads), frozen(window_size)
    variant = next((name for name, known in VARIANTS.items() if known[:3] == sizes[:3]), None)
    return Model(
        variant or "tiny",
        pooling=global_pool,
        drop_path=drop_path_rate,
        image_size=frozen(img_size),
        patch_size=patch_size,
        width=None if variant else sizes[0],
        depths=None if variant else sizes[1],
        num_heads=None if variant else sizes[2],
        window_size=sizes[3],
        always_partition=always_partition,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
    )


def to_timm(model: Model) -> dict:
    """Returns the arguments of timm's constructor for this backbone: the inverse of `from_timm`.

    timm requires a picture size. Without `image_size` it is 224, and timm's network then equals ours for pictures whose
    maps are never smaller than a window.
    """
    width, depths, heads, windows = model.sizes()
    windows = tuple(rows if rows == columns else (rows, columns) for rows, columns in windows)
    windows = windows[0] if len(set(windows)) == 1 else windows
    return {
        "img_size": 224 if model.image_size is None else model.image_size,
        "patch_size": model.patch_size,
        "embed_dim": width,
        "depths": depths,
        "num_heads": heads,
        "window_size": windows,
        "always_partition": model.always_partition,
        "mlp_ratio": model.mlp_ratio,
        "qkv_bias": model.qkv_bias,
        "global_pool": model.pooling,
    }


# Tables that depend on the window size, and so on the picture size.
RESAMPLED = r".*/relative_bias"


def resample(path: str, tensor: np.ndarray, model: Model, source_size: tuple[int, int] | None) -> np.ndarray:
    """Resamples a file's table of relative biases to the window of its stage; the file's is assumed to be square."""
    del source_size  # the window follows from the table itself
    new = model.table(int(re.search(r"stage(\d+)", path)[1]))
    return relative_bias.resample(tensor, relative_bias.source_window(len(tensor), new), new)
