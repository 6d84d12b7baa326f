"""Losses on cosines: each against a float64 loop, its gradient against finite differences, and cosines of +-1."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.losses import margins

B, C = 6, 5
RNG = np.random.default_rng(0)
COSINES = RNG.uniform(-0.95, 0.95, (B, C))
CATEGORY = np.array([3, 0, -1, 3, 2, 0])  # the third is unknown; 1 and 4 have no picture
COSINES[1, 0] = -0.93  # past the angle where ArcFace becomes linear
WHERE = np.array([True, False, True, True, True, True])
WEIGHTS = RNG.uniform(0, 3, B)


def cross_entropy(z, category, label_smoothing=0.0):
    y = np.full(C, label_smoothing / C)
    y[category] += 1 - label_smoothing
    return -sum(y * (z - np.log(np.exp(z).sum())))


def naive_cosface(cosines, counts, scale=30.0, margin=0.35, label_smoothing=0.0):
    out = np.zeros(B)
    for i in np.flatnonzero(counts):
        z = scale * cosines[i]
        z[CATEGORY[i]] -= scale * margin
        out[i] = cross_entropy(z, CATEGORY[i], label_smoothing)
    return out


def naive_arcface(cosines, counts, scale=30.0, margin=0.5, label_smoothing=0.0):
    out = np.zeros(B)
    for i in np.flatnonzero(counts):
        z, own = scale * cosines[i], cosines[i, CATEGORY[i]]
        angle = math.acos(own) + margin
        z[CATEGORY[i]] = scale * (math.cos(angle) if angle < math.pi else own - margin * math.sin(margin))
        out[i] = cross_entropy(z, CATEGORY[i], label_smoothing)
    return out


def naive_proxy_nca(cosines, counts, scale=8.0):
    out = np.zeros(B)
    for i in np.flatnonzero(counts):
        near = np.exp(-scale * (2 - 2 * cosines[i]))  # squared distance of unit vectors
        out[i] = -math.log(near[CATEGORY[i]] / sum(near[c] for c in range(C) if c != CATEGORY[i]))
    return out


def naive_proxy_anchor(cosines, counts, scale=32.0, margin=0.1):
    """Returns the published value, which is not per picture: the same for each included picture."""
    present, total = sorted(set(CATEGORY[counts])), 0.0
    for c in range(C):
        own = [cosines[i, c] for i in np.flatnonzero(counts) if CATEGORY[i] == c]
        others = [cosines[i, c] for i in np.flatnonzero(counts) if CATEGORY[i] != c]
        if own:
            total += math.log(1 + sum(math.exp(-scale * (s - margin)) for s in own)) / len(present)
        total += math.log(1 + sum(math.exp(scale * (s + margin)) for s in others)) / C
    return np.where(counts, total, 0.0)


CASES = {
    "cosface": (margins.cosface, naive_cosface, {}),
    "cosface, smoothed": (margins.cosface, naive_cosface, {"scale": 10.0, "margin": 0.2, "label_smoothing": 0.1}),
    "arcface": (margins.arcface, naive_arcface, {}),
    "arcface, smoothed": (margins.arcface, naive_arcface, {"scale": 10.0, "margin": 0.2, "label_smoothing": 0.1}),
    "proxy_nca": (margins.proxy_nca, naive_proxy_nca, {}),
    "proxy_anchor": (margins.proxy_anchor, naive_proxy_anchor, {}),
    "proxy_anchor, softer": (margins.proxy_anchor, naive_proxy_anchor, {"scale": 4.0, "margin": 0.3}),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_equals_the_loop_and_its_gradient_the_finite_differences(case):
    ours, naive, kwargs = case
    is_shared = naive is naive_proxy_anchor  # only the mean over pictures is defined
    for where in (None, WHERE):
        counts = (CATEGORY >= 0) & (True if where is None else where)

        def total(cosines, counts=counts):
            return naive(cosines.copy(), counts, **kwargs).sum()

        function = jax.jit(
            jax.value_and_grad(
                lambda cosines, where=where: (lambda out: (out.sum(), out))(
                    ours(cosines, CATEGORY, where=where, **kwargs)
                ),
                has_aux=True,
            )
        )
        (value, per_picture), gradient = function(jnp.float32(COSINES))
        np.testing.assert_allclose(value, total(COSINES), rtol=2e-5)
        if not is_shared:
            np.testing.assert_allclose(per_picture, naive(COSINES.copy(), counts, **kwargs), rtol=2e-5, atol=1e-5)
        assert not per_picture[~counts].any()
        expected = np.zeros_like(COSINES)
        for index in np.ndindex(COSINES.shape):
            step = np.zeros_like(COSINES)
            step[index] = 1e-6
            expected[index] = (total(COSINES + step) - total(COSINES - step)) / 2e-6
        np.testing.assert_allclose(gradient, expected, atol=1e-3, rtol=1e-3)
    weighted = ours(jnp.float32(COSINES), CATEGORY, weights=WEIGHTS, **kwargs)
    np.testing.assert_allclose(weighted, WEIGHTS * ours(jnp.float32(COSINES), CATEGORY, **kwargs), rtol=1e-5)


def test_cosines_at_and_beyond_one_give_finite_values(case):
    ours, _, kwargs = case
    function = jax.jit(jax.value_and_grad(lambda cosines: ours(cosines, CATEGORY, **kwargs).sum()))
    for size in (1.0, 1.0 + 1e-6, 1.0 - 1e-7):
        value, gradient = function(jnp.float32(size * np.sign(COSINES)))
        assert np.isfinite(value) and np.isfinite(gradient).all()
    own = np.maximum(CATEGORY, 0)
    perfect = np.where(np.arange(C) == own[:, None], 1.0, -1.0)
    assert function(jnp.float32(perfect))[0] < function(jnp.float32(-perfect))[0]


def test_loss_always_falls_as_the_true_cosine_grows():
    own = jnp.linspace(-1, 1, 401)
    for loss in (margins.cosface, margins.arcface):
        falling = loss(jnp.stack([own, jnp.zeros(401)], axis=1), np.zeros(401, int), scale=5.0)
        assert (np.diff(falling) < 0).all()
