"""Pooling of a map or sequence into one vector (average, maximum, generalised mean, attention), and drop path."""

import itertools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.models.layers.linear import Dense, gelu
from retrieval_jax.pairs import near

KINDS = ("avg", "gem", "map", "max", "avgmax")

ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": nn.gelu,
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
    "relu": nn.relu,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns an activation by its name in timm.

    Raises:
      InputError: unknown name.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}{near(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def grids(pool_bands: tuple, num_stages: int) -> list[tuple[int, int]]:
    """Returns the (rows, columns) that the map of each pooled stage is cut into.

    Args:
      pool_bands: for each stage a number of horizontal bands, or (rows, columns); () for 1 each.
      num_stages: number of pooled stages.

    Raises:
      InputError: another number of stages, or a grid that is not made of whole numbers from 1 on.
    """
    bands = pool_bands or (1,) * num_stages
    if len(bands) != num_stages:
        raise InputError(f"pool_bands={pool_bands} must give one number or grid for each of {num_stages} pool_stages")
    out = [(one, 1) if isinstance(one, int) else tuple(one) for one in bands]
    if not all(len(one) == 2 and all(isinstance(n, int) and n >= 1 for n in one) for one in out):
        raise InputError(f"pool_bands={pool_bands}: give a number of bands or (rows, columns) for each stage")
    return out


def cells(feature_map: jax.Array, grid: tuple[int, int]) -> list[jax.Array]:
    """Cuts a map into the cells of a grid, row by row.

    Args:
      feature_map: [B, H, W, C].
      grid: (rows, columns), at most (H, W).

    Returns:
      The cells [B, h, w, C].

    Raises:
      InputError: the map is too small.
    """
    (rows, columns), (height, width) = grid, feature_map.shape[1:3]
    if rows > height or columns > width:
        raise InputError(
            f"pool_bands: a map of {height} x {width} positions is too small for {rows} x {columns} cells; embed "
            "larger pictures or take fewer"
        )
    down, right = ([i * size // n for i in range(n + 1)] for n, size in ((rows, height), (columns, width)))
    return [
        feature_map[:, top:bottom, left:end]
        for top, bottom in itertools.pairwise(down)
        for left, end in itertools.pairwise(right)
    ]


class Pool(nn.Module):
    """Pools the positions of a map into one vector.

    Attributes:
      kind: "avg"; "max"; "avgmax", the mean of both; "gem", the generalised mean with a learned exponent, initially 3;
        or "map", one learned query that attends to all positions, followed by a residual MLP.
      num_heads: attention heads of "map"; must divide the width.
      dtype: type of the computation.
      epsilon: added to the variance in the norm of "map".
      mlp_ratio: width of the MLP of "map", as a multiple of the embedding's.
      act: activation of that MLP.

    Source: GeM: Radenovic et al., arXiv 1711.02512. MAP: Lee et al., "Set Transformer", arXiv 1810.00825, in the form
    of Zhai et al., "Scaling Vision Transformers", arXiv 2106.04560.
    """

    kind: str = "avg"
    num_heads: int = 4
    dtype: jnp.dtype = jnp.float32
    epsilon: float = 1e-6
    mlp_ratio: float = 4.0
    act: str = "gelu"

    @nn.compact
    def __call__(self, positions: jax.Array) -> jax.Array:
        """Pools [B, ..., C] over all axes between; returns [B, C] in float32."""
        batch, channels = positions.shape[0], positions.shape[-1]
        positions = positions.reshape(batch, -1, channels)
        if self.kind == "avg":
            return positions.astype(jnp.float32).mean(axis=1)
        if self.kind == "max":
            return positions.max(axis=1).astype(jnp.float32)
        if self.kind == "avgmax":
            return (positions.astype(jnp.float32).mean(axis=1) + positions.max(axis=1).astype(jnp.float32)) / 2
        if self.kind == "gem":
            exponent = self.param("p", nn.initializers.constant(3.0), ())
            # In logarithms: powers of small or large numbers, and their gradients, leave the range of float32.
            logs = exponent * jnp.log(jnp.maximum(positions.astype(jnp.float32), 1e-6))
            return jnp.exp((jax.nn.logsumexp(logs, axis=1) - jnp.log(positions.shape[1])) / exponent)
        if self.kind == "map":
            return self._attend(positions).astype(jnp.float32)
        raise InputError(f"unknown pooling {self.kind!r}{near(self.kind, KINDS)}")

    def _attend(self, positions: jax.Array) -> jax.Array:
        batch, length, channels = positions.shape
        if channels % self.num_heads:
            raise InputError(f"attention pooling: {self.num_heads} heads do not divide a width of {channels}")

        def dense(width, name, inputs):
            return Dense(width, dtype=self.dtype, name=name)(inputs)

        query = self.param("query", nn.initializers.xavier_uniform(), (1, 1, channels))
        query = dense(channels, "q", query.astype(self.dtype)).reshape(1, 1, self.num_heads, -1)
        pairs = dense(2 * channels, "kv", positions).reshape(batch, length, 2, self.num_heads, -1)
        query = jnp.broadcast_to(query, (batch, *query.shape[1:]))
        pooled = jax.nn.dot_product_attention(query, pairs[:, :, 0], pairs[:, :, 1])
        pooled = dense(channels, "proj", pooled.reshape(batch, channels))
        hidden = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(pooled)
        hidden = activation(self.act)(dense(int(self.mlp_ratio * channels), "fc1", hidden))
        return pooled + dense(channels, "fc2", hidden)


class DropPath(nn.Module):
    """Drops a residual branch for randomly chosen pictures, in training only, and scales up the kept ones.

    Attributes:
      rate: share of pictures whose branch is dropped; an array if layers are scanned.

    Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    rate: float | jax.Array = 0.0

    @nn.compact
    def __call__(self, branch: jax.Array, train: bool) -> jax.Array:
        """Returns the branch [B, ...] with some pictures zeroed."""
        if not train or (isinstance(self.rate, (int, float)) and self.rate == 0):
            return branch
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, shape)
        return branch * (keep / (1.0 - self.rate)).astype(branch.dtype)
