"""ConvNeXt: published sizes, and parity in steps: stem and block against NumPy, the whole against the reference."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from retrieval_jax.errors import InputError
from retrieval_jax.models import pretrained
from retrieval_jax.models.backbones import convnext, vit

# Parameters, in millions, of the published classifiers with their layer to 1,000 classes: from the paper, and from timm
# for the four small ones.
V2 = {
    "atto_v2": 3.71,
    "femto_v2": 5.23,
    "pico_v2": 9.07,
    "nano_v2": 15.62,
    "tiny_v2": 28.64,
    "base_v2": 88.72,
    "large_v2": 197.96,
    "huge_v2": 660.29,
}
PUBLISHED = V2 | {
    "atto": 3.70,
    "femto": 5.22,
    "pico": 9.05,
    "nano": 15.59,
    "tiny": 28.59,
    "small": 50.22,
    "base": 88.59,
    "large": 197.77,
    "xlarge": 350.20,
    "xxlarge": 846.47,
}


@pytest.fixture(autouse=True)
def small_variant(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "test", ((1, 2, 1, 1), (8, 12, 16, 24)))


def abstract(model, size=(64, 64)):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))["params"]


def random_params(model, images):
    """Returns parameters that are all non-trivial, including scales, biases and norms, which start at 0 and 1."""
    params, rng = abstract(model, images.shape[1:3]), np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), params)


def layer_norm(x, p, epsilon=1e-6):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * p["scale"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


@functools.cache
def abstract_variant(variant):
    """Returns (outputs, params) for two pictures whose sides are not multiples of a patch, in bfloat16."""
    model = convnext.Model(variant, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 33, 70, 3))))
    return out, variables["params"]


@pytest.mark.parametrize("variant", convnext.VARIANTS)
def test_every_variant_returns_one_float32_vector_per_picture(variant):
    out, params = abstract_variant(variant)
    assert out["embedding"].shape == (2, convnext.VARIANTS[variant][1][-1]) and out["embedding"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_of_published_sizes(variant):
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_variant(variant)[1]))
    head = 1000 * (convnext.VARIANTS[variant][1][-1] + 1)
    assert round((count + head) / 1e6, 2) == PUBLISHED[variant]


@pytest.mark.parametrize("height, width", [(12, 8), (15, 9)])
def test_stem_equals_a_loop_over_patches(height, width):
    images = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    stem = convnext.Patches(5, 4)
    params = random_params(stem, images)
    out = np.asarray(jax.jit(stem.apply)({"params": params}, images))
    assert out.shape == (2, height // 4, width // 4, 5)
    for y in range(height // 4):
        for x in range(width // 4):
            patch = images[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            expected = np.einsum("bijc,ijcd->bd", patch, params["kernel"]) + params["bias"]
            np.testing.assert_allclose(out[:, y, x], expected, atol=1e-4)


@pytest.mark.parametrize("response_norm", [False, True])
def test_block_equals_numpy(response_norm):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 6, 4)).astype(np.float32)
    block = convnext.Block(7, None if response_norm else 0.5, response_norm=response_norm)
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), x, 0.0, False))["params"]
    params = jax.tree.map(lambda p: 0.3 * rng.normal(size=p.shape).astype(np.float32), params)
    p = jax.tree.map(lambda a: a.astype(np.float64), params)
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    y = sum(padded[:, i : i + 5, j : j + 6] * p["dw_kernel"][i, j] for i in range(7) for j in range(7)) + p["dw_bias"]
    y = gelu(layer_norm(y, p["norm"]) @ p["fc1"]["kernel"] + p["fc1"]["bias"])
    if response_norm:
        strength = np.sqrt((y**2).sum((1, 2), keepdims=True))
        relative = strength / (strength.mean(-1, keepdims=True) + 1e-6)
        y = y + p["response_norm"]["scale"] * y * relative + p["response_norm"]["bias"]
    y = y @ p["fc2"]["kernel"] + p["fc2"]["bias"]
    out = jax.jit(lambda params: block.apply({"params": params}, x, 0.0, False))(params)
    np.testing.assert_allclose(out, x + p.get("scale", 1.0) * y, atol=5e-5)


def test_response_norm_of_a_zero_channel_has_a_finite_gradient():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    x[..., 1] = 0
    params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    gradients = jax.grad(lambda x: (convnext.ResponseNorm().apply({"params": params}, x) ** 2).sum())(x)
    assert np.isfinite(gradients).all() and np.abs(gradients[..., 0]).min() > 0


@pytest.mark.parametrize("scan, remat", [(False, False), (True, True)])
def test_whole_network_equals_the_reference(scan, remat):
    model, params = pretrained.load(
        "test_convnext", reference.path("parity/convnext_test.safetensors"), scan=scan, remat=remat
    )
    with np.load(reference.path("parity/convnext_test.npz"), allow_pickle=False) as arrays:
        images, expected = arrays["images"], arrays["embedding"]
    embedding = jax.jit(lambda params, images: model.apply({"params": params}, images)["embedding"])(params, images)
    assert np.abs(expected).max() > 0.5
    assert np.abs(np.asarray(embedding) - expected).max() <= 2e-4


@pytest.mark.parametrize(
    "stem, widths", [("overlap", (12, 12)), ("overlap_tiered", (8, 12)), ("overlap_act", (12, 12))]
)
def test_stems_of_two_strided_convolutions(stem, widths):
    model = convnext.Model(stem=stem, depths=(1, 1), dims=(12, 8), pool_stages=(1,))
    shapes = abstract(model, (33, 31))
    name = "stem_act" if stem == "overlap_act" else "stem_overlap"
    assert [shapes[f"{name}{i}"]["kernel"].shape for i in range(2)] == [(3, 3, 3, widths[0]), (3, 3, *widths)]
    images = np.random.default_rng(0).normal(size=(2, 33, 31, 3)).astype(np.float32)
    out = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images)[0]["embedding"])
    assert out.shape == (2, 8)


def test_remat_and_scan_do_not_change_outputs_or_gradients():
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    settings = {"depths": (2,), "dims": (8,), "pool_stages": (0,), "kernel_size": 3, "layer_scale": 1.0}
    params = random_params(convnext.Model(**settings), images)
    stacked = {name: value for name, value in params.items() if "_block" not in name}
    stacked["stage0_blocks"] = jax.tree.map(
        lambda *layers: np.stack(layers), *(params[f"stage0_block{i}"] for i in range(2))
    )

    def results(params, **kwargs):
        model = convnext.Model(**settings, **kwargs)
        assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, dict(abstract(model, (8, 8))))
        loss = jax.value_and_grad(lambda params: (model.apply({"params": params}, images)["embedding"] ** 3).sum())
        return jax.jit(loss)(params)

    value, gradients = results(params)
    other, scanned = results(stacked, scan=True, remat=True)
    np.testing.assert_allclose(other, value, rtol=1e-4)
    last = {**scanned, "stage0_block1": jax.tree.map(lambda x: x[1], scanned["stage0_blocks"])}
    for name in ("stem", "stage0_block1", "head_norm_stage0"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), last[name], gradients[name])


def test_scanned_layers_have_their_own_drop_path_rates():
    model = convnext.Model(
        depths=(3,), dims=(4,), pool_stages=(0,), kernel_size=3, drop_path=0.9, layer_scale=1.0, scan=True
    )
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    params = random_params(model, images)
    embed = jax.jit(
        lambda seed, train: model.apply(
            {"params": params}, images, train=train, rngs={"dropout": jax.random.key(seed)}
        )["embedding"],
        static_argnums=1,
    )
    still, one, other = embed(0, False), embed(0, True), embed(1, True)
    assert np.array_equal(embed(1, False), still) and np.array_equal(embed(0, True), one)
    assert not np.allclose(one, other) and not np.allclose(one, still)


def test_drop_path_acts_in_training_only_and_grows_with_depth():
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    model = convnext.Model("test", drop_path=0.5, layer_scale=1.0)
    params = random_params(model, images)

    @functools.partial(jax.jit, static_argnames="train")
    def embed(seed=0, **kwargs):
        return model.apply({"params": params}, images, rngs={"dropout": jax.random.key(seed)}, **kwargs)["embedding"]

    still = embed()
    assert np.array_equal(embed(1, train=False), still)
    one, other = embed(0, train=True), embed(1, train=True)
    assert np.array_equal(embed(0, train=True), one)
    assert not np.allclose(one, other) and not np.allclose(one, still)
    rates = []
    real = convnext.DropPath
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convnext, "DropPath", lambda rate: rates.append(rate) or real(rate))
        jax.eval_shape(
            functools.partial(model.apply, train=True), {"params": params}, images, rngs={"dropout": jax.random.key(0)}
        )
    np.testing.assert_allclose(rates, np.linspace(0, 0.5, 5))


def test_early_stages_join_the_embedding_in_order():
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    model = convnext.Model("test", pool_stages=(1, 3))
    params = random_params(model, images)
    joined = jax.jit(model.apply)({"params": params}, images)["embedding"]
    last = {name: value for name, value in params.items() if name != "head_norm_stage1"}
    last = jax.jit(convnext.Model("test").apply)({"params": last}, images)["embedding"]
    assert joined.shape == (2, 12 + 24)
    np.testing.assert_allclose(joined[:, 12:], last, atol=1e-4)
    scaled = (joined[:, :12] - params["head_norm_stage1"]["bias"]) / params["head_norm_stage1"]["scale"]
    np.testing.assert_allclose(scaled.mean(-1), 0, atol=1e-3)
    np.testing.assert_allclose(scaled.std(-1), 1, atol=1e-2)


def test_bfloat16_is_close_to_float32():
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    params = random_params(convnext.Model("test", layer_scale=1.0), images)
    models = convnext.Model("test"), convnext.Model("test", dtype=jnp.bfloat16)
    full, half = (np.asarray(jax.jit(model.apply)({"params": params}, images)["embedding"]) for model in models)
    cosine = (full * half).sum(-1) / np.linalg.norm(full, axis=-1) / np.linalg.norm(half, axis=-1)
    assert half.dtype == np.float32 and not np.array_equal(full, half) and (cosine > 0.995).all()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InputError, match="'giant'.*available: micro, mini, atto, .*xlarge"):
        abstract(convnext.Model("giant"))
    with pytest.raises(InputError, match="'median'.*available: avg, gem, map"):
        abstract(convnext.Model("test", pooling="median"))
    with pytest.raises(InputError, match="'pyramid'.*available: patch, overlap"):
        abstract(convnext.Model("test", stem="pyramid"))
    with pytest.raises(InputError, match="the stages are 0 to 3"):
        abstract(convnext.Model("test", pool_stages=(1, 4)))
    with pytest.raises(InputError, match="each stage needs a depth, a width and a kernel size"):
        abstract(convnext.Model("test", depths=(1, 2)))


def test_patch_sizes_for_which_timm_dilates_are_refused():
    assert convnext.from_timm(patch_size=7).patch_size == 7
    with pytest.raises(InputError, match="patch_size=8: timm dilates the last stages"):
        convnext.from_timm(patch_size=8)


@pytest.mark.parametrize("model, size", [(convnext.Model("tiny"), (32, 31)), (vit.Model("tiny"), (15, 64))])
def test_pictures_too_small_for_a_patch_are_refused(model, size):
    with pytest.raises(InputError, match="too small for this model; set a larger config.data.image_size"):
        abstract(model, size)


def test_bands_of_a_map_are_pooled_separately():
    images = jax.random.normal(jax.random.key(0), (2, 80, 64, 3))
    whole = convnext.Model("micro", pool_stages=(2, 3), layer_scale=1.0)
    params = whole.init(jax.random.key(1), images)["params"]  # bands share every parameter
    cut = convnext.Model("micro", pool_stages=(2, 3), pool_bands=(2, 1), layer_scale=1.0)
    out = cut.apply({"params": params}, images)
    vectors = out["embedding"]
    assert jax.tree.map(jnp.shape, cut.init(jax.random.key(1), images)["params"]) == jax.tree.map(jnp.shape, params)
    maps = []

    def keep(following, args, kwargs, context):
        if type(context.module).__name__ == "Pool":
            maps.append(args[0])
        return following(*args, **kwargs)

    with nn.intercept_methods(keep):
        last = whole.apply({"params": params}, images)["embedding"]
    norm = nn.LayerNorm(epsilon=1e-6)
    assert maps[0].shape == (2, 5, 4, 128)
    bands = [
        norm.apply({"params": params["head_norm_stage2"]}, band.mean((1, 2)))
        for band in (maps[0][:, :2], maps[0][:, 2:])
    ]
    np.testing.assert_allclose(vectors, jnp.concatenate([*bands, last[:, 128:]], 1), atol=1e-5)
    np.testing.assert_array_equal(out["pooled"], last)  # the input of heads
    grid = convnext.Model("micro", pool_stages=(2, 3), pool_bands=((1, 2), 1), layer_scale=1.0)
    sides = [
        norm.apply({"params": params["head_norm_stage2"]}, half.mean((1, 2)))
        for half in (maps[0][:, :, :2], maps[0][:, :, 2:])
    ]
    out = grid.apply({"params": params}, images)["embedding"]
    np.testing.assert_allclose(out, jnp.concatenate([*sides, last[:, 128:]], 1), atol=1e-5)
    with pytest.raises(InputError, match="5 x 4 positions is too small for 6 x 1 cells"):
        convnext.Model("micro", pool_stages=(2, 3), pool_bands=(6, 1)).init(jax.random.key(1), images)
    with pytest.raises(InputError, match="one number or grid for each of 2 pool_stages"):
        convnext.Model("micro", pool_stages=(2, 3), pool_bands=(6,)).init(jax.random.key(1), images)
    with pytest.raises(InputError, match="a number of bands or \\(rows, columns\\)"):
        convnext.Model("micro", pool_stages=(2, 3), pool_bands=((2, 0), 1)).init(jax.random.key(1), images)
