"""ViT: published sizes, and the whole network against NumPy."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import reference
from retrieval_jax.errors import InputError
from retrieval_jax.models import pretrained
from retrieval_jax.models.backbones import convnext, vit

# Parameters, in millions, of the published classifiers at 224 px, patches of 16: arXiv 2012.12877, and timm for L.
PUBLISHED = {"tiny": 5.72, "small": 22.05, "base": 86.57, "large": 304.33}


@pytest.fixture(autouse=True)
def small_variant(monkeypatch):
    monkeypatch.setitem(vit.VARIANTS, "test", (2, 12, 3))


def abstract(model, size=(224, 224)):
    return pretrained.shapes_of(model, size)


def make(seed=0, size=(24, 16), **kwargs):
    """Returns (model, params, images) with non-trivial parameters."""
    images = np.random.default_rng(seed).normal(size=(3, *size, 3)).astype(np.float32)
    model = vit.Model("test", patch_size=8, **kwargs)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))["params"]
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), shapes), images


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def naive_attention(x, p):
    batch, length, width = x.shape
    q, k, v = np.moveaxis(dense(x, p["qkv"]).reshape(batch, length, 3, 3, -1), 2, 0)
    weights = np.exp(np.einsum("bihc,bjhc->bhij", q, k) / np.sqrt(width / 3))
    weights /= weights.sum(-1, keepdims=True)
    return dense(np.einsum("bhij,bjhc->bihc", weights, v).reshape(x.shape), p["proj"])


def naive_block(x, p):
    x = x + p.get("attention_scale", 1.0) * naive_attention(layer_norm(x, p["norm1"]), p["attention"])
    y = dense(layer_norm(x, p["norm2"]), p["fc1"])
    y = 0.5 * y * (1 + np.vectorize(math.erf)(y / np.sqrt(2)))
    return x + p.get("mlp_scale", 1.0) * dense(y, p["fc2"])


def naive(params, images):
    """Computes the network in float64, straight from the papers: patches, tokens, positions, pre-norm blocks, norm."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    height, width = images.shape[1:3]
    tokens = [
        np.einsum("bijc,ijcd->bd", images[:, y : y + 8, x : x + 8], p["stem"]["kernel"]) + p["stem"].get("bias", 0)
        for y in range(0, height, 8)
        for x in range(0, width, 8)
    ]
    x = np.stack(tokens, 1)
    firsts = [np.repeat(p[name], len(x), 0) for name in ("class_token", "registers") if name in p]
    if p["positions"].shape[1] == x.shape[1]:
        x = np.concatenate([*firsts, x + p["positions"]], 1)
    else:
        x = np.concatenate([*firsts, x], 1) + p["positions"]
    x = layer_norm(x, p["stem_norm"]) if "stem_norm" in p else x
    return layer_norm(naive_block(naive_block(x, p["block0"]), p["block1"]), p["norm"])


def test_block_equals_numpy():
    x = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)
    block = vit.Block(3, jnp.float32, layer_scale=1.0)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, 0.0, False))["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: 0.3 * rng.normal(size=s.shape).astype(np.float32), shapes)
    out = jax.jit(lambda params: block.apply({"params": params}, x, 0.0, False))(params)
    np.testing.assert_allclose(out, naive_block(x, params), atol=1e-4)


@pytest.mark.parametrize(
    "kwargs, first",
    [
        ({}, 0),
        ({"pooling": "token"}, 0),
        ({"class_token": True, "registers": 2, "prefix_positions": False}, 3),
        ({"registers": 2, "pre_norm": True, "layer_scale": 1.0, "qkv_bias": False}, 2),
    ],
)
def test_whole_network_equals_numpy(kwargs, first):
    model, params, images = make(**kwargs)
    embedding = jax.jit(model.apply)({"params": params}, images)["embedding"]
    tokens = naive(params, images)
    expected = tokens[:, 0] if model.pooling == "token" else tokens[:, first:].mean(1)
    np.testing.assert_allclose(embedding, expected, atol=1e-4)


@pytest.mark.parametrize("case", ["vit_test", "vit_small_cls"])
def test_whole_network_equals_the_reference(case):
    spec = json.loads(reference.path(f"parity/{case}.json").read_text())
    model, params = pretrained.load(
        spec["timm_model"], reference.path(f"parity/{case}.safetensors"), scan=True, **spec["kwargs"]
    )
    with np.load(reference.path(f"parity/{case}.npz"), allow_pickle=False) as arrays:
        images, expected = arrays["images"], arrays["embedding"]
    embedding = jax.jit(lambda params, images: model.apply({"params": params}, images)["embedding"])(params, images)
    assert np.abs(expected).max() > 0.5
    assert np.abs(np.asarray(embedding) - expected).max() <= 2e-4


def test_stem_equals_the_reference():
    tensors = load_file(reference.path("parity/vit_test.safetensors"))
    with np.load(reference.path("parity/vit_test.npz"), allow_pickle=False) as arrays:
        images = arrays["images"]
    kernel, bias = tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"]
    patch = np.einsum("bijc,dcij->bd", images[:, 16:32, 32:48], kernel) + bias
    params = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    out = convnext.Patches(64, 16).apply({"params": params}, images)
    np.testing.assert_allclose(out[:, 1, 2], patch, atol=1e-4)


@pytest.mark.parametrize("variant", vit.VARIANTS)
def test_every_variant_returns_one_float32_vector_per_picture(variant):
    model = vit.Model(variant, "map", dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 64, 48, 3))))
    assert out["embedding"].shape == (2, vit.VARIANTS[variant][1]) and out["embedding"].dtype == jnp.float32
    assert variables["params"]["positions"].shape == (1, 4 * 3, vit.VARIANTS[variant][1])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_of_published_sizes(variant):
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract(vit.Model(variant, "token"))))
    assert round((count + 1000 * (vit.VARIANTS[variant][1] + 1)) / 1e6, 2) == PUBLISHED[variant]


