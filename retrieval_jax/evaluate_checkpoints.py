"""Follows a training from another process or machine: scores every new checkpoint, keeps the best, averages the last.

    python -m retrieval_jax.evaluate_checkpoints --workdir=runs/quickstart

Both sets of parameters of a checkpoint are scored, the moving average ("ema") and the raw ones ("params"), by the
evaluations of config.train.evaluations or, with --full, as embed, search and evaluate would. It may start before the
run or after its end, reads the run's folder and writes only to its own:

    <workdir>/checkpoint_scores/metrics.jsonl   one line per checkpoint: {"step", "time", "ema/<score>",
                                                "params/<score>"}
                                tensorboard/    the same numbers
                                best/           a work directory of the best parameters, for export, embed or run
                                soup_uniform/   with --soup=n: the same for the mean of the last n raw parameters
                                soup_greedy/    and of those of the n that help, best first
                                recent/         these n, which the training itself deletes

A checkpoint is scored once, even if this process is killed and restarted: its line is written last.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("evaluate_checkpoints")

import contextlib
import dataclasses
import math
import shutil
import sys
import time

import jax
import ml_collections

from retrieval_jax import evaluators, inference, pairs, tasks
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import stages
from retrieval_jax.files import atomic, documents, lock, remote
from retrieval_jax.files.atomic import replace_folder
from retrieval_jax.training import checkpoints, metric_writer, sharding, soups

WHICH = ("ema", "params")
METRIC = "mar@10_capped"  # the best is chosen by, unless --metric says otherwise; of the last stage


def watch(folder, out=None, *, full=False, metric="", soup=0, once=False, poll_seconds=10.0, idle_seconds=0.0) -> dict:
    """Scores the checkpoints of a run as they come, until its last one.

    Args:
      folder: the run's work directory; if it does not exist yet, it is waited for.
      out: local folder to write to; None for <folder>/checkpoint_scores.
      full: score as embed, search and evaluate do (`evaluators.stages`): all queries of the selection half, the whole
        gallery, test-time views and every stage of search.steps, searched exactly. Otherwise as the training does, so
        that the scores of the moving average equal those in the run's metrics.jsonl.
      metric: the score that the best is chosen by; "" for "retrieval/mar@10_capped", with `full` for
        "<last stage>/mar@10_capped".
      soup: number of the last checkpoints that are averaged at the end; 0 for none.
      once: score the existing checkpoints and return.
      poll_seconds: polling interval in seconds.
      idle_seconds: return after this long without a new checkpoint; 0 to wait for the end of the run.

    Returns:
      {"steps": scored steps, "best": {"step", "which", "score"} or None, "soups": {name: {"members", "score"}}}.

    Raises:
      InputError: the run cannot be scored, `out` holds other scores, or another process writes there.
    """
    folder = workdirs.as_path(folder)
    out = workdirs.as_path(folder / "checkpoint_scores" if out is None else out)
    run, record, unreadable, reported, last = None, None, set(), False, time.monotonic()
    with contextlib.ExitStack() as stack:
        while True:
            try:
                remote.pull(folder)
            except InputError as error:  # the network, or a checkpoint that the training deleted meanwhile
                if run is None or once:
                    raise
                print(f"evaluate_checkpoints: retries in {poll_seconds:g} s: {error}", file=sys.stderr, flush=True)
            finished = run is not None and workdirs.read_record(folder, "train") is not None  # before the look
            run = run or _open(folder, full, metric)
            if run is not None:
                if record is None:
                    out.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(lock.held(out, "evaluate_checkpoints"))
                    record = _Record(out, run)
                    stack.callback(record.writer.close)
                for step, seen in _steps(folder / "checkpoints"):
                    if step in record.scored or (step, seen) in unreadable:
                        continue
                    if _score(run, record, step, soup):
                        last = time.monotonic()
                        remote.try_to_push(folder, below="checkpoint_scores")
                    else:
                        unreadable.add((step, seen))
                if record.scored and max(record.scored) >= record.best()["num_steps"]:
                    break
            if once or finished or (idle_seconds and time.monotonic() - last > idle_seconds):
                break
            if not reported:
                print(
                    f"evaluate_checkpoints: waits for {'checkpoints of ' if run else 'a training in '}{folder}",
                    flush=True,
                )
                reported = True
            time.sleep(poll_seconds)
        if record is None or not record.scored:
            if once or run is None:
                raise InputError(f"{folder} has no checkpoint to score: train first, or leave --once out to wait")
            return {"steps": [], "best": None, "soups": {}}
        averages = _soups(run, record, soup) if soup else {}
        best = {name: record.best()[name] for name in ("step", "which", "score")}
        summary = {"steps": sorted(record.scored), "metric": run.metric, "best": best, "soups": averages}
        atomic.write_json(out / "summary.json", summary)
        remote.push(folder, below="checkpoint_scores")
        print(
            f"evaluate_checkpoints: best {run.metric} {best['score']:.4f}: step {best['step']}, {best['which']}; "
            f"{out / 'best'}",
            flush=True,
        )
        return summary


# ---------------------------------------------------------------------------------------------------------- scoring


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run that is followed: its folder, config, labels, the metric, and (params) -> {name: score}."""

    folder: object
    config: ml_collections.ConfigDict
    data_info: info_lib.DataInfo
    metric: str
    score: object


