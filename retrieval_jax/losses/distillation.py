"""Distillation losses against a teacher's predictions; the teacher is usually the moving average of the student."""

import jax
import jax.numpy as jnp

from retrieval_jax import arguments
from retrieval_jax.losses import reduce
from retrieval_jax.losses.multilabel import log_total


def softmax(
    logits: jax.Array, teacher_logits: jax.Array, *, where: jax.Array | None = None, weights: jax.Array | None = None
) -> jax.Array:
    """Softmax cross-entropy against the teacher's probabilities.

    Cross-entropy is linear in its target, so (1 - share) * label loss + share * this loss is the loss of the mixed
    target.

    Args:
      logits: [B, V].
      teacher_logits: [B, V]; no gradient flows through them.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; the minimum is the entropy of the teacher's prediction, not 0.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, at temperature 1.
    """
    arguments.shape_of(teacher_logits, "teacher_logits", "distillation", logits.shape)
    target = jax.nn.softmax(jax.lax.stop_gradient(teacher_logits), axis=-1)
    return reduce((log_total(logits) - (target * logits).sum(axis=-1, keepdims=True))[:, 0], where, weights)


def sigmoid(
    logits: jax.Array, teacher_logits: jax.Array, *, where: jax.Array | None = None, weights: jax.Array | None = None
) -> jax.Array:
    """Binary cross-entropy of each label against the teacher's probability, summed over labels.

    Args:
      logits: [B, V].
      teacher_logits: [B, V]; no gradient flows through them.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; the minimum is the entropy of the teacher's predictions, not 0.

    Source: arXiv 1503.02531, applied per label.
    """
    arguments.shape_of(teacher_logits, "teacher_logits", "distillation", logits.shape)
    target = jax.nn.sigmoid(jax.lax.stop_gradient(teacher_logits))
    return reduce((jax.nn.softplus(logits) - target * logits).sum(axis=-1), where, weights)


def teacher_progress(step: jax.Array, num_steps: int) -> jax.Array:
    """Ramps linearly from 0 at the first step to 1 at the last.

    Multiplies the teacher's share of the target, and the weight of pictures that have no other target, because early
    in training the teacher has learned nothing.

    Args:
      step: number of steps done.
      num_steps: number of steps after which it is 1.

    Source: the runner-up of eProduct, arXiv 2208.00955, lets the share grow from 0 to 0.8.
    """
    return jnp.clip(jnp.asarray(step, jnp.float32) / max(1, num_steps), 0.0, 1.0)
