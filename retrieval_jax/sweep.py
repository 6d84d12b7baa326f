"""Runs an experiment over ranges of settings and seeds, and compares every line of the sweep with the first.

    retrieval-jax sweep --config=quickstart --ranges=rates.toml --parallel=2

Each run is a process of its own with a work directory of its own below --out. Finished runs are skipped, and a run
that was stopped resumes as `run` does. The table goes to table.json, table.csv and table.md there.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("sweep")

import dataclasses
import functools
import importlib
import os
import pathlib
import shlex
import subprocess
import sys

from retrieval_jax import paths, workdir
from retrieval_jax.data import fields, loading
from retrieval_jax.errors import InputError, Preempted, RunFailed
from retrieval_jax.files import atomic, lock
from retrieval_jax.scoring import comparing
from retrieval_jax.sweeps import processes, ranges, table
from retrieval_jax.workdir import config_files, preflight, stopping

_SLURM = pathlib.Path(__file__).resolve().parents[1] / "launch" / "slurm.sbatch"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      line: number of its line.
      seed: its seed, or "config" for that of the config.
      words: command line of `run`, without the work directory.
      config: the settings.
      folder: the work directory.
    """

    line: int
    seed: int | str
    words: tuple[str, ...]
    config: object
    folder: pathlib.Path

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def command(self) -> tuple[str, ...]:
        return (*self.words, f"--workdir={self.folder}")


def plan(sweep: ranges.Sweep, words: list[str], out: pathlib.Path) -> list[Run]:
    """Returns the runs of a sweep; every setting is checked, and nothing is written.

    Args:
      sweep: lines and seeds.
      words: the config and overrides of all lines, see `command_line.read`.
      out: folder of the sweep.

    Raises:
      InputError: a setting that the config does not have, or a value that it cannot have.
    """
    runs = []
    for number, line in enumerate(sweep.lines):
        for seed in sweep.seeds or ("config",):
            first = f"--config={line.settings['config']}" if "config" in line.settings else words[0]
            own = {**line.settings, **({ranges.SEED: seed} if sweep.seeds else {})}
            each = (first, *words[1:], *ranges.words(own))
            folder = out / line.name / ("config" if seed == "config" else f"seed={seed}")
            runs.append(Run(number, seed, each, _config(line.name, each), folder))
    return runs


def _config(line: str, words: tuple[str, ...]):
    """Returns the settings of a run's command line."""
    from retrieval_jax.__main__ import parse  # it knows this verb by name alone

    try:
        return parse(["run", *words]).config
    except InputError as error:
        raise InputError(f"line {line}: {error}") from error


def check(runs: list[Run]) -> None:
    """Checks the first run of every line as `run` does before it starts.

    Args:
      runs: those that are not finished.

    Raises:
      InputError: what would stop a line; of all lines at once.
    """
    first = {run.line: run for run in reversed(runs)}
    for run in runs:
        workdir.prepare(run.config, run.folder)
    checks = []
    for run in first.values():
        data = workdir.Data(run.config, run.folder)
        for one in preflight.due(
            run.config, run.folder, data, lambda verb: importlib.import_module(f"retrieval_jax.{verb}")
        ):
            checks.append(functools.partial(_named, run.folder.parent.name, one))
    preflight.together(checks)


def _named(line, one):
    try:
        return one()
    except InputError as error:
        raise InputError(f"line {line}: {error}") from error


def finished(run: Run) -> bool:
    """Returns whether every verb of a run is complete and unchanged.

    Raises:
      InputError: its training cannot be continued, because what it read was edited since.
    """
    if not (run.folder / "stages").exists():
        return False
    data = workdir.Data(run.config, run.folder)
    return all(workdir.reason_to_run(run.config, run.folder, verb, data) is None for verb in workdir.verbs(run.config))


def sort(runs: list[Run]) -> tuple[list[Run], list[InputError]]:
    """Returns the finished runs, and what stops others from being continued, such as data edited since training.

    Args:
      runs: all runs of a sweep.
    """
    done, problems = [], []
    for run in runs:
        try:
            if _named(run.folder.parent.name, functools.partial(finished, run)):
                done.append(run)
        except InputError as error:
            problems.append(error)
    return done, problems


def _raise(error: Exception) -> None:
    raise error


# ------------------------------------------------------------------------------------------------------------- running


def execute(runs: list[Run], out: pathlib.Path, own: list[dict[str, str]]) -> str:
    """Runs what is not finished as processes; where one fails, the others run nevertheless.

    Args:
      runs: the runs to do.
      out: folder of the sweep.
      own: environment of each place, see `processes.shares`.

    Returns:
      A sentence about the runs that failed, "" if none did.
    """
    program, failed = (sys.executable, "-m", "retrieval_jax.run"), []
    jobs = [
        processes.Job(run.name, (*program, *run.command), out / "logs" / f"{run.name.replace('/', '-')}.log")
        for run in runs
    ]
    count = 0

    def ended(job, status, seconds):
        nonlocal count
        count += 1
        if status:
            failed.append(job.name)
        words = {0: "done", Preempted.REQUEUE: "stopped"}.get(status, f"failed with status {status}")
        text = f": {processes.last_line(job.log)} ({job.log})" if status else ""
        print(f"sweep: {count} of {len(jobs)}: {job.name}: {words} after {seconds:.1f} s{text}", flush=True)

    with stopping.allowing(processes.SAVING):
        processes.run(jobs, own, ended)
    if not failed:
        return ""
    return (
        f"{len(failed)} of {len(jobs)} runs did not finish: {', '.join(failed)}. Their logs are in {out / 'logs'}; the "
        "same command tries these runs again, and no others"
    )


