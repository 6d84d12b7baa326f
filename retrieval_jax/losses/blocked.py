"""Logits of a large vocabulary, computed block by block inside the loss so that [B, V] is never in memory.

The losses of `losses.multilabel` need two things from [B, V] logits: a sum over all labels, and the logits of a
picture's own few labels. Both are accumulated over blocks of labels, and blocks are recomputed in the backward pass,
so the three to four copies in memory are B x block instead of B x V. The cost is one more matrix product of the head,
a quarter of its time.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_NEVER = -1e30  # stands in for -inf, whose gradients would be NaN


class Logits(NamedTuple):
    """Unevaluated logits embedding @ kernel + bias; losses accept them in place of an array.

    Attributes:
      embedding: [B, D].
      kernel: [D, V].
      bias: [V].
      block: labels per block.
    """

    embedding: jax.Array
    kernel: jax.Array
    bias: jax.Array
    block: int

    @property
    def shape(self) -> tuple[int, int]:
        """(B, V)."""
        return len(self.embedding), len(self.bias)


def over_labels(logits: Logits, label_ids: jax.Array, total: Callable | None) -> tuple[jax.Array, jax.Array]:
    """Reduces logits over all labels and gathers those at `label_ids`, in one pass over the blocks.

    Args:
      logits: logits of B pictures and V labels.
      label_ids: [B, L] in 0 .. V - 1.
      total: elementwise function of the logits to sum over labels; None for log(sum(exp(logits))).

    Returns:
      The reductions [B] and the logits at `label_ids` [B, L], both float32.
    """
    rows, num_labels = logits.shape
    block = min(logits.block, num_labels)
    count = -(-num_labels // block)
    kernel = jnp.pad(logits.kernel, ((0, 0), (0, count * block - num_labels)))
    kernel = jnp.moveaxis(kernel.reshape(len(kernel), count, block), 1, 0)
    bias = jnp.pad(logits.bias, (0, count * block - num_labels)).reshape(count, block)

    def add(carry, parts):
        sums, at_labels = carry
        kernel, bias, first = parts
        part = logits.embedding.astype(jnp.float32) @ kernel + bias
        real = first + jnp.arange(block) < num_labels
        if total is None:
            sums = jnp.logaddexp(sums, jax.nn.logsumexp(jnp.where(real, part, _NEVER), axis=-1))
        else:
            sums = sums + jnp.where(real, total(part), 0.0).sum(axis=-1)
        here = (label_ids >= first) & (label_ids < first + block)
        picked = jnp.take_along_axis(part, jnp.clip(label_ids - first, 0, block - 1), axis=-1)
        return (sums, at_labels + jnp.where(here, picked, 0.0)), None

    start = jnp.full(rows, _NEVER if total is None else 0.0), jnp.zeros(label_ids.shape)
    parts = kernel, bias, block * jnp.arange(count)
    return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), start, parts)[0]
