"""Evaluations during training, looked up by name: config.train.evaluations = (("retrieval", {}), ("accuracy", {...})).

An evaluation is a module with

    make(task, catalog, *, config, mesh=None, workdir=None, **kwargs) -> Evaluation, or None

    task      the `tasks.Task` under training
    catalog   the `data.catalog.Catalog`
    config    the whole config: how pictures are prepared (`inference.test_arguments`), cache sizes, selection share,
              the two sides of a search
    mesh      devices to compute on, see `inference.predict`
    workdir   the work directory, where the vocabulary of titles lies and beside which other runs lie
    kwargs    arguments of the evaluation itself, from the config

and gives None where the catalogue has no ground truth for it; training then goes on without. An `Evaluation` is called
with parameters and yields (name, value), names such as "retrieval/mar@10". What is not a ranking (accuracy, AUC) is an
evaluation like any other. `evaluate_checkpoints` runs the same ones.
"""

import dataclasses
import sys
import types
from collections.abc import Callable, Iterator

from retrieval_jax import pairs
from retrieval_jax.errors import InputError

_CONTEXT = ("task", "catalog", "config", "mesh", "workdir")
_SETTING = "config.train.evaluations"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of parameters.

    Attributes:
      run: (params, on_batch) -> iterator of (name, value); `on_batch` is called after each batch, see
        `inference.predict`.
      names: names of the scores, in the order they come in.
      of: what the scores are of, for people: "accuracy: 500 of 5,000 val listings"; "" where nothing needs saying.
    """

    run: Callable
    names: tuple[str, ...]
    of: str = ""

    def __call__(self, params, on_batch: Callable | None = None) -> Iterator[tuple[str, float]]:
        return self.run(params, on_batch)


def get(name: str) -> types.ModuleType:
    """Returns the module of an evaluation; raises InputError, listing those there are, for an unknown name."""
    return pairs.module(sys.modules[__name__], name, f"evaluation ({_SETTING})")


def check(evaluations) -> list[tuple[str, dict]]:
    """Returns (name, arguments) of config.train.evaluations; raises InputError for those that do not exist."""
    found = []
    for entry in evaluations:
        name, kwargs = pairs.split(entry, _SETTING, "('retrieval', {})")
        own = [argument for argument in pairs.arguments(get(name).make, 0) if argument not in _CONTEXT]
        pairs.check_arguments(name, kwargs, own, _SETTING, "evaluation")
        found.append((name, kwargs))
    return found


def of_config(config, task, catalog, *, mesh=None, workdir=None) -> list[Evaluation]:
    """Makes the evaluations of config.train.evaluations, without those that the catalogue has no ground truth for.

    Args:
      config, task, catalog, mesh, workdir: see the module.

    Raises:
      InputError: an unknown evaluation or argument, or one that does not fit the catalogue or the task.
    """
    found = []
    for name, kwargs in check(config.train.evaluations):
        found.append(get(name).make(task, catalog, config=config, mesh=mesh, workdir=workdir, **kwargs))
    found = [evaluation for evaluation in found if evaluation is not None]
    names = [name for evaluation in found for name in evaluation.names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{_SETTING}: two evaluations give the score {twice[0]!r}, of which one would be lost")
    return found
