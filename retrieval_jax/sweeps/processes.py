"""Runs commands as processes, several at a time, each with a log and accelerators of its own."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from retrieval_jax import output
from retrieval_jax.errors import InputError

_POLL = 0.1  # seconds
SAVING = 600.0  # seconds that runs have to save when the sweep is stopped
_PACKAGE = str(pathlib.Path(__file__).resolve().parents[2])  # the folder that retrieval_jax is imported from
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclasses.dataclass(frozen=True)
class Job:
    """A command and the file that receives what it prints."""

    name: str
    command: tuple[str, ...]
    log: pathlib.Path


def shares(parallel: int, environment: Mapping[str, str], devices: str = "/dev") -> list[dict[str, str]]:
    """Deals out the GPUs of this machine: what each of several processes gets in its environment.

    JAX takes nearly all memory of every GPU that it sees, so two processes never share one. The GPUs are those in
    CUDA_VISIBLE_DEVICES, without it all of NVIDIA's that the machine has, and none where JAX_PLATFORMS is cpu.

    Args:
      parallel: number of processes at a time.
      environment: that of this process.
      devices: folder with the files of the GPUs.

    Returns:
      {name: value} of each.

    Raises:
      InputError: there are fewer GPUs than processes.
    """
    if parallel == 1 or environment.get("JAX_PLATFORMS") == "cpu":
        return [{}] * parallel
    if VISIBLE in environment:
        visible = [one for one in environment[VISIBLE].split(",") if one.strip() not in ("", "-1")]
        where = f"{VISIBLE}={environment[VISIBLE]} lists fewer GPUs: give one for each"
    else:
        visible = [str(place) for place in range(len(list(pathlib.Path(devices).glob("nvidia[0-9]*"))))]
        where = f"this machine has fewer GPUs ({len(visible)}): give --parallel={len(visible)} or JAX_PLATFORMS=cpu"
    if not visible:
        return [{}] * parallel
    if len(visible) < parallel:
        raise InputError(f"--parallel={parallel}: {where}")
    return [{VISIBLE: ",".join(visible[place::parallel])} for place in range(parallel)]


def run(jobs: Sequence[Job], own: Sequence[Mapping[str, str]], ended: Callable[[Job, int, float], None]) -> None:
    """Runs commands until all have ended; where this process is stopped, they get SIGTERM and save what they can.

    Args:
      jobs: the commands, in the order to start them.
      own: further environment of each place; there are as many processes at a time.
      ended: called with a job, its exit status and its seconds when it ends.
    """
    waiting, free = collections.deque(jobs), list(range(len(own)))
    running: dict[int, tuple[Job, subprocess.Popen, float]] = {}
    try:
        while waiting or running:
            while waiting and free:
                place = free.pop(0)
                running[place] = waiting[0], _started(waiting[0], own[place]), time.monotonic()
                waiting.popleft()
            time.sleep(_POLL)
            for place, (job, process, start) in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[place]
                    free.append(place)
                    ended(job, status, time.monotonic() - start)
    except BaseException:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.wait()
        raise


def _started(job: Job, own: Mapping[str, str]) -> subprocess.Popen:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    # The same package as this process: PYTHONSAFEPATH, which the command line sets, hides the current folder.
    path = os.pathsep.join(filter(None, [_PACKAGE, os.environ.get("PYTHONPATH")]))
    with job.log.open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, **own},
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes SIGTERM on: trainings then save
        )


def last_line(log: pathlib.Path) -> str:
    """Returns the last non-empty line of a log, "" for an empty log."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 8192))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return output.visible(next((line.strip() for line in reversed(lines) if line.strip()), ""))
