"""Guards for long runs: non-finite values, hangs, lost processes, checkpoints of another run."""

import collections
import contextlib
import faulthandler
import json
import os
import pathlib
import sys
import threading
import time
import traceback

import jax
import jax.numpy as jnp
import optax

from retrieval_jax import errors, workdir
from retrieval_jax.errors import InputError, RunFailed
from retrieval_jax.files import remote

_DATA = str(pathlib.Path(__file__).parents[1] / "data") + os.sep
_ROWS_IN_MESSAGE = 12


# ----------------------------------------------------------------------------------------------------- the same run


def same_run(folder, old: dict, new: dict) -> None:
    """Refuses to resume from a checkpoint of other settings or of another vocabulary.

    Settings that change no number may differ (`workdir.FREE`), as may those that only one of the two knows.

    Args:
      folder: of the checkpoints.
      old: meta of the checkpoint: vocabulary_hash, num_steps and config, the train block.
      new: the same of this run.

    Raises:
      InputError: with what differs, one line per setting.
    """
    if old["vocabulary_hash"] != new["vocabulary_hash"]:
        raise InputError(
            f"{folder} was trained with another vocabulary than {folder.parent}/attributes now holds: give "
            "another --workdir, or restore the old attributes"
        )
    changed = [
        line
        for line in workdir.changes(*(workdir.without_free("train", each["config"]) for each in (old, new)), "train")
        if "(absent)" not in line
    ]
    if not changed and old["num_steps"] != new["num_steps"]:
        changed = [f"steps of the whole run: {old['num_steps']} -> {new['num_steps']}, so the catalogue has changed"]
    if changed:
        raise InputError(
            f"{folder} was trained with other settings:\n"
            + "".join(f"  {line}\n" for line in changed)
            + "Resume with the old ones, or give another --workdir."
        )


# -------------------------------------------------------------------------------------------------- non-finite values


class NonFinite(RunFailed):
    """The loss or the gradients were not finite."""


def keep_finite(before, after, loss, gradients, skip: bool):
    """Checks inside the compiled step whether loss and gradients are finite.

    Args:
      before: train state before the step.
      after: train state after it.
      loss: scalar.
      gradients: pytree of arrays.
      skip: whether a non-finite step leaves parameters, moving average and optimiser state unchanged; it is counted
        all the same, so that the next step sees the next batch.

    Returns:
      (state, {"gradient_norm": scalar, "finite": bool scalar}).
    """
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    if skip:
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
        after = {**kept, "step": after["step"]}
    return after, {"gradient_norm": norm, "finite": finite}


def non_finite(workdir, step: int, values: dict, ids: list, skip: bool) -> None:
    """Reports a step whose loss or gradients were not finite, with its batch; raises unless the step was skipped.

    All ids are appended to <workdir>/non_finite.jsonl; each of several processes writes a file of its own.

    Args:
      workdir: the run's folder.
      step: the step.
      values: loss and gradient_norm.
      ids: of the listings in this process's part of the batch.
      skip: whether the step was skipped and the run continues.

    Raises:
      NonFinite: the step was not skipped.
    """
    part = f"_process{jax.process_index()}" if jax.process_count() > 1 else ""
    file = pathlib.Path(workdir) / f"non_finite{part}.jsonl"
    numbers = {name: str(values[name]) for name in ("loss", "gradient_norm")}
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": step, **numbers, "ids": ids}) + "\n")
    shown = ", ".join(map(str, ids[:_ROWS_IN_MESSAGE])) + (", ..." if len(ids) > _ROWS_IN_MESSAGE else "")
    what = (
        f"the loss is {values['loss']:.4g} and the norm of the gradients {values['gradient_norm']:.4g} at step "
        f"{step}, on the listings {shown} (all in {file})"
    )
    if not skip:
        raise NonFinite(
            f"{what}: lower config.train.learning_rate, look at these listings, or set "
            "config.train.non_finite=skip; earlier checkpoints are intact"
        )
    print(f"train: {what}: the step is skipped", flush=True)


# ------------------------------------------------------------------------------------------------------------- waiting


