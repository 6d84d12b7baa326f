"""BEiT: published sizes, and parity in steps: stem and block against NumPy, the whole network against timm."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from retrieval_jax.errors import InputError
from retrieval_jax.models import pretrained
from retrieval_jax.models.backbones import beit, vit
from retrieval_jax.models.layers import relative_bias
from retrieval_jax.models.timm import tensors as timm_tensors

# Parameters, in millions, of the published classifiers at 224 px with their layer to 1,000 classes.
PUBLISHED = {"base": 86.53, "large": 304.43}
SMALL = {"depth": 2, "width": 12, "num_heads": 3, "patch_size": 8}


def abstract(model, size=(24, 16)):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))["params"]


def randomised(shapes, seed=1):
    """Returns parameters that are all non-trivial, including biases, norms, scales and tables."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), shapes)


def make(size=(24, 16), **kwargs):
    """Returns (model, params, images) of a small network."""
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    model = beit.Model("micro", **{**SMALL, **kwargs})
    return model, randomised(abstract(model, size)), images


def embed(model, params, images, **kwargs):
    return np.asarray(jax.jit(functools.partial(model.apply, **kwargs))({"params": params}, images)["embedding"])


def stacked(params):
    """Stacks the parameters of single blocks into those of scanned blocks."""
    names = sorted(name for name in params if name.startswith("block"))
    rest = {name: value for name, value in params.items() if name not in names}
    return rest | {"blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *(params[name] for name in names))}


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def naive_bias(table, grid):
    """Returns [heads, 1 + N, 1 + N], pair by pair."""
    places = [None] + [(y, x) for y in range(grid[0]) for x in range(grid[1])]

    def row(query, key):
        if query is None or key is None:
            return len(table) - (1 if query == key else 3 if query is None else 2)
        return (query[0] - key[0] + grid[0] - 1) * (2 * grid[1] - 1) + query[1] - key[1] + grid[1] - 1

    return np.moveaxis(table[np.array([[row(query, key) for key in places] for query in places])], -1, 0)


def naive_block(x, p, grid):
    """Computes one block in float64, straight from the paper."""
    attention, out = p["attention"], []
    query, key, value = np.split(layer_norm(x, p["norm1"]) @ attention["qkv"]["kernel"], 3, -1)
    query, value = query + attention["q_bias"], value + attention["v_bias"]
    bias, side = naive_bias(attention["relative_bias"], grid), x.shape[-1] // 3
    for head in range(3):
        q, k, v = (part[..., head * side : (head + 1) * side] for part in (query, key, value))
        weights = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(side) + bias[head])
        out.append(weights / weights.sum(-1, keepdims=True) @ v)
    out = np.concatenate(out, -1) @ attention["proj"]["kernel"] + attention["proj"]["bias"]
    x = x + p["attention_scale"] * out
    y = layer_norm(x, p["norm2"]) @ p["fc1"]["kernel"] + p["fc1"]["bias"]
    y = 0.5 * y * (1 + np.vectorize(math.erf)(y / np.sqrt(2)))
    return x + p["mlp_scale"] * (y @ p["fc2"]["kernel"] + p["fc2"]["bias"])


def test_stem_block_and_whole_equal_numpy():
    model, params, images = make()
    out, state = jax.jit(lambda: model.apply({"params": params}, images, capture_intermediates=True))()
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    stem = (
        np.stack(
            [
                [
                    np.einsum("ijc,ijcd->d", image[y : y + 8, x : x + 8], p["stem"]["kernel"])
                    for y in range(0, 24, 8)
                    for x in range(0, 16, 8)
                ]
                for image in images
            ]
        )
        + p["stem"]["bias"]
    )
    seen = state["intermediates"]
    np.testing.assert_allclose(seen["stem"]["__call__"][0].reshape(2, 6, 12), stem, atol=2e-5)
    x = np.concatenate([np.broadcast_to(p["class_token"], (2, 1, 12)), stem], 1)
    for name in ("block0", "block1"):
        x = naive_block(x, p[name], (3, 2))
        np.testing.assert_allclose(seen[name]["__call__"][0], x, atol=5e-5)
    np.testing.assert_allclose(out["embedding"], layer_norm(x[:, 1:].mean(1), p["head_norm"]), atol=1e-4)
    token = embed(model.clone(pooling="token"), params | {"norm": params["head_norm"]}, images)
    np.testing.assert_allclose(token, layer_norm(x, p["head_norm"])[:, 0], atol=1e-4)


