"""From a map or a sequence to one vector: average, generalised-mean and attention pooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError

KINDS = ("avg", "gem", "map")


class Pool(nn.Module):
    """Pools the positions of a map into one vector.

    Attributes:
      kind: "avg"; "gem", the generalised mean with a learned exponent that starts at 3; or "map", one learned query
        that attends to all positions, followed by a residual MLP.
      num_heads: attention heads of "map"; must divide the width.
      dtype: type of the computation.

    Source: GeM: Radenovic et al., arXiv 1711.02512. MAP: Lee et al., "Set Transformer", arXiv 1810.00825, in the form
    of Zhai et al., "Scaling Vision Transformers", arXiv 2106.04560.
    """
    kind: str = "avg"
    num_heads: int = 4
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, positions: jax.Array) -> jax.Array:
        """Pools [B, ..., C] over everything between; returns [B, C] in float32."""
        batch, channels = positions.shape[0], positions.shape[-1]
        positions = positions.reshape(batch, -1, channels)
        if self.kind == "avg":
            return positions.astype(jnp.float32).mean(axis=1)
        if self.kind == "gem":
            exponent = self.param("p", nn.initializers.constant(3.0), ())
            # In logarithms: a power of a small or large number leaves float32, and the gradient with it.
            logs = exponent * jnp.log(jnp.maximum(positions.astype(jnp.float32), 1e-6))
            return jnp.exp((jax.nn.logsumexp(logs, axis=1) - jnp.log(positions.shape[1])) / exponent)
        if self.kind == "map":
            query = self.param("query", nn.initializers.xavier_uniform(), (1, 1, channels))
            query = jnp.broadcast_to(query, (batch, 1, channels)).astype(self.dtype)
            attention = nn.MultiHeadDotProductAttention(self.num_heads, dtype=self.dtype, name="attention")
            pooled = attention(query, positions)
            hidden = nn.LayerNorm(dtype=self.dtype, name="norm")(pooled)
            hidden = nn.Dense(4 * channels, dtype=self.dtype, name="fc1")(hidden)
            hidden = nn.Dense(channels, dtype=self.dtype, name="fc2")(nn.gelu(hidden, approximate=False))
            return (pooled + hidden)[:, 0].astype(jnp.float32)
        raise InputError(f"unknown pooling {self.kind!r}; there are: {', '.join(KINDS)}")


class DropPath(nn.Module):
    """Drops a residual branch for whole pictures at random, in training only, and scales up what is kept.

    Attributes:
      rate: share of pictures whose branch is dropped.

    Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """
    rate: float = 0.0

    @nn.compact
    def __call__(self, branch: jax.Array, train: bool) -> jax.Array:
        """Returns the branch [B, ...], some of its pictures zero."""
        if not train or self.rate == 0.0:
            return branch
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, shape)
        return branch * (keep / (1.0 - self.rate)).astype(branch.dtype)
