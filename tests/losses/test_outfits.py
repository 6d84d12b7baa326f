"""Losses of outfits against loops over triplets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.losses import outfits

RNG = np.random.default_rng(0)
B, K, D, U = 6, 3, 5, 20
VECTORS = RNG.normal(size=(B, K, D)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=-1, keepdims=True)
TYPES = RNG.integers(0, 2, (B, K))
PRODUCTS = RNG.integers(0, 12, (B, K))
THERE = np.arange(K) < RNG.integers(2, K + 1, (B, 1))
WHERE = np.arange(B) < B - 1


def apart(one, other):
    return float(np.linalg.norm(one - other))


@pytest.mark.parametrize("further", [None, RNG.integers(0, 12, (B, 2))])
def test_hinges_equal_a_loop_over_triplets(further):
    expected = np.zeros(B)
    for b in range(B - 1):
        own = {PRODUCTS[b, i] for i in range(K) if THERE[b, i]} | set(() if further is None else further[b])
        found = []
        for i in range(K):
            for j in range(K):
                if i == j or not (THERE[b, i] and THERE[b, j]):
                    continue
                for c in range(B - 1):
                    for m in range(K):
                        if c == b or not THERE[c, m] or TYPES[c, m] != TYPES[b, j] or PRODUCTS[c, m] in own:
                            continue
                        near, far = apart(VECTORS[b, i], VECTORS[b, j]), apart(VECTORS[b, i], VECTORS[c, m])
                        found.append(max(0.0, 0.4 + near - far))
        found = [one for one in found if one > 0]
        expected[b] = np.mean(found) if found else 0
    losses = outfits.hinges(jnp.asarray(VECTORS), TYPES, THERE, PRODUCTS, where=WHERE, further=further)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert (expected > 0).any()
    gradient = jax.grad(lambda v: outfits.hinges(v, TYPES, THERE, PRODUCTS, where=WHERE).sum())(jnp.asarray(VECTORS))
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~THERE].any()


def test_the_match_is_the_nearest_of_the_type_and_never_the_same_product():
    others = RNG.normal(size=(U, D)).astype(np.float32)
    others[0], kinds, own = VECTORS[0, 0], RNG.integers(0, 2, U), RNG.integers(0, 12, U)
    kinds[0], own[0] = TYPES[0, 0], PRODUCTS[0, 0]  # the item itself, in another picture
    exist = np.arange(U) < U - 2
    rows, found = outfits.nearest(jnp.asarray(VECTORS), TYPES, PRODUCTS, others, kinds, own, exist)
    for b in range(B):
        for i in range(K):
            allowed = [u for u in range(U - 2) if kinds[u] == TYPES[b, i] and own[u] != PRODUCTS[b, i]]
            assert bool(found[b, i]) == bool(allowed)
            if allowed:
                assert rows[b, i] == min(allowed, key=lambda u: apart(VECTORS[b, i], others[u]))
    _, found = outfits.nearest(jnp.asarray(VECTORS), TYPES, PRODUCTS, others, np.full(U, 7), own)
    assert not np.asarray(found).any()


def test_consistency_and_sets_on_few_numbers():
    eye = jnp.eye(3)
    losses = outfits.consistency(eye, eye, -eye, where=np.array([True, True, False]))
    np.testing.assert_allclose(losses, 0)
    losses = outfits.consistency(eye, -eye, eye, where=np.array([True, True, False]))
    np.testing.assert_allclose(losses, [2.4, 2.4, 0], rtol=1e-5)
    found = outfits.sets(jnp.asarray([0.0, 3.0]), jnp.asarray([0.0, -3.0]))
    np.testing.assert_allclose(found, [2 * np.log(2), 2 * np.log1p(np.exp(-3))], rtol=1e-5)
