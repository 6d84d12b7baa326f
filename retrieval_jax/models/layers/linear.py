"""Linear layers and the exact GELU in a form that XLA runs fast on CPUs too, and no slower elsewhere.

On a CPU two things cost a training step more than its arithmetic: the gradient of the weights, which autodiff writes as
a transposed product whose operands XLA copies, and erfc, which takes four passes over the widest maps of the network.
(First MLP of a ConvNeXt-Atto, 32 pictures of 80 x 64, forward and backward, CPU time on one core: 35 ms with flax and
jax, 9 ms with this module, 15 ms with PyTorch.)
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns x [..., D] @ kernel [D, E]; the kernel's gradient is computed in its own layout, without transposing."""
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _product_backward(arguments, cotangent):
    x, kernel = arguments
    rows, cotangents = (array.reshape(-1, array.shape[-1]) for array in (x, cotangent))  # otherwise XLA copies them
    return (cotangents @ kernel.T).reshape(x.shape), jax.lax.dot_general(rows, cotangents, (((0,), (0,)), ((), ())))


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _product_backward)


def _as_dot_general(x, kernel, dimension_numbers, precision=None):
    """Adapts `product` to the arguments that flax passes."""
    del dimension_numbers, precision  # fixed for a linear layer, and left to the context
    return product(x, kernel)


Dense = functools.partial(nn.Dense, dot_general=_as_dot_general)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Returns x times the normal CDF at x, computed in float32 as in PyTorch, in the type of x.

    Only x is stored for the backward pass.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv 1606.08415; the exact form.
    """
    wide = x.astype(jnp.float32)
    return (wide * _share_below(wide)).astype(x.dtype)


def _share_below(x):
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


def _gelu_backward(x, cotangent):
    wide = x.astype(jnp.float32)
    slope = _share_below(wide) + wide * jnp.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
    return ((cotangent.astype(jnp.float32) * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)
