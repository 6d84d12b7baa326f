"""Swin: published sizes, and parity in steps: stem, merging and block against NumPy, the whole against timm."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from retrieval_jax.errors import InputError
from retrieval_jax.models import pretrained
from retrieval_jax.models.backbones import swin
from retrieval_jax.models.layers import relative_bias
from retrieval_jax.models.timm import tensors as timm_tensors

# Parameters, in millions, of the published classifiers with their layer to 1,000 classes.
PUBLISHED = {"tiny": 28.29, "small": 49.61, "base": 87.77, "large": 196.53}
SMALL = {"width": 8, "depths": (2, 1), "num_heads": (2, 4), "window_size": 4}


def abstract(model, size=(64, 64)):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))["params"]


def randomised(shapes, seed=1):
    """Returns parameters that are all non-trivial, including biases, norms and tables."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), shapes)


def make(size=(40, 32), **kwargs):
    """Returns (model, params, images) of a small network."""
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    model = swin.Model("micro", **{**SMALL, **kwargs})
    return model, randomised(abstract(model, size)), images


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def naive_attention(x, p, heads, window, shift):
    """Computes window attention of one map [H, W, C], window by window and head by head."""
    height, width, channels = x.shape
    size = [-(-side // part) * part for side, part in zip((height, width), window, strict=True)]
    padded = np.zeros((*size, channels))
    padded[:height, :width] = np.roll(x, [-side for side in shift], (0, 1))
    label = np.zeros(size, int)  # regions of the map that the shift brought together
    ends = [(0, -part, -side or None) for part, side in zip(window, shift, strict=True)]
    for i, rows in enumerate((slice(0, ends[0][1]), slice(ends[0][1], ends[0][2]), slice(-shift[0], None))):
        for j, columns in enumerate((slice(0, ends[1][1]), slice(ends[1][1], ends[1][2]), slice(-shift[1], None))):
            label[rows, columns] = 3 * i + j
    qkv = dense(padded, p["qkv"]).reshape(*size, 3, heads, -1)
    out = np.zeros((*size, heads, qkv.shape[-1]))
    for top in range(0, size[0], window[0]):
        for left in range(0, size[1], window[1]):
            places = [(y, x) for y in range(top, top + window[0]) for x in range(left, left + window[1])]
            for head in range(heads):
                for y, x in places:
                    bias = [
                        p["relative_bias"][(y - v + window[0] - 1) * (2 * window[1] - 1) + x - u + window[1] - 1]
                        for v, u in places
                    ]
                    weights = np.array(
                        [
                            qkv[y, x, 0, head] @ qkv[v, u, 1, head] / np.sqrt(qkv.shape[-1])
                            + bias[i][head]
                            - 100 * (label[y, x] != label[v, u])
                            for i, (v, u) in enumerate(places)
                        ]
                    )
                    weights = np.exp(weights - weights.max())
                    values = np.array([qkv[v, u, 2, head] for v, u in places])
                    out[y, x, head] = weights / weights.sum() @ values
    out = dense(out.reshape(*size, channels)[:height, :width], p["proj"])
    return np.roll(out, shift, (0, 1))


@pytest.mark.parametrize(
    "size, window, shift, qkv_bias",
    [((8, 8), (4, 4), (2, 2), True), ((7, 5), (3, 2), (1, 1), True), ((6, 3), (2, 3), (1, 0), False)],
)
def test_block_equals_numpy(size, window, shift, qkv_bias):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 8)).astype(np.float32)
    block = swin.Block(2, window, shift, qkv_bias=qkv_bias, mlp_ratio=3.0)
    params = randomised(jax.eval_shape(lambda: block.init(jax.random.key(0), x, 0.0, False))["params"])
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    after = x + np.stack([naive_attention(one, p["attention"], 2, window, shift) for one in layer_norm(x, p["norm1"])])
    expected = after + dense(gelu(dense(layer_norm(after, p["norm2"]), p["fc1"])), p["fc2"])
    found = jax.jit(lambda params, x: block.apply({"params": params}, x, 0.0, False))(params, x)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_stem_and_merging_equal_numpy():
    size = (20, 16)  # a map of 5 x 4, which merging pads
    model, params, images = make(size, depths=(1, 1))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    _, state = jax.jit(lambda: model.apply({"params": params}, images, capture_intermediates=True))()
    seen = {
        name: np.asarray(value["__call__"][0])
        for name, value in state["intermediates"].items()
        if isinstance(value, dict) and "__call__" in value
    }
    stem = np.stack(
        [
            [
                [
                    np.einsum("ijc,ijcd->d", image[y : y + 4, x : x + 4], p["stem"]["kernel"])
                    for x in range(0, size[1], 4)
                ]
                for y in range(0, size[0], 4)
            ]
            for image in images
        ]
    )
    np.testing.assert_allclose(seen["stem_norm"], layer_norm(stem + p["stem"]["bias"], p["stem_norm"]), atol=2e-5)
    before = seen["stage0_block0"].astype(np.float64)
    before = np.pad(before, ((0, 0), (0, before.shape[1] % 2), (0, before.shape[2] % 2), (0, 0)))
    four = np.concatenate(
        [before[:, 0::2, 0::2], before[:, 1::2, 0::2], before[:, 0::2, 1::2], before[:, 1::2, 1::2]], -1
    )  # the order of the published networks: rows first
    np.testing.assert_allclose(
        seen["stage1_down"], layer_norm(four, p["stage1_norm"]) @ p["stage1_down"]["kernel"], atol=2e-5
    )


