"""Counts the operations of matrix products and convolutions in a function, alike on every backend.

XLA reports no count for programs that are lowered or compiled for CUDA (jax 0.11), and where it does, the count depends
on how the backend computes a layer: on a CPU a depthwise convolution is a product that is mostly zeros.
"""

import math

import jax
from jax.extend import core

# Products of the model in attention that is one kernel: two forward, and four for the gradients.
_FLASH = {"dot_product_attention_fwd": 2, "dot_product_attention_bwd": 4}


def of(function, *arguments) -> float:
    """Returns the operations (two per multiplication and addition) of one call, on all devices together.

    Loops whose length is not known count as one turn, and of alternatives the costliest counts.

    Args:
      function: a traceable function.
      *arguments: arrays or their shapes.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> float:
    return float(sum(_operations(equation) for equation in jaxpr.eqns))


def _operations(equation) -> float:
    name, parameters = equation.primitive.name, equation.params
    shapes = [getattr(variable.aval, "shape", ()) for variable in (*equation.invars, *equation.outvars[:1])]
    if name == "dot_general":
        contracted = parameters["dimension_numbers"][0][0]
        return 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        features = parameters["dimension_numbers"].rhs_spec[0]
        zeros = math.prod(parameters["lhs_dilation"])  # that the gradient of a strided convolution inserts
        return 2 * math.prod(shapes[-1]) * math.prod(shapes[1]) / shapes[1][features] / zeros
    flash = next((count for start, count in _FLASH.items() if name.startswith(start)), 0)
    if flash:  # [B, T, N, H] by [B, S, N, H]
        return 2 * flash * math.prod(shapes[0]) * shapes[1][1]
    inner = [_count(jaxpr) for value in parameters.values() for jaxpr in _jaxprs(value)]
    return max(inner, default=0.0) if name == "cond" else sum(inner) * parameters.get("length", 1)


def _jaxprs(value) -> list:
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    return [jaxpr for one in value for jaxpr in _jaxprs(one)] if isinstance(value, tuple | list) else []
