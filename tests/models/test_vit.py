"""ViT: published sizes, and the whole network against NumPy."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from retrieval_jax.errors import InputError
from retrieval_jax.models import vit

# Parameters, in millions, of the published classifiers at 224 px, patches of 16: arXiv 2012.12877, and timm for L.
PUBLISHED = {"tiny": 5.72, "small": 22.05, "base": 86.57, "large": 304.33}


@pytest.fixture(autouse=True)
def small_variant(monkeypatch):
    monkeypatch.setitem(vit.VARIANTS, "test", (2, 12, 3))


def count(variant):
    shapes = jax.eval_shape(vit.Model(variant).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def make(seed=0, size=(24, 16), **kwargs):
    """Returns (model, params, images); the parameters are all non-trivial."""
    images = np.random.default_rng(seed).normal(size=(3, *size, 3)).astype(np.float32)
    model = vit.Model("test", patch_size=8, **kwargs)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))["params"]
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), shapes), images


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def naive(params, images):
    """The network in float64, straight from the paper: patches, positions, pre-norm blocks, norm, average."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    batch, height, width, _ = images.shape
    tokens = [np.einsum("bijc,ijcd->bd", images[:, y:y + 8, x:x + 8], p["stem"]["kernel"]) + p["stem"]["bias"]
              for y in range(0, height, 8) for x in range(0, width, 8)]
    x = np.stack(tokens, 1) + p["positions"].reshape(1, len(tokens), -1)
    for name in ("block0", "block1"):
        block, out = p[name], 0
        y = layer_norm(x, block["norm1"])
        for head in range(3):
            q, k, v = (y @ block["attention"][part]["kernel"][:, head] + block["attention"][part]["bias"][head]
                       for part in ("query", "key", "value"))
            weights = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
            out += weights / weights.sum(-1, keepdims=True) @ v @ block["attention"]["out"]["kernel"][head]
        x = x + out + block["attention"]["out"]["bias"]
        y = layer_norm(x, block["norm2"]) @ block["fc1"]["kernel"] + block["fc1"]["bias"]
        y = 0.5 * y * (1 + np.vectorize(math.erf)(y / np.sqrt(2)))
        x = x + y @ block["fc2"]["kernel"] + block["fc2"]["bias"]
    return layer_norm(x, p["norm"]).mean(1)


def test_the_whole_equals_numpy():
    model, params, images = make()
    embedding = jax.jit(model.apply)({"params": params}, images)["embedding"]
    np.testing.assert_allclose(embedding, naive(params, images), atol=1e-4)


@pytest.mark.parametrize("variant", vit.VARIANTS)
def test_every_variant_gives_one_float32_vector_a_picture(variant):
    model = vit.Model(variant, "map", dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 64, 48, 3))))
    assert out["embedding"].shape == (2, vit.VARIANTS[variant][1]) and out["embedding"].dtype == jnp.float32
    assert variables["params"]["positions"].shape == (1, 4, 3, vit.VARIANTS[variant][1])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_of_published_sizes(variant):
    width = vit.VARIANTS[variant][1]
    class_token = 2 * width  # the token and its position, which ours has not
    assert round((count(variant) + class_token + 1000 * (width + 1)) / 1e6, 2) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", ["base", "large"])
def test_parameters_of_timm(variant):
    theirs = json.loads(reference.path("parity/timm_shapes.json").read_text())[f"vit_{variant}_patch16_224"]["params"]
    total = sum(math.prod(shape) for name, shape in theirs.items() if not name.startswith("head."))
    assert count(variant) == total - math.prod(theirs["cls_token"]) - theirs["pos_embed"][-1]


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
    full, half = (np.asarray(jax.jit(m.apply)({"params": params}, images)["embedding"])
                  for m in (model, make(dtype=jnp.bfloat16)[0]))
    cosine = (full * half).sum(-1) / np.linalg.norm(full, axis=-1) / np.linalg.norm(half, axis=-1)
    assert half.dtype == np.float32 and not np.array_equal(full, half) and (cosine > 0.995).all()


def test_unknown_variant_lists_what_there_is():
    with pytest.raises(InputError, match="'huge'; there are: micro, mini, .*large"):
        jax.eval_shape(vit.Model("huge").init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