def test_whole_network_equals_timm():
    about = json.loads(reference.path("parity/swin_small.json").read_text())
    data = np.load(reference.path("parity/swin_small.npz"))
    model, params = pretrained.load(
        about["timm_model"], reference.path("parity/swin_small.safetensors"), **about["kwargs"]
    )
    embedding = jax.jit(model.apply)({"params": params}, data["images"])["embedding"]
    np.testing.assert_allclose(embedding, data["embedding"], rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "name", ["swin_base_patch4_window7_224", "swin_large_patch4_window7_224", "swin_large_patch4_window12_384"]
)
def test_tensors_match_timm(name):
    theirs = json.loads(reference.path("parity/timm_shapes.json").read_text())[name]["params"]
    model = pretrained.model(name)
    shapes = {key: tuple(shape) for key, shape in theirs.items()}
    wanted, fresh, left_out = timm_tensors.check(model, pretrained.shapes_of(model, model.image_size), shapes)
    assert len(wanted) == len(shapes) - len(left_out) and not fresh


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_of_published_sizes(variant):
    shapes = abstract(swin.Model(variant), (224, 224))
    width = swin.VARIANTS[variant][0] * 8
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes)) + 1000 * (width + 1)
    assert round(total / 1e6, 2) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", ["micro", "mini", "tiny", "s3_tiny"])
def test_every_size_returns_one_float32_vector_per_picture(variant):
    model = swin.Model(variant, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 80, 64, 3))))
    assert out["embedding"].shape == (2, 8 * swin.VARIANTS[variant][0]) and out["embedding"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", swin.TIMM)
def test_timm_arguments_round_trip(name):
    model = pretrained.model(name)
    arguments = swin.to_timm(model)
    assert swin.from_timm(**arguments) == model
    assert {key: arguments[key] for key in swin.TIMM[name]} == swin.TIMM[name]


def test_windows_are_clipped_to_the_map_and_then_not_shifted():
    model = swin.Model("micro", image_size=(64, 80), window_size=(7, 4))
    assert [model.table(stage) for stage in range(4)] == [(7, 4), (7, 4), (4, 4), (2, 3)]
    cuts = [model._cut((7, 4), stage, (16, 20)) for stage in range(4)]
    assert [shift for _, shift in cuts] == [(3, 2), (3, 2), (0, 2), (0, 0)]
    assert swin.Model("micro", window_size=7).table(3) == (7, 7)  # without a size: full tables
    whole = swin.Model("micro", image_size=64, window_size=7, always_partition=True)
    assert whole.table(3) == (7, 7) and whole._cut((7, 7), 3, (16, 16)) == ((7, 7), (3, 3))


def test_parameters_without_a_size_fit_any_picture():
    model, params, images = make((40, 32), depths=(2,), num_heads=(2,))
    assert jax.tree.map(jnp.shape, abstract(model, (16, 16))) == jax.tree.map(jnp.shape, abstract(model, (64, 48)))
    embed = jax.jit(model.apply)
    # A map smaller than the window is like a window of that size, whose table is the middle of ours.
    small = model.clone(window_size=2)
    tables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.reshape(7, 7, -1)[2:5, 2:5].reshape(9, -1) if "relative_bias" in str(path) else leaf,
        params,
    )
    found = embed({"params": params}, images[:, :8, :8])["embedding"]
    expected = jax.jit(small.apply)({"params": tables}, images[:, :8, :8])["embedding"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tables_are_resampled_to_other_windows():
    model = swin.Model("micro", **{**SMALL, "window_size": (3, 6)}, image_size=96)
    table = np.random.default_rng(0).normal(size=(49, 2)).astype(np.float32)
    found = swin.resample("stage0_block1/attention/relative_bias", table, model, (224, 224))
    np.testing.assert_array_equal(found, relative_bias.resample(table, (4, 4), (3, 6)))
    assert found.shape == abstract(model, (96, 96))["stage0_block1"]["attention"]["relative_bias"].shape


def test_drop_path_acts_in_training_only_and_remat_changes_nothing():
    model, params, images = make(drop_path=0.5, depths=(2,), num_heads=(2,))

    @jax.jit
    def embed(seed):
        return model.apply({"params": params}, images, train=True, rngs={"dropout": jax.random.key(seed)})["embedding"]

    one, *others = (np.asarray(embed(seed)) for seed in range(4))
    assert np.array_equal(embed(0), one) and any(not np.allclose(one, other) for other in others)

    def gradient(model):  # in evaluation mode, without an rng
        def total(params):
            return jnp.square(model.apply({"params": params}, images)["embedding"] - 1.0).sum()

        return jax.jit(jax.value_and_grad(total))(params)

    value, plain = gradient(model)
    again, remat = gradient(model.clone(remat=True))
    np.testing.assert_allclose(again, value, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(remat), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1.0, float(jnp.abs(theirs).max())))
        assert np.any(theirs)  # every parameter, including every table, is trained


