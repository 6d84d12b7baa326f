"""A super-net: one network whose weights hold those of many small ones, and each of these as a network by itself.

Every block of every stage has the weights of an MBConv and of a ConvNeXt block at their widest; a small network takes
one of them, with the first channels and the centre of the depthwise kernel (single path, weights shared by slicing).
Norms are layer norms over the channels that are taken, so nothing has to be recalibrated for a small network.

The super-net's choice is traced, and what a small network does not have is masked out: one program serves all choices,
in training (four of them in a loop) and in a search (thousands), and it compiles once. A static choice would compile
once for each; a few static shapes would leave few widths and sizes to choose from. The price is that a masked network
costs what the largest costs, except for blocks that are left out, which a branch skips. With the setting `choice` the
module is a small network by itself, with small arrays and no masks.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search", arXiv 1904.00420; the sandwich of sub-nets: Yu et
al., "BigNAS", arXiv 2003.11142; kernels from the centre: Cai et al., "Once-for-All", arXiv 1908.09791.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.errors import InputError
from retrieval_jax.models.architectures import KINDS, PATCH, Architecture, Space, parse
from retrieval_jax.models.backbones.convnext import Patches
from retrieval_jax.models.layers.depthwise import depthwise_conv
from retrieval_jax.models.layers.linear import gelu, product
from retrieval_jax.pairs import near

VARIANTS = {
    "small": Space((24, 32, 40), ((12, 16, 24), (24, 32, 48), (48, 64, 96)), (1, 2), (3, 5, 7), (2, 4)),
}
RANDOM = 2  # sub-nets of a training step beside the largest and the smallest
_INITS = {"kernel": nn.initializers.lecun_normal(), "bias": nn.initializers.zeros, "scale": nn.initializers.ones}


def sandwich(space: Space, seed: int, step: jax.Array) -> jax.Array:
    """Returns the choices of a training step, genes int32 [2 + RANDOM, genes]: the largest, the smallest, random ones.

    They depend on the seed and the number of the step alone, so a training that resumes makes those it would have made.
    The kinds of blocks are random in all of them, for neither kind is the larger one.

    Args:
      space: of the super-net.
      seed: of the training.
      step: its number.
    """
    sizes = jnp.asarray(space.sizes)
    key = jax.random.fold_in(jax.random.key(seed), step)
    drawn = jax.random.randint(key, (2 + RANDOM, len(sizes)), 0, sizes)
    ends = jnp.concatenate([sizes[None] - 1, jnp.zeros_like(sizes)[None], drawn[2:]])
    return jnp.where(jnp.asarray(space.is_kind), drawn, ends)


def largest(space: Space) -> np.ndarray:
    """Returns the genes of the largest network, int32 [genes]."""
    return space.sizes - 1


def sliced(params: dict, like: dict, rows: np.ndarray) -> dict:
    """Returns the weights of a small network, cut from those of a super-net.

    Args:
      params: of the super-net, with whatever reads its embedding.
      like: tree of the small network's arrays, or of their shapes.
      rows: where its embedding lies in that of the super-net, see `Architecture.rows`.
    """

    def cut(path, target):
        value = functools.reduce(lambda tree, key: tree[key.key], path, params)
        if path[0].key != "backbone":  # a layer on the embedding
            return value if value.shape == target.shape else value[rows]
        starts = [0] * len(target.shape)
        if path[-1].key.endswith("dw_kernel"):
            starts[:2] = [(value.shape[0] - target.shape[0]) // 2] * 2
        return value[tuple(slice(start, start + size) for start, size in zip(starts, target.shape, strict=True))]

    return jax.tree_util.tree_map_with_path(cut, like)


# -------------------------------------------------------------------------------------------------------------- layers


def _keep(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return x if mask is None else x * mask.astype(x.dtype)


def _normalised(x, scale, bias, mask, dtype):
    """Normalises [..., C] over the channels that the mask keeps; the others are 0."""
    wide = _keep(x.astype(jnp.float32), mask)
    count = x.shape[-1] if mask is None else mask.sum()
    away = _keep(wide - wide.sum(-1, keepdims=True) / count, mask)
    variance = (away * away).sum(-1, keepdims=True) / count
    return _keep(away * jax.lax.rsqrt(variance + 1e-6) * scale + bias, mask).astype(dtype)


class Norm(nn.Module):
    """A layer norm over the channels that are taken."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Normalises [..., C]; mask: [C], 1 for channels that are taken, or None for all."""
        scale, bias = (self.param(name, _INITS[name], (x.shape[-1],)) for name in ("scale", "bias"))
        return _normalised(x, scale, bias, mask, self.dtype)


