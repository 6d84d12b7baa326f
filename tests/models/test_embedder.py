"""Looking up backbones, normalising pictures, heads, and the embedder that joins them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import models
from retrieval_jax.errors import InputError
from retrieval_jax.models import embedder, heads, pixels
from retrieval_jax.models.backbones import convnext

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def small_variant(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "test", ((1, 1, 1, 1), (8, 8, 8, 12)))


def test_backbones_are_found_by_name():
    assert {"convnext", "vit"} <= set(models.names()) and not {"embedder", "heads", "pooling"} & set(models.names())
    for name in models.names():
        assert models.get(name).Model and models.get(name).VARIANTS
    for wrong in ("resnet", "heads", "__init__"):
        with pytest.raises(InputError, match=f"no backbone .*{wrong!r}.*available: .*convnext.*vit"):
            models.get(wrong)


def test_normalize_maps_bytes_to_zero_mean_and_unit_variance():
    expected = (IMAGES / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels.normalize(IMAGES), expected, atol=1e-5)
    assert pixels.normalize(IMAGES, jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize("projection", [0, 5])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_heads_read_the_embedding(projection, dtype):
    both = {"titles": heads.Head(7), "category": heads.Head(4)}
    module = embedder.Embedder(convnext.Model("test", dtype=dtype), both, projection)
    images = pixels.normalize(IMAGES, dtype)
    params = jax.jit(module.init)(jax.random.key(0), images)["params"]
    assert params.keys() == {"backbone", "heads_titles", "heads_category"} | (
        {"projection", "projection_norm"} if projection else set()
    )
    out = jax.jit(module.apply)({"params": params}, images)
    assert out["embedding"].shape == (3, projection or 12) and out["embedding"].dtype == jnp.float32
    for name, num_labels in (("titles", 7), ("category", 4)):
        head = params[f"heads_{name}"]
        assert out["logits"][name].shape == (3, num_labels) and out["logits"][name].dtype == jnp.float32
        np.testing.assert_allclose(out["logits"][name], out["embedding"] @ head["kernel"] + head["bias"], atol=1e-5)


def test_an_embedder_without_heads():
    module = embedder.Embedder(convnext.Model("test"), {})
    out, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), pixels.normalize(IMAGES)))
    assert out["embedding"].shape == (3, 12) and out["logits"] == {}


def test_an_untrained_head_predicts_the_share_of_listings():
    counts = np.array([1, 250, 500, 999])
    bias = heads.sigmoid_prior(counts, 1000)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias.astype(np.float64))), counts / 1000, rtol=1e-5)
    head = heads.Head(4, 1e-6, tuple(bias.tolist()))
    logits, _ = head.init_with_output(jax.random.key(0), jnp.ones((2, 3)))
    np.testing.assert_allclose(jax.nn.sigmoid(logits), np.tile(counts / 1000, (2, 1)), rtol=1e-4)


def test_labels_without_or_with_all_listings_have_a_finite_bias():
    bias = heads.sigmoid_prior(np.array([0, 10]), 10)
    np.testing.assert_allclose(bias, [-np.log(19), np.log(19)], rtol=1e-5)  # clipped by half a listing
    assert np.isfinite(heads.sigmoid_prior(np.array([0]), 0)).all()


def test_an_untrained_softmax_head_predicts_the_share_of_labels():
    counts = np.array([1, 250, 0, 749])
    probabilities = np.exp(heads.softmax_prior(counts).astype(np.float64))
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(probabilities, counts / 1000, atol=1e-3)
    assert probabilities[2] > 0  # a label without listings keeps a finite bias


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_initial_weights_have_the_requested_scale(scale):
    _, variables = heads.Head(2000, scale).init_with_output(jax.random.key(0), jnp.ones((1, 100)))
    np.testing.assert_allclose(variables["params"]["kernel"].std(), scale / 10, rtol=0.02)
    assert not variables["params"]["bias"].any()