class Watch:
    """Tracks what the loop is waiting for, warns about long waits, and ends a process that hangs."""

    def __init__(self, hang_seconds: float = 0.0, warn_seconds: float = 30.0):
        """Starts the thread that watches; use it as a context.

        Args:
          hang_seconds: length of one wait after which the process prints the stack of every thread and exits with
            status 1, because one process that hangs keeps all the others of a run waiting. 0 for never.
          warn_seconds: length of a wait before the first warning; the next one comes after twice as long.
        """
        self.seconds = collections.Counter()  # by stage
        self._hang, self._warn = hang_seconds, warn_seconds
        self._now, self._warned, self._end = ("start", time.monotonic()), warn_seconds, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="watch")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    @contextlib.contextmanager
    def stage(self, name: str):
        """Counts the seconds of a stage: "input", "device", "checkpoint" or "evaluation"."""
        before, start = self._now[0], time.monotonic()
        self._now = name, start
        try:
            yield
        finally:
            now = time.monotonic()
            self.seconds[name] += now - start
            self._now = ("work" if before == "start" else before), now

    def alive(self) -> None:
        """Restarts the clock of the current stage: one more batch of an evaluation is done."""
        self._now = self._now[0], time.monotonic()

    def _look(self):
        since = None
        while not self._end.wait(min(1.0, self._warn / 4)):
            (name, start), now = self._now, time.monotonic()
            if start != since:
                since, self._warned = start, self._warn
            waited = now - start
            if self._hang and waited >= self._hang:
                faulthandler.dump_traceback(all_threads=True)
                leave(
                    f"error: nothing has happened for {waited:.0f} s, waiting for {_waits_for(name)}: this process "
                    "gives up (config.train.hang_seconds); start again to resume from the last checkpoint"
                )
            if waited >= self._warned:
                self._warned = 2 * waited
                print(f"train: has waited {waited:.0f} s for {_waits_for(name)}", file=sys.stderr, flush=True)


def _waits_for(stage: str) -> str:
    if stage == "input":
        places = collections.Counter(filter(None, map(_reads, sys._current_frames().values())))
        threads = ", ".join(f"{count} at {place}" for place, count in places.most_common(4))
        return "the input: its threads are " + (threads or "idle, or in worker processes")
    several = jax.process_count() > 1
    return {
        "device": "the device to finish a step" + (", or another process to join it" if several else ""),
        "checkpoint": "the checkpoint to be written" + (" by all processes" if several else ""),
        "compiler": "the compiler",
        "start": "the catalogue to be read and the model to be built on the devices",
        "work": "its own work between two steps: the machine is overloaded, out of memory, or was suspended",
    }.get(stage, stage)


def _reads(frame) -> str | None:
    """Returns where a thread is in the code that reads data ("data/sources.py:91 decode"), or None."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_DATA):
            return f"data/{code.co_filename[len(_DATA) :]}:{frame.f_lineno} {code.co_name}"
        frame = frame.f_back
    return None


# -------------------------------------------------------------------------------------------------- several processes


def leave_the_others(error: Exception, step: int) -> None:
    """Ends this process, one of several, after an error that the others do not have; with one process, returns.

    Nothing is cleaned up: a save in progress, for example, would wait for the other processes. They notice that this
    one is gone.

    Args:
      error: raised by a step, a copy, a picture or a save.
      step: the last one that was dispatched.
    """
    if jax.process_count() == 1 or isinstance(error, NonFinite):  # all processes see that one at the same step
        return
    if isinstance(error, jax.errors.JaxRuntimeError):
        lines = str(error).strip().splitlines() or [""]
        leave(
            f"error: step {step} did not finish ({lines[0][:200]}): most likely another process of the run is gone, "
            "see its log; start all of them again to resume from the last checkpoint"
        )
    explained = errors.explain(error)
    if explained is None:
        traceback.print_exception(error)
    leave(*explained or (f"error: {type(error).__name__} at step {step}, see above", 1))


def leave(sentence: str, status: int = 1) -> None:
    """Exits at once, without waiting for the other processes as an orderly exit would."""
    print(sentence, file=sys.stderr, flush=True)
    sys.stdout.flush()
    remote.push_before_the_end()
    if jax.process_index() == 0:
        time.sleep(1.0)  # the others lose their coordinator with this process: let them report first
    os._exit(status)
