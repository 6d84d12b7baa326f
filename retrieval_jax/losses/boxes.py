"""Losses of boxes: whether a cell has a thing, and how far two boxes are from each other."""

import jax
import jax.numpy as jnp

from retrieval_jax.losses import multilabel


def giou(boxes: jax.Array, targets: jax.Array) -> jax.Array:
    """Generalised intersection over union of boxes.

    Args:
      boxes: [..., 4], ymin, xmin, ymax, xmax.
      targets: [..., 4].

    Returns:
      [...], 1 for equal boxes, down to -1 the farther they are apart; 1 - giou is the loss.

    Source: Rezatofighi et al., "Generalized Intersection over Union", arXiv 1902.09630.
    """

    def area(low, high):
        return jnp.maximum(high - low, 0.0).prod(-1)

    (low, high), (low2, high2) = ((one[..., :2], one[..., 2:]) for one in (boxes, targets))
    inner = area(jnp.maximum(low, low2), jnp.minimum(high, high2))
    union = area(low, high) + area(low2, high2) - inner
    outer = area(jnp.minimum(low, low2), jnp.maximum(high, high2))
    return inner / jnp.maximum(union, 1e-9) - (outer - union) / jnp.maximum(outer, 1e-9)


def focal(logits: jax.Array, present: jax.Array, *, gamma: float = 2.0, alpha: float = 0.25) -> jax.Array:
    """Focal loss of yes or no, summed over the last axis.

    Args:
      logits: [B, N].
      present: bool [B, N].
      gamma, alpha: see `multilabel.sigmoid_focal`, which is the same loss with sparse targets.

    Returns:
      [B] losses in nats.

    Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002.
    """
    ids = jnp.broadcast_to(jnp.arange(logits.shape[1]), logits.shape)
    return multilabel.sigmoid_focal(logits, ids, present, gamma=gamma, alpha=alpha)
