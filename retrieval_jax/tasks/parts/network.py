"""A backbone with heads, as plain functions of parameters and pictures."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from retrieval_jax.errors import InputError
from retrieval_jax.models import embedder, pixels


@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with heads, as plain functions of parameters and bytes.

    Attributes:
      init: (rng, batch) -> params.
      apply: (params, images [B, H, W, 3], **kwargs of the module) -> {"embedding": [B, D], "logits": {head: ...}}. For
        a super-net, params may hold beside the weights a "choice", the small network to be.
      warm_start: params -> params with pretrained weights put in; None where the network starts from scratch.
      space: name of the embedding space.
      sampled: of a super-net, (seed, step) -> the choices [n, ...] that a training step learns; None for any other.
    """

    init: Callable
    apply: Callable
    warm_start: Callable | None
    space: str
    sampled: Callable | None = None

    def embed_image(self, params, batch):
        """The predict function of every task."""
        return {"embedding": self.apply(params, batch["image"])["embedding"]}


def network(config, module_heads: dict) -> Network:
    """Builds the network that a config describes.

    Args:
      config: the train block: `task`, `dtype`, `model` {name, variant, projection, kwargs, pretrained}.
      module_heads: {name: module from embedding to logits}.

    Raises:
      InputError: unknown model, variant or argument.
    """
    dtype, model = jnp.dtype(config.dtype), config.model
    pretrained = model.get("pretrained")
    backbone = embedder.backbone(model.name, model.variant, dtype, dict(model.kwargs), pretrained and dict(pretrained))
    module = embedder.Embedder(backbone.module, module_heads, model.projection)

    def normalize(images):
        return pixels.normalize(images, dtype, backbone.mean, backbone.std)

    def init(rng, batch):
        return module.init({"params": rng}, normalize(batch["image"][:1]))["params"]

    def apply(params, images, **kwargs):
        weights = dict(params)
        if "choice" in weights:
            kwargs["choice"] = weights.pop("choice")
        return module.apply({"params": weights}, normalize(images), **kwargs)

    def warm_start(params):
        loaded, fresh = backbone.load(), params["backbone"]
        if jax.tree.map(jnp.shape, loaded) != jax.tree.map(jnp.shape, fresh):
            raise InputError(
                f"the weights of {backbone.name} do not fit the network: config.train.model.kwargs and "
                "pretrained.kwargs (img_size among them) must describe the network that config.data."
                "image_size is for"
            )
        return {**params, "backbone": loaded}

    sampled = getattr(backbone.module, "sampled", None)
    return Network(init, apply, warm_start if backbone.load else None, f"{config.task}:{backbone.name}", sampled)
