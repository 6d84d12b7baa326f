"""Losses over blocks of labels against the same losses over full logits: values, gradients, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.losses import blocked, multilabel

B, D, V, L = 5, 4, 11, 3
WITH_SMOOTHING = functools.partial(multilabel.sigmoid_cross_entropy, label_smoothing=0.1)
LOSSES = {
    "sigmoid": multilabel.sigmoid_cross_entropy,
    "smoothed": WITH_SMOOTHING,
    "focal": multilabel.sigmoid_focal,
    "asymmetric": multilabel.asymmetric,
    "softmax": multilabel.softmax_poly1,
}


def make(rows=B, dims=D, num_labels=V, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((rows, dims), (dims, num_labels), (num_labels,))
    ]
    ids = np.stack([rng.choice(num_labels, L, replace=False) for _ in range(rows)])
    return arrays, jnp.asarray(ids, jnp.int32), jnp.arange(L) < jnp.asarray(rng.integers(0, L + 1, (rows, 1)))


def value_and_gradients(loss, block, arrays, ids, mask):
    def total(embedding, kernel, bias):
        logits = blocked.Logits(embedding, kernel, bias, block) if block else embedding @ kernel + bias
        weights = jnp.linspace(0.5, 2.0, len(bias))
        losses = loss(logits, ids, mask, positive_weights=weights, where=jnp.arange(len(ids)) != 1)
        return losses.sum(), losses

    (_, losses), gradients = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(*arrays)
    return [losses, *gradients]


@pytest.mark.parametrize("block", [1, 4, 11, 50])
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_change_neither_losses_nor_gradients(name, block):
    arrays, ids, mask = make()
    run = jax.jit(value_and_gradients, static_argnums=(0, 1))
    ours, whole = (run(LOSSES[name], size, arrays, ids, mask) for size in (block, 0))
    for what, a, b in zip(("losses", "of embedding", "of kernel", "of bias"), ours, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6, err_msg=what)


def test_padding_may_hold_any_id():
    arrays, ids, mask = make()
    odd = jnp.where(mask, ids, 10**6)
    for size in (4, 50):
        a, b = (value_and_gradients(multilabel.softmax_poly1, size, arrays, given, mask) for given in (ids, odd))
        assert all((x == y).all() for x, y in zip(a, b, strict=True))


def test_large_logits_stay_finite():
    (embedding, kernel, bias), ids, mask = make()
    for out in value_and_gradients(multilabel.softmax_poly1, 4, (1e3 * embedding, kernel, bias), ids, mask):
        assert np.isfinite(out).all()


def test_logits_of_twenty_thousand_labels_are_never_materialised():
    rows, num_labels = 512, 20_000
    arrays, ids, mask = make(rows, 16, num_labels)
    run = jax.jit(value_and_gradients, static_argnums=(0, 1))
    needed = {}
    for block in (0, 1024):
        program = run.lower(multilabel.softmax_poly1, block, arrays, ids, mask).compile()
        needed[block] = program.memory_analysis().temp_size_in_bytes
    whole = 4 * rows * num_labels
    assert needed[0] > whole and needed[1024] < whole / 3, needed
