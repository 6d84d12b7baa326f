"""Normalises pictures from bytes to the value range that networks expect."""

from typing import Any

import jax
import jax.numpy as jnp

# Networks receive (value / 255 - MEAN) / STD per RGB channel. These are ImageNet's statistics, which most public
# backbones expect; weights that expect others carry them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(
    images: jax.Array, dtype: Any = jnp.float32, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> jax.Array:
    """Normalises pictures per channel.

    Args:
      images: [B, H, W, 3] RGB, uint8 or float in 0..255.
      dtype: type of the result.
      mean: mean of each channel, in 0..1.
      std: standard deviation of each channel, in 0..1.

    Returns:
      [B, H, W, 3], with roughly zero mean and unit variance per channel.
    """
    scale = 1.0 / (255.0 * jnp.asarray(std))
    return (images.astype(jnp.float32) * scale - jnp.asarray(mean) / jnp.asarray(std)).astype(dtype)