def submitted(runs: list[Run], all_runs: list[Run], out: pathlib.Path, options: str, parallel: int | None) -> list[str]:
    """Returns the sbatch command that runs each run as a job of an array.

    Args:
      runs: the runs to do; `array/<number>` below `out` holds the command line of each.
      all_runs: all runs of the sweep, whose places are the jobs' numbers.
      out: folder of the sweep.
      options: further options of sbatch, as in a shell.
      parallel: jobs at a time; None for any.

    Raises:
      InputError: the package was installed without launch/.
    """
    if not _SLURM.exists():
        raise InputError("--slurm needs launch/slurm.sbatch, which only a checkout has: clone the repository")
    numbers = ",".join(str(all_runs.index(run)) for run in runs)
    limit = f"%{parallel}" if parallel else ""
    return [
        "sbatch",
        f"--array={numbers}{limit}",
        *shlex.split(options),
        f"--export=ALL,RETRIEVAL_JAX_CHECKOUT={_SLURM.parents[1]}",
        str(_SLURM),
        f"--arguments={out / 'array'}",
    ]


def write_table(runs: list[Run], sweep: ranges.Sweep, out: pathlib.Path, given) -> None:
    """Writes and prints the table of the finished runs.

    Args:
      runs: the finished runs.
      sweep: lines and seeds.
      out: folder of the sweep.
      given: options: words, metrics, half, stage.

    Raises:
      InputError: no run is finished, or their catalogue has no ground truth.
    """
    if not runs:
        raise InputError(f"no run of {out} is finished, so there is no table yet")
    config = runs[0].config
    asked = comparing.queries_of(loading.load(config.data), config, fields.read, half=given.half, names=given.metrics)
    folders = [{run.seed: run.folder for run in runs if run.line == number} for number in range(len(sweep.lines))]
    found = table.rows(sweep.lines, folders, asked, given.stage)
    about = {"config": given.words, "half": given.half, "stage": given.stage, "seeds": list(sweep.seeds)}
    table.write(out, found, asked["names"], about)
    table.show(found, asked["names"], given.half)
    missing = len(sweep.lines) * max(1, len(sweep.seeds)) - len(runs)
    print(
        f"sweep: {len(runs)} runs in {out / 'table.md'}, .csv and .json" + f"; {missing} not finished" * bool(missing)
    )


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    if given.parallel is not None and given.parallel < 1:
        raise InputError(f"--parallel={given.parallel}: give a number of runs, 1 or more")
    if given.ranges is None:
        sweep = ranges.parse(config_files.sweep(given.config_file), f"{given.config_file}: sweep()")
    else:
        sweep = ranges.read(given.ranges)
    name = given.words[0].partition("=")[2].partition(":")
    parts = [pathlib.Path(name[0]).stem, name[2], given.ranges.stem if given.ranges else ""]
    default = pathlib.Path("sweeps") / workdir.default_name("-".join(filter(None, parts)))
    if "://" in (given.out or ""):
        raise InputError(f"--out={given.out}: the folder of a sweep is a local one, or on a disk that machines share")
    out = pathlib.Path(os.path.abspath(paths.expanded(given.out or default)))
    with loading.shared():
        runs = plan(sweep, given.words, out)
        done, problems = sort(runs)
        if given.table:
            for problem in problems:
                print(f"sweep: not in the table: {problem}", flush=True)
            return write_table(done, sweep, out, given)
        preflight.together(functools.partial(_raise, problem) for problem in problems)
        due = [run for run in runs if run not in done]
        print(f"sweep: {len(runs)} runs in {len(sweep.lines)} lines, {len(done)} finished: {out}", flush=True)
        check(due)
        own = processes.shares(given.parallel or 1, os.environ)
        command = None if given.slurm is None else submitted(due, runs, out, given.slurm, given.parallel)
        if given.dry_run:
            each = [paths.command("run", *run.command) for run in due] if command is None else []
            print("\n".join([*each, *([shlex.join(command)] if command and due else [])]))
            return None
        out.mkdir(parents=True, exist_ok=True)
        with lock.held(out, "sweep"):
            if command is not None and due:
                return submit(command, due, runs, out)
            failure = execute(due, out, own) if due else ""
            done, _ = sort(runs)
            if done or not failure:
                write_table(done, sweep, out, given)
            if failure:
                raise RunFailed(failure)
            return None


def submit(command, due, runs, out) -> None:
    """Writes the command lines of an array of jobs and submits it."""
    for run in due:
        (out / "array").mkdir(exist_ok=True)
        atomic.write_text(out / "array" / str(runs.index(run)), "".join(f"{word}\n" for word in run.command))
    try:
        status = subprocess.run(command).returncode
    except FileNotFoundError as error:
        raise InputError(
            "--slurm: there is no sbatch on this machine: submit from a login node of the cluster"
        ) from error
    if status:
        raise RunFailed(f"sbatch ended with status {status}: {shlex.join(command)}")
    print("sweep: submitted; the same command with --table in place of --slurm shows what is finished")
