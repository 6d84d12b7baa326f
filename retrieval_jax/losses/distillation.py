"""Losses against the predictions of a teacher, here mostly the moving average of the network that learns."""

import jax
import jax.numpy as jnp

from retrieval_jax.losses import reduce
from retrieval_jax.losses.multilabel import log_total


def softmax(
    logits: jax.Array, teacher_logits: jax.Array, *, where: jax.Array | None = None, weights: jax.Array | None = None
) -> jax.Array:
    """Softmax cross-entropy against the teacher's probabilities.

    As the cross-entropy is linear in its target, (1 - share) * loss of the labels + share * this one is the loss of
    the mixed target.

    Args:
      logits: [B, V].
      teacher_logits: [B, V]; no gradient flows into them.
      where: [B], pictures that count; the others get 0.
      weights: [B] weights of the pictures.

    Returns:
      [B] losses in nats; at best the entropy of the teacher's prediction, not 0.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, at temperature 1.
    """
    target = jax.nn.softmax(jax.lax.stop_gradient(teacher_logits), axis=-1)
    return reduce((log_total(logits) - (target * logits).sum(axis=-1, keepdims=True))[:, 0], where, weights)


def sigmoid(
    logits: jax.Array, teacher_logits: jax.Array, *, where: jax.Array | None = None, weights: jax.Array | None = None
) -> jax.Array:
    """Binary cross-entropy of every label against the teacher's probability, summed over the labels.

    Args:
      logits: [B, V].
      teacher_logits: [B, V]; no gradient flows into them.
      where: [B], pictures that count; the others get 0.
      weights: [B] weights of the pictures.

    Returns:
      [B] losses in nats; at best the entropy of the teacher's predictions, not 0.

    Source: arXiv 1503.02531, label by label.
    """
    target = jax.nn.sigmoid(jax.lax.stop_gradient(teacher_logits))
    return reduce((jax.nn.softplus(logits) - target * logits).sum(axis=-1), where, weights)


def teacher_progress(step: jax.Array, num_steps: int) -> jax.Array:
    """Returns how far the teacher's share has grown, 0 at the first step to 1 at the last, in a straight line.

    A young teacher knows nothing: its share of the target, and the weight of pictures that have only its target,
    are multiplied by this.

    Args:
      step: number of steps done.
      num_steps: after which it is 1.

    Source: the runner-up of eProduct, arXiv 2208.00955, lets the share grow from 0 to 0.8.
    """
    return jnp.clip(jnp.asarray(step, jnp.float32) / max(1, num_steps), 0.0, 1.0)
