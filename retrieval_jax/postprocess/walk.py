"""The walk over search steps: what config.search.steps says, checked, then applied one after the other.

`search` writes a ranking per stage of the walk; in-training evaluation (`evaluators.stages`) scores the same stages.
The step "chosen" stands for steps that `choosing` chooses when the walk comes to it; they are one stage.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator

from retrieval_jax import pairs, postprocess
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, _trying, choosing
from retrieval_jax.scoring.ranking import Ranking

_SETTING = "config.search.steps"


@dataclasses.dataclass(frozen=True)
class Step:
    """One entry of search.steps.

    Attributes:
      stage: name of the stage, which is also the name of its folder.
      name: name of the step; None for the first stage, which ranks the embeddings as they are.
      kwargs: arguments of the step.
    """

    stage: str
    name: str | None
    kwargs: dict = dataclasses.field(default_factory=dict)


FIRST = Step("cosine", None)
CHOSEN = "chosen"
JOINS = ("ensemble", "fusion")  # steps that turn all members into one
# The steps of models that are not networks, whatever search.steps is; those that are not listed have FIRST alone.
OWN_STEPS = {"colour_and_edges": (FIRST, Step("whitening_by_parts", "whitening_by_parts"))}


def parse(steps: Iterable) -> list[Step]:
    """Checks search.steps before anything is computed.

    Args:
      steps: (name, kwargs) pairs; kwargs may hold stage="..." to name the stage differently from its step.

    Returns:
      The steps, with distinct stage names; `FIRST` is not among them.

    Raises:
      InputError: an unknown step or argument, or a stage name that is taken or cannot be a folder name.
    """
    out, taken = [], {FIRST.stage}
    for entry in steps:
        name, kwargs = pairs.split(entry, _SETTING, "('whitening', {})")
        if name == CHOSEN and out:
            raise InputError(
                f"{_SETTING} has {CHOSEN!r} after {out[-1].name!r}: put it first, because steps are chosen for the "
                "embeddings as they are"
            )
        accepted = [*([] if name == CHOSEN else pairs.arguments(postprocess.get(name).step)), "stage"]
        pairs.check_arguments(name, kwargs, accepted, _SETTING, "step")
        stage = kwargs.pop("stage", name)
        if stage in taken:
            raise InputError(
                f"{_SETTING} makes the stage {stage!r} twice: give one of them another name, "
                f"('{name}', {{'stage': '{stage}_2'}})"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", stage):
            raise InputError(f"{_SETTING} names a stage {stage!r}: a stage is a folder; use letters, digits, - and _")
        taken.add(stage)
        out.append(Step(stage, name, kwargs))
    return out


def chosen(stages: Iterable[str], steps: list[Step]) -> set[str]:
    """Returns the names of the stages to rank.

    Args:
      stages: config.search.stages; empty for all of them.
      steps: from `parse`.

    Raises:
      InputError: a name that no stage has.
    """
    known = [step.stage for step in (FIRST, *steps)]
    for stage in stages:
        if stage not in known:
            raise InputError(f"config.search.stages: there is no stage named {stage!r}{pairs.near(stage, known)}")
    return set(stages or known)


def walk(
    state: State,
    steps: Iterable[Step],
    rank: Callable[[State, str], Ranking],
    stages: Iterable[str],
    choose: Callable[[State], choosing.Steps] = choosing.for_state,
) -> Iterator[tuple[Step, State]]:
    """Applies steps one after the other; yields each step and the state after it.

    Args:
      state: where to start.
      steps: from `parse`, with or without `FIRST`.
      rank: (state, stage) -> Ranking of the single member; called where a stage is to be ranked and its step left no
        ranking.
      stages: names of the stages to rank; the steps of the others are applied without a search.
      choose: what "chosen" stands for, given the state.
    """
    for step in steps:
        if step.name == CHOSEN:
            for number, (name, kwargs) in enumerate(choose(state)):
                if name in _trying.NEED_RANKING and state.ranking is None:
                    state = dataclasses.replace(state, ranking=rank(state, f"{step.stage}-{number}"))
                state = postprocess.get(name).step(state, **kwargs)
        elif step.name is not None:
            state = postprocess.get(step.name).step(state, **step.kwargs)
        if step.stage in stages and state.ranking is None:
            state = dataclasses.replace(state, ranking=rank(state, step.stage))
        yield step, state
