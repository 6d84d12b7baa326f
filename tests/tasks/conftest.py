"""A backbone that compiles in no time, for tests that are not about backbones."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from retrieval_jax.models import embedder


class Patches(nn.Module):
    """The mean of embedded 4x4 patches."""

    @nn.compact
    def __call__(self, images, train=False):
        del train
        count, height, width, _ = images.shape
        images = images.reshape(count, height // 4, 4, width // 4, 4, 3).swapaxes(2, 3).reshape(count, -1, 48)
        return {"embedding": nn.gelu(nn.Dense(12)(images.astype(jnp.float32))).mean(axis=1)}


@pytest.fixture
def patches(monkeypatch):
    """Every network is `Patches`."""
    monkeypatch.setattr(embedder, "backbone", lambda *args: embedder.Backbone(Patches(), "patches"))