def _open(folder, full, metric):
    """Returns the `_Run`, or None where it has not begun."""
    if not (folder / "config.json").exists() or not (folder / "checkpoints" / "data_info.json").exists():
        return None
    config = ml_collections.ConfigDict(workdirs.read_config(folder))
    if config.get("train") is None:
        raise InputError(f"{folder} is of an ensemble or of public weights: it has no training to follow")
    info = info_lib.load(folder / "checkpoints" / "data_info.json")
    catalog, where = loading.load(config.data), {"mesh": sharding.make_mesh(), "workdir": folder}
    if full:
        found = [stages.make(inference.make_task(config, info), catalog, config=config, **where)]
    else:
        found = evaluators.of_config(config, tasks.get(config.train.task).make(config.train, info), catalog, **where)
    found = [evaluation for evaluation in found if evaluation is not None]
    if not found:
        raise InputError(f"catalogue {catalog.name} has no ground truth to score checkpoints with")

    def score(params):
        return {name: float(value) for evaluation in found for name, value in evaluation(params)}

    names = [name for evaluation in found for name in evaluation.names]
    metric = metric or next((name for name in reversed(names) if name.endswith(f"/{METRIC}")), names[0])
    if metric not in names:
        raise InputError(f"--metric: there is no score named {metric!r}{pairs.near(metric, names)}")
    return _Run(folder, config, info, metric, score)


def _score(run, record, step, soup):
    """Scores a checkpoint and writes the result; returns False if it cannot be read (any more)."""
    folder = run.folder / "checkpoints"
    try:
        read = {which: checkpoints.load_params(folder, step, which) for which in WHICH}
    except Exception as error:  # whatever orbax raises when files go away or are damaged
        if (folder / str(step)).exists():
            print(
                f"evaluate_checkpoints: step {step} is skipped, it cannot be read "
                f"({(str(error).splitlines() or [type(error).__name__])[0]})",
                flush=True,
            )
        else:
            print(f"evaluate_checkpoints: step {step} was deleted before it was read", flush=True)
        return False
    meta, start = read["ema"][1], time.monotonic()
    info_lib.check_vocabulary(meta, run.folder)
    values = {}
    for which in WHICH:
        values.update((f"{which}/{name}", value) for name, value in run.score(read[which][0]).items())
    best = record.best()
    for which in WHICH:
        score = _number(values[f"{which}/{run.metric}"])
        if best is None or score > best["score"]:
            best = _entry(step, which, score, values, meta)
    if best["step"] == step:
        _keep(run, record.out / "best", read[best["which"]][0], meta, best)
    if soup:
        _save(record.out / "recent", step, read["params"][0], meta, keep=soup)
    record.write(step, values)  # last: a checkpoint with a line is not scored again
    print(
        f"evaluate_checkpoints: step {step}: "
        + ", ".join(f"{which} {values[f'{which}/{run.metric}']:.4f}" for which in WHICH)
        + f" {run.metric}, "
        f"{time.monotonic() - start:.1f} s" + (" (the best so far)" if best["step"] == step else ""),
        flush=True,
    )
    return True


def _number(value):
    return value if value is not None and math.isfinite(value) else -1.0  # non-finite: below all others


def _entry(step, which, score, values, meta, **more):
    return {"step": step, "which": which, "score": score, "values": values, "num_steps": meta["num_steps"], **more}


def _steps(folder):
    """Returns (step, time of its last change) of the checkpoints there are, ascending."""
    found = []
    for step in checkpoints.steps(folder):
        with contextlib.suppress(FileNotFoundError):  # deleted since the listing
            found.append((step, (checkpoints.path_of(folder) / str(step)).stat().mtime))
    return found


# ---------------------------------------------------------------------------------------------------------- soups


