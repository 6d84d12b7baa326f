"""The stages of a finished search, for queries that were not in it: its whitening and re-ranking, as they were fitted.

The steps are those of the config, since rankings.json lists only the stages that were ranked; of these, the ones whose
steps work on one query alone are served: whitening is read as `search` saved it, re-ranking reorders the first results.
A stage that needs the other queries, or other runs, is left out, and so are those after it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
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
    """

    name: str
    whitening: Whitening | None = None
    l2_first: bool = False
    reranking: dict | None = None

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


def of_run(folder: pathlib.Path, config: Mapping) -> tuple[list[Stage], str]:
    """Returns the stages of "trained" that can be served, in their order, and a sentence on those that are left out.

    Args:
      folder: the work directory; without rankings, the plain cosine is served.
      config: its whole config.

    Raises:
      InputError: damaged files.
    """
    last = Stage(FIRST.stage)
    file, own = folder / "rankings" / "rankings.json", folder / "rankings" / sides.MODEL
    if not file.exists():
        return [last], ""
    made = documents.read(file, _Rankings, remedy=_REMEDY)["stages"]
    ranked = {entry["stage"]: entry for entry in made if entry["model"] in (sides.MODEL, JOINED) and entry["step"]}
    found, whitened = [last], False

    def left_out(stage: str, why: str) -> tuple[list[Stage], str]:
        return found, f"the stage {stage!r} is not served, nor what follows it: {why}" if ranked else ""

    for step in walk.parse((config.get("search") or {}).get("steps") or ()):
        if not ranked:
            break
        entry = ranked.get(step.stage)
        if entry and (entry["step"], entry["kwargs"]) != (step.name, settings.plain(step.kwargs)):
            return left_out(step.stage, "its step was changed after the search; run search again")
        for name, kwargs in _parts(step, own):
            if name in STEPS and (whitened or last.reranking is not None):
                return left_out(step.stage, f"its step {name!r} follows another whitening, or re-ranking")
            if name in STEPS:
                whitening = Whitening.load(own / f"whitening_{sides.MODEL}.npz")
                last, whitened = dataclasses.replace(last, whitening=whitening), True
            elif name == "reranking" and last.reranking is None:
                last = dataclasses.replace(last, reranking={**kwargs, "depth": None})
            elif name == "l2":
                last = dataclasses.replace(last, l2_first=last.l2_first or not whitened)
            else:
                return left_out(step.stage, f"its step {name!r} does not work on one query alone")
        if ranked.pop(step.stage, None):
            found.append(dataclasses.replace(last, name=step.stage))
    if ranked:
        return left_out(next(iter(ranked)), "the config has no such stage any more; run search again")
    return found, ""


def _parts(step: walk.Step, own: pathlib.Path) -> list[tuple[str, dict]]:
    """Returns the steps that a step stands for: itself, or those that were chosen."""
    if step.name != walk.CHOSEN:
        return [(str(step.name), step.kwargs)]
    chosen = documents.read(own / CHOSEN_FILE, _Chosen, remedy=_REMEDY)
    return [(name, dict(kwargs)) for name, kwargs in chosen["steps"]]


def named(stages: list[Stage], name: str) -> Stage:
    """Returns a stage by its name, "" for the last one; raises InputError that lists them."""
    for stage in stages:
        if stage.name == name:
            return stage
    if name:
        raise InputError(f"there is no stage {name!r}; there are {', '.join(stage.name for stage in stages)}")
    return stages[-1]
