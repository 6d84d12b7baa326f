"""Chooses search steps without labels of the queries' products: the step "chosen" of config.search.steps.

What helps on one catalogue hurts on another, so each candidate is tried on stand-ins for the queries, whose right
answers are known without a label:

    titles     train listings search train listings; those with agreeing titles and categories are right. Where queries
               look unlike the gallery, train listings that look like queries search those that look like the gallery.
    altered    altered gallery pictures search the gallery; their originals are right.

and on the real queries by a statistic: how unevenly the results are spread over the gallery (hubs: listings that many
queries find, mostly wrongly). A candidate is accepted if it beats the plain cosine on the stand-ins by more than their
noise, by a paired bootstrap, and makes no more hubs on the real queries. Otherwise the plain cosine stays. Stand-ins
that cannot be had are left out, and the table says so.

Hubs: Radovanovic et al., "Hubs in Space" (JMLR 2010), the skewness of k-occurrences. docs/choosing_steps.md has what
was measured, and what did not help.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from retrieval_jax import postprocess
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.evidence import Evidence
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.errors import InputError, first_line
from retrieval_jax.files import atomic, documents
from retrieval_jax.index import exact
from retrieval_jax.postprocess import State, whitening
from retrieval_jax.postprocess.stand_ins import LEAST_QUERIES, MOST_GALLERY, MOST_QUERIES, Trial, trials
from retrieval_jax.scoring import bootstrap

FILE = "chosen_steps.json"
DEPTH = 10  # results that stand-ins are judged by, as in MAR@10
DRAWS = 1000  # bootstrap draws of a comparison

NEED_RANKING = ("query_expansion", "reranking", "global_reranking", "diffusion")
HUBS_MORE = 0.3  # how much more hubs a candidate may make, as a share of those it is compared with

Steps = tuple[tuple[str, dict], ...]


def _whitening(centre: str, fit_on: str, power: float, relative_ridge: float = 0.0) -> Steps:
    kwargs = {"power": power, "centre": centre, "fit_on": fit_on, "relative_ridge": relative_ridge}
    return (("whitening", kwargs),)


# From mild to strong, so that of equals the milder one is taken.
WHITENINGS = tuple(
    _whitening(centre, fit_on, power, ridge)
    for power, ridge in ((0.1, 0.0), (0.25, 0.0), (0.5, 0.01), (0.5, 0.0))
    for centre, fit_on in (("common", "gallery"), ("own", "gallery"), ("own", "both"), ("own", "queries"))
)
NEIGHBOURS: tuple[Steps, ...] = (
    (("query_expansion", {"depth": 3, "alpha": 3.0}),),
    (("database_augmentation", {"depth": 3, "alpha": 3.0}),),
    (("reranking", {}),),
    (("diffusion", {}),),
)


class _Row(TypedDict):
    """One candidate of the table; means are None where a stand-in is missing."""

    steps: list[list[Any]]
    means: dict[str, float | None]
    differences: dict[str, list[float] | None]
    hubs: float | None
    verdict: str


class Choice(TypedDict):
    """What was chosen, and why; the content of chosen_steps.json."""

    steps: list[list[Any]]
    why: str
    notes: list[str]
    rows: list[_Row]
    queries: NotRequired[int]


# ------------------------------------------------------------------------------------------------------ measures


def apply(steps: Steps, queries: Embeddings, gallery: Embeddings, known: dict | None = None) -> np.ndarray:
    """Returns the rows found for each query, [Q, DEPTH], as the steps and an exact search find them.

    Args:
      steps: (name, kwargs) pairs.
      queries, gallery: the two sides.
      known: fits to reuse, see `whitening.fit_sides`.
    """
    k = min(100, len(gallery))
    state = State([(queries, gallery)])
    for name, kwargs in steps:
        if name == "whitening":
            fitted = whitening.fit_sides(*state.members[0], known=known, **kwargs)
            state = dataclasses.replace(state, members=[whitening.apply_to_member(state, 0, fitted)], ranking=None)
            continue
        if name in NEED_RANKING and state.ranking is None:
            state = dataclasses.replace(state, ranking=exact.Index(state.members[0][1]).search(state.members[0][0], k))
        state = postprocess.get(name).step(state, **kwargs)
    if state.ranking is None:
        searched, gallery = state.members[0]
        return exact.Index(gallery).search(searched, min(DEPTH, len(gallery))).item_rows
    return state.ranking.item_rows[:, :DEPTH]


def recalls(rows: np.ndarray, right: Sequence[np.ndarray]) -> np.ndarray:
    """Returns each query's share of the right listings among the first DEPTH, at most DEPTH counted, [n]."""
    return np.array(
        [np.isin(found, wanted).sum() / min(DEPTH, len(wanted)) for found, wanted in zip(rows, right, strict=False)]
    )


