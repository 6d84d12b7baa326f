"""The stages of a finished search, for queries that were not in it: its whitening and re-ranking, as they were fitted.

The steps are those of the config, since rankings.json lists only the stages that were ranked; of these, the ones whose
steps work on one query alone apply to a new query: whitening is read as `search` saved it, re-ranking reorders the
first results. A stage that needs the other queries, or other runs, is left out, and so are those after it. Whoever
searches for something new asks here: the service (`of_run`), `export`, which writes them down, and an exported model,
which has them from there (`of_export`).
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import documents
from retrieval_jax.postprocess import State, reranking, walk
from retrieval_jax.postprocess.choosing import FILE as CHOSEN_FILE
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.postprocess.walk import FIRST
from retrieval_jax.postprocess.whitening import STEPS, Whitening
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.workdir import settings, sides

DEPTH = 100  # results that re-ranking reorders
JOINED = "ensemble"  # the model of stages that join several, in rankings.json
_REMEDY = "run search again"


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One way of searching a gallery.

    Attributes:
      name: of the stage, such as "whitening".
      whitening: applied to both sides; None for the embeddings as they are.
      l2_first: whether vectors are scaled to length 1 before the whitening, as those that it was fitted on.
      reranking: arguments of the step that reorders the first results; None for no such step.
      steps: (name, kwargs) pairs that lead to it from the embeddings.
    """

    name: str
    whitening: Whitening | None = None
    l2_first: bool = False
    reranking: dict | None = None
    steps: tuple[tuple[str, dict], ...] = ()

    def vectors(self, raw: np.ndarray | Embeddings, side: str) -> np.ndarray:
        """Returns unit vectors [n, D] float32 of this stage.

        Args:
          raw: [n, D] as the network gives them; of the gallery as `Embeddings`, whose space is checked.
          side: "query" or "gallery".
        """
        if self.whitening is not None:
            if self.l2_first:
                raw = raw.map(normalize) if isinstance(raw, Embeddings) else normalize(raw)
            raw = self.whitening.apply(raw, side)
        block = raw.block(0, len(raw)) if isinstance(raw, Embeddings) else raw
        return normalize(np.asarray(block, np.float32))

    def rerank(self, query: np.ndarray, gallery: Embeddings, found: Ranking) -> Ranking:
        """Returns the ranking of one query with its first results reordered, the others after them.

        Args:
          query: [D].
          gallery: unit vectors of this stage.
          found: its ranking by cosine.
        """
        depth = int(min(DEPTH, (found.item_rows[0] >= 0).sum()))
        if self.reranking is None or depth < 2:
            return found
        kwargs = {**self.reranking, "depth": depth}
        head = dataclasses.replace(found, item_rows=found.item_rows[:, :depth], scores=found.scores[:, :depth])
        state = State([(Embeddings([found.query_ids[0]], query[None]), gallery)], head)
        order = reranking.step(state, **kwargs).ranking.item_rows
        rows = np.concatenate([order, found.item_rows[:, depth:]], 1)
        cosine = dict(zip(found.item_rows[0].tolist(), found.scores[0].tolist(), strict=True))
        scores = np.array([[cosine[row] for row in rows[0].tolist()]], np.float32)
        return dataclasses.replace(found, item_rows=rows, scores=scores)


class _Made(TypedDict):
    """An entry of rankings.json."""

    model: str
    stage: str
    step: str | None
    kwargs: dict


class _Rankings(TypedDict):
    """rankings.json."""

    stages: list[_Made]


class _Chosen(TypedDict):
    """What is read of chosen_steps.json."""

    steps: list[tuple[str, dict]]
    why: str


@dataclasses.dataclass(frozen=True)
class Taken:
    """A step of the config as it was taken.

    Attributes:
      stage: that it leads to.
      steps: (name, kwargs) pairs: the step itself, or those that "chosen" stands for.
    """

    stage: str
    steps: tuple[tuple[str, dict], ...]


def taken(folder: pathlib.Path, config: Mapping) -> tuple[list[Taken], str]:
    """Returns the steps of a search, with those that were chosen, and why they were; "" where nothing was chosen.

    Args:
      folder: the work directory.
      config: its whole config.

    Raises:
      InputError: steps that do not exist, or were to be chosen and were not.
    """
    found, why = [], ""
    for step in walk.parse(settings.plain((config.get("search") or {}).get("steps") or ())):
        steps: Sequence = [(str(step.name), step.kwargs)]
        if step.name == walk.CHOSEN:
            chosen = documents.read(folder / "rankings" / sides.MODEL / CHOSEN_FILE, _Chosen, remedy=_REMEDY)
            steps, why = chosen["steps"], chosen["why"]
        found.append(Taken(step.stage, tuple((name, dict(kwargs)) for name, kwargs in steps)))
    return found, why


