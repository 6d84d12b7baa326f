"""Networks of text: padding never changes a result, and the GRU equals its definition, token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.models import text
from retrieval_jax.models.text import transformer

pytestmark = pytest.mark.usefixtures("little_compilation")
SMALL = {"bigru": {"width": 6, "hidden": 5}, "transformer": {"depth": 2, "width": 8, "heads": 2, "length": 16}}
LENGTHS = np.array([12, 5, 1, 0])
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 50, (4, 12)), jnp.int32)
MASK = jnp.asarray(np.arange(12) < LENGTHS[:, None])


def built(name, **kwargs):
    module = text.get(name).Model(vocabulary=50, **{**SMALL[name], **kwargs})
    return module, jax.jit(module.init)(jax.random.key(0), TOKENS, MASK)["params"]


def run(module, params, tokens=TOKENS, mask=MASK):
    return jax.jit(module.apply)({"params": params}, tokens, mask)


def test_they_are_found_by_name():
    assert text.names() == ["bigru", "transformer"]
    for name in text.names():
        for size in text.get(name).VARIANTS.values():
            text.get(name).Model(vocabulary=50, **size)
    with pytest.raises(InputError, match="network of text .* named 'bigr'; did you mean bigru"):
        text.get("bigr")


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("name", ["bigru", "transformer"])
def test_padding_changes_nothing(name, pooling):
    module, params = built(name, dim=3, pooling=pooling)
    whole = run(module, params)
    assert whole["embedding"].shape == (4, 3) and np.isfinite(whole["embedding"]).all()
    for row, length in enumerate(LENGTHS[1:3], 1):
        alone = run(module, params, TOKENS[row : row + 1, :length], MASK[row : row + 1, :length])
        np.testing.assert_allclose(alone["embedding"][0], whole["embedding"][row], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(alone["states"][0], whole["states"][row, :length], rtol=1e-5, atol=1e-6)
    other = run(module, params, jnp.where(MASK, TOKENS, 49))
    assert np.array_equal(other["embedding"], whole["embedding"])


@pytest.mark.parametrize("name", ["bigru", "transformer"])
def test_every_parameter_gets_a_finite_gradient(name):
    module, params = built(name, dim=3)

    def loss(params, dtype):
        out = module.clone(dtype=dtype).apply(
            {"params": params}, TOKENS, MASK, train=True, rngs={"dropout": jax.random.key(1)}
        )
        assert out["embedding"].dtype == jnp.float32 and out["states"].dtype == dtype
        return (out["embedding"] * jnp.arange(1, 4)).sum()

    for dtype in (jnp.float32, jnp.bfloat16):
        gradient = jax.jit(jax.grad(loss), static_argnums=1)(params, dtype)
        assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_the_gru_equals_its_definition():
    module, params = built("bigru", pooling="first")
    out = run(module, params)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def one(direction, row, order):
        weights, state, states = params[direction], np.zeros(5), {}
        for at in order:
            x = params["stem_tokens"]["embedding"][TOKENS[row, at]]
            given = x @ weights["input"]["kernel"] + weights["input"]["bias"]
            product = state @ weights["kernel"]
            reset, update = sigmoid(given[:5] + product[:5]), sigmoid(given[5:10] + product[5:10])
            new = np.tanh(given[10:] + reset * (product[10:] + weights["new_bias"]))
            state = (1 - update) * new + update * state
            states[at] = state
        return state, states

    for row, length in enumerate(LENGTHS):
        last, forward = one("forward", row, range(length))
        first, backward = one("backward", row, range(length)[::-1])
        np.testing.assert_allclose(out["embedding"][row], np.concatenate([last, first]), atol=1e-5)
        for at in range(length):
            expected = np.concatenate([forward[at], backward[at]])
            np.testing.assert_allclose(out["states"][row, at], expected, atol=1e-5)


def test_scanned_blocks_with_rematerialisation_are_the_same_network():
    module, params = built("transformer")
    stacked = {name: leaf for name, leaf in params.items() if not name.startswith("block")}
    stacked["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), params["block0"], params["block1"])
    one = run(module, params)["embedding"]
    other = run(module.clone(scan=True, remat=True), stacked)["embedding"]
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"heads": 3}, "3 heads do not divide a width of 8"),
        ({"length": 4}, "texts of 12 tokens, and length is 4"),
        ({"pooling": "max"}, "unknown pooling='max'"),
    ],
)
def test_what_does_not_fit_is_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        built("transformer", **kwargs)


def test_an_exported_transformer_takes_padding_beyond_its_length_and_no_longer_text():
    model = transformer.Model(vocabulary=50, width=32, heads=2, depth=1, dim=8, length=12)
    tokens, mask = jnp.arange(20).reshape(2, 10) % 50, jnp.ones((2, 10), bool)
    params = model.init(jax.random.key(0), tokens, mask)
    count, length = jax.export.symbolic_shape("b, l")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    columns = [jax.ShapeDtypeStruct((count, length), kind) for kind in (jnp.int32, jnp.bool)]

    def embed(params, tokens, mask):
        return model.apply(params, tokens, mask)["embedding"]

    served = jax.export.export(jax.jit(embed))(shapes, *columns)
    padded = jnp.pad(tokens, ((0, 0), (0, 6))), jnp.pad(mask, ((0, 0), (0, 6)))
    np.testing.assert_allclose(served.call(params, *padded), embed(params, tokens, mask), atol=1e-5)
    longer = padded[1].at[1, :13].set(True)
    found = np.asarray(served.call(params, padded[0], longer))
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
