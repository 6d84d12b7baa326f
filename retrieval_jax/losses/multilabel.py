"""Losses of pictures with several labels each.

Targets are sparse: `label_ids` [B, L] and `label_mask` [B, L] name the labels of a picture, padded to L. A dense [B, V]
target matrix never exists: with tens of thousands of labels it would be larger than the batch.
"""

import jax
import jax.numpy as jnp


def _reduce(losses, where, weights):
    """Applies per-picture weights, and zeroes the pictures that `where` leaves out."""
    if weights is not None:
        losses = losses * weights
    return losses if where is None else jnp.where(where, losses, 0.0)


def _at_labels(values, label_ids, label_mask):
    """Picks [B, L] values at the labels, zero at padding."""
    return jnp.where(label_mask, jnp.take_along_axis(values, label_ids, axis=-1), 0.0)


def sigmoid_cross_entropy(logits: jax.Array, label_ids: jax.Array, label_mask: jax.Array, *,
                          positive_weights: jax.Array | None = None, where: jax.Array | None = None,
                          weights: jax.Array | None = None) -> jax.Array:
    """Binary cross-entropy of every label, summed over the labels.

    Args:
      logits: [B, V].
      label_ids: [B, L] distinct labels of each picture; what stands at padding does not matter.
      label_mask: [B, L], False at padding.
      positive_weights: [V] weights of the present labels (such as N/n: listings over listings with the label), or
        None for 1.
      where: [B], pictures that count; the others get 0.
      weights: [B] weights of the pictures.

    Returns:
      [B] losses in nats.

    Source: sum over labels of -w y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)).
    """
    at_labels = jnp.take_along_axis(logits, label_ids, axis=-1)
    weight = 1.0 if positive_weights is None else jnp.asarray(positive_weights)[label_ids]
    # Every label counts as absent first; at the present ones this is taken back and replaced.
    absent = jax.nn.softplus(logits).sum(axis=-1)
    change = weight * jax.nn.softplus(-at_labels) - jax.nn.softplus(at_labels)
    return _reduce(absent + jnp.where(label_mask, change, 0.0).sum(axis=-1), where, weights)


def softmax_poly1(logits: jax.Array, label_ids: jax.Array, label_mask: jax.Array, *, epsilon: float = 0.5,
                  where: jax.Array | None = None, weights: jax.Array | None = None) -> jax.Array:
    """Softmax cross-entropy against y / sum(y), plus the first polynomial term.

    Args:
      logits: [B, V].
      label_ids: [B, L] distinct labels of each picture; what stands at padding does not matter.
      label_mask: [B, L], False at padding.
      epsilon: weight of 1 - sum(softmax(z) * y / sum(y)); 0 leaves the cross-entropy alone.
      where: [B], pictures that count; the others get 0.
      weights: [B] weights of the pictures.

    Returns:
      [B] losses in nats; 0 for a picture without labels, which says nothing about the distribution.

    Source: the runner-up of eProduct, arXiv 2208.00955; Poly-1: Leng et al., "PolyLoss", arXiv 2204.12511.
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    count = label_mask.sum(axis=-1)
    share = 1.0 / jnp.maximum(count, 1)
    cross_entropy = -_at_labels(log_p, label_ids, label_mask).sum(axis=-1) * share
    expected = _at_labels(jnp.exp(log_p), label_ids, label_mask).sum(axis=-1) * share
    losses = cross_entropy + epsilon * (1.0 - expected)
    return _reduce(jnp.where(count > 0, losses, 0.0), where, weights)


def softmax_cross_entropy(logits: jax.Array, category: jax.Array, *, label_smoothing: float = 0.0,
                          where: jax.Array | None = None, weights: jax.Array | None = None) -> jax.Array:
    """Softmax cross-entropy against one category a picture.

    Args:
      logits: [B, C].
      category: [B] int, -1 where unknown.
      label_smoothing: share of the target that is spread evenly over all categories.
      where: [B], pictures that count; the others get 0.
      weights: [B] weights of the pictures.

    Returns:
      [B] losses in nats; 0 where the category is unknown.
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    at_category = jnp.take_along_axis(log_p, jnp.maximum(category, 0)[:, None], axis=-1)[:, 0]
    losses = -(1.0 - label_smoothing) * at_category - label_smoothing * log_p.mean(axis=-1)
    return _reduce(jnp.where(category >= 0, losses, 0.0), where, weights)
