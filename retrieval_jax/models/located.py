"""A box that is learned without boxes: a branch that gives four numbers, and cuts that let a gradient through."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.models import pixels

START = 0.9  # share of the picture that an untrained branch keeps
CUTS = ("mask", "crop")
_SMALLEST = 0.05  # side of a box, as a share of the picture's


class Localiser(nn.Module):
    """Predicts one box per picture from a reduced copy of it.

    Attributes:
      side: pixels of the longer side of the copy, at most those of the picture.
      dims: channels of the first of three convolutions; each further one has twice as many.
      dtype: of the computation.

    Source: "Visual Search at Alibaba", arXiv 2102.04674; the place of what is seen is kept up to the last layers, as a
    box is a place.
    """

    side: int = 48
    dims: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns four numbers per picture, [B, 4] float32, zeros at first: offset and size of the box, see `box`.

        Args:
          images: [B, H, W, 3], bytes or floats in 0..255.
        """
        rows, height, width = images.shape[:3]
        share = min(1.0, self.side / max(height, width))
        size = (max(8, round(share * height)), max(8, round(share * width)))
        x = jax.image.resize(pixels.normalize(images), (rows, *size, 3), "linear").astype(self.dtype)
        for number in range(3):
            channels = self.dims * 2**number
            x = nn.Conv(channels, (3, 3), strides=2, dtype=self.dtype, name=f"conv{number}")(x)
            x = nn.gelu(nn.LayerNorm(epsilon=1e-6, name=f"norm{number}")(x.astype(jnp.float32)))
        x = nn.gelu(nn.Dense(8 * self.dims, dtype=self.dtype, name="hidden")(x.reshape(rows, -1)))
        return nn.Dense(4, kernel_init=nn.initializers.zeros, name="box")(x.astype(jnp.float32))


def box(raw: jax.Array) -> jax.Array:
    """Turns the four numbers of a branch into a box that lies within the picture; zeros give START of it, centred.

    Args:
      raw: [B, 4]: where its centre is between the ends of its way, by tanh, and its height and width, by a sigmoid.

    Returns:
      [B, 4], ymin, xmin, ymax, xmax as shares of the picture.
    """
    start = START**0.5
    bias = jnp.log((start - _SMALLEST) / (1 - start))
    sides = _SMALLEST + (1 - _SMALLEST) * jax.nn.sigmoid(raw[:, 2:] + bias)
    centre = 0.5 + 0.5 * jnp.tanh(raw[:, :2])
    return jnp.concatenate([centre - sides / 2, centre + sides / 2], axis=1)


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
