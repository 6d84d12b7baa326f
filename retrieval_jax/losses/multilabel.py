"""Losses for pictures with several labels each.

Targets are sparse: `label_ids` [B, L] and `label_mask` [B, L] hold the labels of each picture, padded to L. There is
never a dense [B, V] target matrix: with tens of thousands of labels it would be larger than the batch. If the logits
are too large as well, the title losses accept `blocked.Logits` instead.
"""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.losses import blocked, reduce


def log_total(logits: jax.Array) -> jax.Array:
    """Returns log(sum(exp(logits))) [B, 1] of [B, V]; leaner than log_softmax if few of the V are needed."""
    most = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    return most + jnp.log(jnp.exp(logits - most).sum(axis=-1, keepdims=True))


def _check(logits, label_ids, label_mask, positive_weights) -> None:
    rows, num_labels = arguments.shape_of(logits, "logits", "title loss", ("B", "V"))
    shape = arguments.shape_of(label_ids, "label_ids", "title loss", (rows, "L"))
    arguments.shape_of(label_mask, "label_mask", "title loss", shape)
    if positive_weights is not None:
        arguments.shape_of(positive_weights, "positive_weights", "title loss", (num_labels,))


def _over_labels(logits, label_ids, label_mask, absent, present, weights):
    """Sums absent(z) over the absent labels and weight * present(z) over the present ones: [B, V] -> [B]."""
    _check(logits, label_ids, label_mask, weights)
    if isinstance(logits, blocked.Logits):
        total, at_labels = blocked.over_labels(logits, label_ids, absent)
    else:
        total, at_labels = absent(logits).sum(axis=-1), jnp.take_along_axis(logits, label_ids, axis=-1)
    weight = 1.0 if weights is None else jnp.asarray(weights)[label_ids]
    # All labels count as absent first; then the terms of the present ones are replaced.
    change = weight * present(at_labels) - absent(at_labels)
    return total + jnp.where(label_mask, change, 0.0).sum(axis=-1)


def sigmoid_cross_entropy(
    logits: jax.Array,
    label_ids: jax.Array,
    label_mask: jax.Array,
    *,
    positive_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Binary cross-entropy of each label, summed over labels.

    Args:
      logits: [B, V], or `blocked.Logits`.
      label_ids: [B, L] distinct labels of each picture; values at padding are ignored.
      label_mask: [B, L], False at padding.
      positive_weights: [V] weights of the present labels (such as N / n, all listings over listings with the label),
        or None for 1.
      label_smoothing: share s of the target spread evenly over all V labels: the target of present labels is
        1 - s + s / V, that of absent ones s / V.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats.

    Source: sum over labels of -w y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)); smoothing as in Wightman et al.,
    "ResNet strikes back", arXiv 2110.00476.
    """
    absent, present = jax.nn.softplus, lambda z: jax.nn.softplus(-z)
    if label_smoothing:
        off = label_smoothing / logits.shape[-1]
        absent = lambda z: jax.nn.softplus(z) - off * z  # noqa: E731
        present = lambda z: jax.nn.softplus(-z) + (label_smoothing - off) * z  # noqa: E731
    losses = _over_labels(logits, label_ids, label_mask, absent, present, positive_weights)
    return reduce(losses, where, weights)


def sigmoid_focal(
    logits: jax.Array,
    label_ids: jax.Array,
    label_mask: jax.Array,
    *,
    gamma: float = 2.0,
    alpha: float = 0.25,
    positive_weights: jax.Array | None = None,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Binary cross-entropy that down-weights labels already predicted well, summed over labels.

    Args:
      logits: [B, V], or `blocked.Logits`.
      label_ids: [B, L] distinct labels of each picture; values at padding are ignored.
      label_mask: [B, L], False at padding.
      gamma: strength of the down-weighting; 0 gives the cross-entropy.
      alpha: weight of present labels; absent ones weigh 1 - alpha.
      positive_weights: [V] further weights of the present labels, or None for 1.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats.

    Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002: -alpha (1 - p)^gamma log p.
    """

    def fading(z):  # (1 - p)^gamma * -log p of p = sigmoid(z)
        return jnp.exp(-gamma * jax.nn.softplus(z)) * jax.nn.softplus(-z)

    losses = _over_labels(
        logits,
        label_ids,
        label_mask,
        lambda z: (1.0 - alpha) * fading(-z),
        lambda z: alpha * fading(z),
        positive_weights,
    )
    return reduce(losses, where, weights)


