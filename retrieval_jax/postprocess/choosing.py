"""Chooses search steps without labels of the queries' products: the step "chosen" of config.search.steps.

What helps on one catalogue hurts on another, so each candidate is tried on stand-ins for the queries, whose right
answers are known without a label:

    titles     train listings search train listings; those with agreeing titles and categories are right. Where queries
               look unlike the gallery, train listings that look like queries search those that look like the gallery.
    altered    altered gallery pictures search the gallery; their originals are right.

and on the real queries by a statistic: how unevenly the results are spread over the gallery (hubs: listings that many
queries find, mostly wrongly). A candidate is accepted if it beats the plain cosine on the first stand-ins by more than
their noise, by a paired bootstrap, loses on no others, and makes no more hubs on the real queries. Of those that are as
good as the best within noise, the one with fewest hubs is taken. Where the first stand-ins accept no whitening, the
others decide, and the first may object. If none is accepted, the plain cosine stays. Stand-ins
that cannot be had are left out, and the table says so.

Hubs: Radovanovic et al., "Hubs in Space" (JMLR 2010), the skewness of k-occurrences. docs/choosing_steps.md has what
was measured, and what did not help.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.evidence import Evidence
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.errors import InputError, first_line
from retrieval_jax.files import atomic, documents
from retrieval_jax.postprocess import State
from retrieval_jax.postprocess._trying import DEPTH, Steps, apply, hubness, recalls
from retrieval_jax.postprocess.stand_ins import LEAST_QUERIES, MOST_GALLERY, MOST_QUERIES, Trial, trials
from retrieval_jax.scoring import bootstrap

FILE = "chosen_steps.json"
DRAWS = 1000  # bootstrap draws of a comparison

HUBS_MORE = 0.3  # how much more hubs a candidate may make, as a share of those it is compared with


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
    """One candidate of the table; what was not needed to turn it down is missing, and hubs are None."""

    steps: list[list[Any]]
    means: dict[str, float]
    differences: dict[str, list[float]]
    hubs: float | None
    verdict: str


class Choice(TypedDict):
    """What was chosen, and why; the content of chosen_steps.json."""

    steps: list[list[Any]]
    why: str
    notes: list[str]
    rows: list[_Row]
    queries: NotRequired[int]


# ------------------------------------------------------------------------------------------------------ the choice


def choose_steps(
    queries: Embeddings, gallery: Embeddings, evidence: Evidence | None = None, k: int | None = None
) -> Choice:
    """Chooses the steps of a search between two sides; deterministic.

    Every candidate is tried on the first stand-ins. Those that are as good as the best one there, within noise, are
    told apart by their hubs on the real queries: the one with fewest is taken, if it is accepted, else the next. Where
    the first stand-ins accept no whitening, the others decide.

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
    candidates = WHITENINGS
    if len(queries) < LEAST_QUERIES:
        candidates = tuple(one for one in WHITENINGS if one[0][1]["centre"] == "common")
        notes.append(f"own centres are not tried with fewer than {LEAST_QUERIES} queries, here {len(queries)}")
    known: dict = {}
    plain = _Tried(())
    real = real_trial(queries, gallery, stand_ins)
    for trial in (*stand_ins, real):
        plain.measure(trial, known)
    tried, best, decided = [plain], plain, stand_ins[0].name
    for group in (candidates, NEIGHBOURS if k is None or k >= DEPTH else ()):
        found, chosen = _best_of(group, best, stand_ins, real, known, notes)
        if chosen is None and group is candidates and len(stand_ins) > 1:
            # The first cannot tell, so the others decide, and the first may object. Not so for steps by neighbours:
            # an altered picture has one right answer, which they are not made for.
            again, chosen = _best_of(group, best, stand_ins[::-1], real, known, notes)
            if chosen is not None:
                earlier = {sentence(one.steps): one for one in found}
                for one in again:
                    before = earlier.get(sentence(one.steps), one)
                    one.scores, one.changes = before.scores | one.scores, before.changes | one.changes
                found, decided = again, stand_ins[-1].name
        tried += found
        best = chosen or best
    if best is plain:
        return _plain([one.row() for one in tried], notes)
    (gain,) = _intervals(plain.scores[decided], [best.scores[decided]])
    why = (
        f"{sentence(best.steps)}: {100 * gain[0]:+.1f} points over the plain cosine on {decided} (95 %: "
        f"{100 * gain[1]:+.1f} to {100 * gain[2]:+.1f}), and no more hubs among what the real queries find"
    )
    rows = [one.row("chosen" if one is best else "") for one in tried]
    return Choice(steps=_listed(best.steps), why=why, notes=notes, rows=rows, queries=len(queries))


