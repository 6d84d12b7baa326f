"""Counted operations against arithmetic on paper."""

import jax
import jax.numpy as jnp
import pytest

from retrieval_jax.training import flops


def convolved(images, kernel, stride=1, groups=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), "SAME", feature_group_count=groups, dimension_numbers=numbers
    )


X, W = jnp.zeros((4, 8)), jnp.zeros((8, 8))
IMAGES = jnp.zeros((2, 8, 8, 6))
PRODUCT = 2 * 4 * 8 * 8


@pytest.mark.parametrize(
    "function, arguments, wanted",
    [
        (jnp.matmul, (X, W), PRODUCT),
        (jax.jit(lambda x, w: jnp.sin(x @ w)), (X, W), PRODUCT),
        (jax.grad(lambda w: jnp.sin(X @ w).sum()), (W,), 2 * PRODUCT),
        (lambda w: jax.lax.scan(lambda x, _: (x @ w, None), X, None, length=5)[0], (W,), 5 * PRODUCT),
        (lambda w: jax.lax.cond(w[0, 0] > 0, lambda: X @ w @ w, lambda: X @ w), (W,), 2 * PRODUCT),
        (jax.grad(jax.checkpoint(lambda w: jnp.sin(jnp.sin(X @ w) @ w).sum())), (W,), 7 * PRODUCT),
        (lambda w: jnp.einsum("bij,bjk->bik", jnp.zeros((3, 4, 8)), jnp.stack([w] * 3)), (W,), 3 * PRODUCT),
        (convolved, (IMAGES, jnp.zeros((3, 3, 6, 10))), 2 * (2 * 8 * 8 * 10) * (3 * 3 * 6)),
        (lambda *a: convolved(*a, groups=6), (IMAGES, jnp.zeros((3, 3, 1, 6))), 2 * (2 * 8 * 8 * 6) * (3 * 3)),
    ],
)
def test_equals_arithmetic(function, arguments, wanted):
    assert flops.of(function, *arguments) == wanted


def test_inserted_zeros_of_a_strided_gradient_are_no_work():
    kernel = jnp.zeros((2, 2, 6, 10))
    forward = flops.of(lambda *a: convolved(*a, stride=2), IMAGES, kernel)
    both = flops.of(jax.grad(lambda *a: convolved(*a, stride=2).sum(), (0, 1)), IMAGES, kernel)
    assert forward == 2 * (2 * 4 * 4 * 10) * (2 * 2 * 6)
    assert both in (2 * forward, 3 * forward)  # with the forward pass, if the trace keeps it
