"""What tasks that read text share: their options, the tokenizer of the run, and the tower from tokens to a vector."""

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp

from retrieval_jax import brief, pairs
from retrieval_jax.data import text
from retrieval_jax.errors import InputError
from retrieval_jax.models import text as networks
from retrieval_jax.workdir import layout

# Joined to the OPTIONS of a task that reads text; retrieval_jax.settings.tasks explains each option.
TEXT = {"text_columns": ("title",), "length": 32, "vocabulary": 8000, "tokenizer": "", "weights": ""}


def tokenizer(config, catalog, workdir, tables: Mapping[str, str] = text.QUERIES) -> text.Tokenizer:
    """Returns the tokenizer of a run: that of its work directory, of public weights, of the run that it starts from, or
    one trained on the catalogue.

    Args:
      config: the whole config; of `train.task_kwargs`, the options of TEXT are read.
      catalog: what a new one is trained on; not read where the work directory has one.
      workdir: the work directory, which receives a new one.
      tables: what a new one is trained on beside listings, see `data.text.texts_of`.

    Raises:
      InputError: see `data.text.of_run`.
    """
    options = {**TEXT, **dict(config.train.task_kwargs)}
    if options["weights"] and not options["tokenizer"]:
        from retrieval_jax.models.text import hugging_face  # not everyone needs a reader of weight files

        options["tokenizer"] = hugging_face.tokenizer(options["weights"])
    return text.of_run(options, catalog, workdir, layout.predecessor_folder(config, workdir), tables)


@dataclasses.dataclass(frozen=True)
class Tower:
    """A network of text as plain functions.

    Attributes:
      init: rng -> params.
      apply: (params, tokens [B, L], mask [B, L], train=False, rngs=None) -> {"embedding": [B, D] float32, "states":
        [B, L, H]}.
      warm_start: params -> params with public weights put in; None where the tower starts from scratch.
      name: of the network, for the name of an embedding space.
    """

    init: Callable
    apply: Callable
    warm_start: Callable | None
    name: str

    __repr__ = brief.line


def tower(config, info, options, dim: int | None = None) -> Tower:
    """Builds the tower that a config describes.

    Args:
      config: the train block: `dtype` and `model` {name, variant, kwargs, projection}; with public weights, name and
        variant come from those.
      info: `data.info.DataInfo` with tokens.
      options: the task's, see TEXT; `weights` is a folder with Hugging Face's model, or its repository of the hub.
      dim: dimensions of the embedding, 0 for the network's own width; None for `model.projection`.

    Raises:
      InputError: an unknown network, variant or argument, or tokens of another vocabulary than the weights'.
    """
    model, dtype = config.model, jnp.dtype(config.dtype)
    kwargs = {"dtype": dtype, "dim": model.projection if dim is None else dim, **dict(model.kwargs)}
    if weights := options["weights"]:
        from retrieval_jax.models.text import hugging_face  # not everyone needs a reader of weight files

        place = hugging_face.place(weights)
        module, name = hugging_face.model(*place, **kwargs), weights.rstrip("/").rsplit("/", 1)[-1]
        if module.vocabulary < info.tokens.size:
            raise InputError(
                f"config.train.task_kwargs.weights: {weights} has vectors for {module.vocabulary:,} tokens, and the "
                f"tokenizer has {info.tokens.size:,}: leave config.train.task_kwargs.tokenizer empty"
            )
    else:
        network, place = networks.get(model.name), None
        if model.variant not in network.VARIANTS:
            raise InputError(
                f"config.train.model.variant: {model.name} has no {model.variant!r}"
                f"{pairs.near(model.variant, network.VARIANTS)}"
            )
        known = {field.name for field in dataclasses.fields(network.Model)} - {"parent", "name", "vocabulary"}
        pairs.check_arguments(model.name, kwargs, sorted(known), "config.train.model.kwargs", "network of text")
        sizes = {**network.VARIANTS[model.variant], **kwargs}
        module, name = network.Model(vocabulary=info.tokens.size, **sizes), f"{model.name}-{model.variant}"

    def init(rng):
        return module.init({"params": rng}, jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))["params"]

    def apply(params, tokens, mask, train=False, rngs=None):
        return module.apply({"params": params}, tokens, mask, train=train, rngs=rngs)

    def warm_start(params):
        return {**params, **hugging_face.load(*place, **kwargs)[1]}

    return Tower(init, apply, warm_start if weights else None, name)


def words_tower(config, info, options, dim: int) -> Tower:
    """Builds the tower of words of a task whose `model` is a picture network.

    Args:
      config: the train block.
      info, dim: see `tower`.
      options: the task's, with "words", (name, variant) of the network of text, and "words_kwargs".

    Raises:
      InputError: see `tower`.
    """
    settings = config.copy_and_resolve_references()
    with settings.unlocked():
        settings.model.name, settings.model.variant = options["words"]
        settings.model.kwargs = options["words_kwargs"]
    return tower(settings, info, options, dim)
