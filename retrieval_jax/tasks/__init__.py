"""Tasks: one file = one training problem, looked up by name.

A task's module has

    OPTIONS                                     the options that config.train.task_kwargs may hold, with their defaults
    examples(config, catalog, workdir)          -> (data.examples.Examples, data.info.DataInfo): what it learns from
    make(config, info)                          -> Task: what it learns, as plain functions
    columns(config, split, workdir)             -> {name: function that makes the column}: what its predict functions
                                                may read of a split; optional, `parts.columns` is the default

`config` is the whole config for `examples` and `columns`, and the train block for `make`.
"""

import dataclasses
import sys
import types
from collections.abc import Callable
from typing import Any

from retrieval_jax import brief, pairs


@dataclasses.dataclass(frozen=True)
class Predict:
    """A function from a batch to arrays, and the columns of the batch that it reads.

    Attributes:
      fn: (params, batch) -> {name: [B, ...]}; "embedding" [B, D] for search; optionally "space", a str.
      reads: names of the columns that it reads; their masks come along.
    """

    fn: Callable
    reads: tuple[str, ...] = ("image",)

    def __post_init__(self):
        if isinstance(self.reads, str):
            raise TypeError(f"reads is a tuple of names, such as ({self.reads!r},)")
        object.__setattr__(self, "reads", tuple(self.reads))

    def __call__(self, params, batch) -> dict:
        return self.fn(params, batch)


@dataclasses.dataclass(frozen=True)
class Task:
    """A training problem, as plain functions.

    Attributes:
      init: (rng, batch) -> params; the batch holds zeros, one row, every column of the examples.
      loss_fn: (params, batch, *, rng, step, ema, constants, train) -> (loss, {name: scalar}). Where a batch is worked
        on in parts, the loss of a part divides by the counts of batch["_whole"].
      predict_fns: {name: Predict}: "embed_image" and "embed_text" return {"embedding": [B, D]}, "attributes" returns
        {"probabilities": [B, V]}.
      space: name of the embedding space; only embeddings of one space may be compared.
      constants: frozen trees, such as a large network that a small one has to fit: they reach the loss, and are in
        neither optimiser, average nor checkpoint.
      warm_start: params -> params with pretrained weights put in, numpy arrays; None without such. Called once, on the
        host, after `init`.
      couples_rows: the setting that makes a loss compare the rows of a batch with each other, so that a batch cannot be
        worked on in parts; "" without such.
      mixes: whether the loss weighs the labels of pictures that are mixed from two (mixup, cutmix).
    """

    init: Callable
    loss_fn: Callable
    predict_fns: dict[str, Predict]
    space: str
    constants: Any = None
    warm_start: Callable | None = None
    couples_rows: str = ""
    mixes: bool = False

    __repr__ = brief.line


def get(name: str) -> types.ModuleType:
    """Returns the module of a task; raises InputError, listing what exists, for an unknown name."""
    package = sys.modules[__name__]
    known = [one for one in pairs.names(package) if one != "parts"]
    return pairs.module(package, name, "task (config.train.task)", known)
