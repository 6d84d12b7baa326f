"""Heads: map embeddings to the logits of labels, or to a contrastive space."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.models.layers.linear import Dense, gelu


def softmax_prior(counts: np.ndarray) -> np.ndarray:
    """Returns biases that make an untrained softmax head predict each label's share of all labels.

    Without them training starts on a plateau: learning label frequencies drowns out the signal from pictures.

    Args:
      counts: [V] listings with each label; a label without listings counts as half a listing.

    Returns:
      [V] float32 log shares.
    """
    counts = np.maximum(np.asarray(counts, np.float64), 0.5)
    return np.log(counts / counts.sum()).astype(np.float32)


def sigmoid_prior(counts: np.ndarray, num_listings: int) -> np.ndarray:
    """Returns biases that make an untrained sigmoid head predict each label's share of the listings.

    Without them a head of thousands of rare labels spends its first epoch learning that labels are rare.

    Args:
      counts: [V] listings with each label.
      num_listings: number of listings N.

    Returns:
      [V] float32 log odds; shares are clipped to [0.5 / N, 1 - 0.5 / N].

    Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 4.1.
    """
    edge = 0.5 / max(1, num_listings)
    share = np.clip(np.asarray(counts, np.float64) / max(1, num_listings), edge, 1 - edge)
    return (np.log(share) - np.log1p(-share)).astype(np.float32)


class Head(nn.Module):
    """A linear classifier over embeddings.

    Attributes:
      num_labels: V.
      init_scale: standard deviation of the initial weights, in units of 1 / sqrt(width).
      first_bias: V initial biases, or None for zeros (a tuple, because modules are hashed).
    """

    num_labels: int
    init_scale: float = 1.0
    first_bias: tuple[float, ...] | None = None

    def __call__(self, embedding: jax.Array) -> jax.Array:
        """Maps [B, D] to [B, V] logits, float32."""
        embedding, kernel, bias = self.factors(embedding)
        return embedding @ kernel + bias

    @nn.compact
    def factors(self, embedding: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the factors of the logits, embedding [B, D] @ kernel [D, V] + bias [V], in float32."""
        init = nn.initializers.variance_scaling(self.init_scale**2, "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, (embedding.shape[-1], self.num_labels))
        return embedding.astype(jnp.float32), kernel, self.param("bias", self._bias, (self.num_labels,))

    def _bias(self, key, shape):
        del key
        return jnp.zeros(shape) if self.first_bias is None else jnp.asarray(self.first_bias, jnp.float32)


class Cosine(nn.Module):
    """A cosine classifier: one direction per label, and a learned temperature.

    Attributes:
      num_labels: V.
      temperature: initial temperature that cosines are divided by, learned as the log of its inverse; None returns
        plain cosines, for losses that scale them themselves.
      first_bias: V initial biases, or None for no bias (a tuple, because modules are hashed).
    """

    num_labels: int
    temperature: float | None = 0.07
    first_bias: tuple[float, ...] | None = None

    def __call__(self, embedding: jax.Array) -> jax.Array:
        """Maps [B, D] to [B, V] logits, float32."""
        embedding, kernel, bias = self.factors(embedding)
        return embedding @ kernel if bias is None else embedding @ kernel + bias

    @nn.compact
    def factors(self, embedding: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Returns the factors of the logits, [B, D] @ [D, V] + [V] (None for no bias), in float32."""
        init = nn.initializers.truncated_normal(embedding.shape[-1] ** -0.5)
        kernel = _unit(self.param("kernel", init, (embedding.shape[-1], self.num_labels)), axis=0)
        embedding, bias = _unit(embedding.astype(jnp.float32), axis=-1), None
        if self.temperature is not None:
            embedding *= jnp.exp(self.param("log_scale", lambda _: jnp.log(1.0 / jnp.float32(self.temperature))))
        if self.first_bias is not None:
            bias = self.param("bias", lambda _: jnp.asarray(self.first_bias, jnp.float32))
        return embedding, kernel, bias


class Mlp(nn.Module):
    """Two linear layers with a norm and GELU between, which project an embedding for a contrastive loss.

    Attributes:
      hidden_dims: width of the hidden layer.
      dims: width of the output.
    """

    hidden_dims: int
    dims: int

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        """Maps [B, D] to [B, dims], float32."""
        hidden = nn.LayerNorm(epsilon=1e-6, name="norm")(Dense(self.hidden_dims, name="hidden")(embedding))
        return Dense(self.dims, name="out")(gelu(hidden))


class TitleTower(nn.Module):
    """Embeds titles, given as label ids: the mean of learned label vectors, then an MLP.

    Attributes:
      num_labels: V.
      hidden_dims: width of the label vectors and of the hidden layer.
      dims: width of the output.
    """

    num_labels: int
    hidden_dims: int
    dims: int

    @nn.compact
    def __call__(self, label_ids: jax.Array, label_mask: jax.Array) -> jax.Array:
        """Maps labels [B, L] with mask [B, L] to [B, dims], float32; the mean of a title without labels is zero."""
        vectors = nn.Embed(self.num_labels, self.hidden_dims, name="labels")(jnp.where(label_mask, label_ids, 0))
        total = jnp.where(label_mask[..., None], vectors, 0.0).sum(axis=-2)
        mean = total / jnp.maximum(label_mask.sum(axis=-1, keepdims=True), 1)
        return Mlp(self.hidden_dims, self.dims, name="mlp")(mean)


def _unit(vectors, axis):
    return vectors * jax.lax.rsqrt(jnp.maximum((vectors**2).sum(axis=axis, keepdims=True), 1e-12))
