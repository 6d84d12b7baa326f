"""The triplet loss on cosines: a query is nearer to what was clicked than to what was not, by a margin."""

import jax
import jax.numpy as jnp

from retrieval_jax import arguments
from retrieval_jax.losses import reduce, unit


def cosine(
    queries: jax.Array,
    positives: jax.Array,
    negatives: jax.Array,
    *,
    margin: float = 0.3,
    allowed: jax.Array | None = None,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Hinge of the cosine with each negative above the cosine with the positive less a margin.

    Args:
      queries: [B, D]; all three are L2-normalised here.
      positives: [B, D], of each query.
      negatives: [B, N, D], of each query; or [N, D], the same for all.
      margin: in cosines, more than 0 and at most 2.
      allowed: [B, N] bool, the negatives that count; None for all.
      where: [B] bool, queries to include; the others get 0.
      weights: [B] weights per query.

    Returns:
      [B] losses: the mean over a query's negatives that violate the margin, 0 where none does. With one negative each
      it is the published loss; the mean over violations keeps many negatives from fading out as most of them are met.

    Source: "Neural Search: Learning Query and Product Representations in Fashion E-commerce", arXiv 2107.08291; the
    mean over violations: Hermans et al., arXiv 1703.07737, section 2.
    """
    count, width = arguments.shape_of(queries, "queries", "triplet loss", ("B", "D"))
    arguments.shape_of(positives, "positives", "triplet loss", (count, width))
    query, positive, negative = (unit(vectors) for vectors in (queries, positives, negatives))
    if negative.ndim == 2:
        against = query @ negative.T
    else:
        arguments.shape_of(negatives, "negatives", "triplet loss", (count, "N", width))
        against = jnp.einsum("bd,bnd->bn", query, negative)
    excess = margin + against - (query * positive).sum(axis=-1)[:, None]
    if allowed is not None:
        arguments.shape_of(allowed, "allowed", "triplet loss", against.shape)
        excess = jnp.where(allowed, excess, 0.0)
    violations = (excess > 0).sum(axis=1)
    return reduce(jnp.maximum(excess, 0.0).sum(axis=1) / jnp.maximum(violations, 1), where, weights)