class Weights(nn.Module):
    """The arrays of a block: (name, shape) pairs, initialised by the end of their name."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        """Returns {name: array}."""
        return {name: self.param(name, _INITS[name.rpartition("_")[2]], shape) for name, shape in self.shapes}


@dataclasses.dataclass(frozen=True)
class _Slot:
    """A block of a stage: the kinds whose weights it has, their sizes, and what of them is taken (None: all)."""

    kinds: tuple[str, ...]
    kernel: int
    hidden: int
    taken: jax.Array | None = None  # 0 for no block, else 1 + the place among the kinds
    taps: jax.Array | None = None  # [kernel, kernel, 1]
    channels: jax.Array | None = None  # [hidden]


@dataclasses.dataclass(frozen=True)
class _Stage:
    width: int
    slots: list[_Slot]
    channels: jax.Array | None = None  # [width]
    cells: jax.Array | None = None  # [H, W, 1]


def _shapes(kind: str, slot: _Slot, width: int) -> tuple:
    """Returns the (name, shape) pairs of a kind of block."""
    inside = slot.hidden if kind == "mbconv" else width
    return (
        (f"{kind}_norm_scale", (width,)),
        (f"{kind}_norm_bias", (width,)),
        (f"{kind}_expand_kernel", (width, slot.hidden)),
        (f"{kind}_expand_bias", (slot.hidden,)),
        (f"{kind}_dw_kernel", (slot.kernel, slot.kernel, inside)),
        (f"{kind}_dw_bias", (inside,)),
        (f"{kind}_project_kernel", (slot.hidden, width)),
        (f"{kind}_project_bias", (width,)),
    )


def _block(x, kind, weights, slot, stage):
    """Applies a block of a kind: what it makes of its input is added to it."""
    weights, dtype = {name: weights[f"{kind}_{name}"] for name in _NAMES}, x.dtype
    cast = {name: value.astype(dtype) for name, value in weights.items()}

    def linear(x, name, mask):
        return _keep(product(x, cast[f"{name}_kernel"]) + cast[f"{name}_bias"], mask)

    def depthwise(x, mask):  # cells outside the picture count as its padding
        return _keep(depthwise_conv(_keep(x, stage.cells), _keep(cast["dw_kernel"], slot.taps)) + cast["dw_bias"], mask)

    def norm(x):
        return _normalised(x, weights["norm_scale"], weights["norm_bias"], stage.channels, dtype)

    if kind == "mbconv":  # with the norm before it instead of one after each convolution
        hidden = depthwise(gelu(linear(norm(x), "expand", slot.channels)), slot.channels)
    else:
        hidden = linear(norm(depthwise(x, stage.channels)), "expand", slot.channels)
    return x + linear(gelu(hidden), "project", stage.channels)


_NAMES = tuple(name.partition("_")[2] for name, _ in _shapes("mbconv", _Slot((), 1, 1), 1))


# ---------------------------------------------------------------------------------------------------------- the network


def _alone(architecture: Architecture) -> list[_Stage]:
    return [
        _Stage(
            stage.width, [_Slot((block.kind,), block.kernel, block.expansion * stage.width) for block in stage.blocks]
        )
        for stage in architecture.stages
    ]


def _masked(space: Space, genes: jax.Array) -> list[_Stage]:
    resolution, stages = space.split(genes)
    side, there = space.resolutions[-1] // PATCH, jnp.asarray(space.resolutions)[resolution] // PATCH
    kernels, expansions = jnp.asarray(space.kernels), jnp.asarray(space.expansions)
    most = space.kernels[-1]
    away = jnp.abs(jnp.arange(most) - most // 2)
    ring = jnp.maximum(away[:, None], away)[..., None]
    found = []
    for number, (widths, (width, depth, blocks)) in enumerate(zip(space.widths, stages, strict=True)):
        if number:
            side, there = side // 2, there // 2
        taken, hidden = jnp.asarray(widths)[width], space.expansions[-1] * widths[-1]
        slots = [
            _Slot(
                KINDS,
                most,
                hidden,
                jnp.where(place < jnp.asarray(space.depths)[depth], 1 + kind, 0),
                (ring <= kernels[kernel] // 2).astype(jnp.float32),
                (jnp.arange(hidden) < expansions[expansion] * taken).astype(jnp.float32),
            )
            for place, (kind, kernel, expansion) in enumerate(blocks)
        ]
        inside = jnp.arange(side) < there
        cells = (inside[:, None] & inside)[..., None].astype(jnp.float32)
        found.append(_Stage(widths[-1], slots, (jnp.arange(widths[-1]) < taken).astype(jnp.float32), cells))
    return found


def _resizing(side: int, size: int) -> np.ndarray:
    """Returns the matrix [size, side] that resizes one axis, linearly and without aliasing."""
    scale = side / size
    away = (np.arange(size)[:, None] + 0.5) * scale - (np.arange(side) + 0.5)
    weights = np.maximum(0.0, 1.0 - np.abs(away) / max(scale, 1.0))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resized(images: jax.Array, space: Space, resolution: jax.Array) -> jax.Array:
    """Resizes pictures to a traced size: into the upper left corner of pictures as large as before, 0 elsewhere.

    Args:
      images: [B, S, S, 3], S the largest resolution.
      space: of the super-net.
      resolution: number of the size among `space.resolutions`.
    """
    side = space.resolutions[-1]
    table = np.zeros((len(space.resolutions), side, side), np.float32)
    for number, size in enumerate(space.resolutions):
        table[number, :size] = _resizing(side, size)
    matrix = jnp.asarray(table)[resolution].astype(images.dtype)
    return jnp.einsum("rh,bhwc,sw->brsc", matrix, images, matrix)


class Model(nn.Module):
    """A super-net, or one of its small networks: maps each picture to one vector.

    Attributes:
      variant: a key of VARIANTS: what there is to choose from.
      choice: an architecture as text (`architectures.parse`): the small network by itself; "" for the super-net.
      dtype: type of the computation; parameters stay float32.
    """

    variant: str = "small"
    choice: str = ""
    dtype: Any = jnp.float32

    @property
    def space(self) -> Space:
        """What there is to choose from; raises InputError for an unknown variant."""
        if self.variant not in VARIANTS:
            raise InputError(f"unknown super-net {self.variant!r}{near(self.variant, VARIANTS)}")
        return VARIANTS[self.variant]

    @property
    def sampled(self) -> Callable | None:
        """(seed, step) -> the choices of a training step, see `sandwich`; None for a small network by itself."""
        return None if self.choice else functools.partial(sandwich, self.space)

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, choice: jax.Array | None = None
    ) -> dict[str, jax.Array | tuple]:
        """Embeds pictures.

        Args:
          images: [B, S, S, 3], normalised; S is the largest resolution of a super-net, and that of a small network.
          train: not used.
          choice: genes int32 [genes] of the small network to be (`architectures.Space`); None for the largest.

        Returns:
          {"embedding", "pooled": [B, sum of the stages' widths] float32, "maps": those of the stages}; 0 where a small
          network has no channels.

        Raises:
          InputError: an unknown variant or architecture, or pictures of another size.
        """
        del train
        space, alone = self.space, parse(self.choice) if self.choice else None
        if alone is not None:
            space.encode(alone)  # is it one of this super-net?
        side = space.resolutions[-1] if alone is None else alone.resolution
        if images.shape[1:3] != (side, side):
            raise InputError(
                f"this network reads pictures of {side} x {side}, not {images.shape[1]} x {images.shape[2]}: set "
                f"config.data.image_size = ({side}, {side})"
            )
        x = images.astype(self.dtype)
        if alone is None:
            genes = jnp.asarray(largest(space) if choice is None else choice)
            x, stages = resized(x, space, genes[0]), _masked(space, genes)
        else:
            stages = _alone(alone)
        pooled, maps, before = [], [], None
        for number, stage in enumerate(stages):
            if number:
                x = Norm(self.dtype, name=f"stage{number}_norm")(x, before)
            x = Patches(
                stage.width, 2 if number else PATCH, self.dtype, name=f"stage{number}_down" if number else "stem"
            )(x)
            x = _keep(x, stage.channels)
            if not number:
                x = Norm(self.dtype, name="stem_norm")(x, stage.channels)
            for place, slot in enumerate(stage.slots):
                shapes = sum((_shapes(kind, slot, stage.width) for kind in slot.kinds), ())
                weights = Weights(shapes, name=f"stage{number}_block{place}")()
                blocks = [
                    functools.partial(_block, kind=kind, weights=weights, slot=slot, stage=stage) for kind in slot.kinds
                ]
                x = blocks[0](x) if slot.taken is None else jax.lax.switch(slot.taken, [lambda x: x, *blocks], x)
            wide = _keep(x.astype(jnp.float32), stage.cells)
            area = x.shape[1] * x.shape[2] if stage.cells is None else stage.cells.sum()
            pooled.append(Norm(name=f"head_norm{number}")(wide.sum((1, 2)) / area, stage.channels))
            maps.append(x)
            before = stage.channels
        embedding = jnp.concatenate(pooled, axis=-1)
        return {"embedding": embedding, "pooled": embedding, "maps": tuple(maps)}
