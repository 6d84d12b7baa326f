"""The super-net: what it is at a choice is the small network by itself, which really is small; choices and sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.models.architectures import Space, parse
from retrieval_jax.models.backbones import supernet
from retrieval_jax.models.layers import depthwise
from retrieval_jax.training import flops

SPACE = Space((16, 20, 24), ((4, 8), (6, 10)), (1, 2), (3, 5), (2, 3))
CHOICES = ("16_4-c3x2_6-m3x2", "20_8-m5x3-c3x2_10-m3x3", "24_8-c5x3-m5x3_10-c5x2")


pytestmark = pytest.mark.usefixtures("little_compilation")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A small super-net."""
    monkeypatch.setitem(supernet.VARIANTS, "test", SPACE)


def weights():
    """Returns the weights of the super-net, all of them unlike what they start from."""
    shapes = jax.eval_shape(supernet.Model("test").init, jax.random.key(0), jnp.zeros((1, 24, 24, 3)))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda one: (0.5 * rng.normal(size=one.shape)).astype(np.float32), shapes)


def test_a_small_network_by_itself_equals_the_super_net_at_its_choice():
    images = np.random.default_rng(1).normal(size=(3, 24, 24, 3)).astype(np.float32)
    params, runs = weights(), 0

    def run(params, choice):
        nonlocal runs
        runs += 1
        return supernet.Model("test").apply({"params": params}, images, choice=choice)["embedding"]

    run = jax.jit(run)
    for text in CHOICES:
        architecture = parse(text)
        model = supernet.Model("test", text)
        side = architecture.resolution
        smaller = jax.image.resize(images, (3, side, side, 3), "linear")
        like = jax.eval_shape(model.init, jax.random.key(0), smaller)["params"]
        rows = architecture.rows([widths[-1] for widths in SPACE.widths])
        small = supernet.sliced({"backbone": params}, {"backbone": like}, rows)["backbone"]
        found = np.asarray(run(params, SPACE.encode(architecture)))
        alone = jax.jit(model.apply)({"params": small}, smaller)["embedding"]
        assert alone.shape[1] == len(rows) and sum(x.size for x in jax.tree.leaves(small)) < sum(
            x.size for x in jax.tree.leaves(params)
        )
        np.testing.assert_allclose(found[:, rows], alone, atol=2e-4)
        assert not np.delete(found, rows, axis=1).any()
    assert runs == 1  # traced, hence compiled, once


def test_operations_are_those_of_the_traced_small_network(monkeypatch):
    monkeypatch.setattr(depthwise.jax, "default_backend", lambda: "gpu")  # grouped convolutions, which it counts
    for text in CHOICES:
        architecture = parse(text)
        images = jnp.zeros((1, architecture.resolution, architecture.resolution, 3))
        model = supernet.Model("test", text)
        params = jax.eval_shape(model.init, jax.random.key(0), images)
        assert flops.of(model.apply, params, images) == architecture.operations()


def test_every_weight_is_learned_in_a_few_steps():
    images = jnp.asarray(np.random.default_rng(1).normal(size=(1, 24, 24, 3)), jnp.float32)
    model = supernet.Model("test")

    @jax.jit
    def slope(params, choice):
        return jax.grad(
            lambda params: (model.apply({"params": params}, images, choice=choice)["embedding"] ** 3).sum()
        )(params)

    total = jax.tree.map(np.zeros_like, weights())
    for step in range(6):
        for choice in np.asarray(supernet.sandwich(SPACE, 0, step)):
            found = slope(weights(), choice)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
            total = jax.tree.map(lambda a, b: a + np.abs(b), total, found)
    assert all(leaf.max() > 0 for leaf in jax.tree.leaves(total))


def test_a_step_learns_the_largest_the_smallest_and_two_others():
    drawn = jax.jit(lambda step: supernet.sandwich(SPACE, 0, step))
    choices = np.stack([drawn(step) for step in range(40)])
    rest = ~SPACE.is_kind
    assert choices.shape == (40, 4, len(SPACE.sizes)) and (choices >= 0).all() and (choices < SPACE.sizes).all()
    assert (choices[:, 0, rest] == (SPACE.sizes - 1)[rest]).all() and not choices[:, 1, rest].any()
    for gene, size in enumerate(SPACE.sizes):
        assert set(np.unique(choices[:, 2:, gene])) == set(range(size))
    assert set(np.unique(choices[:, :2, SPACE.is_kind])) == {0, 1}
    np.testing.assert_array_equal(drawn(7), choices[7])
    assert (np.asarray(supernet.sandwich(SPACE, 1, 7)) != choices[7]).any()


def test_what_does_not_fit_is_refused():
    def init(model, side):
        return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))

    with pytest.raises(InputError, match=r"reads pictures of 24 x 24, not 16 x 16: set config.data.image_size = \(24,"):
        init(supernet.Model("test"), 16)
    with pytest.raises(InputError, match="reads pictures of 16 x 16, not 24 x 24"):
        init(supernet.Model("test", CHOICES[0]), 24)
    with pytest.raises(InputError, match="unknown super-net 'tset'; did you mean test"):
        init(supernet.Model("tset"), 24)
    with pytest.raises(InputError, match="has the width 5: this super-net has 4, 8"):
        init(supernet.Model("test", "16_5-c3x2_6-m3x2"), 16)
