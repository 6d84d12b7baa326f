"""The stages of a finished search, for queries that were not in it: its whitening and re-ranking, as they were fitted.

A stage is served as far as its steps work on one query alone: whitening is read as `search` saved it, re-ranking
reorders the first results. A stage that needs the other queries, or other runs, is left out, and so are those after it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TypedDict

import numpy as np

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import documents
from retrieval_jax.postprocess import State, reranking
from retrieval_jax.postprocess.choosing import FILE as CHOSEN_FILE
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.postprocess.walk import CHOSEN, FIRST
from retrieval_jax.postprocess.whitening import Whitening
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.workdir import sides

DEPTH = 100  # results that re-ranking reorders
WHITENINGS = ("whitening", "learned_whitening")
_REMEDY = "run search again"


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One way of searching a gallery.

    Attributes:
      name: of the stage, such as "whitening".
      whitening: applied to both sides; None for the embeddings as they are.
      reranking: arguments of the step that reorders the first results; None for no such step.
    """

    name: str
    whitening: Whitening | None = None
    reranking: dict | None = None

    def vectors(self, raw: np.ndarray | Embeddings, side: str) -> np.ndarray:
        """Returns unit vectors [n, D] float32 of this stage.

        Args:
          raw: [n, D] as the network gives them; of the gallery as `Embeddings`, whose space is checked.
          side: "query" or "gallery".
        """
        if self.whitening is not None:
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


def of_run(folder: pathlib.Path) -> tuple[list[Stage], str]:
    """Returns the stages of "trained" that can be served, in their order, and a sentence on those that are left out.

    Args:
      folder: the work directory; without rankings, the plain cosine is served.

    Raises:
      InputError: damaged files.
    """
    plain = Stage(FIRST.stage)
    file, own = folder / "rankings" / "rankings.json", folder / "rankings" / sides.MODEL
    if not file.exists():
        return [plain], ""
    made = documents.read(file, _Rankings, remedy=_REMEDY)["stages"]
    entries = [entry for entry in made if entry["model"] == sides.MODEL and entry["step"] is not None]
    steps = []  # (stage, name, arguments)
    for entry in entries:
        parts = [(entry["step"], entry["kwargs"])]
        if entry["step"] == CHOSEN:
            chosen = documents.read(own / CHOSEN_FILE, _Chosen, remedy=_REMEDY)
            parts = [(name, dict(kwargs)) for name, kwargs in chosen["steps"]]
        steps.append((entry["stage"], parts))
    whitenings = sum(name in WHITENINGS for _, parts in steps for name, _ in parts)
    found, last = [plain], plain
    for stage, parts in steps:
        for name, kwargs in parts:
            if name in WHITENINGS and whitenings == 1 and last.reranking is None:
                last = dataclasses.replace(last, whitening=Whitening.load(own / f"whitening_{sides.MODEL}.npz"))
            elif name == "reranking" and last.reranking is None:
                last = dataclasses.replace(last, reranking={**kwargs, "depth": None})
            elif name != "l2":
                return found, (
                    f"the stage {stage!r} is not served, nor what follows it: its step {name!r} does not work on one "
                    "query alone"
                )
        last = dataclasses.replace(last, name=stage)
        found.append(last)
    return found, ""


def named(stages: list[Stage], name: str) -> Stage:
    """Returns a stage by its name, "" for the last one; raises InputError that lists them."""
    for stage in stages:
        if stage.name == name:
            return stage
    if name:
        raise InputError(f"there is no stage {name!r}; there are {', '.join(stage.name for stage in stages)}")
    return stages[-1]
