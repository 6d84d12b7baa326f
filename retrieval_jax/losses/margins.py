"""Margin and proxy losses for one category per picture, on cosines between embeddings and one direction per category.

The head returns plain cosines [B, C] (`models.heads.Cosine` without temperature); the loss adds scale and margin.
"""

import jax
import jax.numpy as jnp

from retrieval_jax import arguments
from retrieval_jax.losses import reduce
from retrieval_jax.losses.multilabel import softmax_cross_entropy

# Lower bound of 1 - c^2 in sin(acos(c)), whose slope is infinite at c = +-1.
_FLAT = 1e-6


def _is_own(cosines, category):
    rows, _ = arguments.shape_of(cosines, "cosines", "margin loss", ("B", "C"))
    arguments.shape_of(category, "category", "margin loss", (rows,))
    return jnp.arange(cosines.shape[-1]) == category[:, None]


def cosface(
    cosines: jax.Array,
    category: jax.Array,
    *,
    scale: float = 30.0,
    margin: float = 0.35,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Softmax cross-entropy after subtracting a margin from the cosine of the true category.

    Args:
      cosines: [B, C] in [-1, 1].
      category: [B] int, -1 if unknown.
      scale: logits are scale * cosine.
      margin: subtracted from the cosine of the true category.
      label_smoothing: share of the target spread evenly over all categories.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; 0 if the category is unknown.

    Source: Wang et al., "CosFace: Large Margin Cosine Loss", arXiv 1801.09414.
    """
    logits = scale * jnp.where(_is_own(cosines, category), cosines - margin, cosines)
    return softmax_cross_entropy(logits, category, label_smoothing=label_smoothing, where=where, weights=weights)


def arcface(
    cosines: jax.Array,
    category: jax.Array,
    *,
    scale: float = 30.0,
    margin: float = 0.5,
    label_smoothing: float = 0.0,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Softmax cross-entropy after adding a margin to the angle to the true category.

    Args:
      cosines: [B, C] in [-1, 1]; values slightly outside, from rounding, are fine.
      category: [B] int, -1 if unknown.
      scale: logits are scale * cosine.
      margin: radians added to the angle to the true category. Past pi the cosine would rise again, so there it
        continues to fall linearly: c - margin * sin(margin).
      label_smoothing: share of the target spread evenly over all categories.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; 0 if the category is unknown.

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss", arXiv 1801.07698.
    """
    sines = jnp.sqrt(jnp.maximum(1.0 - cosines**2, _FLAT))
    margin = jnp.asarray(margin, cosines.dtype)
    widened = cosines * jnp.cos(margin) - sines * jnp.sin(margin)
    widened = jnp.where(cosines > -jnp.cos(margin), widened, cosines - margin * jnp.sin(margin))
    logits = scale * jnp.where(_is_own(cosines, category), widened, cosines)
    return softmax_cross_entropy(logits, category, label_smoothing=label_smoothing, where=where, weights=weights)


def proxy_nca(
    cosines: jax.Array,
    category: jax.Array,
    *,
    scale: float = 8.0,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Pulls a picture to the proxy of its category and away from the others: -log(exp(-d own) / sum(exp(-d others))).

    d = scale * squared Euclidean distance of unit vectors = scale * (2 - 2 cosine). The sum excludes the own proxy, so
    the loss may be negative.

    Args:
      cosines: [B, C >= 2] between embeddings and proxies.
      category: [B] int, -1 if unknown.
      scale: factor of the squared distance.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; 0 if the category is unknown.

    Source: Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", arXiv 1703.07464.
    """
    logits = 2.0 * scale * cosines
    own = _is_own(cosines, category)
    others = jax.nn.logsumexp(jnp.where(own, -1e30, logits), axis=-1)
    losses = others - jnp.where(own, logits, 0.0).sum(axis=-1)
    return reduce(jnp.where(category >= 0, losses, 0.0), where, weights)


def proxy_anchor(
    cosines: jax.Array,
    category: jax.Array,
    *,
    scale: float = 32.0,
    margin: float = 0.1,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Lets each category's proxy pull its pictures in the batch, hardest first, and push away the others.

    The published loss is per proxy, not per picture: it is distributed over the pictures so that the mean over the
    included ones (known category, `where`) is the published value.

    Args:
      cosines: [B, C] between embeddings and proxies.
      category: [B] int, -1 if unknown.
      scale: alpha of the paper.
      margin: delta of the paper.
      where: [B] bool, pictures to include; the others get 0 and neither pull nor push.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; 0 if the category is unknown.

    Source: Kim et al., "Proxy Anchor Loss for Deep Metric Learning", arXiv 2003.13911.
    """
    counts = category >= 0 if where is None else where & (category >= 0)
    own = _is_own(cosines, category) & counts[:, None]
    other = ~own & counts[:, None]

    def log_one_plus_sum(logits, which):  # over the pictures: [B, C] -> [C]
        return jax.nn.softplus(jax.nn.logsumexp(jnp.where(which, logits, -1e30), axis=0))

    num_own = own.sum(axis=0)
    pull = log_one_plus_sum(-scale * (cosines - margin), own) / jnp.maximum((num_own > 0).sum(), 1)
    push = log_one_plus_sum(scale * (cosines + margin), other).mean()
    shares = jnp.where(own, pull / jnp.maximum(num_own, 1), 0.0).sum(axis=-1) * counts.sum() + push
    return reduce(jnp.where(counts, shares, 0.0), where, weights)
