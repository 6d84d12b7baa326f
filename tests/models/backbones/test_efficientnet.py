"""EfficientNet-Lite: stem and block against plain loops, the whole against real weights, and folding of batch norms."""

import hashlib
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import reference
from retrieval_jax.errors import InputError
from retrieval_jax.models import pretrained
from retrieval_jax.models.backbones import efficientnet
from retrieval_jax.models.timm import tensors as timm_tensors
from retrieval_jax.training import optim

# Of timm 1.0.31: tensors without the classifier, parameters with it, and a digest of the tensors' names and shapes.
PUBLISHED = {
    "tf_efficientnet_lite0": (245, 4652008, "80f8420d1a85ebb7"),
    "tf_efficientnet_lite1": (320, 5416680, "9866720d011f295b"),
    "tf_efficientnet_lite2": (320, 6092072, "26673e0343fce6d0"),
    "tf_efficientnet_lite3": (365, 8197096, "7804a89916082209"),
    "tf_efficientnet_lite4": (455, 13006568, "0e7cfd82e0b120ff"),
}
TINY = {"channel_multiplier": 0.1, "depth_multiplier": 0.5}


def images(height=33, width=20, batch=2):
    return jnp.asarray(np.random.default_rng(1).normal(size=(batch, height, width, 3)), jnp.float32)


def random_params(model, pictures):
    params = jax.eval_shape(model.init, jax.random.key(0), pictures)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: (0.5 * rng.normal(size=x.shape)).astype(np.float32), params)


def convolved(x, kernel, stride, depthwise=False):
    """Computes a convolution by plain loops over output positions, padded as TensorFlow documents it."""
    _, height, width, _ = x.shape
    size, rows, columns = len(kernel), -(-height // stride), -(-width // stride)
    down, across = (max((n - 1) * stride + size - side, 0) for n, side in ((rows, height), (columns, width)))
    x = np.pad(x, ((0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)))
    taps = "byxc,yxc->bc" if depthwise else "byxc,yxcd->bd"
    return np.stack(
        [
            np.stack(
                [np.einsum(taps, x[:, y : y + size, z : z + size], kernel) for z in range(0, columns * stride, stride)],
                axis=1,
            )
            for y in range(0, rows * stride, stride)
        ],
        axis=1,
    )


@pytest.mark.parametrize("side", [8, 9])
def test_stem_and_block_equal_plain_loops(side):
    pictures = images(side, side + 3)
    stem = efficientnet.Stem(8)
    params = random_params(stem, pictures)
    expected = np.clip(convolved(np.asarray(pictures), params["kernel"], 2) + params["bias"], 0, 6)
    np.testing.assert_allclose(jax.jit(stem.apply)({"params": params}, pictures), expected, atol=1e-5)
    maps = jnp.asarray(expected)
    for stride, channels in ((1, 8), (1, 16), (2, 16)):
        block = efficientnet.Block(5, stride, 6, channels)
        shapes = jax.eval_shape(lambda block=block: block.init(jax.random.key(0), maps, 0.0, False))["params"]
        rng = np.random.default_rng(3)
        params = jax.tree.map(lambda x, rng=rng: (0.3 * rng.normal(size=x.shape)).astype(np.float32), shapes)
        hidden = np.clip(expected @ params["expand"]["kernel"] + params["expand"]["bias"], 0, 6)
        hidden = convolved(hidden, params["depthwise"]["kernel"], stride, depthwise=True) + params["depthwise"]["bias"]
        out = np.clip(hidden, 0, 6) @ params["project"]["kernel"] + params["project"]["bias"]
        out += expected if stride == 1 and channels == 8 else 0  # the shortcut
        found = jax.jit(block.apply, static_argnums=(2, 3))({"params": params}, maps, 0.0, False)
        np.testing.assert_allclose(found, out, atol=1e-4)


def test_real_weights_give_the_published_embedding_and_classes():
    weights, arrays = reference.path("weights/tf_efficientnet_lite0.in1k.safetensors"), "parity/lite0_real.npz"
    model, params = pretrained.load("tf_efficientnet_lite0", weights)
    with np.load(reference.path(arrays), allow_pickle=False) as stored:
        pictures, expected, classes = (stored[name] for name in ("images", "embedding", "logits_top"))
    embedding = np.asarray(jax.jit(lambda p, x: model.apply({"params": p}, x)["embedding"])(params, pictures))
    np.testing.assert_allclose(embedding, expected, atol=2e-4)
    head = load_file(weights)
    logits = embedding @ head["classifier.weight"].T + head["classifier.bias"]
    np.testing.assert_array_equal(np.argsort(-logits, axis=1)[:, :5], classes)
    info = pretrained.info("tf_efficientnet_lite0")
    assert (info.mean, info.std, info.licence) == ((0.5,) * 3, (0.5,) * 3, "apache-2.0")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor_of_timm_has_its_place(name):
    model = pretrained.model(name)
    params = pretrained.shapes_of(model, 64)
    shapes = sorted((key, list(shape)) for key, shape in timm_tensors.timm_shapes(model, params).items())
    digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]
    learned = sum(int(np.prod(shape)) for key, shape in shapes if ".running_" not in key)
    assert (len(shapes), learned + 1281 * 1000, digest) == PUBLISHED[name]


