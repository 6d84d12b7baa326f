"""Augments every picture of a batch on its own, on the device, inside the train step.

    batch_transforms = (("random_resized_crop", {"scale": (0.6, 1)}), ("flip", {}), ("color_jitter", {"hue": 0.1}))

The same transforms with the same arguments as the host's (`data.pictures.transforms`), for machines whose CPU cores
cannot keep up with their accelerators: the host then only decodes and resizes. The random draws differ from the host's;
they depend on the key, the row and the batch size, not on how many devices or processes share the batch.
"""

import math

import jax
import jax.numpy as jnp

from retrieval_jax import pairs
from retrieval_jax.errors import InputError

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma of red, green, blue
_CROP_TRIES = 10


def apply(batch, rng, spec, pictures):
    """Applies transforms to all pictures of a batch, one after the other.

    Args:
      batch: dict of columns.
      rng: key.
      spec: (name, kwargs) pairs that `check` accepts.
      pictures: names of the columns of pictures, [B, H, W, 3] or [B, k, H, W, 3] with values 0..255.

    Returns:
      The batch with float32 pictures of the same shapes, 0..255, not rounded. Missing pictures, where a column has a
      mask, stay black.
    """
    out = dict(batch)
    for place, column in enumerate(sorted(pictures)):
        shape, column_rng = batch[column].shape, jax.random.fold_in(rng, place)
        images = batch[column].astype(jnp.float32).reshape(-1, *shape[-3:])
        for number, (name, kwargs) in enumerate(spec):
            images = TRANSFORMS[name](images, jax.random.fold_in(column_rng, number), **kwargs)
        images = images.reshape(*shape[:-3], *images.shape[1:])
        mask = batch.get(f"{column}_mask")
        out[column] = images if mask is None else jnp.where(mask[..., None, None, None], images, 0.0)
    return out


def check(name, kwargs):
    """Raises InputError for an unknown argument of a transform or a value out of range."""
    known = pairs.arguments(TRANSFORMS[name], skip=2)
    pairs.check_arguments(name, kwargs, known, "config.train.batch_transforms", "batch transform")
    for key, value in kwargs.items():
        if key in ("scale", "ratio"):
            most = 1.0 if key == "scale" else math.inf
            if not (isinstance(value, tuple | list) and len(value) == 2 and 0 < value[0] <= value[1] <= most):
                raise InputError(
                    f"batch transform {name!r}: {key} is a pair (smallest, largest), above 0"
                    f"{' and at most 1' if key == 'scale' else ''}, not {value!r}"
                )
        elif not (isinstance(value, int | float) and 0 <= value <= (0.5 if key == "hue" else 1.0)):
            raise InputError(
                f"batch transform {name!r}: {key} is a number from 0 to {0.5 if key == 'hue' else 1:g}, not {value!r}"
            )


def random_resized_crop(images, rng, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)):
    """Cuts a random rectangle of every picture and resizes it to the picture's size: linear, antialiased.

    Args:
      images: [B, H, W, 3].
      rng: key.
      scale: smallest and largest share of the picture's area.
      ratio: smallest and largest aspect (width / height) of the rectangle relative to the picture's, log-uniform.

    Source: Szegedy et al. 2015, arXiv 1409.4842, section 6; conventions of torchvision. The rectangle is not rounded to
    whole pixels.
    """
    rows, height, width = images.shape[:3]

    def crop(image, u):
        area = scale[0] + (scale[1] - scale[0]) * u[:, 0]
        stretch = jnp.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * u[:, 1])
        shares = jnp.sqrt(jnp.stack([area / stretch, area * stretch], axis=1))  # of height and width
        fits = (shares <= 1).all(axis=1)
        first = jnp.argmax(fits)
        # the largest central rectangle whose aspect is allowed, where no try fits
        stretch = min(max(1.0, ratio[0]), ratio[1])
        share = jnp.where(fits[first], shares[first], jnp.asarray((min(1.0, 1 / stretch), min(1.0, stretch))))
        corner = jnp.where(fits[first], u[first, 2:], 0.5) * (1 - share)
        return jax.image.scale_and_translate(
            image,
            image.shape,
            (0, 1),
            1 / share,
            -corner / share * jnp.asarray((height, width)),
            "linear",
            antialias=True,
        )

    return jax.vmap(crop)(images, jax.random.uniform(rng, (rows, _CROP_TRIES, 4)))


