"""Tasks: one file = one training problem, found by name; `make(config, data_info)` returns a Task."""

import dataclasses
import importlib
import pkgutil
import types
from collections.abc import Callable

from retrieval_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Task:
    """A training problem, as plain functions.

    Attributes:
      init: (rng, batch) -> params.
      loss_fn: (params, batch, *, rng, step, ema, train) -> (loss, {name: scalar}).
      predict_fns: {name: (params, batch) -> dict}; "embed_image" returns {"embedding": [B, D]}, "attributes" returns
        {"probabilities": [B, V]}, "embed_title" {"embedding": [B, D]} of batch["label_ids"] and ["label_mask"].
      space: name of the embedding space; only embeddings of one space may be compared.
      warm_start: params -> params with pretrained weights put in, numpy arrays; None without such. Called once, on the
        host, after `init`.
      compares: the setting that makes a loss compare the rows of a batch with each other, so that a batch cannot be
        worked on in parts; "" without such. Losses of a part divide by the counts of batch["_whole"].
    """

    init: Callable
    loss_fn: Callable
    predict_fns: dict[str, Callable]
    space: str
    warm_start: Callable | None = None
    compares: str = ""


def get(name: str) -> types.ModuleType:
    """Returns the module of a task; raises InputError, listing what exists, for an unknown name."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "parts")
    if name not in names:
        raise InputError(f"unknown task {name!r}; there are: {', '.join(names)}")
    return importlib.import_module(f"{__name__}.{name}")
