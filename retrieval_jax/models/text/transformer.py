"""RoBERTa and BERT: a transformer encoder with the norm behind each part, and learned positions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.models.layers import blocks, positions, token_pooling
from retrieval_jax.models.layers.attention import attention
from retrieval_jax.models.layers.linear import Dense, gelu
from retrieval_jax.models.layers.norm import layer_norm

# Name of a size -> fields of `Model`.
VARIANTS = {
    "mini": {"depth": 2, "width": 128, "heads": 4},
    "small": {"depth": 4, "width": 256, "heads": 4},
    "medium": {"depth": 6, "width": 384, "heads": 6},
    "base": {"depth": 12, "width": 768, "heads": 12},
}
_INIT = nn.initializers.truncated_normal(0.02)  # of all weights, as published


class Model(nn.Module):
    """Transformer encoder of token ids.

    With the defaults it has RoBERTa's layout; `models.text.hugging_face` sets the fields for a published file.

    Attributes:
      vocabulary: rows of the table of tokens.
      dim: dimensions of the embedding; 0 for `width`.
      pooling: "mean" of the tokens' states, or "first", that of the start token.
      dtype: of the computation; parameters stay float32.
      depth: number of blocks.
      width: of the states.
      heads: of the attention.
      hidden: width of the MLPs; 0 for 4 * width.
      length: most tokens of a text.
      offset: rows of the table of positions before that of the first token: 2 in RoBERTa, 0 in BERT.
      types: rows of the table of token types, of which all tokens have the first: 1 in RoBERTa, 2 in BERT; 0 for no
        such table.
      epsilon: of the norms: 1e-5 in RoBERTa, 1e-12 in BERT.
      dropout: share of the states that training drops, behind each part.
      attention_kernel: see `models.layers.attention`.
      remat, scan: see `models.layers.blocks`.

    Source: Devlin et al., "BERT", arXiv 1810.04805; Liu et al., "RoBERTa", arXiv 1907.11692.
    """

    vocabulary: int
    dim: int = 0
    pooling: str = "mean"
    dtype: Any = jnp.float32
    depth: int = 6
    width: int = 384
    heads: int = 6
    hidden: int = 0
    length: int = 512
    offset: int = 0
    types: int = 0
    epsilon: float = 1e-5
    dropout: float = 0.1
    attention_kernel: str = "auto"
    remat: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Embeds texts.

        Args:
          tokens: int32 [B, L]; what they hold behind a text does not matter.
          mask: bool [B, L], True for the tokens of a text, which come first.
          train: whether dropout is active (needs the rng "dropout").

        Returns:
          {"embedding": [B, dim] float32, "states": [B, L, width]}.

        Raises:
          InputError: an unknown pooling, heads that do not divide the width, or more tokens than `length`.
        """
        token_pooling.check(self.pooling)
        if self.width % self.heads:
            raise InputError(
                f"transformer: {self.heads} heads do not divide a width of {self.width}: change "
                "config.train.model.kwargs.heads or width"
            )
        length = tokens.shape[1]
        if isinstance(length, int) and length > self.length:  # not where it is exported for any length
            raise InputError(
                f"transformer: texts of {length} tokens, and length is {self.length}: raise "
                "config.train.model.kwargs.length, or cut the texts"
            )
        tokens = jnp.where(mask, tokens, 0)
        x = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, embedding_init=_INIT, name="stem_tokens")(tokens)
        table = self.param("positions", _INIT, (self.length + self.offset, self.width))
        if isinstance(length, int):
            rows = table[self.offset : self.offset + length]
        else:  # padding may reach beyond the table; a text that does is not embedded wrongly but as NaN
            places = jnp.arange(length)
            rows = table[self.offset + jnp.minimum(places, self.length - 1)]
            rows = jnp.where(((places >= self.length) & mask)[..., None], jnp.nan, rows[None])
        if self.types:
            rows = rows + self.param("stem_types", _INIT, (self.types, self.width))[0]
        x = positions.add(x, (rows[None] if rows.ndim == 2 else rows).astype(self.dtype))
        x = layer_norm("stem_norm", self.epsilon, self.dtype)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)

        def make(name):
            hidden = self.hidden or 4 * self.width
            sizes = (self.heads, hidden, self.dtype, self.epsilon, self.dropout, self.attention_kernel)
            return Block(*sizes, name=name)

        # Rows of padding have no token at all; a softmax over nothing is not a number.
        seen = mask.at[:, 0].set(True)
        x, _ = blocks.apply(make, (x, seen), [0.0] * self.depth, train, remat=self.remat, scan=self.scan)
        vector = token_pooling.mean(x, mask) if self.pooling == "mean" else x[:, 0].astype(jnp.float32)
        if self.dim:
            vector = Dense(self.dim, name="projection")(vector)
        return {"embedding": vector, "states": x}


class Block(nn.Module):
    """Attention, then an MLP, each added to its input and normalised.

    Attributes:
      heads, hidden, dtype, epsilon, dropout, attention_kernel: see `Model`.
    """

    heads: int
    hidden: int
    dtype: Any
    epsilon: float
    dropout: float
    attention_kernel: str

    @nn.compact
    def __call__(self, carry: tuple[jax.Array, jax.Array], rate, train: bool) -> tuple[jax.Array, jax.Array]:
        """Maps (states [B, L, W], mask bool [B, L]) to the same; `rate` is not used: there is no drop path."""
        del rate
        (x, mask), width = carry, carry[0].shape[-1]

        def dense(size, name):
            return Dense(size, dtype=self.dtype, kernel_init=_INIT, name=name)

        drop = nn.Dropout(self.dropout, deterministic=not train)
        qkv = dense(3 * width, "qkv")(x).reshape(*x.shape[:2], 3, self.heads, width // self.heads)
        y = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], kernel=self.attention_kernel, mask=mask)
        y = dense(width, "proj")(y.reshape(x.shape))
        x = layer_norm("norm1", self.epsilon, self.dtype)(x + drop(y))
        y = dense(width, "fc2")(gelu(dense(self.hidden, "fc1")(x)))
        return layer_norm("norm2", self.epsilon, self.dtype)(x + drop(y)), mask
