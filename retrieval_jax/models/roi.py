"""Regions of interest: boxes with a type from the maps of a backbone, one candidate per cell and type."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_REACH = 0.25  # distance of a box's sides from the cell at first, as a share of the picture
_RARE = 0.02  # share of cells that an untrained head takes for an object; Lin et al., arXiv 1708.02002, section 4.1


class BoxHead(nn.Module):
    """Predicts a box per cell: whether a thing is there, what it is, and the distances of its four sides.

    Attributes:
      num_types: T.
      dims: width of the two convolutions.
      dtype: of the computation.

    Source: without anchors, as Tian et al., "FCOS", arXiv 1904.01355, on one map: all maps at the size of the first.
    """

    num_types: int
    dims: int = 96
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> dict[str, jax.Array]:
        """Predicts boxes.

        Args:
          maps: [B, h, w, C] each; the first has the cells.

        Returns:
          With N = h * w cells: "objectness" [B, N] and "types" [B, N, T], logits; "boxes" [B, N, 4]: ymin, xmin, ymax,
          xmax as shares of the picture, not clipped.
        """
        rows, height, width = maps[0].shape[:3]
        parts = []
        for number, one in enumerate(maps):
            one = nn.LayerNorm(epsilon=1e-6, name=f"norm{number}")(one.astype(jnp.float32))
            one = nn.Dense(self.dims, dtype=self.dtype, name=f"lateral{number}")(one)
            parts.append(jax.image.resize(one, (rows, height, width, self.dims), "bilinear"))
        x = sum(parts)
        for number in range(2):
            y = nn.Conv(self.dims, (3, 3), dtype=self.dtype, name=f"conv{number}")(nn.gelu(x))
            x = x + nn.LayerNorm(epsilon=1e-6, name=f"conv_norm{number}")(y.astype(jnp.float32))
        x = nn.gelu(x).reshape(rows, height * width, self.dims)
        bias = nn.initializers.constant(jnp.log(_RARE / (1 - _RARE)))
        objectness = nn.Dense(1, bias_init=bias, name="objectness")(x)[..., 0]
        sides = _REACH * jnp.exp(jnp.clip(nn.Dense(4, name="sides")(x), -5, 3))
        centres = jnp.tile(cells(height, width), 2)
        boxes = centres + sides * jnp.asarray([-1.0, -1.0, 1.0, 1.0])
        return {"objectness": objectness, "types": nn.Dense(self.num_types, name="types")(x), "boxes": boxes}


def cells(height: int, width: int) -> jax.Array:
    """Returns the centres of a map's cells, row by row, [height * width, 2]: y, x as shares of the picture."""
    y, x = (jnp.arange(height) + 0.5) / height, (jnp.arange(width) + 0.5) / width
    return jnp.stack(jnp.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def assign(centres: jax.Array, boxes: jax.Array) -> jax.Array:
    """Decides which cell learns which box.

    A cell learns the smallest box whose inner half (a quarter of the sides around its middle) it is in, and the cell
    nearest to a box's middle learns that box in any case, so that small things are learned too.

    Args:
      centres: [N, 2], of `cells`.
      boxes: [B, M, 4], NaN where there are fewer.

    Returns:
      int32 [B, N], a box's number, -1 for none.
    """
    there = jnp.isfinite(boxes).all(-1)[:, None]  # [B, 1, M]
    boxes = jnp.nan_to_num(boxes)
    middle, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    away = jnp.abs(centres[None, :, None] - middle[:, None])  # [B, N, M, 2]
    inside = (away <= sides[:, None] / 4).all(-1)
    nearest = (away**2).sum(-1).argmin(1)  # [B, M]
    own = nearest[:, None] == jnp.arange(len(centres))[None, :, None]
    cost = sides.prod(-1)[:, None] - 10.0 * own
    cost = jnp.where((inside | own) & there, cost, jnp.inf)
    return jnp.where(jnp.isfinite(cost).any(-1), cost.argmin(-1), -1).astype(jnp.int32)


def best(out: dict[str, jax.Array], count: int) -> dict[str, jax.Array]:
    """Returns the boxes with the highest scores, before overlapping ones are dropped (`scoring.boxes.suppress`).

    Args:
      out: of `BoxHead`.
      count: boxes per picture K, at most N * T.

    Returns:
      "boxes" [B, K, 4] within the picture, "scores" [B, K], the probability of a thing times that of its type, highest
      first, and "types" int32 [B, K].
    """
    scores = jax.nn.sigmoid(out["objectness"])[..., None] * jax.nn.softmax(out["types"], axis=-1)
    rows, number, types = scores.shape
    scores, places = jax.lax.top_k(scores.reshape(rows, -1), min(count, number * types))
    boxes = jnp.take_along_axis(out["boxes"], (places // types)[..., None], axis=1)
    return {"boxes": jnp.clip(boxes, 0, 1), "scores": scores, "types": (places % types).astype(jnp.int32)}