def _soups(run, record, count):
    """Averages the last raw parameters, scores and saves the averages; returns {name: {"members", "score"}}."""
    steps = [step for step, _ in _steps(record.out / "recent") if step in record.scored][-count:]
    if len(steps) < 2:
        print(f"evaluate_checkpoints: no soup, {len(steps)} checkpoints to average", flush=True)
        return {}
    best_first = sorted(steps, key=lambda step: (-_number(record.scored[step].get(f"params/{run.metric}")), step))

    def read(step):
        return checkpoints.load_params(record.out / "recent", step, "params")[0]

    def uniform():
        return soups.uniform(read, steps), steps

    def greedy():
        return soups.greedy(read, best_first, lambda params: _number(run.score(params)[run.metric]))

    found = {}
    for name, make in (("soup_uniform", uniform), ("soup_greedy", greedy)):
        file = record.out / name / "score.json"
        entry = atomic.read_json(file) if file.exists() else {}
        if entry.get("candidates") != steps:
            params, members = make()
            meta = checkpoints.meta(record.out / "recent", steps[-1])
            values = {f"{name}/{key}": value for key, value in run.score(params).items()}
            entry = _entry(
                steps[-1],
                "params",
                _number(values[f"{name}/{run.metric}"]),
                values,
                meta,
                members=members,
                candidates=steps,
            )
            _keep(run, record.out / name, params, meta, entry)
            record.write(steps[-1], values)
        found[name] = {"members": entry["members"], "score": entry["score"]}
        print(
            f"evaluate_checkpoints: {name} of steps {', '.join(map(str, entry['members']))}: {entry['score']:.4f} "
            f"{run.metric}",
            flush=True,
        )
    return found


# ---------------------------------------------------------------------------------------------------------- files


class _Record:
    """The results on disk: metrics.jsonl with TensorBoard, and the best parameters.

    Attributes:
      out: the folder.
      scored: {step: its line}.
      writer: `metric_writer.MetricWriter`.
    """

    def __init__(self, out, run):
        self.out, self.scored = out, {}
        _settle(out, "best")
        for values in documents.lines(out / "metrics.jsonl", metric_writer.Line):
            if any(key.startswith("ema/") for key in values):
                self.scored[values["step"]] = values
        best = self.best()
        for values in (*self.scored.values(), *([best["values"]] if best else [])):
            if f"ema/{run.metric}" not in values:
                raise InputError(
                    f"{out} holds other scores than {run.metric}: give another --out, or the options of the first start"
                )
        if best is None:
            self.scored = {}  # somebody deleted the best: start over
        self.writer = metric_writer.MetricWriter(out, resume_step=max(self.scored, default=None))
        if best and best["step"] not in self.scored:  # killed between the two
            self.write(best["step"], best["values"])

    def best(self):
        """Returns best/score.json, or None if nothing was scored."""
        file = self.out / "best" / "score.json"
        return atomic.read_json(file) if file.exists() else None

    def write(self, step, values):
        self.writer.write(step, values)
        if any(key.startswith("ema/") for key in values):
            self.scored[step] = values


def _settle(out, name):
    """Finishes the replacement of a folder that a kill interrupted: a complete one has its score.json."""
    for beside in sorted(out.glob(f".{name}.*")):
        if not (out / name).exists() and (beside / "score.json").exists():
            beside.rename(out / name)
        else:
            shutil.rmtree(beside, ignore_errors=True)


def _save(folder, step, params, meta, keep=1):
    store = checkpoints.Checkpoints(folder, keep=keep)
    try:
        store.save(step, {"params": jax.device_put(params)}, meta)
    finally:
        store.close()


def _keep(run, folder, params, meta, entry):
    """Makes a work directory of these parameters in which mine and train are complete and embed is next."""

    def fill(new):
        for name in ("config.json", *workdirs.OUTPUTS["mine"], "stages/mine.json"):
            source, target = run.folder / name, new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.exists():
                shutil.copyfile(source, target)
        own = {**meta, "run": checkpoints.new_run()}  # these parameters are not the run's own of that step
        _save(new / "checkpoints", entry["step"], params, own)
        info_lib.save(new / "checkpoints" / "data_info.json", run.data_info)
        if (run.folder / "checkpoints" / "batch.json").exists():
            shutil.copyfile(run.folder / "checkpoints" / "batch.json", new / "checkpoints" / "batch.json")
        summary = {"steps": entry["step"], "vocabulary_hash": run.data_info.vocabulary_hash, **entry}
        (new / "stages").mkdir(exist_ok=True)
        workdirs.record(run.config, new, "train", seconds=0.0, cpu_seconds=0.0, summary=summary)
        atomic.write_json(new / "score.json", entry)  # last: it marks the folder as complete

    replace_folder(folder, fill)


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    try:
        watch(
            given.workdir,
            given.out,
            full=given.full,
            metric=given.metric,
            soup=given.soup,
            once=given.once,
            poll_seconds=given.poll_seconds,
            idle_seconds=given.idle_seconds,
        )
    except KeyboardInterrupt:
        print("evaluate_checkpoints: stopped; the same command resumes", file=sys.stderr)
        sys.exit(130)
