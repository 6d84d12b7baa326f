"""Embedder: a backbone, an optional projection, and heads on the embedding."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from retrieval_jax import brief, models, pairs
from retrieval_jax.errors import InputError
from retrieval_jax.models.layers.linear import Dense
from retrieval_jax.models.pixels import MEAN, STD


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone with its name, picture statistics and weights.

    Attributes:
      module: returns {"embedding": [B, width]} for normalised pictures.
      name: name of the architecture, part of the name of the embedding space.
      mean: expected mean of the pictures per channel, in 0..1.
      std: expected standard deviation of the pictures per channel, in 0..1.
      load: () -> pretrained parameters; None to start from scratch.
    """

    module: nn.Module
    name: str
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    load: Callable | None = None

    __repr__ = brief.line


def backbone(name: str, variant: str, dtype: Any, kwargs: Mapping, pretrained: Mapping | None = None) -> Backbone:
    """Builds a backbone, from scratch or with pretrained weights.

    Args:
      name: name of its file in models/backbones; ignored with pretrained weights.
      variant: size; ignored with pretrained weights.
      dtype: type of the computation.
      kwargs: further arguments of the module, such as drop_path.
      pretrained: {"name": timm's name or "" to start from scratch, "path": file or "" for the hub, "offline": bool,
        "kwargs": arguments of timm's constructor such as img_size}, or None.

    Raises:
      InputError: unknown model or argument; the message lists what exists.
    """
    if not pretrained or not pretrained["name"]:
        module = models.get(name).Model
        known = {field.name for field in dataclasses.fields(module)} - {"parent", "name", "variant", "dtype"}
        pairs.check_arguments(name, kwargs, sorted(known), "config.train.model.kwargs", "backbone")
        return Backbone(module(variant=variant, dtype=dtype, **kwargs), f"{name}-{variant}")
    from retrieval_jax.models import pretrained as weights  # imports file readers, needed for pretrained weights only

    timm_name, path = pretrained["name"], pretrained["path"] or None
    arguments = {**pretrained["kwargs"], **kwargs, "dtype": dtype}
    info, module = weights.info(timm_name, path), weights.model(timm_name, path, **arguments)

    def load():
        built, params = weights.load(timm_name, path, offline=pretrained["offline"], **arguments)
        # The hub's config.json is only read together with the weights.
        other = [
            f"{field.name}={getattr(built, field.name)!r}"
            for field in dataclasses.fields(built)
            if field.name not in ("parent", "name") and getattr(built, field.name) != getattr(module, field.name)
        ]
        if other:
            raise InputError(
                f"the config.json of {timm_name} describes a network with {', '.join(other)}; set these in "
                "config.train.model.pretrained.kwargs"
            )
        return params

    return Backbone(module, timm_name, tuple(info.mean), tuple(info.std), load)


class Embedder(nn.Module):
    """Maps pictures to embeddings and the logits of all heads.

    Attributes:
      backbone: module that returns {"embedding": [B, width]}, and "pooled" if heads read a different vector.
      heads: {name: Head}, each applied to the backbone's "pooled" vector, or else to the embedding.
      projection: dimension of the embedding, or 0 for the backbone's own width.
    """

    backbone: nn.Module
    heads: dict[str, nn.Module]
    projection: int = 0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, **further) -> dict[str, Any]:
        """Embeds pictures.

        Args:
          images: [B, H, W, 3], normalised.
          train: whether drop path is active.
          **further: arguments of the backbone alone, such as the choice of a super-net.

        Returns:
          {"embedding": [B, D] float32, "pooled": [B, D'] input of the heads, "logits": {head: [B, V] float32}, "maps":
          those of the backbone [B, h, w, C], () where it has none}.
        """
        out = self.backbone(images, train=train, **further)
        embedding = out["embedding"]
        pooled = out.get("pooled", embedding)
        if self.projection:
            embedding = Dense(self.projection, name="projection")(embedding)
            embedding = pooled = nn.LayerNorm(epsilon=1e-6, name="projection_norm")(embedding)
        logits = {name: head(pooled) for name, head in self.heads.items()}
        return {"embedding": embedding, "pooled": pooled, "logits": logits, "maps": out.get("maps", ())}
