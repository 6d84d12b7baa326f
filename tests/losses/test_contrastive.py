"""Contrastive losses against loops in float64, finite differences, and one device against eight."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive, margins, multilabel

ROOT = pathlib.Path(__file__).resolve().parents[2]
B, D = 6, 4
RNG = np.random.default_rng(0)
QUERIES, KEYS = RNG.normal(0, 1, (2, B, D))
GROUPS = np.array([0, 1, 0, 2, 1, 3])
WHERE = np.array([True, True, True, False, True, True])
CATEGORY = np.array([1, 0, 1, 2, -1, 1])


def cosines(a, b):
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return a @ b.T


def is_negative(i, j, groups, where):
    return i != j and (groups is None or groups[i] != groups[j]) and (where is None or (where[i] and where[j]))


def naive_softmax(queries, keys, scale=1 / 0.07, symmetric=True, groups=None, where=None):
    z, out = scale * cosines(queries, keys), np.zeros(B)
    for i in range(B):
        rivals = [i] + [j for j in range(B) if is_negative(i, j, groups, where)]
        to_keys = -z[i, i] + np.log(sum(np.exp(z[i, j]) for j in rivals))
        to_queries = -z[i, i] + np.log(sum(np.exp(z[j, i]) for j in rivals))
        loss = (to_keys + to_queries) / 2 if symmetric else to_keys
        out[i] = loss if where is None or where[i] else 0.0
    return out


def naive_sigmoid(queries, keys, scale=10.0, bias=-10.0, groups=None, where=None):
    z, out = scale * cosines(queries, keys) + bias, np.zeros(B)
    for i in range(B):
        loss = np.log1p(np.exp(-z[i, i]))
        loss += sum(np.log1p(np.exp(z[i, j])) for j in range(B) if is_negative(i, j, groups, where))
        out[i] = loss if where is None or where[i] else 0.0
    return out


def naive_supcon(embeddings, category, temperature=0.1, where=None):
    z, out = cosines(embeddings, embeddings) / temperature, np.zeros(B)
    counts = [i for i in range(B) if category[i] >= 0 and (where is None or where[i])]
    for i in counts:
        others = [j for j in counts if j != i]
        positives = [j for j in others if category[j] == category[i]]
        for j in positives:
            out[i] -= (z[i, j] - np.log(sum(np.exp(z[i, k]) for k in others))) / len(positives)
    return out


def slopes(function, x):
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-5
        out[index] = (function(x + step) - function(x - step)) / 2e-5
    return out


@pytest.mark.parametrize(
    "ours, naive, kwargs",
    [
        (contrastive.softmax, naive_softmax, {"scale": 3.0}),
        (contrastive.softmax, naive_softmax, {"symmetric": False, "groups": GROUPS, "where": WHERE}),
        (contrastive.softmax, naive_softmax, {"scale": 5.0, "groups": GROUPS, "where": WHERE}),
        (contrastive.sigmoid, naive_sigmoid, {"scale": 3.0, "bias": -1.0}),
        (contrastive.sigmoid, naive_sigmoid, {"groups": GROUPS, "where": WHERE}),
    ],
)
def test_pairs_equal_the_loop_and_their_gradients_the_finite_differences(ours, naive, kwargs):
    plain = jax.jit(lambda q, k: ours(q, k, **kwargs))
    expected = naive(QUERIES, KEYS, **kwargs)
    np.testing.assert_allclose(plain(jnp.float32(QUERIES), jnp.float32(KEYS)), expected, rtol=1e-4, atol=1e-6)
    share = np.arange(1.0, B + 1)
    gradients = jax.jit(jax.grad(lambda q, k: (share * plain(q, k)).sum(), (0, 1)))(
        jnp.float32(QUERIES), jnp.float32(KEYS)
    )
    np.testing.assert_allclose(gradients[0], slopes(lambda q: share @ naive(q, KEYS, **kwargs), QUERIES), atol=2e-4)
    np.testing.assert_allclose(gradients[1], slopes(lambda k: share @ naive(QUERIES, k, **kwargs), KEYS), atol=2e-4)
    weighted = ours(jnp.float32(QUERIES), jnp.float32(KEYS), weights=share, **kwargs)
    np.testing.assert_allclose(weighted, share * expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", [None, WHERE])
def test_supcon_equals_the_loop_and_its_gradient_the_finite_differences(where):
    ours = jax.jit(lambda e: contrastive.supcon(e, CATEGORY, temperature=0.3, where=where))
    loop = {"category": CATEGORY, "temperature": 0.3, "where": where}
    np.testing.assert_allclose(ours(jnp.float32(QUERIES)), naive_supcon(QUERIES, **loop), rtol=1e-4, atol=1e-6)
    gradient = jax.grad(lambda e: ours(e).sum())(jnp.float32(QUERIES))
    np.testing.assert_allclose(gradient, slopes(lambda e: naive_supcon(e, **loop).sum(), QUERIES), atol=2e-4)
    alone = contrastive.supcon(jnp.float32(QUERIES), np.arange(B))
    assert not alone.any()


def test_excluded_pairs_have_no_effect():
    other = np.where(WHERE[:, None], KEYS, 1e3)
    for loss in (contrastive.softmax, contrastive.sigmoid):
        here, there = (loss(jnp.float32(QUERIES), jnp.float32(keys), where=WHERE) for keys in (KEYS, other))
        np.testing.assert_allclose(here, there, rtol=1e-6)
        few = loss(jnp.float32(QUERIES[WHERE]), jnp.float32(KEYS[WHERE]))
        np.testing.assert_allclose(here[WHERE], few, rtol=1e-4)
    zero = jax.grad(lambda q: contrastive.softmax(q, jnp.float32(KEYS)).sum())(jnp.zeros((B, D)))
    assert np.isfinite(zero).all()


def test_titles_with_equal_labels_form_a_group_in_any_order():
    ids = np.array([[3, 7, 9], [9, 3, 7], [3, 7, 0], [7, 3, 5], [2, 8, 0], [4, 6, 0], [0, 0, 0], [0, 1, 1]], np.int32)
    mask = np.arange(3) < np.array([3, 3, 2, 2, 2, 2, 0, 1])[:, None]
    groups = np.asarray(contrastive.title_groups(ids, mask))
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups.tolist())) == 6
    pairs = np.stack(np.triu_indices(300, 1), axis=1).astype(np.int32)
    assert len(np.unique(contrastive.title_groups(pairs, np.ones(pairs.shape, bool)))) > len(pairs) - 5


EIGHT = """
import jax, jax.numpy as jnp, numpy as np
from retrieval_jax.losses import contrastive
from retrieval_jax.training import sharding
mesh = sharding.make_mesh()
assert mesh.size == 8
rng = np.random.default_rng(0)
queries, keys = rng.normal(0, 1, (2, 32, 5)).astype(np.float32)
groups, where, share = rng.integers(0, 20, 32), rng.random(32) < 0.8, rng.random(32).astype(np.float32)
bank, counts = rng.normal(0, 1, (16, 5)).astype(np.float32), rng.random((32, 16)) < 0.8
for loss, numbers, kwargs in [
        (contrastive.softmax, {"scale": 7.0}, {}),
        (contrastive.softmax, {"scale": 7.0}, {"symmetric": False}),
        (contrastive.softmax, {"scale": 7.0}, {"symmetric": False, "bank": True}),
        (contrastive.sigmoid, {"scale": 5.0, "bias": -3.0}, {})]:
    banked = kwargs.pop("bank", False)
    def run(q, k, groups, where, share, bank, counts, numbers):
        more = {"bank": bank, "bank_where": counts} if banked else {}
        out = loss(q, k, groups=groups, where=where, **numbers, **kwargs, **more)
        return (share * out).sum(), out
    def run_in_mesh(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return run(*args)
    args = queries, keys, groups, where, share, bank, counts
    one = jax.jit(jax.value_and_grad(run, (0, 1, 7), has_aux=True))(*args, numbers)
    rows = sharding.batch_sharding(mesh)
    eight = jax.jit(jax.value_and_grad(run_in_mesh, (0, 1, 7), has_aux=True),
                    in_shardings=(*[rows] * 7, sharding.replicated(mesh)))
    text = eight.lower(*args, numbers).compile().as_text()
    assert "collective-permute" in text and "f32[32,32]" not in text, "not chunked"
    assert ("all-gather" in text) == banked, "a bank, and nothing else, is whole on every device"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), one, eight(*args, numbers))
    if banked:
        continue
    explicit = jax.jit(lambda q, k: loss(q, k, groups=groups, where=where, mesh=mesh, **numbers, **kwargs))(*args[:2])
    np.testing.assert_allclose(explicit, one[0][1], rtol=2e-5, atol=1e-6)