def test_whole_network_equals_timm():
    about = json.loads(reference.path("parity/beit_small.json").read_text())
    data = np.load(reference.path("parity/beit_small.npz"))
    model, params = pretrained.load(
        about["timm_model"], reference.path("parity/beit_small.safetensors"), **about["kwargs"]
    )
    np.testing.assert_allclose(embed(model, params, data["images"]), data["embedding"], rtol=0, atol=2e-4)


@pytest.mark.parametrize("scan", [False, True])
def test_tensors_match_timm(scan):
    theirs = json.loads(reference.path("parity/timm_shapes.json").read_text())["beit_large_patch16_384"]["params"]
    model = pretrained.model("beit_large_patch16_384", scan=scan)
    shapes = {key: tuple(shape) for key, shape in theirs.items()}
    wanted, fresh, left_out = timm_tensors.check(model, pretrained.shapes_of(model, 384), shapes, (384, 384))
    assert len(wanted) == len(shapes) - len(left_out) and not fresh


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_of_published_sizes(variant):
    shapes, width = abstract(beit.Model(variant), (224, 224)), beit.VARIANTS[variant][1]
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes)) + 1000 * (width + 1)
    assert round(total / 1e6, 2) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", beit.VARIANTS)
def test_every_variant_returns_one_float32_vector_per_picture(variant):
    model = beit.Model(variant, "map", dtype=jnp.bfloat16, scan=True)
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 64, 48, 3))))
    assert out["embedding"].shape == (2, beit.VARIANTS[variant][1]) and out["embedding"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", beit.TIMM)
def test_timm_arguments_round_trip(name):
    model = pretrained.model(name)
    arguments = beit.to_timm(model)
    assert beit.from_timm(**arguments) == model
    assert {key: arguments[key] for key in beit.TIMM[name]} == beit.TIMM[name]


def test_scanned_blocks_are_equivalent():
    model, params, images = make(shared_relative_bias=True, absolute_positions=True)
    together = stacked(params)
    shapes = jax.tree.map(jnp.shape, abstract(model.clone(scan=True)))
    assert shapes == jax.tree.map(jnp.shape, together)

    def gradient(model, params):
        def total(params):
            return jnp.square(model.apply({"params": params}, images)["embedding"] - 1.0).sum()

        return jax.jit(jax.value_and_grad(total))(params)

    (value, apart), (looped, together) = gradient(model, params), gradient(model.clone(scan=True, remat=True), together)
    np.testing.assert_allclose(looped, value, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(stacked(apart)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1.0, float(jnp.abs(theirs).max())))
        assert np.any(theirs)  # every parameter, including every table, is trained


def test_shared_biases_apply_to_every_block():
    model, params, images = make(relative_bias=False, shared_relative_bias=True)
    own = make()[1]
    for name in ("block0", "block1"):
        attention = params[name]["attention"] | {"relative_bias": params["relative_bias"]}
        own[name] = params[name] | {"attention": attention}
    own |= {name: params[name] for name in ("stem", "class_token", "head_norm")}
    np.testing.assert_allclose(
        embed(model.clone(relative_bias=True, shared_relative_bias=False), own, images),
        embed(model, params, images),
        atol=1e-6,
    )


@pytest.mark.parametrize("image_size, scan", [((24, 16), False), (None, True)])
def test_tables_are_resampled_for_other_picture_sizes(image_size, scan):
    model, params, _ = make((24, 16), absolute_positions=True, shared_relative_bias=True)
    larger = np.random.default_rng(1).normal(size=(2, 40, 24, 3)).astype(np.float32)
    other = model.clone(image_size=(40, 24))
    loaded = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            beit.resample("/".join(key.key for key in path), leaf, other, (24, 16))
            if path[-1].key in ("positions", "relative_bias")
            else leaf
        ),
        params,
    )
    assert jax.tree.map(jnp.shape, loaded) == jax.tree.map(jnp.shape, abstract(other, (40, 24)))
    expected = embed(other, loaded, larger)
    params = stacked(params) if scan else params
    found = embed(model.clone(image_size=image_size, scan=scan), params, larger)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tables_of_a_file_are_resampled_from_its_picture_size():
    model = beit.Model("micro", image_size=(96, 64), absolute_positions=True)
    table = np.random.default_rng(0).normal(size=(relative_bias.rows((3, 5)) + 3, 4)).astype(np.float32)
    found = beit.resample("block0/attention/relative_bias", table, model, (48, 80))
    np.testing.assert_array_equal(found, relative_bias.resample(table, (3, 5), (6, 4)))
    square = np.concatenate([table, table[:4]])  # its rows contradict the stated size
    np.testing.assert_array_equal(
        beit.resample("relative_bias", square, model, (999, 999)), relative_bias.resample(square, (4, 4), (6, 4))
    )
    positions = np.random.default_rng(1).normal(size=(1, 17, 8)).astype(np.float32)  # likewise
    np.testing.assert_array_equal(
        beit.resample("positions", positions, model, (48, 80)), vit.resample_positions(positions, (4, 4), (6, 4), 1)
    )
    with pytest.raises(ValueError, match="17 positions does not match a square grid"):
        beit.resample("positions", np.zeros((1, 18, 8), np.float32), model, (48, 80))


