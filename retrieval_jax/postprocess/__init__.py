"""Post-processing of embeddings and rankings: a config lists (name, kwargs) pairs, each a step from State to State.

A step is a module of this folder with `step(state, **kwargs) -> State`, looked up by its name. Steps that change
vectors leave `ranking` None, and search.py searches again; steps that need a ranking reorder the one they are given.
"""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import pkgutil
import types

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.ranking import Ranking


@dataclasses.dataclass(frozen=True)
class State:
    """What post-processing works on.

    Attributes:
      members: (query embeddings, gallery embeddings) of each member of an ensemble; a single model is one member.
      ranking: the current ranking of the single member, or None: not searched yet, or stale.
      names: the members' names, for messages and saved files.
      folder: where a step may save what it fitted, or None.
      rankings: of several members, the last ranking that each had by itself; () where they were not searched.
    """

    members: list[tuple[Embeddings, Embeddings]]
    ranking: Ranking | None = None
    names: tuple[str, ...] = ()
    folder: pathlib.Path | None = None
    rankings: tuple[Ranking, ...] = ()

    def name(self, member: int) -> str:
        """Returns the name of a member, or its number."""
        return self.names[member] if member < len(self.names) else str(member)


def names() -> list[str]:
    """Returns the names of the steps that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> types.ModuleType:
    """Returns the step's module, with its `step(state, **kwargs)`.

    Raises:
      InputError: no step of that name; the message lists those that exist.
    """
    if name not in names():
        raise InputError(f"no post-processing step {name!r} in search.steps: there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