def asymmetric(
    logits: jax.Array,
    label_ids: jax.Array,
    label_mask: jax.Array,
    *,
    gamma_present: float = 0.0,
    gamma_absent: float = 4.0,
    margin: float = 0.05,
    positive_weights: jax.Array | None = None,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Focal loss that decays faster for absent labels and drops the easiest of them, summed over labels.

    Suits labels that are far more often absent than present, and absent ones that may just be unannotated.

    Args:
      logits: [B, V], or `blocked.Logits`.
      label_ids: [B, L] distinct labels of each picture; values at padding are ignored.
      label_mask: [B, L], False at padding.
      gamma_present: exponent of the present labels, 0 or at least 1.
      gamma_absent: exponent of the absent labels, 0 or at least 1.
      margin: probability tolerated for absent labels, which count with max(p - margin, 0).
      positive_weights: [V] weights of the present labels, or None for 1.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats.

    Source: Ridnik et al., "Asymmetric Loss for Multi-Label Classification", arXiv 2009.14119.
    """

    def present(z):
        return jnp.exp(-gamma_present * jax.nn.softplus(z)) * jax.nn.softplus(-z)

    def absent(z):
        p = jnp.maximum(jax.nn.sigmoid(z) - margin, 0.0)
        log_one_minus_p = jnp.log(jnp.minimum(jax.nn.sigmoid(-z) + margin, 1.0)) if margin else -jax.nn.softplus(z)
        return -(p**gamma_absent) * log_one_minus_p

    return reduce(_over_labels(logits, label_ids, label_mask, absent, present, positive_weights), where, weights)


def softmax_poly1(
    logits: jax.Array,
    label_ids: jax.Array,
    label_mask: jax.Array,
    *,
    epsilon: float = 0.5,
    positive_weights: jax.Array | None = None,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Softmax cross-entropy against y / sum(y), plus the first polynomial term.

    Args:
      logits: [B, V], or `blocked.Logits`.
      label_ids: [B, L] distinct labels of each picture; values at padding are ignored.
      label_mask: [B, L], False at padding.
      epsilon: weight of 1 - sum(softmax(z) * y / sum(y)); 0 gives plain cross-entropy.
      positive_weights: [V] weights w of the labels, which make the target w y / sum(w y); None for 1.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; 0 for a picture without labels, which has no target distribution.

    Source: the runner-up of eProduct, arXiv 2208.00955; Poly-1: Leng et al., "PolyLoss", arXiv 2204.12511.
    """
    _check(logits, label_ids, label_mask, None)
    if isinstance(logits, blocked.Logits):
        total, at_labels = blocked.over_labels(logits, label_ids, None)
        log_p = at_labels - total[:, None]
    else:
        log_p = jnp.take_along_axis(logits, label_ids, axis=-1) - log_total(logits)
    log_p = jnp.where(label_mask, log_p, 0.0)
    count = label_mask.sum(axis=-1)
    weight = 1.0 if positive_weights is None else jnp.asarray(positive_weights)[label_ids]
    weight = jnp.where(label_mask, weight, 0.0)
    share = 1.0 / jnp.where(count > 0, weight.sum(axis=-1), 1.0)
    cross_entropy = -(weight * log_p).sum(axis=-1) * share
    expected = (weight * jnp.exp(log_p)).sum(axis=-1) * share
    losses = cross_entropy + epsilon * (1.0 - expected)
    return reduce(jnp.where(count > 0, losses, 0.0), where, weights)


def softmax_cross_entropy(
    logits: jax.Array,
    category: jax.Array,
    *,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Softmax cross-entropy against one category per picture.

    Args:
      logits: [B, C].
      category: [B] int, -1 if unknown.
      label_smoothing: share of the target spread evenly over all categories.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; 0 if the category is unknown.
    """
    rows, _ = arguments.shape_of(logits, "logits", "softmax_cross_entropy", ("B", "C"))
    arguments.shape_of(category, "category", "softmax_cross_entropy", (rows,))
    log_p = jax.nn.log_softmax(logits, axis=-1)
    at_category = jnp.take_along_axis(log_p, jnp.maximum(category, 0)[:, None], axis=-1)[:, 0]
    losses = -(1.0 - label_smoothing) * at_category - label_smoothing * log_p.mean(axis=-1)
    return reduce(jnp.where(category >= 0, losses, 0.0), where, weights)


def class_balanced_weights(counts: np.ndarray, beta: float = 0.9999) -> np.ndarray:
    """Returns label weights by effective number of listings: rare labels weigh more, within bounds.

    Args:
      counts: [V] listings with each label; a label without listings counts as having one.
      beta: 0 gives equal weights, 1 - 1 / N nearly the inverse of the counts.

    Returns:
      [V] float32, mean 1.

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", arXiv 1901.05555.
    """
    counts = arguments.array(counts, "counts", "class_balanced_weights", ("V",))
    if not len(counts) or not np.isfinite(counts).all():
        raise InputError("class_balanced_weights: counts must be finite, at least one")
    beta = arguments.number(beta, "beta", "class_balanced_weights", low=0, high=1, below=True)
    counts = np.maximum(np.asarray(counts, np.float64), 1)
    weights = 1.0 / (1.0 - beta**counts)
    return (weights / weights.mean()).astype(np.float32)
