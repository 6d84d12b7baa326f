"""Losses of attributes whose values are partly unknown: of sequences, and of a sigmoid per value."""

import jax
import jax.numpy as jnp

from retrieval_jax.losses import reduce


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    allowed: jax.Array,
    counted: jax.Array,
    *,
    step_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Softmax cross-entropy of every label of a sequence among those that may be there, summed over the sequence.

    Args:
      logits: [B, T, V].
      targets: int [B, T].
      allowed: bool [B, T, V], the labels that may be there; the others have no part in the softmax.
      counted: bool [B, T], False after the end of a sequence.
      step_weights: [B, T], or None for 1.
      label_smoothing: share of the target spread evenly over the labels that are allowed.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats.
    """
    log_p = jax.nn.log_softmax(jnp.where(allowed, logits, -1e9), axis=-1)
    at_target = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    losses = -(1.0 - label_smoothing) * at_target
    if label_smoothing:
        spread = jnp.where(allowed, log_p, 0.0).sum(axis=-1) / jnp.maximum(allowed.sum(axis=-1), 1)
        losses -= label_smoothing * spread
    if step_weights is not None:
        losses *= step_weights
    return reduce(jnp.where(counted, losses, 0.0).sum(axis=-1), where, weights)


def sigmoid_of_known(
    logits: jax.Array,
    present: jax.Array,
    known: jax.Array,
    *,
    label_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Binary cross-entropy of every label that is known to be present or absent, summed over labels.

    Args:
      logits: [B, V].
      present: bool [B, V].
      known: bool [B, V]; labels that are not known count nothing.
      label_weights: [V], or None for 1.
      label_smoothing: the target of present labels is 1 - s + s / V, that of absent ones s / V, as in
        `multilabel.sigmoid_cross_entropy`.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats.
    """
    target = (1.0 - label_smoothing) * present + label_smoothing / logits.shape[-1]
    losses = jax.nn.softplus(logits) - target * logits
    if label_weights is not None:
        losses *= label_weights
    return reduce(jnp.where(known, losses, 0.0).sum(axis=-1), where, weights)