def test_bfloat16_is_close_to_float32():
    model, params, images = make(depths=(2,), num_heads=(2,))
    full, half = (
        np.asarray(jax.jit(m.apply)({"params": params}, images)["embedding"])
        for m in (model, model.clone(dtype=jnp.bfloat16))
    )
    cosine = (full * half).sum(-1) / np.linalg.norm(full, axis=-1) / np.linalg.norm(half, axis=-1)
    assert half.dtype == np.float32 and not np.array_equal(full, half) and (cosine > 0.995).all()


CHILD = """
import jax, jax.numpy as jnp
from retrieval_jax.models.backbones import beit, swin
from retrieval_jax.training import sharding
mesh = sharding.make_mesh()
images = jax.ShapeDtypeStruct((8, 40, 32, 3), jnp.float32, sharding=sharding.batch_sharding(mesh))
for model in (swin.Model("micro", depths=(2,), num_heads=(1,)), beit.Model("micro", depth=2, scan=True)):
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(mesh)), shapes)
    compiled = jax.jit(model.apply).lower(shapes, images).compile()
    split = compiled.output_shardings["embedding"].is_equivalent_to(sharding.batch_sharding(mesh), 2)
    print(mesh.size, split, any(word in compiled.as_text() for word in ("all-gather", "all-to-all", "all-reduce")))
"""


def test_a_sharded_batch_needs_no_communication():
    root = pathlib.Path(swin.__file__).resolve().parents[3]
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=root, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["4 True False"] * 2


def test_strict_img_size_has_no_effect():
    assert swin.from_timm(img_size=64, strict_img_size=False) == swin.from_timm(img_size=64)


def test_widths_and_ratios_per_stage_are_refused():
    for kwargs in ({"mlp_ratio": (2.0, 4.0, 4.0, 4.0)}, {"embed_dim": [24, 48, 96, 192]}):
        with pytest.raises(InputError, match="one number of each here, not one per stage"):
            swin.from_timm(**kwargs)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"variant": "huge"}, "'huge'.*available: micro, mini, tiny"),
        ({"num_heads": (3, 4)}, "3 heads do not divide 8"),
        ({"num_heads": (2, 4, 8)}, "one entry per stage"),
        ({"window_size": 0}, "must be positive"),
    ],
)
def test_wrong_sizes_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        abstract(swin.Model(**{"variant": "micro", **SMALL, **kwargs}))


@pytest.mark.parametrize("side, window", [(8, 4), (6, 3)])  # of 16 positions, and of 9, which are padded
@pytest.mark.parametrize("shift", [0, 1])
def test_windows_as_heads_equal_windows_apart(side, window, shift):
    rng = np.random.default_rng(0)
    count = side // window
    qkv = jnp.asarray(rng.normal(size=(2, count, window, count, window, 3, 2, 8)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=(2, window**2, window**2)), jnp.float32)
    mask = None
    if shift:
        mask = jnp.where(swin._together((side, side), (window, window), (shift, shift)), 0.0, swin._APART)[:, None]
    cotangent = jnp.asarray(rng.normal(size=(2, count, window, count, window, 2, 8)), jnp.float32)

    def results(function):
        values, pull = jax.vjp(function, qkv, bias)
        return [values, *pull(cotangent)]

    ours = results(lambda qkv, bias: swin.windows_as_heads(qkv, bias, mask, implementation="xla"))
    plain = results(lambda qkv, bias: swin.windows_apart(qkv, bias, mask))
    for mine, other in zip(ours, plain, strict=True):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, atol=2e-5)
