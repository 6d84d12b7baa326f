"""Pictures changed on the device: in ways that keep what a product looks like, and in ways that do not."""

import math

import jax
import jax.numpy as jnp

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma of red, green, blue
_COLOURED = 24.0  # of 255, mean difference of the channels from which on a product counts as coloured


def kept(images: jax.Array, rng: jax.Array) -> jax.Array:
    """Mirrors and moves pictures, and lightens them a little: colour and shape stay.

    Args:
      images: [B, H, W, 3], values 0..255.
      rng: key.

    Returns:
      float32, the same shape.
    """
    mirror, light, move = jax.random.split(rng, 3)
    images = images.astype(jnp.float32)
    turn = jax.random.bernoulli(mirror, 0.5, (len(images),))[:, None, None, None]
    images = jnp.where(turn, images[:, :, ::-1], images)
    gain = jax.random.uniform(light, (len(images), 1, 1, 1), minval=0.9, maxval=1.1)
    share = jax.random.uniform(move, (len(images), 3), minval=-1.0, maxval=1.0)
    zoom = 1 + 0.08 * share[:, :1]
    return _moved(jnp.clip(images * gain, 0, 255), jnp.concatenate([zoom, zoom], 1), 0.05 * share[:, 1:])


def changed(images: jax.Array, rng: jax.Array) -> jax.Array:
    """Changes the colour of every second picture and the shape of the others.

    Colours turn around the grey axis by a sixth to a half of the circle; a product that is grey has no hue, and becomes
    darker or lighter by a third to a half, it and not its ground. Shapes are stretched by 1.5 to 2 in height or width.

    Args:
      images: [B, H, W, 3], values 0..255.
      rng: key.

    Returns:
      float32, the same shape.
    """
    which, hue, sense, light, stretch, long = jax.random.split(rng, 6)
    images, count = images.astype(jnp.float32), len(images)
    sign = jnp.where(jax.random.bernoulli(sense, 0.5, (count,)), 1.0, -1.0)
    angle = 2 * math.pi * sign * jax.random.uniform(hue, (count,), minval=1 / 6, maxval=1 / 2)
    third, sine = (1 - jnp.cos(angle)) / 3, jnp.sin(angle) / math.sqrt(3)
    same, before, after = jnp.cos(angle) + third, third - sine, third + sine
    matrix = jnp.stack([same, before, after, after, same, before, before, after, same], -1).reshape(-1, 3, 3)
    turned = jnp.einsum("bhwc,bdc->bhwd", images, matrix)
    strength = jax.random.uniform(light, (count, 1, 1, 1), minval=1 / 3, maxval=1 / 2)
    product, middle = _product(images)
    weight = middle * (product + 0.02)  # of a product as light as its ground only the middle is known

    def of_product(values):
        return ((weight * values).sum((1, 2)) / weight.sum((1, 2)))[:, None, None, None]

    bright = of_product(images @ jnp.asarray(_GREY)) > 127.5
    shaded = jnp.where(bright, images * (1 - strength), images + strength * (255 - images))
    seen = product.mean((1, 2), keepdims=True) > 0.02  # else it is as light as its ground
    shaded = images + jnp.where(seen, product, middle)[..., None] * (shaded - images)
    coloured = of_product(images.max(-1) - images.min(-1)) > _COLOURED
    recoloured = jnp.where(coloured, turned, shaded)
    factor = 1.5 + 0.5 * jax.random.uniform(stretch, (count,))
    tall = jax.random.bernoulli(long, 0.5, (count,))
    zoom = jnp.stack([jnp.where(tall, factor, 1.0), jnp.where(tall, 1.0, factor)], axis=1)
    stretched = _moved(images, zoom, jnp.zeros((count, 2)))
    by_colour = jax.random.bernoulli(which, 0.5, (count,))[:, None, None, None]
    return jnp.clip(jnp.where(by_colour, recoloured, stretched), 0, 255)


def _product(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns how much each pixel [B, H, W] looks like the product, by its distance from the border's mean colour, and
    how near [1, H, W] it is to the middle; both from 0 to 1."""
    apart = jnp.abs(images - _border(images)[:, None, None]).max(-1)
    y, x = (jnp.linspace(-1, 1, side) for side in images.shape[1:3])
    middle = jnp.exp(-2 * (y[:, None] ** 2 + x**2))[None]
    return jnp.clip((apart - 16) / 32, 0, 1), middle


def _border(images: jax.Array) -> jax.Array:
    """Returns the mean colour [..., C] of the four sides of pictures [..., H, W, C]."""
    top, bottom = images[..., 0, :, :].mean(-2), images[..., -1, :, :].mean(-2)
    return (top + bottom + images[..., :, 0, :].mean(-2) + images[..., :, -1, :].mean(-2)) / 4


def _moved(images: jax.Array, zoom: jax.Array, shift: jax.Array) -> jax.Array:
    """Returns pictures enlarged by `zoom` [B, 2] about their middle, and moved by `shift` [B, 2] of their sides."""
    size = jnp.asarray(images.shape[1:3], jnp.float32)

    def one(image, factor, by):
        corner = (1 - factor) / 2 * size + by * size
        weight = jax.image.scale_and_translate(
            jnp.ones_like(image[..., :1]), (*image.shape[:2], 1), (0, 1), factor, corner, "linear", antialias=False
        )
        found = jax.image.scale_and_translate(image, image.shape, (0, 1), factor, corner, "linear", antialias=False)
        # What comes into view from outside has the mean colour of the border, not black.
        return found + (1 - jnp.clip(weight, 0, 1)) * _border(image)

    return jax.vmap(one)(images, zoom, shift)