def hubness(rows: np.ndarray, count: int) -> float:
    """Returns the skewness of how often each of `count` gallery listings is found."""
    often = np.bincount(rows[rows >= 0].ravel(), minlength=count).astype(np.float64)
    spread = often.std()
    return float((((often - often.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0


# ------------------------------------------------------------------------------------------------------ the choice


def choose_steps(
    queries: Embeddings, gallery: Embeddings, evidence: Evidence | None = None, k: int | None = None
) -> Choice:
    """Chooses the steps of a search between two sides; deterministic.

    Args:
      queries, gallery: embeddings of one space.
      evidence: what the stand-ins are made of; None for nothing, which leaves the plain cosine.
      k: results per query of the search; with fewer than DEPTH, steps that go by the results are not tried.

    Returns:
      The `Choice`: steps () for the plain cosine, why, and the table of what was tried.
    """
    stand_ins, notes = trials(queries, gallery, evidence or Evidence())
    if not stand_ins:
        return _plain([], [*notes, "nothing can be tried without stand-ins for the queries"])
    sides = queries.take(spread(len(queries), MOST_QUERIES)), gallery.take(spread(len(gallery), MOST_GALLERY))
    real = Trial("queries", *sides, ())
    tried: list[_Tried] = []

    def attempt(steps: Steps, over: _Tried | None) -> _Tried:
        scores = {one.name: recalls(apply(steps, one.queries, one.gallery, one.known), one.right) for one in stand_ins}
        hubs = hubness(apply(steps, real.queries, real.gallery, real.known), len(real.gallery))
        tried.append(_Tried(steps, scores, hubs, over))
        return tried[-1]

    plain = attempt((), None)
    best, candidates = plain, WHITENINGS
    if len(queries) < LEAST_QUERIES:
        candidates = tuple(one for one in WHITENINGS if one[0][1]["centre"] == "common")
        notes.append(f"own centres are not tried with fewer than {LEAST_QUERIES} queries, here {len(queries)}")
    for group in (candidates, NEIGHBOURS if k is None or k >= DEPTH else ()):
        base = best
        for steps in group:
            try:
                one = attempt((*base.steps, *steps), base)
            except InputError as error:  # such as too few rows: the plain cosine still works
                notes.append(f"{sentence(steps)} cannot be tried: {first_line(error)}")
                continue
            if one.accepted and one.main > best.main:
                best = one
    if best is plain:
        return _plain([one.row(False) for one in tried], notes)
    gain = best.compared(plain)[stand_ins[0].name]
    why = (
        f"{sentence(best.steps)}: {100 * gain[0]:+.1f} points over the plain cosine on {stand_ins[0].name} (95 %: "
        f"{100 * gain[1]:+.1f} to {100 * gain[2]:+.1f}), and no more hubs among what the real queries find"
    )
    rows = [one.row(one is best) for one in tried]
    return Choice(steps=_listed(best.steps), why=why, notes=notes, rows=rows, queries=len(queries))


@dataclasses.dataclass
class _Tried:
    """One candidate: its scores per stand-in query, its hubs on the real queries, and what it has to beat."""

    steps: Steps
    scores: dict[str, np.ndarray]
    hubs: float
    over: _Tried | None

    @property
    def main(self) -> float:
        """The mean over the first stand-ins, which decide."""
        return float(next(iter(self.scores.values())).mean())

    def compared(self, other: _Tried) -> dict[str, list[float]]:
        """Returns difference, low and high per stand-in."""
        out = {}
        for name, scores in self.scores.items():
            found = bootstrap.paired_bootstrap(other.scores[name], scores, draws=DRAWS)
            out[name] = [float(found[key]) for key in ("difference", "low", "high")]
        return out

    @functools.cached_property
    def changes(self) -> dict[str, list[float]]:
        """Its difference, low and high against what it has to beat, per stand-in; {} for the plain cosine."""
        return {} if self.over is None else self.compared(self.over)

    @functools.cached_property
    def reasons(self) -> list[str]:
        """Why it is not accepted; [] if it is."""
        if self.over is None:
            return []
        (first, gain), *others = self.changes.items()
        found = [] if gain[1] > 0 else [f"no gain on {first} beyond noise"]
        found += [f"loses on {name}" for name, change in others if change[2] < 0]
        most = self.over.hubs + HUBS_MORE * max(1.0, abs(self.over.hubs))
        return found + ([] if self.hubs <= most else [f"more hubs ({self.hubs:.1f} against {self.over.hubs:.1f})"])

    @property
    def accepted(self) -> bool:
        """Whether it may be chosen."""
        return not self.reasons

    def row(self, chosen: bool) -> _Row:
        """Returns its row of the table."""
        verdict = "chosen" if chosen else "the plain cosine" if self.over is None else "; ".join(self.reasons)
        return _Row(
            steps=_listed(self.steps),
            means={name: float(scores.mean()) for name, scores in self.scores.items()},
            differences=self.changes,
            hubs=self.hubs,
            verdict=verdict or "accepted, another gains more",
        )


def _plain(rows: list[_Row], notes: list[str]) -> Choice:
    why = "the plain cosine: " + ("no candidate was accepted" if rows else notes[-1])
    return Choice(steps=[], why=why, notes=notes, rows=rows)


def _listed(steps: Steps) -> list[list[Any]]:
    return [[name, dict(kwargs)] for name, kwargs in steps]


def sentence(steps: Sequence[Sequence]) -> str:
    """Returns steps in words: "whitening (power 0.25, own centres, queries)"."""
    out = []
    for name, kwargs in steps:
        said = [
            f"{key.replace('_', ' ')} {value}" if not isinstance(value, str) else f"{key.replace('_', ' ')}: {value}"
            for key, value in kwargs.items()
            if value != 0.0 or key == "power"
        ]
        out.append(name.replace("_", " ") + (f" ({', '.join(said)})" if said else ""))
    return ", then ".join(out) or "plain cosine"


def table(choice: Choice) -> list[list[str]]:
    """Returns the table of what was tried: a header, then a row per candidate; scores in percent."""
    names = list(choice["rows"][0]["means"]) if choice["rows"] else []
    out = [["steps", *names, "hubs", "verdict"]]
    for row in choice["rows"]:
        scores = [f"{100 * row['means'][name]:.1f}" for name in names]
        out.append([sentence(row["steps"]), *scores, f"{row['hubs']:.1f}", row["verdict"]])
    return out


def for_state(state: State) -> Steps:
    """Chooses the steps of a state's one member, prints the table, and saves the choice in the state's folder.

    Args:
      state: with one member; its evidence may be missing.

    Returns:
      (name, kwargs) pairs; () for the plain cosine.

    Raises:
      InputError: several members.
    """
    if len(state.members) != 1:
        raise InputError(f"steps are chosen for one model at a time, and the state has {len(state.members)} members")
    k = None if state.ranking is None else state.ranking.item_rows.shape[1]
    choice = choose_steps(*state.members[0], state.evidence_of(0), k)
    show(state.name(0), choice)
    if state.folder is not None:
        save(state.folder, choice)
    return steps_of(choice)


def steps_of(choice: Choice | None) -> Steps:
    """Returns the chosen steps as (name, kwargs) pairs; () for the plain cosine or no choice."""
    return () if choice is None else tuple((name, dict(kwargs)) for name, kwargs in choice["steps"])


def show(name: str, choice: Choice) -> None:
    """Prints what was tried, what was chosen, and why.

    Args:
      name: of the model.
      choice: from `choose_steps`.
    """
    lines = table(choice)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines if choice["rows"] else ():
        cells = [text.rjust(width) for text, width in zip(line[1:-1], widths[1:-1], strict=True)]
        print(f"search: {'  '.join([line[0].ljust(widths[0]), *cells, line[-1]])}")
    for note in choice["notes"]:
        print(f"search: {note}")
    print(f"search: {name}: chosen steps: {choice['why']}")


def save(folder: pathlib.Path, choice: Choice) -> None:
    """Writes chosen_steps.json into a folder."""
    atomic.write_json(folder / FILE, dict(choice))


def load(folder: pathlib.Path) -> Choice | None:
    """Returns the choice that `save` wrote into a folder, or None.

    Raises:
      InputError: the file is damaged, or has steps that do not exist.
    """
    file = folder / FILE
    if not file.exists():
        return None
    choice = documents.read(file, Choice, remedy="run search again")
    for step in choice["steps"]:
        if len(step) != 2 or not isinstance(step[0], str) or not isinstance(step[1], dict):
            raise InputError(f"{file}: steps must be pairs of a name and its arguments: run search again")
    return choice
