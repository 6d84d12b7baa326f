"""Attention in the form that is fastest on the backend: heads first on a CPU, cuDNN's flash attention on NVIDIA GPUs.

XLA runs the heads-first form twice as fast as jax's own on a CPU. On a GPU, jax's own writes and reads the logits and
the shares of all pairs of tokens several times; flash attention never writes them. (Bytes that the training step of
each published network moves: benchmarks/gpu_compiled.json.)
"""

import contextlib
import contextvars
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.pairs import near

KERNELS = ("auto", "xla", "cudnn")

_MULTIPLE = 8  # of tokens: cuDNN trains with biases on even numbers only, and jax (0.11) takes no bias for one too
_MOST_DIM = 128  # of a head, on every GPU that has flash attention
_NEVER = -3e4  # added to the logits of padding: within the range of float16, far below every logit

_portable = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Keeps vendors' kernels out of what is traced inside: for programs that other platforms run too."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def has_flash() -> bool:
    """Returns whether the default backend is an NVIDIA GPU that has flash attention (Ampere or later)."""
    if jax.default_backend() != "gpu":
        return False
    version = re.fullmatch(r"(\d+)\.\d+", getattr(jax.local_devices()[0], "compute_capability", ""))  # AMD's: "gfx942"
    return version is not None and int(version[1]) >= 8


def uses_flash(dtype, dim: int, kernel: str = "auto") -> bool:
    """Returns whether attention runs as cuDNN's flash attention.

    Args:
      dtype: type of queries, keys and values.
      dim: dimensions of a head.
      kernel: one of KERNELS.

    Raises:
      InputError: unknown kernel.
    """
    if kernel not in KERNELS:
        raise InputError(f"unknown attention_kernel={kernel!r}{near(kernel, KERNELS)}")
    if kernel != "auto":
        return kernel == "cudnn"
    fits = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16) and dim % 8 == 0 and dim <= _MOST_DIM
    return fits and has_flash() and not _portable.get()


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    kernel: str = "auto",
    mask: jax.Array | None = None,
) -> jax.Array:
    """Computes multi-head dot-product attention.

    Args:
      query: [B, T, N, H] with N heads.
      key: [B, S, N, H].
      value: [B, S, N, H].
      bias: added to the logits, [1, N, T, S]; None for no bias.
      kernel: "auto" for the fastest of the backend, "xla" for operations of XLA, or "cudnn" for flash attention, on
        NVIDIA GPUs in half precision.
      mask: bool [B, S], True for the keys that count, which come first in every row and are one at least; None for
        all. Not together with a bias.

    Returns:
      [B, T, N, H]; the softmax is taken in float32.

    Raises:
      InputError: unknown kernel.
    """
    if uses_flash(query.dtype, query.shape[-1], kernel):
        return flash(query, key, value, bias, mask=mask)
    if jax.default_backend() != "cpu":
        shown = None if mask is None else mask[:, None, None, :]
        return jax.nn.dot_product_attention(query, key, value, bias, shown, implementation="xla")
    query, key, value = (jnp.moveaxis(array, 2, 1) for array in (query, key, value))
    logits = jnp.einsum("bnth,bnsh->bnts", query * query.shape[-1] ** -0.5, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias.astype(jnp.float32)
    if mask is not None:
        logits = jnp.where(mask[:, None, None, :], logits, _NEVER)
    shares = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.moveaxis(jnp.einsum("bnts,bnsh->bnth", shares, value), 1, 2)


def flash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    implementation: str = "cudnn",
    mask: jax.Array | None = None,
) -> jax.Array:
    """Computes `attention` with cuDNN, any number of tokens padded to a multiple of 8 and masked.

    Args:
      query, key, value, bias, mask: see `attention`; the bias is cast to their type.
      implementation: of `jax.nn.dot_product_attention`; "xla" runs the same arguments on any backend.

    Returns:
      [B, T, N, H].

    Source: Dao, "FlashAttention-2", arXiv 2307.08691.
    """
    batch, tokens, keys = query.shape[0], query.shape[1], key.shape[1]
    below, right = -tokens % _MULTIPLE, -keys % _MULTIPLE
    query = jnp.pad(query, ((0, 0), (0, below), (0, 0), (0, 0)))
    key, value = (jnp.pad(array, ((0, 0), (0, right), (0, 0), (0, 0))) for array in (key, value))
    lengths = {}
    if bias is not None:
        bias = jnp.pad(bias.astype(query.dtype), ((0, 0), (0, 0), (0, below), (0, 0)))
        bias = jnp.pad(bias, ((0, 0), (0, 0), (0, 0), (0, right)), constant_values=_NEVER)
    elif below or right or mask is not None:
        lengths = {
            "query_seq_lengths": jnp.full(batch, tokens, jnp.int32),
            "key_value_seq_lengths": jnp.full(batch, keys, jnp.int32) if mask is None else mask.sum(1, dtype=jnp.int32),
        }
    return jax.nn.dot_product_attention(query, key, value, bias, implementation=implementation, **lengths)[:, :tokens]
