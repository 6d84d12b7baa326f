"""A box that is learned without boxes: a branch that finds where to look, and cuts that let a gradient through."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.models import pixels

START = 0.9  # share of the picture that an untrained branch keeps
CUTS = ("mask", "crop")


class Localiser(nn.Module):
    """Predicts how much each place of a reduced copy of a picture belongs to the product, and a box around it.

    Attributes:
      side: pixels of the longer side of the copy, at most those of the picture.
      dims: channels of the first of three convolutions; each further one has twice as many.
      dtype: of the computation.

    Source: four numbers that clicks teach: "Visual Search at Alibaba", arXiv 2102.04674. Straight from a dense
    layer they shrank to one spot or did not move in some hundred steps; with a map, a product that moves takes its box
    along without having to learn that.
    """

    side: int = 48
    dims: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns a map per picture, [B, h, w] float32, zeros at first; see `box`.

        Args:
          images: [B, H, W, 3], bytes or floats in 0..255.
        """
        rows, height, width = images.shape[:3]
        share = min(1.0, self.side / max(height, width))
        size = (max(8, round(share * height)), max(8, round(share * width)))
        x = jax.image.resize(pixels.normalize(images), (rows, *size, 3), "linear").astype(self.dtype)
        for number, stride in enumerate((2, 2, 1)):
            channels = self.dims * 2**number
            x = nn.Conv(channels, (3, 3), strides=stride, dtype=self.dtype, name=f"conv{number}")(x)
            x = nn.gelu(nn.LayerNorm(epsilon=1e-6, name=f"norm{number}")(x.astype(jnp.float32)))
        heat = nn.Conv(1, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="heat")(x)[..., 0]
        return heat.astype(jnp.float32)


def box(heat: jax.Array, smallest: float = 0.05) -> jax.Array:
    """Returns the box around where a map is high; an even map gives START of the picture, centred.

    Its middle is the mean place, and its sides are proportional to the spread along each axis.

    Args:
      heat: [B, h, w] logits.
      smallest: side of the smallest box, that of a map with a single peak, as a share of the picture's; below START.

    Returns:
      [B, 4], ymin, xmin, ymax, xmax as shares of the picture; it may reach out of it.
    """
    rows, height, width = heat.shape
    weights = jax.nn.softmax(heat.reshape(rows, -1), axis=-1).reshape(heat.shape)

    def extent(along, count):
        at = (jnp.arange(count) + 0.5) / count
        mean = along @ at
        spread = jnp.sqrt(jnp.maximum(along @ at**2 - mean**2, 1e-6))
        even = ((1 - 1 / count**2) / 12) ** 0.5
        side = smallest + (START**0.5 - smallest) * spread / even
        return mean - side / 2, mean + side / 2

    top, bottom = extent(weights.sum(2), height)
    left, right = extent(weights.sum(1), width)
    return jnp.stack([top, left, bottom, right], axis=1)


def mask(boxes: jax.Array, height: int, width: int, slope: jax.Array | float) -> jax.Array:
    """Returns how much of each pixel is inside a box, [B, height, width] in 0..1: 1 well inside, 0 well outside.

    Args:
      boxes: [B, 4].
      height, width: of the pictures in px.
      slope: of the edges: a quarter of it is their steepest rise per picture's side. The higher, the nearer to a step,
        and the narrower the strip that a gradient comes from.

    Source: arXiv 2102.04674: step functions smoothed to sigmoids.
    """

    def inside(low, high, count):
        at = (jnp.arange(count) + 0.5) / count
        return jax.nn.sigmoid(slope * (at - low[:, None])) - jax.nn.sigmoid(slope * (at - high[:, None]))

    return inside(boxes[:, 0], boxes[:, 2], height)[:, :, None] * inside(boxes[:, 1], boxes[:, 3], width)[:, None]


def masked(images: jax.Array, boxes: jax.Array, slope: jax.Array | float) -> jax.Array:
    """Returns pictures that fade to the mean colour outside of their boxes, float32 [B, H, W, 3] in 0..255.

    Args:
      images: [B, H, W, 3], bytes or floats in 0..255.
      boxes, slope: see `mask`.
    """
    keep = mask(boxes, *images.shape[1:3], slope)[..., None]
    fill = 255.0 * jnp.asarray(pixels.MEAN)
    return fill + keep * (images.astype(jnp.float32) - fill)


def cropped(images: jax.Array, boxes: jax.Array) -> jax.Array:
    """Returns what is in the boxes at the size of the pictures, float32 [B, H, W, 3], by bilinear interpolation.

    Args:
      images: [B, H, W, 3], bytes or floats in 0..255; the pixels at the edge go on outside of it.
      boxes: [B, 4].

    Source: Jaderberg et al., "Spatial Transformer Networks", arXiv 1506.02025, with a box as the transform.
    """

    def weights(low, high, count):
        # [B, count, count]: how much each pixel there counts for one here; a product is faster than a gather.
        at = low[:, None] + (high - low)[:, None] * (jnp.arange(count) + 0.5) / count
        at = jnp.clip(at * count - 0.5, 0, count - 1)
        return jnp.maximum(0.0, 1 - jnp.abs(at[:, :, None] - jnp.arange(count)))

    down = weights(boxes[:, 0], boxes[:, 2], images.shape[1])
    across = weights(boxes[:, 1], boxes[:, 3], images.shape[2])
    rows = jnp.einsum("bih,bhwc->biwc", down, images.astype(jnp.float32))
    return jnp.einsum("bjw,biwc->bijc", across, rows)


def area(boxes: jax.Array) -> jax.Array:
    """Returns the share of the picture that boxes [B, 4] cover, [B]; what lies outside of the picture counts too."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
