"""Whether one run or stage is better than another on their queries, or that is noise: the verdict of `compare`."""

from __future__ import annotations

import threading
from collections.abc import Callable

from retrieval_jax.data import fields, loading
from retrieval_jax.errors import InputError, RunFailed
from retrieval_jax.scoring import comparing, metrics
from retrieval_jax.scoring.ranking import Ranking, Truth
from retrieval_jax.server import gallery, networks
from retrieval_jax.server.messages import Verdict
from retrieval_jax.server.runs import Run
from retrieval_jax.workdir import sides

SCORE = comparing.METRICS[0]


class Verdicts:
    """The verdicts of a service, computed when they are first asked for and kept until a gallery or ranking changes.

    Args:
      log: called with a dict where two runs cannot be compared.
    """

    def __init__(self, log: Callable[[dict], None] = lambda _: None):
        self._log, self._lock = log, threading.Lock()
        self._kept: dict[tuple, tuple[tuple, Verdict]] = {}

    def get(self, run: Run, stage: str, against: Run, against_stage: str) -> Verdict:
        """Returns the verdict on two rankings.

        Args:
          run: the run that is judged; the difference is its score minus the other's.
          stage: of its search.
          against: the run that it is compared with, whose catalogue has the truth.
          against_stage: of its search.

        Returns:
          The `Verdict`, without numbers where the two cannot be compared; its sentence says why.
        """
        key = run.name, stage, against.name, against_stage
        signature = tuple(gallery.signature(one.folder, one.config) for one in (run, against))
        with self._lock:  # one at a time: each takes all the processor time that it gets
            if key not in self._kept or self._kept[key][0] != signature:
                self._kept[key] = signature, self._compared(*key, run, against)
            return self._kept[key][1]

    def _compared(self, name, stage, other, other_stage, run: Run, against: Run) -> Verdict:
        named = {"run": name, "stage": stage, "against": other, "against_stage": other_stage}
        try:
            if why := _obstacle(run, stage) or _obstacle(against, other_stage):
                return Verdict(**named, sentence=why)
            catalog = loading.load(against.config["data"])
            if catalog.truth is None:
                return Verdict(**named, sentence=f"The catalogue of {other} has no ground truth to compare with.")
            for one, at in ((run, stage), (against, other_stage)):
                if not _is_of(one, at, catalog.truth):
                    why = f"{one.name} searched other queries or another gallery than the catalogue of {other} has now"
                    return Verdict(**named, sentence=f"{why}: only runs of one catalogue can be compared.")
            asked = comparing.queries_of(catalog, against.config, fields.read, names=(SCORE,))
            found = comparing.compare(
                [run.folder], [against.folder], **asked, stage=_ranking(stage), old_stage=_ranking(other_stage)
            )
        except (InputError, RunFailed) as error:  # whose sentence may name folders of this machine
            self._log({"event": "comparison failed", "run": name, "against": other, "problem": str(error)})
            return Verdict(**named, sentence="The two cannot be compared: the log of the service says why.")
        row = found["scores"][SCORE]
        difference, low, high = (round(100 * row[part], 4) for part in ("difference", "low", "high"))
        short = f"{SCORE} {difference:+.1f} points (95 % {low:+.1f} to {high:+.1f})"
        numbers = {"difference": difference, "low": low, "high": high, "p": row["p"], "noise": found["noise"]}
        return Verdict(
            **named,
            score=SCORE,
            **numbers,
            queries=row["num_scored"],
            sentence=f"{short}, within noise" if found["noise"] else short,
            explanation=found["verdict"],
        )


def _ranking(stage: str) -> str:
    return f"{sides.MODEL}/{stage}"


def _obstacle(run: Run, stage: str) -> str:
    """Returns why a run has no ranking to compare, "" if it has one."""
    if networks.is_exported(run.folder):
        return f"{run.name} is an exported model, which has no rankings to compare."
    if not (run.folder / "rankings" / sides.MODEL / stage).is_dir():
        return f"{run.name} has no ranking of the stage {stage!r} to compare: run `retrieval-jax search` first."
    return ""


def _is_of(run: Run, stage: str, truth: Truth) -> bool:
    """Returns whether a ranking is of the queries and the gallery of a truth."""
    ranking = Ranking.load(run.folder / "rankings" / sides.MODEL / stage)
    try:
        metrics.check(ranking, truth)
    except InputError:
        return False
    return True