@dataclasses.dataclass(eq=False)
class _Tried:
    """One candidate, and what is known of it.

    Attributes:
      steps: (name, kwargs) pairs.
      over: what it has to beat; None for the plain cosine.
      scores: per stand-ins, of each query.
      changes: difference, low and high against `over`, per stand-ins.
      hubs: on the real queries.
      reasons: why it is not accepted; [] if it is, or if it was not asked.
    """

    steps: Steps
    over: _Tried | None = None
    scores: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    changes: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    hubs: float | None = None
    reasons: list[str] = dataclasses.field(default_factory=list)

    def measure(self, trial: Trial, known: dict) -> None:
        """Tries it on stand-ins, or counts its hubs on the real queries."""
        rows = apply(self.steps, trial.queries, trial.gallery, known, trial.fit_rows)
        if trial.right:
            self.scores[trial.name] = recalls(rows, trial.right)
        else:
            self.hubs = hubness(rows, len(trial.gallery))

    def row(self, verdict: str = "") -> _Row:
        """Returns its row of the table."""
        verdict = verdict or ("the plain cosine" if self.over is None else "; ".join(self.reasons))
        verdict = verdict or ("another gains more" if self.hubs is None else "as good, with more hubs")
        return _Row(
            steps=_listed(self.steps),
            means={name: float(scores.mean()) for name, scores in self.scores.items()},
            differences=dict(self.changes),
            hubs=self.hubs,
            verdict=verdict,
        )


def real_trial(queries: Embeddings, gallery: Embeddings, stand_ins: Sequence[Trial]) -> Trial:
    """Returns some of the real queries and some of the gallery, those that altered pictures search where there are."""
    among = [trial.gallery for trial in stand_ins if trial.name == "altered"]
    some = among[0] if among else gallery.take(spread(len(gallery), MOST_GALLERY))
    return Trial("queries", queries.take(spread(len(queries), MOST_QUERIES)), some, ())


def most_hubs(hubs: float) -> float:
    """Returns the most hubs that a candidate may make, given those of what it has to beat."""
    return hubs + HUBS_MORE * max(1.0, abs(hubs))


def _best_of(group, over: _Tried, stand_ins: Sequence[Trial], real: Trial, known: dict, notes: list[str]):
    """Tries some steps on top of others.

    Returns:
      What was tried, and the accepted one that gains most on the first stand-ins, or None.
    """
    main, *others = stand_ins

    def measured(one: _Tried, trial: Trial) -> bool:
        try:
            one.measure(trial, known)
        except InputError as error:  # such as too few rows: the plain cosine still works
            note = f"{sentence(one.steps[len(over.steps) :])} cannot be tried: {first_line(error)}"
            notes.extend([] if note in notes else [note])
            one.reasons.append(f"cannot be tried on {trial.name}")
            return False
        return True

    def accepted(one: _Tried) -> bool:
        if one.hubs > most_hubs(over.hubs):
            one.reasons.append(f"more hubs ({one.hubs:.1f} against {over.hubs:.1f})")
        for trial in others if not one.reasons else ():
            if measured(one, trial):
                (change,) = _intervals(over.scores[trial.name], [one.scores[trial.name]])
                one.changes[trial.name] = change
                one.reasons += [f"loses on {trial.name}"] if change[2] < 0 else []
        return not one.reasons

    found = [one for steps in group if measured(one := _Tried((*over.steps, *steps), over), main)]
    gains = _intervals(over.scores[main.name], [one.scores[main.name] for one in found])
    for one, gain in zip(found, gains, strict=True):
        one.changes[main.name] = gain
        one.reasons += [f"no gain on {main.name} beyond noise"] if gain[1] <= 0 else []
    left = [one for one in found if not one.reasons]
    while left:
        best = max(left, key=lambda one: one.scores[main.name].mean())
        lost = _intervals(best.scores[main.name], [one.scores[main.name] for one in left])
        near = [one for one, change in zip(left, lost, strict=True) if change[2] >= 0]
        counted = [one for one in near if measured(one, real)]
        for one in sorted(counted, key=lambda one: one.hubs):
            if accepted(one):
                return found, one
        left = [one for one in left if one not in near]
    return found, None


def _intervals(base: np.ndarray, scores: Sequence[np.ndarray]) -> list[list[float]]:
    """Returns difference, low and high (95 %, paired bootstrap over queries) of each of some scores [n] to a base."""
    if not scores:
        return []
    gains = np.stack(scores, 1) - base[:, None]
    low, high = np.percentile(bootstrap.bootstrap_means(gains, DRAWS, 0), (2.5, 97.5), axis=0)
    return np.stack([gains.mean(0), low, high], 1).tolist()


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
        scores = [f"{100 * row['means'][name]:.1f}" if name in row["means"] else "" for name in names]
        hubs = "" if row["hubs"] is None else f"{row['hubs']:.1f}"
        out.append([sentence(row["steps"]), *scores, hubs, row["verdict"]])
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