def test_drop_path_acts_in_training_only():
    model, params, images = make(drop_path=0.5)
    model, params = model.clone(scan=True), stacked(params)

    @functools.partial(jax.jit, static_argnames="train")
    def run(seed=0, **kwargs):
        return model.apply({"params": params}, images, rngs={"dropout": jax.random.key(seed)}, **kwargs)["embedding"]

    assert np.array_equal(run(0), run(1, train=False))
    one, *others = (np.asarray(run(seed, train=True)) for seed in range(5))
    assert np.array_equal(run(0, train=True), one) and any(not np.allclose(one, other) for other in others)


def test_bfloat16_is_close_to_float32():
    model, params, images = make()
    full, half = embed(model, params, images), embed(model.clone(dtype=jnp.bfloat16), params, images)
    cosine = (full * half).sum(-1) / np.linalg.norm(full, axis=-1) / np.linalg.norm(half, axis=-1)
    assert half.dtype == np.float32 and not np.array_equal(full, half) and (cosine > 0.995).all()


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"variant": "huge"}, "'huge'.*available: micro, mini, base, large"),
        ({"num_heads": 5}, "5 heads do not divide"),
        ({"pooling": "mean"}, "'mean'.*available: avg"),
    ],
)
def test_wrong_settings_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        abstract(beit.Model(**{"variant": "micro", **SMALL, **kwargs}))


def test_a_network_trained_here_is_saved_with_its_picture_size(tmp_path):
    model, params, _ = make((24, 16))  # a variant with other sizes, without image_size
    about = pretrained.Info((0.5,) * 3, (0.5,) * 3, "bilinear", 1.0, (24, 16), "")
    pretrained.save(model, params, tmp_path / "model.safetensors", about=about)
    again, found = pretrained.load("beit_base_patch16_224", tmp_path)
    assert again.image_size == (24, 16) and again.sizes() == model.sizes()
    assert jax.tree.all(jax.tree.map(np.array_equal, found, params))
