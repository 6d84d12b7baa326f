"""Losses of outfits: items that are worn together are nearer than items that are not, by a margin."""

import jax
import jax.numpy as jnp

from retrieval_jax import arguments
from retrieval_jax.losses import reduce

_LEAST = 1e-12  # of squared distances: the square root has no gradient at 0


def distances(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the Euclidean distances of vectors [n, D] to vectors [m, D], [n, m]."""
    squares = (first**2).sum(-1)[:, None] + (second**2).sum(-1) - 2 * first @ second.T
    return jnp.sqrt(jnp.maximum(squares, _LEAST))


def hinges(
    vectors: jax.Array,
    types: jax.Array,
    there: jax.Array,
    products: jax.Array,
    *,
    margin: float = 0.4,
    where: jax.Array | None = None,
    further: jax.Array | None = None,
) -> jax.Array:
    """Hinge of the distance to another item of the outfit above that to an item in its place, plus a margin.

    Every item is an anchor and every other item of its outfit a positive; negatives are the items of the positive's
    type in other outfits of the batch, unless they are a product of the outfit itself.

    Args:
      vectors: [B, k, D], projected by type.
      types: int [B, k].
      there: bool [B, k], False past the end of a shorter outfit.
      products: int [B, k], equal for listings of one product.
      margin: in distances, more than 0.
      where: bool [B], outfits to include; the others get 0 and are not used as negatives.
      further: int [B, m], more products that are never negatives of an outfit.

    Returns:
      [B] losses: the mean over an outfit's triplets that violate the margin, 0 where none does.

    Source: triplet hinges with a margin of .4, Revanur et al., "Semi-Supervised Visual Representation Learning for
    Fashion Compatibility", arXiv 2109.08052; all negatives of the batch in place of one, and the mean over
    violations: Hermans et al., arXiv 1703.07737, section 2.
    """
    count, items, _ = arguments.shape_of(vectors, "vectors", "outfit hinges", ("B", "k", "D"))
    for name, value in (("types", types), ("there", there), ("products", products)):
        arguments.shape_of(value, name, "outfit hinges", (count, items))
    real = there if where is None else there & where[:, None]
    flat = vectors.reshape(count * items, -1)
    apart = distances(flat, flat).reshape(count, items, count * items)
    owner = jnp.repeat(jnp.arange(count), items)
    own = (products.reshape(-1) == products[:, :, None]) & there[:, :, None]  # [B, k, B k]
    own = own.any(axis=1)
    if further is not None:
        own |= (products.reshape(-1) == further[:, :, None]).any(axis=1)
    usable = real.reshape(-1) & (owner != jnp.arange(count)[:, None]) & ~own
    total, violations = 0.0, 0.0
    for place in range(items):  # the positive's, one at a time to bound memory
        to_positive = jnp.take_along_axis(
            apart, (jnp.arange(count) * items + place)[:, None, None].repeat(items, axis=1), axis=2
        )
        allowed = usable & (types.reshape(-1) == types[:, place, None])
        pair = there & there[:, place, None] & (jnp.arange(items) != place)
        allowed = allowed[:, None] & pair[:, :, None]
        excess = jnp.where(allowed, margin + to_positive - apart, 0.0)
        total += jnp.maximum(excess, 0.0).sum(axis=(1, 2))
        violations += (excess > 0).sum(axis=(1, 2))
    return reduce(total / jnp.maximum(violations, 1), where, None)


def nearest(
    vectors: jax.Array,
    types: jax.Array,
    products: jax.Array,
    others: jax.Array,
    other_types: jax.Array,
    other_products: jax.Array,
    others_where: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Matches every item to its nearest other item of the same type, never the same product.

    Args:
      vectors: [B, k, D].
      types, products: int [B, k].
      others: [U, D], unlabelled.
      other_types, other_products: int [U].
      others_where: bool [U], those that exist; None for all.

    Returns:
      The row of the match int [B, k], and whether there is one, bool [B, k]. The choice has no gradient.

    Source: the pseudo-outfits of arXiv 2109.08052.
    """
    count, items, width = arguments.shape_of(vectors, "vectors", "pseudo-outfits", ("B", "k", "D"))
    arguments.shape_of(others, "others", "pseudo-outfits", ("U", width))
    flat = jax.lax.stop_gradient(vectors.reshape(count * items, width))
    near = -distances(flat, jax.lax.stop_gradient(others)).reshape(count, items, -1)
    allowed = (types[..., None] == other_types) & (types[..., None] >= 0) & (products[..., None] != other_products)
    if others_where is not None:
        allowed &= others_where
    return jnp.where(allowed, near, -jnp.inf).argmax(axis=-1), allowed.any(axis=-1)


def consistency(
    vectors: jax.Array,
    kept: jax.Array,
    changed: jax.Array,
    *,
    margin: float = 0.4,
    where: jax.Array | None = None,
) -> jax.Array:
    """Hinge: a picture is nearer to a transform that keeps its attributes than to one that changes one, by a margin.

    Args:
      vectors: [B, D], unit length, of pictures.
      kept: [B, D], of the same pictures after a transform that keeps colour and shape.
      changed: [B, D], after one that changes colour or shape.
      margin: in distances, more than 0.
      where: bool [B], pictures to include; the others get 0.

    Returns:
      [B] losses.

    Source: arXiv 2109.08052, section on consistency regularisation.
    """
    shape = arguments.shape_of(vectors, "vectors", "consistency", ("B", "D"))
    for name, value in (("kept", kept), ("changed", changed)):
        arguments.shape_of(value, name, "consistency", shape)
    near, far = (jnp.sqrt(jnp.maximum(((vectors - one) ** 2).sum(axis=-1), _LEAST)) for one in (kept, changed))
    return reduce(jnp.maximum(margin + near - far, 0.0), where, None)


def sets(good: jax.Array, bad: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """Logistic loss of scores of outfits against those of the same outfits with an item exchanged.

    Args:
      good: [B] logits of outfits.
      bad: [B] logits of outfits that do not go together.
      where: bool [B], pairs to include; the others get 0.

    Returns:
      [B] losses.

    Source: binary cross-entropy over outfits, as in Sarkar et al., "OutfitTransformer", arXiv 2204.04812.
    """
    (count,) = arguments.shape_of(good, "good", "sets", ("B",))
    arguments.shape_of(bad, "bad", "sets", (count,))
    return reduce(jax.nn.softplus(-good) + jax.nn.softplus(bad), where, None)