def test_so400m_has_the_published_shape():
    # With attention pooling and patches of 14, as in arXiv 2305.13035 and timm.
    model = vit.Model("so400m", "map", patch_size=14)
    assert round(sum(leaf.size for leaf in jax.tree.leaves(abstract(model))) / 1e6, 2) == 427.68


def test_remat_and_scan_do_not_change_outputs_or_gradients():
    model, params, images = make()
    stacked = {name: value for name, value in params.items() if not name.startswith("block")}
    stacked["blocks"] = jax.tree.map(lambda *layers: np.stack(layers), params["block0"], params["block1"])

    def results(params, **kwargs):
        other = model.clone(**kwargs)
        loss = jax.value_and_grad(lambda params: (other.apply({"params": params}, images)["embedding"] ** 3).sum())
        return jax.jit(loss)(params)

    value, gradients = results(params)
    other, scanned = results(stacked, scan=True, remat=True)
    np.testing.assert_allclose(other, value, rtol=1e-4)
    for name in ("stem", "block1", "norm"):
        layer = scanned[name] if name != "block1" else jax.tree.map(lambda x: x[1], scanned["blocks"])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), layer, gradients[name])


def test_positions_are_resampled_for_other_picture_sizes():
    model, params, images = make(pooling="token", image_size=(24, 16))
    larger = np.random.default_rng(0).normal(size=(2, 40, 24, 3)).astype(np.float32)
    table = vit.resample_positions(params["positions"], (3, 2), (5, 3), 1)
    assert table.shape == (1, 16, 12) and np.array_equal(table[:, 0], params["positions"][:, 0])
    fixed = model.clone(image_size=None)
    apply = jax.jit(
        lambda params, model, images: model.apply({"params": params}, images)["embedding"], static_argnums=1
    )
    expected = apply({**params, "positions": table}, fixed, larger)
    for own in (model, fixed):  # without a size, the grid has the nearest aspect ratio
        np.testing.assert_allclose(apply(params, own, larger), expected, atol=1e-5)


def test_resampling_keeps_constants_and_ramps():
    ramp = np.arange(6.0, dtype=np.float32)[None, :, None] * np.ones((6, 1, 1), np.float32)
    table = np.concatenate([np.full((36, 1), 7.0), ramp.reshape(36, 1)], 1)[None].astype(np.float32)
    up = np.asarray(vit.resample_positions(table, (6, 6), (12, 12), 0)).reshape(12, 12, 2)
    np.testing.assert_allclose(up[..., 0], 7.0, rtol=1e-5)
    np.testing.assert_allclose(up[:, 4:8, 1], np.tile([1.75, 2.25, 2.75, 3.25], (12, 1)), atol=1e-4)
    down = np.asarray(vit.resample_positions(table, (6, 6), (3, 3), 0)).reshape(3, 3, 2)
    np.testing.assert_allclose(down[:, 1, 1], 2.5, atol=1e-4)
    assert vit.nearest_grid(80, (12, 10)) == (10, 8) and vit.nearest_grid(196, (10, 8)) == (14, 14)


def test_drop_path_acts_in_training_only():
    model, params, images = make(drop_path=0.5)

    @functools.partial(jax.jit, static_argnames="train")
    def embed(seed=0, **kwargs):
        return model.apply({"params": params}, images, rngs={"dropout": jax.random.key(seed)}, **kwargs)["embedding"]

    assert np.array_equal(embed(0), embed(1, train=False))
    one, *others = (np.asarray(embed(seed, train=True)) for seed in range(4))
    assert np.array_equal(embed(0, train=True), one) and any(not np.allclose(one, other) for other in others)


def test_bfloat16_is_close_to_float32():
    model, params, images = make()
    full, half = (
        np.asarray(jax.jit(m.apply)({"params": params}, images)["embedding"])
        for m in (model, make(dtype=jnp.bfloat16)[0])
    )
    cosine = (full * half).sum(-1) / np.linalg.norm(full, axis=-1) / np.linalg.norm(half, axis=-1)
    assert half.dtype == np.float32 and not np.array_equal(full, half) and (cosine > 0.995).all()


def test_unsupported_options_list_the_known_ones():
    for kwargs, message in (
        ({"variant": "giant"}, "'giant'.*available: micro, mini, .*large"),
        ({"pooling": "token", "class_token": False}, "needs the class token"),
        ({"norm": "twice"}, "available: before, after, none"),
        ({"width": 130}, "4 attention heads do not divide a width of 130"),
    ):
        with pytest.raises(InputError, match=message):
            abstract(vit.Model(**{"variant": "micro", **kwargs}), (32, 32))