def flip(images, rng, p=0.5):
    """Mirrors every picture left and right with probability p."""
    turn = jax.random.uniform(rng, (len(images),)) < p
    return jnp.where(turn[:, None, None, None], images[:, :, ::-1], images)


def color_jitter(images, rng, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
    """Changes brightness, contrast, saturation and hue of every picture at once, as one affine map of the colours.

    Args:
      images: [B, H, W, 3].
      rng: key.
      brightness, contrast, saturation: the factor is uniform in [1 - x, 1 + x]; 0 leaves the picture as it is.
      hue: largest turn around the grey axis as a share of a full circle, at most 0.5.

    Source: Haeberli 1993, "Matrix Operations for Image Processing" (Graphica Obscura), as on the host.
    """
    u = 2 * jax.random.uniform(rng, (len(images), 4)) - 1
    bright, gain, sat = (1 + most * u[:, i] for i, most in enumerate((brightness, contrast, saturation)))
    angle = 2 * math.pi * hue * u[:, 3]
    matrix, bias = _colours(images, bright, gain, sat, angle)
    return jnp.clip(jnp.einsum("bhwc,bdc->bhwd", images, matrix) + bias[:, None, None, None], 0.0, 255.0)


def _colours(images, bright, contrast, saturation, angle):
    """Returns matrices [B, 3, 3] and offsets [B] for factors and angles [B]."""
    grey = jnp.asarray(_GREY)
    third, sine = (1 - jnp.cos(angle)) / 3, jnp.sin(angle) / math.sqrt(3)
    same, before, after = jnp.cos(angle) + third, third - sine, third + sine
    turn = jnp.stack([same, before, after, after, same, before, before, after, same], axis=-1).reshape(-1, 3, 3)
    mix = saturation[:, None, None] * turn + (1 - saturation)[:, None, None] * grey
    return (bright * contrast)[:, None, None] * mix, (1 - contrast) * bright * (images.mean(axis=(1, 2)) @ grey)


def erasing(images, rng, p=0.25, scale=(0.02, 1 / 3), ratio=(0.3, 3.3)):
    """Fills a random rectangle of a picture with noise, with probability p; put it last.

    Args:
      images: [B, H, W, 3].
      rng: key.
      p: probability.
      scale: smallest and largest share of the picture's area.
      ratio: smallest and largest aspect (width / height), log-uniform.

    Source: Zhong et al. 2017, "Random Erasing Data Augmentation" (arXiv 1708.04896).
    """
    rows, height, width = images.shape[:3]
    noise_rng, happens_rng, box_rng = jax.random.split(rng, 3)
    u = jax.random.uniform(box_rng, (rows, _CROP_TRIES, 4))
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[..., 0])
    aspect = jnp.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * u[..., 1])
    sides = jnp.round(jnp.sqrt(jnp.stack([area / aspect, area * aspect], axis=-1)))  # [B, tries, (height, width)]
    whole = jnp.asarray((height, width))
    fits = ((sides > 0) & (sides < whole)).all(axis=-1)
    chosen = jnp.argmax(fits, axis=1)[:, None, None]
    sides, place = (jnp.take_along_axis(x, chosen, axis=1)[:, 0] for x in (sides, u[..., 2:]))
    start = jnp.floor(place * (whole - sides + 1))
    down, across = (
        (jnp.arange(size) >= start[:, i, None]) & (jnp.arange(size) < (start + sides)[:, i, None])
        for i, size in enumerate((height, width))
    )
    happens = (jax.random.uniform(happens_rng, (rows,)) < p) & fits.any(axis=1)
    box = down[:, :, None, None] & across[:, None, :, None] & happens[:, None, None, None]
    noise = jax.random.randint(noise_rng, images.shape, 0, 256).astype(images.dtype)
    return jnp.where(box, noise, images)


TRANSFORMS = {f.__name__: f for f in (random_resized_crop, flip, color_jitter, erasing)}