def of_run(folder: pathlib.Path, config: Mapping) -> tuple[list[Stage], str]:
    """Returns the stages of "trained" that apply to new queries, in their order, and a sentence on those left out.

    Args:
      folder: the work directory; without rankings, only the plain cosine applies.
      config: its whole config.

    Raises:
      InputError: damaged files.
    """
    file, own = folder / "rankings" / "rankings.json", folder / "rankings" / sides.MODEL
    if not file.exists():
        return [Stage(FIRST.stage)], ""
    made = documents.read(file, _Rankings, remedy=_REMEDY)["stages"]
    ranked = {entry["stage"]: entry for entry in made if entry["model"] in (sides.MODEL, JOINED) and entry["step"]}
    if not ranked:
        return [Stage(FIRST.stage)], ""
    parsed = walk.parse(settings.plain((config.get("search") or {}).get("steps") or ()))
    there, problem = [], ""
    for step, one in zip(parsed, taken(folder, config)[0], strict=True):
        entry = ranked.get(step.stage)
        if entry and (entry["step"], entry["kwargs"]) != (step.name, settings.plain(step.kwargs)):
            problem = _left_out(step.stage, "its step was changed after the search; run search again")
            break
        there.append(one)
    load = functools.cache(lambda: Whitening.load(own / f"whitening_{sides.MODEL}.npz"))
    found, note = _followed(there, ranked, load)
    if not (note or problem) and (gone := set(ranked) - {one.stage for one in there}):
        problem = _left_out(
            min(gone, key=list(ranked).index), "the config has no such stage any more; run search again"
        )
    return found, note or problem


def of_export(search: Mapping, whitening: Whitening | None) -> list[Stage]:
    """Returns the stages that an exported model brings along.

    Args:
      search: its search.json; {} for the plain cosine.
      whitening: of its folder; None without one.
    """
    listed = search.get("stages")
    if listed is None:  # of earlier exports, which had the steps alone
        there = [Taken(name, ((name, dict(kwargs)),)) for name, kwargs in search.get("steps", ())]
        return _followed(there, [one.stage for one in there], lambda: whitening)[0]
    found = [Stage(FIRST.stage)]
    for entry in listed:
        steps = tuple((name, dict(kwargs)) for name, kwargs in entry["steps"])
        made, note = _followed([Taken(entry["stage"], steps)], [entry["stage"]], lambda: whitening)
        found += [] if note else made[1:]
    return found


def _followed(
    there: Sequence[Taken], wanted: Iterable[str], whitening: Callable[[], Whitening | None]
) -> tuple[list[Stage], str]:
    """Returns the stages that steps lead to, as far as they work on one query alone, and a sentence on what is left.

    Args:
      there: the steps, in their order.
      wanted: names of the stages to return, beside the first.
      whitening: returns the fitted one.
    """
    last, wanted = Stage(FIRST.stage), set(wanted)
    found = [last]
    names = [name for one in there for name, _ in one.steps]
    joined = next((place for place, name in enumerate(names) if name in walk.JOINS), len(names))
    again = sum(name in STEPS for name in names[:joined]) > 1
    for one in there:
        for name, kwargs in one.steps:
            after = (
                "it whitens more than once, and only the last whitening was kept" if again and name in STEPS else None
            )
            after = after or _then(last, name, kwargs, whitening)
            if isinstance(after, str):
                left = [later.stage for later in there[there.index(one) :] if later.stage in wanted]
                return found, _left_out(one.stage, after) if left else ""
            last = dataclasses.replace(after, steps=(*last.steps, (name, kwargs)))
        if one.stage in wanted:
            found.append(dataclasses.replace(last, name=one.stage))
    return found, ""


def _then(last: Stage, name: str, kwargs: dict, whitening: Callable[[], Whitening | None]) -> Stage | str:
    """Returns the stage after a step, or why the step does not apply to a new query."""
    if last.reranking is not None and name in (*STEPS, "l2"):  # which drop the ranking, and rank by cosine anew
        return f"its step {name!r} follows re-ranking"
    if name in STEPS:
        fitted = whitening()
        return "its whitening was not kept" if fitted is None else dataclasses.replace(last, whitening=fitted)
    if name == "reranking" and last.reranking is None:
        return dataclasses.replace(last, reranking={**kwargs, "depth": None})
    if name == "l2":
        return dataclasses.replace(last, l2_first=last.l2_first or last.whitening is None)
    if name == "quality":
        return f"its step {name!r} reads prices and other numbers of the listings, which are not served yet"
    if name in walk.JOINS:
        return f"its step {name!r} joins several models, and a new query is embedded by one"
    return f"its step {name!r} does not work on one query alone"


def _left_out(stage: str, why: str) -> str:
    return f"the stage {stage!r} is not served, nor what follows it: {why}"


def named(stages: list[Stage], name: str) -> Stage:
    """Returns a stage by its name, "" for the last one; raises InputError that lists them."""
    for stage in stages:
        if stage.name == name:
            return stage
    if name:
        raise InputError(f"there is no stage {name!r}; there are {', '.join(stage.name for stage in stages)}")
    return stages[-1]
