"""From bytes to the range of values that networks expect."""

from typing import Any

import jax
import jax.numpy as jnp

# Pictures enter every network as (value / 255 - MEAN) / STD, per RGB channel: ImageNet's statistics, which most public
# backbones expect; those that expect others bring them along.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(
    images: jax.Array, dtype: Any = jnp.float32, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> jax.Array:
    """Maps pictures from bytes to the range that networks expect.

    Args:
      images: [B, H, W, 3] RGB, uint8 or float in 0..255.
      dtype: type of the result.
      mean: of each channel, in 0..1.
      std: of each channel, in 0..1.

    Returns:
      [B, H, W, 3], per channel about zero mean and unit variance.
    """
    scale = 1.0 / (255.0 * jnp.asarray(std))
    return (images.astype(jnp.float32) * scale - jnp.asarray(mean) / jnp.asarray(std)).astype(dtype)
