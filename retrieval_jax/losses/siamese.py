"""The contrastive loss of a Siamese network: pairs that belong together attract, others repel up to a margin."""

import jax
import jax.numpy as jnp

from retrieval_jax import arguments
from retrieval_jax.losses import reduce, unit


def contrastive(
    queries: jax.Array,
    positives: jax.Array,
    negatives: jax.Array,
    *,
    margin: float = 0.5,
    allowed: jax.Array | None = None,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Half the squared distance to the positive, plus half the squared shortfall of each negative's distance.

    Args:
      queries: [B, D]; all three are L2-normalised here.
      positives: [B, D], of each query.
      negatives: [B, N, D], of each query.
      margin: distance, at most 2, from which on a negative costs nothing.
      allowed: [B, N] bool, the negatives that count; None for all.
      where: [B] bool, queries to include; the others get 0.
      weights: [B] weights per query.

    Returns:
      [B] losses: 0.5 d(positive)^2 + the mean over allowed negatives of 0.5 max(0, margin - d(negative))^2.

    Source: Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006; for a query of
    picture and words: DeepStyle-Siamese, arXiv 1801.03002.
    """
    count, width = arguments.shape_of(queries, "queries", "siamese loss", ("B", "D"))
    arguments.shape_of(positives, "positives", "siamese loss", (count, width))
    arguments.shape_of(negatives, "negatives", "siamese loss", (count, "N", width))
    query, positive, negative = (unit(vectors) for vectors in (queries, positives, negatives))
    near = 2 - 2 * (query * positive).sum(axis=-1)
    # The square root has no gradient at 0, where a negative is the query itself.
    away = jnp.sqrt(jnp.maximum(2 - 2 * jnp.einsum("bd,bnd->bn", query, negative), 1e-6))
    short = jnp.maximum(margin - away, 0.0) ** 2
    counted = jnp.ones_like(short, bool) if allowed is None else allowed
    repelled = jnp.where(counted, short, 0.0).sum(axis=1) / jnp.maximum(counted.sum(axis=1), 1)
    return reduce(0.5 * near + 0.5 * repelled, where, weights)