print("equal")
"""


def test_eight_devices_equal_one():
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    }
    done = subprocess.run([sys.executable, "-c", EIGHT], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.split() == ["equal"], done.stderr


def test_shapes_that_would_broadcast_are_rejected_while_tracing():
    vectors, column, rows = jnp.ones((4, 3)), jnp.ones((4, 1)), jnp.zeros(4, int)
    for loss, words in (
        (
            lambda: contrastive.softmax(vectors, vectors, weights=column),
            r"weights is an array \[4\], got shape \(4, 1\)",
        ),
        (lambda: contrastive.softmax(vectors, vectors[:1]), r"keys is an array \[4, 3\], got shape \(1, 3\)"),
        (lambda: contrastive.supcon(vectors, column), "category"),
        (lambda: margins.cosface(vectors, rows[:1]), "category"),
        (lambda: multilabel.softmax_cross_entropy(vectors, rows, where=column > 0), "where"),
        (lambda: multilabel.sigmoid_cross_entropy(vectors, rows, rows > 0), "label_ids"),
    ):
        with pytest.raises(InputError, match=words):
            jax.eval_shape(loss)


def test_related_pairs_are_not_negatives_and_own_negatives_are():
    related = RNG.random((B, B)) < 0.3
    extra, there = RNG.normal(0, 1, (B, 2, D)), RNG.random((B, 2)) < 0.6
    found = contrastive.softmax(
        QUERIES,
        KEYS,
        scale=5.0,
        related=(lambda rows, columns: jnp.asarray(related)[rows][:, columns], jnp.arange(B), jnp.arange(B)),
        negatives=extra,
        negatives_where=there,
        where=WHERE,
    )
    z = 5.0 * cosines(QUERIES, KEYS)
    for i in range(B):
        rivals = [i] + [j for j in range(B) if i != j and WHERE[j] and not related[i, j]]
        askers = [i] + [j for j in range(B) if i != j and WHERE[j] and not related[j, i]]
        own = [5.0 * cosines(QUERIES[i : i + 1], extra[i, n : n + 1])[0, 0] for n in range(2) if there[i, n]]
        to_keys = np.log(sum(np.exp(z[i, j]) for j in rivals) + sum(np.exp(own))) - z[i, i]
        to_queries = np.log(sum(np.exp(z[j, i]) for j in askers)) - z[i, i]
        assert np.isclose(found[i], (to_keys + to_queries) / 2 if WHERE[i] else 0.0, rtol=1e-4)


def test_a_bank_holds_further_keys_of_all_queries():
    bank, there = RNG.normal(0, 1, (3, D)), RNG.random((B, 3)) < 0.6
    found = contrastive.softmax(
        QUERIES, KEYS, scale=5.0, symmetric=False, bank=jnp.asarray(bank), bank_where=there, where=WHERE
    )
    z, more = 5.0 * cosines(QUERIES, KEYS), 5.0 * cosines(QUERIES, bank)
    for i in range(B):
        rivals = [z[i, j] for j in range(B) if i == j or WHERE[j]] + list(more[i][there[i]])
        assert np.isclose(found[i], np.log(np.exp(rivals).sum()) - z[i, i] if WHERE[i] else 0.0, rtol=1e-4)
    with pytest.raises(InputError, match="bank"):
        contrastive.softmax(QUERIES, KEYS, bank=jnp.ones((3, D + 1)))
