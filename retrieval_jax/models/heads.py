"""Heads: from an embedding to the logits of labels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def softmax_prior(counts: np.ndarray) -> np.ndarray:
    """Returns the biases with which an untrained softmax head predicts every label at its share of all labels.

    Without them training starts on a plateau: learning how frequent labels are drowns what pictures say about them.

    Args:
      counts: [V] listings that have the label; labels of none count as half a listing.

    Returns:
      [V] float32 log shares.
    """
    counts = np.maximum(np.asarray(counts, np.float64), 0.5)
    return np.log(counts / counts.sum()).astype(np.float32)


def sigmoid_prior(counts: np.ndarray, num_listings: int) -> np.ndarray:
    """Returns the biases with which an untrained sigmoid head predicts every label at its share of the listings.

    Without them a head of thousands of rare labels spends its first epoch on learning that labels are rare.

    Args:
      counts: [V] listings that have the label.
      num_listings: N.

    Returns:
      [V] float32 log odds; shares are kept inside (0.5 / N, 1 - 0.5 / N).

    Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 4.1.
    """
    edge = 0.5 / max(1, num_listings)
    share = np.clip(np.asarray(counts, np.float64) / max(1, num_listings), edge, 1 - edge)
    return (np.log(share) - np.log1p(-share)).astype(np.float32)


class Head(nn.Module):
    """A linear classifier over embeddings.

    Attributes:
      num_labels: V.
      init_scale: standard deviation of the first weights, times 1 / sqrt(width).
      first_bias: V numbers that the bias starts from, or None for zeros (a tuple: modules are hashed).
    """
    num_labels: int
    init_scale: float = 1.0
    first_bias: tuple[float, ...] | None = None

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        """Maps [B, D] to [B, V] logits, float32."""
        init = nn.initializers.variance_scaling(self.init_scale ** 2, "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, (embedding.shape[-1], self.num_labels))
        bias = self.param("bias", self._bias, (self.num_labels,))
        return embedding.astype(jnp.float32) @ kernel + bias

    def _bias(self, key, shape):
        del key
        return jnp.zeros(shape) if self.first_bias is None else jnp.asarray(self.first_bias, jnp.float32)