# -------------------------------------------------------------------------------------------------------------- folding


def written(folder):
    """Writes random weights with batch norms that do something; returns (file, tensors, model)."""
    model, rng = pretrained.model("tf_efficientnet_lite0", **TINY), np.random.default_rng(0)
    shapes = timm_tensors.timm_shapes(model, pretrained.shapes_of(model, 32))
    tensors = {
        name: (rng.uniform(0.5, 2, shape) if name.endswith("running_var") else 0.4 * rng.normal(size=shape))
        for name, shape in shapes.items()
    }
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors", tensors, model


def test_folding_equals_the_norm_behind_the_convolution(tmp_path):
    file, tensors, _ = written(tmp_path)
    model, params = pretrained.load("tf_efficientnet_lite0", file, **TINY)
    pictures = np.asarray(images(9, 12), np.float64)
    norm = {
        name: tensors[f"bn1.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    }
    plain = convolved(pictures, tensors["conv_stem.weight"].transpose(2, 3, 1, 0), 2)
    expected = (plain - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3) * norm["weight"] + norm["bias"]
    found = jax.jit(efficientnet.Stem(32).apply)({"params": params["stem"]}, jnp.asarray(pictures, jnp.float32))
    np.testing.assert_allclose(found, np.clip(expected, 0, 6), atol=1e-5)


def test_saving_and_loading_again_gives_the_same_bits(tmp_path):
    file, tensors, _ = written(tmp_path)
    model, params = pretrained.load("tf_efficientnet_lite0", file, **TINY)
    pretrained.save(model, params, tmp_path / "again" / "model.safetensors", timm_name="tf_efficientnet_lite0")
    saved = load_file(tmp_path / "again" / "model.safetensors")
    assert saved.keys() == tensors.keys() and np.array_equal(saved["bn1.weight"], np.ones(32))
    loaded, same = pretrained.load("tf_efficientnet_lite0", tmp_path / "again")
    assert loaded == model and jax.tree.all(jax.tree.map(np.array_equal, params, same))


def test_config_json_has_no_arguments_that_timm_sets_itself(tmp_path):
    model = pretrained.model("tf_efficientnet_lite1")
    shapes = pretrained.shapes_of(model, 32)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    pretrained.save(model, params, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "tf_efficientnet_lite1"
    assert config["model_args"] == {"bn_eps": 1e-3, "global_pool": "avg", "num_classes": 0}


def test_parts_of_a_norm_that_are_missing_or_mis_shaped_are_listed(tmp_path):
    file, tensors, _ = written(tmp_path)
    del tensors["bn2.running_var"], tensors["bn1.bias"]
    tensors["blocks.0.0.bn1.running_mean"] = np.zeros(3, np.float32)
    tensors["bn1.num_batches_tracked"] = np.zeros((), np.int64)
    save_file(tensors, file)
    with pytest.raises(InputError) as caught:
        pretrained.load("tf_efficientnet_lite0", file, **TINY)
    for text in (
        "2 missing: ",
        "bn1.bias (32,)",
        "bn2.running_var (1280,)",
        "1 with another shape: blocks.0.0.bn1.running_mean (3,), expected (32,)",
    ):
        assert text in str(caught.value)
    assert "num_batches_tracked" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- options and training


def test_stages_bands_and_rematerialisation(monkeypatch):
    small = tuple((1, 3, stride, expansion, 80) for _, _, stride, expansion, _ in efficientnet._STAGES)
    monkeypatch.setattr(efficientnet, "_STAGES", small)  # compiles in seconds
    pictures = images(64, 48)
    model = efficientnet.Model("lite0", pool_stages=(2, 7), pool_bands=(3, 1), **TINY)
    params = random_params(model, pictures)
    out = jax.jit(lambda params: model.apply({"params": params}, pictures))(params)
    assert out["embedding"].shape == (2, 3 * 8 + 1280) and out["pooled"].shape == (2, 8 + 1280)
    np.testing.assert_array_equal(out["embedding"][:, 24:], out["pooled"][:, 8:])

    def gradient(model):
        def loss(params):
            out = model.apply({"params": params}, pictures, train=True, rngs={"dropout": jax.random.key(1)})
            return (out["embedding"] ** 2).mean()

        return jax.jit(jax.grad(loss))(params)

    plain, again = (gradient(model.clone(drop_path=0.3, remat=remat)) for remat in (False, True))
    for path, one, other in zip(
        jax.tree.leaves(optim.paths(plain)), *map(jax.tree.leaves, (plain, again)), strict=True
    ):
        assert np.abs(one).max() > 0, path
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(one).max()), err_msg=path)


def test_a_network_of_early_stages_leaves_out_the_head(tmp_path):
    file, _, _ = written(tmp_path)
    model, params = pretrained.load("tf_efficientnet_lite0", file, pool_stages=(3, 4), **TINY)
    assert "conv_head" not in params and {"head_norm_stage3", "head_norm_stage4"} <= params.keys()


def test_wrong_options_are_reported():
    for kwargs, message in (
        ({"variant": "lite5"}, "unknown EfficientNet variant 'lite5'.*lite4"),
        ({"pool_stages": (8,)}, "stages 0 to 6, and 7 for its head"),
        ({"pool_stages": (7,), "pool_bands": (1, 2)}, r"pool_bands=\(1, 2\) must give one number"),
        ({"pool_bands": (5,)}, "a map of 1 x 1 positions is too small for 5 x 1 cells"),
        ({"depth_multiplier": 0.0}, "must be above 0"),
    ):
        with pytest.raises(InputError, match=message):
            jax.eval_shape(efficientnet.Model(**kwargs).init, jax.random.key(0), images(32, 32))
    with pytest.raises(InputError, match="with this act_layer, pad_type is not supported"):
        pretrained.model("tf_efficientnet_lite0", act_layer="swish", pad_type="")


def test_layer_decay_counts_stem_blocks_and_head():
    from retrieval_jax.settings import base

    config = base.defaults().train
    config.layer_decay = 0.5
    params = {"backbone": pretrained.shapes_of(efficientnet.Model("lite0"), 32)}
    factors = optim.rate_factors(config, params)["backbone"]
    assert factors["conv_head"]["kernel"] == 1 and factors["stage6_block0"]["expand"]["bias"] == 0.5
    assert factors["stage0_block0"]["project"]["kernel"] == 0.5**16 and factors["stem"]["kernel"] == 0.5**17


def test_the_gradient_of_relu6_is_one_strictly_inside():
    slope = jax.vmap(jax.grad(efficientnet.relu6))(jnp.array([-1.0, 0.0, 1e-3, 5.9, 6.0, 7.0]))
    np.testing.assert_array_equal(slope, [0, 0, 1, 1, 0, 0])


def test_the_names_of_the_pypi_package_become_timms():
    path = pathlib.Path(__file__).resolve().parents[3] / "launch" / "efficientnet_lite0_from_pypi.py"
    script = runpy.run_path(str(path))
    conv, norm = ("weight",), ("weight", "bias", "running_mean", "running_var")
    layers = {"_conv_stem": conv, "_bn0": norm, "_conv_head": conv, "_bn1": norm}
    for block in range(16):
        for number, layer in enumerate(("_expand_conv", "_depthwise_conv", "_project_conv")):
            if block or number:
                layers |= {f"_blocks.{block}.{layer}": conv, f"_blocks.{block}._bn{number}": norm}
    names = [script["renamed"](f"{layer}.{tensor}") for layer, tensors in layers.items() for tensor in tensors]
    model = pretrained.model("tf_efficientnet_lite0")
    assert len(names) == len(set(names)) and set(names) == set(
        timm_tensors.timm_shapes(model, pretrained.shapes_of(model, 32))
    )
    assert script["renamed"]("_fc.bias") == "classifier.bias"
