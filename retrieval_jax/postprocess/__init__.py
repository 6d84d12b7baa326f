"""Post-processing of embeddings and rankings: a config lists (name, kwargs) pairs, each a step from State to State.

A step is a module of this folder with `step(state, **kwargs) -> State`, looked up by name. Steps that change vectors
leave `ranking` None, so that the next stage searches again; steps that need a ranking reorder the one they are given.
`walk` checks the steps of a config and applies them; `choosing` chooses them with the help of `stand_ins`;
`fitted_weights` fits an ensemble's weights on labels; `fused` explains fused results; `category_fusion` says which
category a photo shows, with the help of `linear_classifier`. These seven are not steps themselves.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import types
from collections.abc import Mapping

import numpy as np

from retrieval_jax import arguments, brief, pairs
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.evidence import Evidence
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.ranking import Ranking, Truth

_NO_STEPS = ("walk", "choosing", "stand_ins", "fitted_weights", "fused", "category_fusion", "linear_classifier")


@dataclasses.dataclass(frozen=True)
class State:
    """What post-processing works on.

    Attributes:
      members: (query embeddings, gallery embeddings) of each member of an ensemble; a single model is one member.
      ranking: current ranking of the single member; None where it has not been searched yet or the ranking is stale.
      names: names of the members, for messages and saved files.
      folder: where a step may save what it fitted, or None.
      rankings: with several members, the last ranking of each on its own; () where they were not searched.
      evidence: of each member, what steps are chosen by and `fit_on` "train" reads; () for none.
      beside: (name, ranking) of members that have no vectors, such as lexical search; `fusion` joins them.
      judged: the relevant rows of the queries on which choices may be made; the other queries have none there.
      clicked: of the same queries, how likely each listing that was shown is clicked by one who looks at it, as grades.
      listed: numbers of the gallery's listings, {column: float32 [G]}, NaN where unknown.
    """

    members: list[tuple[Embeddings, Embeddings]]
    ranking: Ranking | None = None
    names: tuple[str, ...] = ()
    folder: pathlib.Path | None = None
    rankings: tuple[Ranking, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    beside: tuple[tuple[str, Ranking], ...] = ()
    judged: Truth | None = None
    clicked: Truth | None = None
    listed: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        members = [
            arguments.sequence(member, "members", "State")
            for member in arguments.sequence(self.members, "members", "State")
        ]
        for member in members:
            if len(member) != 2 or not all(isinstance(side, Embeddings) for side in member):
                raise InputError("State: members are pairs (query embeddings, gallery embeddings)")
        if not len(members):
            raise InputError("State: there are no members")
        if self.ranking is not None:
            arguments.instance(self.ranking, Ranking, "ranking", "State")

    __repr__ = brief.line

    def name(self, member: int) -> str:
        """Returns the name of a member, or its number."""
        return self.names[member] if member < len(self.names) else str(member)

    def evidence_of(self, member: int) -> Evidence:
        """Returns the evidence of a member, which is empty if there is nothing to choose by."""
        return self.evidence[member] if member < len(self.evidence) else Evidence()


def names() -> list[str]:
    """Returns the names of the steps."""
    return [name for name in pairs.names(sys.modules[__name__]) if name not in _NO_STEPS]


def get(name: str) -> types.ModuleType:
    """Returns the module of a step, with its `step(state, **kwargs)`.

    Raises:
      InputError: there is no such step; the message lists them.
    """
    return pairs.module(sys.modules[__name__], name, "step (config.search.steps)", names())
