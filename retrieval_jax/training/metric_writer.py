"""Writes metrics per step, as JSON lines and for TensorBoard."""

import json
import math
import pathlib
import time
from typing import TypedDict

import tensorboardX

from retrieval_jax.files import atomic, documents


class Line(TypedDict):
    """A line of metrics.jsonl; further keys are numbers or null."""

    step: documents.Count


class MetricWriter:
    """Appends to <workdir>/metrics.jsonl and <workdir>/tensorboard/; only the first process writes.

    A line is {"step": int, "time": seconds since 1970, name: number, ...}; non-finite values are written as null, and
    unknown ones (None) are left out.
    """

    def __init__(self, workdir, *, resume_step=None, enabled=True, trackers=()):
        """Opens the files.

        Args:
          workdir: the run's folder.
          resume_step: step of the restored checkpoint; lines of later steps are removed, because they will be written
            again. None starts an empty file.
          enabled: False on all processes but the first: nothing is written.
          trackers: `trackers.Tracker`s that get the same values; closed with the files.
        """
        self._file = self._board = None
        self._trackers = tuple(trackers)
        if not enabled:
            return
        path = pathlib.Path(workdir) / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        purge = (resume_step or 0) + 1  # an earlier attempt's values of these steps will be written again
        self._board = tensorboardX.SummaryWriter(str(path.parent / "tensorboard"), purge_step=purge)

    def write(self, step, values):
        """Writes the metrics of a step.

        Args:
          step: global step.
          values: {name: scalar or None}, Python, NumPy or JAX.
        """
        if self._file is None:
            return
        step, now = int(step), time.time()
        values = {name: float(value) for name, value in values.items() if value is not None}
        line = {"step": step, "time": round(now, 3)}
        line.update((name, value if math.isfinite(value) else None) for name, value in values.items())
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            if math.isnan(value):
                continue
            self._board.add_scalar(name, value, step, walltime=now)
        for tracker in self._trackers:
            tracker.write(step, values)

    def close(self):
        """Flushes and closes both files."""
        if self._file is not None:
            self._file.close()
            self._board.close()
            self._file = None
            for tracker in self._trackers:
                tracker.close()


def _cut(path, resume_step):
    """Keeps the lines up to a step and drops a last line that a crash left incomplete."""
    if not path.exists():
        return
    kept = []
    if resume_step is not None:
        for values in documents.lines(path, Line):
            if values["step"] <= resume_step:
                kept.append(json.dumps(values) + "\n")
    atomic.write_text(path, "".join(kept))
