"""Losses of a network whose vectors must search those of another, frozen one: a query network and its gallery network.

Each compares what the query network makes of a picture with what the gallery network made of it. Cross-entropy under
the gallery network's classifier, InfoNCE and distillation are those of `multilabel`, `contrastive` and `distillation`.
"""

import jax
import jax.numpy as jnp

from retrieval_jax import arguments
from retrieval_jax.losses import reduce, unit

_NEVER = -1e30  # stands in for -inf, whose gradients would be NaN


def cosine(
    queries: jax.Array, gallery: jax.Array, *, where: jax.Array | None = None, weights: jax.Array | None = None
) -> jax.Array:
    """Regresses the direction of the gallery network's vector: 1 - cosine.

    Args:
      queries: [B, D] vectors of the query network.
      gallery: [B, D] vectors of the gallery network, of the same pictures; no gradient flows through them.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses, 0 to 2.
    """
    gallery = _frozen(queries, gallery)
    return reduce(1.0 - (unit(queries) * unit(gallery)).sum(axis=-1), where, weights)


def squared(
    queries: jax.Array, gallery: jax.Array, *, where: jax.Array | None = None, weights: jax.Array | None = None
) -> jax.Array:
    """Regresses the gallery network's vector, length included: squared distance over its squared length.

    Args:
      queries: [B, D] vectors of the query network.
      gallery: [B, D] vectors of the gallery network, of the same pictures; no gradient flows through them.
      where: [B] bool, pictures to include; the others get 0.
      weights: [B] weights per picture.

    Returns:
      [B] losses; 1 for a vector of zeros.
    """
    gallery = _frozen(queries, gallery).astype(jnp.float32)
    length = jnp.maximum((gallery**2).sum(axis=-1), 1e-12)
    return reduce(((queries.astype(jnp.float32) - gallery) ** 2).sum(axis=-1) / length, where, weights)


def rank_preserving(
    queries: jax.Array,
    gallery: jax.Array,
    *,
    temperature: float = 0.1,
    bank: jax.Array | None = None,
    bank_where: jax.Array | None = None,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Makes a query find gallery vectors in the order in which the gallery network finds them.

    The Kullback-Leibler divergence between two distributions over the other pictures of the batch, and of the bank: the
    softmax of the cosines of gallery vectors with each other, and of query vectors with gallery vectors.

    Args:
      queries: [B, D] vectors of the query network.
      gallery: [B, D] vectors of the gallery network, of the same pictures; no gradient flows through them.
      temperature: that cosines are divided by; lower ones look at the nearest pictures alone.
      bank: [K, D] vectors of the gallery network, of further pictures that are found and do not ask.
      bank_where: [B, K] bool, those that count.
      where: [B] bool, pictures to include, as queries and as what is found.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; 0 where the distributions agree, or where there is no other picture.

    Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", arXiv
    1803.10837, with cosines of queries to gallery vectors, since these are what a search compares; the bank: Fang et
    al., "SEED: Self-supervised Distillation For Visual Representation", arXiv 2101.04731.
    """
    gallery = keys = unit(_frozen(queries, gallery))
    there = _others(len(queries), where)
    if bank is not None:
        count = arguments.shape_of(bank, "bank", "compatible loss", ("K", queries.shape[1]))[0]
        keys = jnp.concatenate([gallery, unit(jax.lax.stop_gradient(bank))])
        counts = jnp.ones((len(queries), count), bool) if bank_where is None else bank_where
        there = jnp.concatenate([there, counts], axis=1)

    def log_shares(similarities):
        return jax.nn.log_softmax(jnp.where(there, similarities / temperature, _NEVER), axis=-1)

    wanted, found = log_shares(gallery @ keys.T), log_shares(unit(queries) @ keys.T)
    return reduce(jnp.where(there, jnp.exp(wanted) * (wanted - found), 0.0).sum(axis=-1), where, weights)


def relational(
    queries: jax.Array, gallery: jax.Array, *, where: jax.Array | None = None, weights: jax.Array | None = None
) -> jax.Array:
    """Makes query vectors lie to each other as gallery vectors do: the Huber loss of their distances.

    Distances are of directions, and divided by their mean in the batch, so that only their ratios count.

    Args:
      queries: [B, D] vectors of the query network.
      gallery: [B, D] vectors of the gallery network, of the same pictures; no gradient flows through them.
      where: [B] bool, pictures to include, in both places.
      weights: [B] weights per picture.

    Returns:
      [B] losses, the mean over the other pictures; 0 where there are none.

    Source: Park et al., "Relational Knowledge Distillation", arXiv 1904.05068, the distance-wise loss.
    """
    gallery = _frozen(queries, gallery)
    there = _others(len(queries), where)
    count = jnp.maximum(there.sum(), 1)

    def distances(vectors):
        vectors = unit(vectors)
        squared = jnp.where(there, 2.0 - 2.0 * (vectors @ vectors.T), 0.0)
        found = jnp.where(there, jnp.sqrt(jnp.maximum(squared, 1e-8)), 0.0)  # the root of 0 has no gradient
        return found / jnp.maximum(found.sum() / count, 1e-6)

    difference = jnp.abs(distances(queries) - distances(gallery))
    huber = jnp.where(difference < 1.0, 0.5 * difference**2, difference - 0.5)
    return reduce((huber * there).sum(axis=-1) / jnp.maximum(there.sum(axis=-1), 1), where, weights)


def _frozen(queries, gallery):
    arguments.shape_of(queries, "queries", "compatible loss", ("B", "D"))
    arguments.shape_of(gallery, "gallery", "compatible loss", queries.shape)
    return jax.lax.stop_gradient(gallery)


def _others(count, where):
    """Returns which pairs count, bool [B, B]: two different pictures, both included."""
    there = ~jnp.eye(count, dtype=bool)
    return there if where is None else there & where[:, None] & where
