"""Processes of published_steps.py: each compiles one network of one system, all at once; one at a time is timed."""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

SCRIPT = pathlib.Path(__file__).with_name("published_steps.py")
# Of the processes that measure, unless set: none may take all of the device's memory, and programs are cached.
ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "TORCHINDUCTOR_COMPILE_THREADS": "4",
}


class Child:
    """A process that compiles one network of one system, and then times it on request."""

    def __init__(self, system: str, name: str, given):
        python = sys.executable if system == "ours" else given.torch_python
        command = [python, str(SCRIPT), "--work", system, "--models", name]
        command += ["--small"] if given.small else []
        command += [f"--{key}={getattr(given, key)}" for key in ("profile", "programs", "attention")]
        self.system, self.name, self.failed, self.ready = system, name, "", False
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**ENVIRONMENT, **os.environ},
            start_new_session=True,  # so that a signal reaches the processes that it started itself
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.lines.put(json.loads(line))
        self.lines.put(None)

    def wait(self, seconds: float) -> dict | None:
        """Returns what the process reports next; None, and it is ended, if it fails or takes longer than this."""
        try:
            found = None if self.failed else self.lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            self.end(f"not finished in {max(0.0, seconds):.0f} s")
            return None
        if found is None and not self.failed:
            self.errors.seek(0)
            text = self.errors.read().strip()
            print(f"{self.system}, {self.name}: failed\n{text[-3000:]}", file=sys.stderr, flush=True)
            self.end((text.splitlines() or ["no message"])[-1][:300])
        return found

    def time(self, seconds: float) -> dict | None:
        """Returns one timing, or None; see `wait`."""
        if not self.failed:
            with contextlib.suppress(BrokenPipeError):  # it died: `wait` reports why
                self.process.stdin.write("\n")
                self.process.stdin.flush()
        return self.wait(seconds)

    def signal(self, number: int) -> None:
        """Sends a signal to the process and those that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self, why: str) -> None:
        """Ends the process; `why` is recorded as its failure."""
        self.failed = self.failed or why
        self.signal(signal.SIGKILL)


@contextlib.contextmanager
def paused(children: list[Child]):
    """Stops processes that still compile, so that they take neither cores nor the device from a timing."""
    for child in children:
        child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            child.signal(signal.SIGCONT)


def measure(given, children: list[Child], write: Callable[[dict], None]) -> None:
    """Waits for all children of ours and times them; then for timm's, and times both in turn.

    Args:
      given: the command's arguments.
      children: of all systems and networks, started.
      write: takes each result, as soon as it is known.
    """
    end = time.monotonic() + given.deadline

    def left(most: float) -> float:
        return min(most, end - time.monotonic())

    def await_ready(system):
        limit = time.monotonic() + left(given.compile_limit)
        for child in children:
            if child.system == system and not child.ready and not child.failed:
                found = child.wait(limit - time.monotonic())
                child.ready = found is not None
                write({"round": None, **(found or {"failed": child.failed})}, child)

    def time_once(child, number):
        if child.ready and not child.failed:
            found = child.time(left(given.limit))
            write({"round": number, **(found or {"failed": child.failed})}, child)

    await_ready("ours")
    with paused([child for child in children if child.system != "ours"]):
        for child in children:
            if child.system == "ours":
                time_once(child, 0)
    for system in given.systems:
        await_ready(system)
    for number in range(1, given.rounds + 1):
        for name in given.models:
            for child in children:
                if child.name == name and left(given.limit) > 0:
                    time_once(child, number)
