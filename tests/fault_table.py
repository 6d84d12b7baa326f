"""Drives real training processes through faults and writes docs/faults.md: the fault, how often tried, what was lost.

    python tests/fault_table.py                    # everything: about an hour on two cores
    python tests/fault_table.py --kills=2 --terms=2 --damages=2 --steps=100     # a quick look, in minutes

Every disturbed run is restarted until it finishes, then compared with an undisturbed one: the loss of every step,
parameters and moving average. On the same topology they have to be equal bit for bit; on another one, where sums are
taken in another order, within RELATIVE. Nothing is mocked: signals are sent, files are altered, the file system really
is full. A row that finds something lost says so, and the script exits with status 1.

Longer than 400 lines: one class drives all the faults and shares their runs; pytest and the script both use it.

Longer than 400 lines: one row of the fault table per function.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RELATIVE = 1e-3  # tolerance of losses on other devices and processes, after hundreds of steps
REQUEUE = 75
PATIENCE = 1800  # seconds without progress after which a run counts as hanging


class Lost(AssertionError):
    """Something was lost."""


def require(condition, message):
    """Raises `Lost` unless the condition holds."""
    if not condition:
        raise Lost(message)


# ------------------------------------------------------------------------------------------------------------ processes


class Run:
    """The processes of one start of a training."""

    def __init__(self, workdir, steps, *, every=10, processes=1, devices=1, prefix=(), heartbeat=30, name=""):
        """Starts them.

        Args:
          workdir: with mined attributes.
          steps: of the whole run.
          every: steps between checkpoints.
          processes: number of processes.
          devices: per process.
          prefix: words before the command line.
          heartbeat: seconds without a heartbeat after which a process counts as dead.
          name: of the log; by default the work directory's.
        """
        self.workdir = pathlib.Path(workdir)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.logs, self.children = [], []
        for rank in range(processes):
            env = {
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "XLA_FLAGS": "--xla_backend_optimization_level=0",
                "OMP_NUM_THREADS": "1",
                "RETRIEVAL_JAX_HEARTBEAT_SECONDS": str(heartbeat),
                "PYTHONPATH": str(ROOT),
            }
            if processes > 1:
                env["RETRIEVAL_JAX_DISTRIBUTED"] = f"127.0.0.1:{port},{processes},{rank}"
            self.logs.append(self.workdir.parent / f"{name or self.workdir.name}-process{rank}.log")
            with self.logs[-1].open("w") as log:
                self.children.append(
                    subprocess.Popen(
                        [
                            *prefix,
                            sys.executable,
                            "-m",
                            "retrieval_jax.train",
                            f"--workdir={workdir}",
                            f"--config={ROOT}/tests/fault_config.py:steps={steps},every={every}",
                        ],
                        env=env,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        cwd=self.workdir.parent,
                    )
                )

    def running(self):
        """Returns whether any process is still running."""
        return any(child.poll() is None for child in self.children)

    def log(self, rank=0):
        """Returns what a process has printed so far."""
        return self.logs[rank].read_text(errors="replace")

    def wait_for(self, condition, seconds=PATIENCE):
        """Waits until a condition holds or a process ends; returns whether it holds."""
        end = time.monotonic() + seconds
        while not condition():
            if any(child.poll() is not None for child in self.children):
                return condition()
            require(time.monotonic() < end, f"{self.workdir}: nothing happened for {seconds} s\n{self.log()[-2000:]}")
            time.sleep(0.02)
        return True

    def sleep(self, seconds):
        """Waits this long, or until a process ends."""
        end = time.monotonic() + seconds
        self.wait_for(lambda: time.monotonic() > end)

    def codes(self, seconds=PATIENCE):
        """Waits for the end of all processes and returns their exit codes."""
        end = time.monotonic() + seconds
        try:
            return [child.wait(max(0.1, end - time.monotonic())) for child in self.children]
        except subprocess.TimeoutExpired:
            self.kill()
            raise Lost(f"{self.workdir}: hangs\n{self.log()[-2000:]}") from None

    def kill(self):
        """Kills all processes, as a power cut would."""
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        for child in self.children:
            child.wait()

    def finish(self):
        """Waits for all processes to exit with status 0."""
        codes = self.codes(2 * PATIENCE)
        require(not any(codes), f"{self.workdir}: exit codes {codes}\n{self.log()[-3000:]}")


def checkpoint_steps(workdir):
    """Returns the steps of the complete checkpoints, ascending."""
    folder = pathlib.Path(workdir) / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def last_step(workdir):
    """Returns the last step whose loss is in metrics.jsonl; 0 if there is none."""
    file = pathlib.Path(workdir) / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return max((int(found[1]) for found in (re.match(r'\{"step": (\d+),', line) for line in lines) if found), default=0)


def resumed_from(log):
    """Returns the step that a start resumed from; None if it started from scratch or never got that far."""
    found = re.search(r"resumes from step (\d+)", log)
    return int(found[1]) if found else None


# -------------------------------------------------------------------------------------------------------- what is equal


def losses(workdir):
    """Returns {step: {name: value}} of a run's metrics.jsonl: losses and retrieval scores."""
    lines = [json.loads(line) for line in (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    found = {}
    for line in lines:
        kept = {name: value for name, value in line.items() if name.endswith("loss") or name.startswith("retrieval/")}
        found.setdefault(line["step"], {}).update(kept)
    return found


def compare(workdir, undisturbed, exact=True):
    """Raises `Lost` unless two runs agree: the losses of every step, the scores, parameters and moving average."""
    from retrieval_jax.training import checkpoints

    ours, theirs = losses(workdir), losses(undisturbed)
    require(list(ours) == list(theirs), f"{workdir}: the log has different steps than {undisturbed}")
    for step, values in theirs.items():
        for name, value in values.items():
            same = ours[step].get(name) == value
            if not exact and name.endswith("loss"):
                same = np.isclose(ours[step].get(name, np.nan), value, rtol=RELATIVE)
            require(
                same or (not exact and name.startswith("retrieval/")),
                f"{workdir}: {name} of step {step} is {ours[step].get(name)}, undisturbed {value}",
            )
    import jax

    for which in ("params", "ema") if exact else ():
        left, right = (
            checkpoints.load_params(pathlib.Path(w) / "checkpoints", which=which) for w in (workdir, undisturbed)
        )
        require(left[2] == right[2], f"{workdir}: the last checkpoint is of step {left[2]}, undisturbed {right[2]}")
        for a, b in zip(jax.tree.leaves(left[0]), jax.tree.leaves(right[0]), strict=True):
            require(a.tobytes() == b.tobytes(), f"{workdir}: {which} differ from the undisturbed run's")


def furthest_apart(workdir, undisturbed):
    """Returns the largest relative difference between the losses of two runs."""
    ours, theirs = losses(workdir), losses(undisturbed)
    return max(abs(ours[step]["loss"] / values["loss"] - 1) for step, values in theirs.items() if "loss" in values)


# ----------------------------------------------------------------------------------------------------------- the faults


class Table:
    """Runs the faults in a folder and collects the rows of the table."""

    def __init__(self, folder, steps, seed=0, say=print):
        """Takes an empty folder; `steps` is the length of the runs."""
        self.folder, self.steps, self.say = pathlib.Path(folder), steps, say
        self.random, self.rows, self.runs, self.number = random.Random(seed), [], [], 0
        self.undisturbed, self.mined = {}, self.folder / "mined"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "retrieval_jax.mine",
                f"--config={ROOT}/tests/fault_config.py:steps={steps}",
                f"--workdir={self.mined}",
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        require(done.returncode == 0, done.stderr)

    def workdir(self):
        """Returns a new work directory with mined attributes."""
        self.number += 1
        folder = self.folder / f"run{self.number}"
        shutil.copytree(self.mined, folder)
        return folder

    def start(self, workdir, **kwargs):
        """Starts a run of the table's length."""
        self.runs.append(Run(workdir, self.steps, **kwargs))
        return self.runs[-1]

    def end(self):
        """Kills whatever is still running."""
        while self.runs:
            self.runs.pop().kill()

    def reference(self, processes=1):
        """Returns the work directory of the undisturbed run with this many processes."""
        if processes not in self.undisturbed:
            folder = self.workdir()
            begin = time.monotonic()
            self.start(folder, processes=processes).finish()
            self.undisturbed[processes] = folder
            self.say(f"undisturbed, processes: {processes}: {time.monotonic() - begin:.0f} s", flush=True)
        return self.undisturbed[processes]

    def add(self, fault, tried, lost):
        """Adds a row."""
        self.rows.append((fault, tried, lost))
        self.say(f"| {fault} | {tried} | {lost} |", flush=True)

    def begun(self, run, more=1):
        """Waits until a start has logged this many steps of its own; returns whether it did before it ended."""
        return run.wait_for(
            lambda: "steps of 24" in run.log() and last_step(run.workdir) >= (resumed_from(run.log()) or 0) + more
        )

    def kill(self, times, processes=2):
        """Kills one process or all of them (kill -9) at random moments from the first instruction to the last."""
        done = again = ended_alone = 0
        runs, workdir = [], None
        start_seconds = 5.0
        while done < times or workdir is not None:
            workdir = workdir or self.workdir()
            run, begin = self.start(workdir, processes=processes), time.monotonic()
            if done >= times:
                run.finish()
            elif self.random.random() < 0.25:  # during startup: reads, restores, compiles
                run.sleep(self.random.random() * start_seconds)
            elif self.begun(run):
                start_seconds = time.monotonic() - begin
                run.sleep(self.random.random() * 4)
            if run.running():
                whole, reached = checkpoint_steps(workdir), last_step(workdir)
                victims = self.random.choice([run.children, run.children[:1], run.children[-1:]])
                for child in victims:
                    child.kill()
                codes = run.codes()  # the others must notice
                require(all(codes), f"{workdir}: a process exited with status 0 without the killed one: {codes}")
                ended_alone += len(victims) < len(codes)
                done += 1
                left = checkpoint_steps(workdir)
                require(not whole or left and left[-1] >= whole[-1], f"{workdir}: checkpoints {whole} are gone")
                again = max(again, reached - (left[-1] if left else 0))
                reported = re.findall(r"^error: .*", "\n".join(map(run.log, range(processes))), re.MULTILINE)
                self.say(
                    f"  kill {done}: step {reached}, checkpoints {left}, exit codes {codes}", *reported, flush=True
                )
            else:
                run.finish()
                runs.append(workdir)
                workdir = None
        for folder in runs:
            require("is damaged" not in (folder.parent / f"{folder.name}-process0.log").read_text(), "damaged")
            compare(folder, self.reference(processes))
        alone = (
            f"; in {ended_alone} of them only one was killed, and the others exited by themselves"
            if processes > 1
            else ""
        )
        self.add(
            f"kill -9 at a random moment, processes: {processes}{alone if processes > 1 else ''}",
            done,
            f"nothing; at most {again} steps since the last checkpoint were recomputed",
        )

    def terminate(self, times, processes=2):
        """Sends SIGTERM to one process or all of them."""
        done, runs, workdir, slowest = 0, [], None, 0.0
        while done < times or workdir is not None:
            workdir = workdir or self.workdir()
            run = self.start(workdir, processes=processes)
            if done < times and self.begun(run, self.random.choice([0, 1, 3, 10])):
                time.sleep(self.random.random())
            if done < times and run.running():
                victims = self.random.choice([run.children, run.children[:1], run.children[-1:]])
                begin = time.monotonic()
                for child in victims:
                    child.send_signal(signal.SIGTERM)
                codes = run.codes()
                if any(codes):  # it may have finished already
                    slowest = max(slowest, time.monotonic() - begin)
                    done += 1
                    require(set(codes) == {REQUEUE}, f"{workdir}: exit codes {codes}\n{run.log()[-2000:]}")
                    stops = {re.search(r"stopped after step (\d+)", run.log(rank))[1] for rank in range(processes)}
                    require(len(stops) == 1, f"{workdir}: the processes stopped at steps {stops}")
                    step = int(stops.pop())
                    require(
                        checkpoint_steps(workdir)[-1:] == [step][:step] and last_step(workdir) == step,
                        f"{workdir}: stopped after {step}, saved {checkpoint_steps(workdir)}",
                    )
                    self.say(f"  SIGTERM {done}: step {step}", flush=True)
                    continue
            run.finish()
            runs.append(workdir)
            workdir = None
        for folder in runs:
            compare(folder, self.reference(processes))
        self.add(
            f"SIGTERM, processes: {processes}",
            done,
            "nothing, not a single step; all processes saved the same step "
            f"and exited with status {REQUEUE}, within {slowest:.1f} s",
        )

    def stopped(self, workdir, at, **kwargs):
        """Runs to about this step and stops by SIGTERM; returns the step that was saved."""
        run = self.start(workdir, **kwargs)
        run.wait_for(lambda: last_step(workdir) >= at)
        run.children[0].send_signal(signal.SIGTERM)
        codes = run.codes()
        require(set(codes) == {REQUEUE}, f"{workdir}: exit codes {codes}\n{run.log()[-2000:]}")
        return checkpoint_steps(workdir)[-1]

    def alter(self, workdir, flip):
        """Flips a bit in a random file of the newest checkpoint, or truncates it; returns the file's name."""
        newest = workdir / "checkpoints" / str(checkpoint_steps(workdir)[-1])
        file = self.random.choice(sorted(f for f in newest.rglob("*") if f.is_file() and f.stat().st_size))
        content = bytearray(file.read_bytes())
        place = self.random.randrange(len(content))
        if flip:
            content[place] ^= 1 << self.random.randrange(8)
        else:
            del content[place:]
        file.write_bytes(content)
        return file.relative_to(newest).as_posix()

    def damage(self, times):
        """Truncates a file of the newest checkpoint, or flips a bit in it."""
        half = self.workdir()
        self.stopped(half, self.steps // 2)
        steps = checkpoint_steps(half)
        for number in range(times):
            workdir = self.folder / f"damaged{number}"
            shutil.copytree(half, workdir)
            file = self.alter(workdir, flip=bool(number % 2))
            run = self.start(workdir)
            run.finish()
            require(
                "is damaged" in run.log() and resumed_from(run.log()) == steps[-2],
                f"{workdir}: {file} was altered, and it was not noticed\n{run.log()[-2000:]}",
            )
            require((workdir / "checkpoints" / f"damaged-{steps[-1]}").exists(), "the damaged one is not kept")
            compare(workdir, self.reference())
            self.say(f"  damaged {number + 1}: {file}", flush=True)
        self.add(
            "newest checkpoint truncated, or a bit in it flipped",
            times,
            f"nothing; reported, set aside, and resumed from the one before, {steps[-1] - steps[-2]} steps earlier",
        )

    def full_disk(self):
        """Fills the disk of the checkpoints during a run, then frees it."""
        workdir = self.workdir()
        checkpoints = workdir / "checkpoints"
        checkpoints.mkdir()
        with contextlib.ExitStack() as stack:
            words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(checkpoints)]
            mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
            if mounted:
                stack.callback(subprocess.run, ["umount", str(checkpoints)], check=False)
                stack.callback(self.end)  # first: a mount in use cannot be unmounted
                run = self.start(workdir)
                run.wait_for(lambda: len(checkpoint_steps(workdir)) > 1)
                with (checkpoints / "filler").open("wb", buffering=0) as filler:
                    while run.running():  # also the space that deleted checkpoints free
                        try:
                            filler.write(b"0" * 4096)
                        except OSError:
                            time.sleep(0.005)
                how = "file system full"
            else:  # without permission to mount: a limit on the size of files
                run = self.start(workdir, prefix=("bash", "-c", 'ulimit -f 2; exec "$@"', "bash"))
                how = "file size limit reached"
            codes = run.codes()
            require(codes == [1] and "could not be written" in run.log(), f"{codes}\n{run.log()[-3000:]}")
            require("Traceback" not in run.log(), f"a stack trace instead of a sentence\n{run.log()[-3000:]}")
            (checkpoints / "filler").unlink(missing_ok=True)
            whole = checkpoint_steps(workdir)
            run = self.start(workdir)
            run.finish()
            require(not whole or resumed_from(run.log()) == whole[-1], f"resumed from {resumed_from(run.log())}")
            compare(workdir, self.reference())
        self.add(
            f"{how} during a save",
            1,
            "nothing; exited with status 1 and one sentence, resumed from the last checkpoint once there was space",
        )

    def gone_and_read_only(self):
        """Takes the checkpoints away during a run, or makes the work directory read-only."""
        workdir = self.workdir()
        run = self.start(workdir)
        run.wait_for(lambda: checkpoint_steps(workdir))
        (workdir / "checkpoints").rename(workdir / "elsewhere")
        codes = run.codes()
        require(codes == [1] and "Traceback" not in run.log(), f"{codes}\n{run.log()[-3000:]}")
        shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
        (workdir / "elsewhere").rename(workdir / "checkpoints")
        self.start(workdir).finish()
        compare(workdir, self.reference())
        self.add(
            "folder of the checkpoints vanished and came back", 1, "nothing; exited with status 1 and one sentence"
        )

        workdir = self.workdir()
        self.stopped(workdir, 12)
        mounts = (["mount", "--bind", str(workdir), str(workdir)], ["mount", "-o", "remount,bind,ro", str(workdir)])
        if any(subprocess.run(words, capture_output=True, check=False).returncode for words in mounts):
            self.say("  no permission to mount: read-only was not tried", flush=True)
            return
        try:
            run = self.start(workdir)
            codes = run.codes()
        finally:
            subprocess.run(["umount", str(workdir)], check=False)
        require(codes in ([1], [2]) and "Traceback" not in run.log(), f"{codes}\n{run.log()[-3000:]}")
        self.start(workdir).finish()
        compare(workdir, self.reference())
        self.add("work directory read-only", 1, f"nothing; exited with status {codes[0]} and one sentence")

    def second_run(self):
        """Starts a second run in the same work directory."""
        workdir = self.workdir()
        run = self.start(workdir)
        self.begun(run)
        second = self.start(workdir, name="second")
        codes = second.codes()
        run.finish()
        require(codes == [2] and "is in use by" in second.log(), f"the second run ended with {codes}\n{second.log()}")
        compare(workdir, self.reference())
        self.add(
            "second run in the same work directory",
            1,
            "nothing; the second one reports who holds it and exits with status 2",
        )

    def topologies(self, kind, counts):
        """Resumes the run with other numbers of devices or processes."""
        workdir = self.workdir()
        for number, count in enumerate(counts):
            if number < len(counts) - 1:
                step = self.stopped(workdir, (number + 1) * self.steps // len(counts), **{kind: count})
            else:
                run = self.start(workdir, **{kind: count})
                run.finish()
                require(resumed_from(run.log()) == step, f"{workdir}: did not resume from {step}")
        compare(workdir, self.reference(), exact=False)
        self.add(
            f"resumed with other {kind}: {' -> '.join(map(str, counts))}",
            1,
            "nothing; exactly the next examples, losses of all steps within "
            f"{furthest_apart(workdir, self.reference()):.1e} of those on one device",
        )


def write(rows, file, steps):
    """Writes the table."""
    lines = [
        "# What was lost when something went wrong",
        "",
        "Written by `python tests/fault_table.py`: real training processes on a CPU "
        f"({steps} steps, a checkpoint every 10) are disturbed, restarted until they finish, and compared with "
        "undisturbed runs: the loss of every step, parameters and moving average, bit for bit where the topology is "
        "the same.",
        "",
        "| fault | tried | what was lost |",
        "|---|---:|---|",
    ]
    lines += [f"| {fault} | {tried} | {lost} |" for fault, tried, lost in rows]
    file = pathlib.Path(file)
    _, heading, rest = file.read_text(encoding="utf-8").partition("\n## ") if file.exists() else ("", "", "")
    file.write_text("\n".join(lines) + "\n" + heading + rest, encoding="utf-8")  # other sections stay


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--damages", type=int, default=10)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults to try, such as kill,full_disk")
    parser.add_argument("--out", default=str(ROOT / "docs" / "faults.md"))
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    faults = {
        "kill": lambda table: table.kill(args.kills),
        "terminate": lambda table: table.terminate(args.terms),
        "kill_one": lambda table: table.kill(max(1, args.kills // 10), processes=1),
        "terminate_one": lambda table: table.terminate(max(1, args.terms // 4), processes=1),
        "damage": lambda table: table.damage(args.damages),
        "full_disk": Table.full_disk,
        "gone": Table.gone_and_read_only,
        "second": Table.second_run,
        "devices": lambda table: table.topologies("devices", (8, 2, 1)),
        "processes": lambda table: table.topologies("processes", (2, 1, 3)),
    }
    wanted = [name for name in args.only.split(",") if name] or list(faults)
    failed = False
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
        table = Table(folder, args.steps, args.seed)
        for name in wanted:
            try:
                faults[name](table)
            except Lost as error:
                failed = True
                table.add(name, 1, f"LOST: {str(error).splitlines()[0]}")
                print(error, file=sys.stderr, flush=True)
            finally:
                table.end()
    write(table.rows, args.out, args.steps)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
