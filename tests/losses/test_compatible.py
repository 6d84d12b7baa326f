"""Losses of compatible networks: against plain loops, without gradients into the gallery network, and masked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.losses import compatible

RNG = np.random.default_rng(0)
QUERIES, GALLERY = RNG.normal(0, 2, (2, 5, 3))
WHERE = np.array([True, True, False, True, True])
LOSSES = (compatible.cosine, compatible.squared, compatible.rank_preserving, compatible.relational)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def naive_cosine(q, g, there):
    return np.array([1 - unit(a) @ unit(b) for a, b in zip(q, g, strict=True)])


def naive_squared(q, g, there):
    return np.array([((a - b) ** 2).sum() / (b @ b) for a, b in zip(q, g, strict=True)])


def naive_rank_preserving(q, g, there):
    out, q, g = [], unit(q), unit(g)
    for i in range(len(q)):
        others = [j for j in range(len(q)) if j != i and there[j]]
        wanted = np.exp([g[i] @ g[j] / 0.1 for j in others])
        found = np.exp([q[i] @ g[j] / 0.1 for j in others])
        wanted, found = wanted / wanted.sum(), found / found.sum()
        out.append((wanted * np.log(wanted / found)).sum())
    return np.array(out)


def naive_relational(q, g, there):
    pairs = [(i, j) for i in range(len(q)) for j in range(len(q)) if i != j and there[i] and there[j]]
    distances = [{pair: np.linalg.norm(unit(v[pair[0]]) - unit(v[pair[1]])) for pair in pairs} for v in (q, g)]
    means = [np.mean(list(found.values())) for found in distances]
    out = np.zeros(len(q))
    for i in range(len(q)):
        each = [abs(distances[0][p] / means[0] - distances[1][p] / means[1]) for p in pairs if p[0] == i]
        out[i] = np.mean([d**2 / 2 if d < 1 else d - 0.5 for d in each]) if each else 0.0
    return out


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_they_equal_plain_loops(loss):
    naive, every = globals()[f"naive_{loss.__name__}"], np.ones(5, bool)
    np.testing.assert_allclose(
        loss(jnp.float32(QUERIES), jnp.float32(GALLERY)), naive(QUERIES, GALLERY, every), 1e-4, 1e-6
    )
    masked = loss(jnp.float32(QUERIES), jnp.float32(GALLERY), where=WHERE, weights=np.arange(5.0))
    np.testing.assert_allclose(masked, WHERE * np.arange(5) * naive(QUERIES, GALLERY, WHERE), 1e-4, 1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_gradients_are_finite_and_none_reaches_the_gallery_network(loss):
    ours, theirs = jax.grad(lambda q, g: loss(q, g).sum(), (0, 1))(jnp.float32(QUERIES), jnp.float32(GALLERY))
    assert np.isfinite(ours).all() and np.abs(ours).max() > 0 and not theirs.any()
    same = jnp.ones((4, 3))
    assert np.isfinite(jax.grad(lambda q: loss(q, same).sum())(same)).all()
    assert np.abs(loss(jnp.float32(GALLERY), jnp.float32(GALLERY))).max() < 1e-5


def test_ranks_may_be_learned_among_a_bank():
    bank, there = RNG.normal(0, 2, (4, 3)), RNG.random((5, 4)) < 0.6
    found = compatible.rank_preserving(
        jnp.float32(QUERIES), jnp.float32(GALLERY), bank=jnp.float32(bank), bank_where=there, where=WHERE
    )
    for i in np.flatnonzero(WHERE):
        others = [GALLERY[j] for j in range(5) if j != i and WHERE[j]] + list(bank[there[i]])
        wanted, ours = (np.exp([unit(a[i]) @ unit(b) / 0.1 for b in others]) for a in (GALLERY, QUERIES))
        wanted, ours = wanted / wanted.sum(), ours / ours.sum()
        np.testing.assert_allclose(found[i], (wanted * np.log(wanted / ours)).sum(), 1e-4, 1e-6)
    assert not found[~WHERE].any()


def test_a_single_picture_has_no_others():
    one = jnp.ones((1, 3))
    assert compatible.rank_preserving(one, -one)[0] == compatible.relational(one, -one)[0] == 0


def test_other_widths_are_refused():
    with pytest.raises(InputError, match="gallery"):
        compatible.cosine(jnp.ones((2, 3)), jnp.ones((2, 4)))
