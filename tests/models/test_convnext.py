"""ConvNeXt: published sizes, and parity as a ladder: stem and block against NumPy, the whole against the reference."""

import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import reference
from retrieval_jax.errors import InputError
from retrieval_jax.models import convnext, vit

# Parameters, in millions, of the published classifiers with their layer to 1,000 classes: the paper's, and for the four
# small ones timm's.
PUBLISHED = {"atto": 3.70, "femto": 5.22, "pico": 9.05, "nano": 15.59, "tiny": 28.59, "small": 50.22, "base": 88.59,
             "large": 197.77, "xlarge": 350.20}


@pytest.fixture(autouse=True)
def small_variant(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "test", ((1, 2, 1, 1), (8, 12, 16, 24)))


def abstract(model, size=(64, 64)):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))["params"]


def random_params(model, images):
    """Makes parameters that are all non-trivial: scales, biases and norms too, which start at 0 and 1."""
    params, rng = abstract(model, images.shape[1:3]), np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), params)


def from_timm(name, tensor):
    """Returns (our path, array in our layout) of one of timm's tensors."""
    for pattern, replacement in (
            (r"^stem\.0\.", "stem."), (r"^stem\.1\.", "stem_norm."), (r"^head\.norm\.", "head_norm."),
            (r"^stages\.(\d)\.downsample\.0\.", r"stage\1_norm."),
            (r"^stages\.(\d)\.downsample\.1\.", r"stage\1_down."),
            (r"^stages\.(\d)\.blocks\.(\d+)\.", r"stage\1_block\2."), (r"\.conv_dw\.weight$", ".dw_kernel"),
            (r"\.conv_dw\.bias$", ".dw_bias"), (r"\.gamma$", ".scale"), (r"\.mlp\.(fc\d)\.", r".\1."),
            (r"norm\.weight$", "norm.scale"), (r"\.weight$", ".kernel")):
        name = re.sub(pattern, replacement, name)
    if name.endswith("dw_kernel"):
        tensor = np.transpose(tensor[:, 0], (1, 2, 0))  # [C, 1, k, k] -> [k, k, C]
    elif name.endswith("kernel"):
        tensor = np.transpose(tensor, (2, 3, 1, 0) if tensor.ndim == 4 else (1, 0))
    return tuple(name.split(".")), tensor


def nested(flat):
    tree = {}
    for (*parents, leaf), value in flat.items():
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def layer_norm(x, p, epsilon=1e-6):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * p["scale"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


@functools.cache
def abstract_variant(variant):
    """Returns (outputs, params) of two pictures whose sides are no multiples of a patch, in bfloat16."""
    model = convnext.Model(variant, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 33, 70, 3))))
    return out, variables["params"]


@pytest.mark.parametrize("variant", convnext.VARIANTS)
def test_every_variant_gives_one_float32_vector_a_picture(variant):
    out, params = abstract_variant(variant)
    assert out["embedding"].shape == (2, convnext.VARIANTS[variant][1][-1]) and out["embedding"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_of_published_sizes(variant):
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_variant(variant)[1]))
    head = 1000 * (convnext.VARIANTS[variant][1][-1] + 1)
    assert round((count + head) / 1e6, 2) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", ["tiny", "base", "large", "xlarge"])
def test_every_tensor_of_timm_has_its_place(variant):
    theirs = json.loads(reference.path("parity/timm_shapes.json").read_text())[f"convnext_{variant}"]["params"]
    # a zero, broadcast: the shape without the memory
    mapped = dict(from_timm(name, np.broadcast_to(np.float32(0), shape)) for name, shape in theirs.items()
                  if not name.startswith("head.fc"))
    ours = {tuple(key.key for key in path): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_variant(variant)[1])}
    assert {path: tensor.shape for path, tensor in mapped.items()} == ours


@pytest.mark.parametrize("height, width", [(12, 8), (15, 9)])
def test_stem_equals_a_loop_over_patches(height, width):
    images = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    stem = convnext.Patches(5, 4)
    params = random_params(stem, images)
    out = np.asarray(jax.jit(stem.apply)({"params": params}, images))
    assert out.shape == (2, height // 4, width // 4, 5)
    for y in range(height // 4):
        for x in range(width // 4):
            patch = images[:, 4 * y:4 * y + 4, 4 * x:4 * x + 4]
            expected = np.einsum("bijc,ijcd->bd", patch, params["kernel"]) + params["bias"]
            np.testing.assert_allclose(out[:, y, x], expected, atol=1e-4)


def test_block_equals_numpy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 6, 4)).astype(np.float32)
    block = convnext.Block(7, 0.0, 0.5, jnp.float32)
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), x, False))["params"]
    params = jax.tree.map(lambda p: 0.3 * rng.normal(size=p.shape).astype(np.float32), params)
    p = jax.tree.map(lambda a: a.astype(np.float64), params)
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    y = sum(padded[:, i:i + 5, j:j + 6] * p["dw_kernel"][i, j] for i in range(7) for j in range(7)) + p["dw_bias"]
    y = gelu(layer_norm(y, p["norm"]) @ p["fc1"]["kernel"] + p["fc1"]["bias"]) @ p["fc2"]["kernel"] + p["fc2"]["bias"]
    out = jax.jit(lambda params: block.apply({"params": params}, x, False))(params)
    np.testing.assert_allclose(out, x + p["scale"] * y, atol=5e-5)


def test_the_whole_equals_the_reference(monkeypatch):
    # timm's test_convnext: its small stages, its epsilon, its approximation of GELU
    monkeypatch.setitem(convnext.VARIANTS, "reference", ((1, 2, 4, 2), (24, 32, 48, 64)))
    model = convnext.Model("reference", epsilon=1e-5, tanh_gelu=True)
    tensors = load_file(reference.path("parity/convnext_test.safetensors"))
    params = nested(dict(from_timm(name, tensor) for name, tensor in tensors.items()))
    with np.load(reference.path("parity/convnext_test.npz"), allow_pickle=False) as arrays:
        images, expected = arrays["images"], arrays["embedding"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, dict(abstract(model, (96, 96))))
    embedding = jax.jit(lambda params, images: model.apply({"params": params}, images)["embedding"])(params, images)
    assert np.abs(expected).max() > 0.5
    assert np.abs(np.asarray(embedding) - expected).max() <= 2e-4


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
        abstract(model)
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


def test_unknown_names_list_what_there_is():
    with pytest.raises(InputError, match="'huge'; there are: micro, mini, atto, .*xlarge"):
        abstract(convnext.Model("huge"))
    with pytest.raises(InputError, match="'max'; there are: avg, gem, map"):
        abstract(convnext.Model("test", pooling="max"))


@pytest.mark.parametrize("model, size", [(convnext.Model("tiny"), (32, 31)), (vit.Model("tiny"), (15, 64))])
def test_pictures_too_small_for_a_patch_are_refused(model, size):
    with pytest.raises(InputError, match="too small for this model; set a larger config.data.image_size"):
        abstract(model, size)
