"""Writers of an index on disk that are killed at random moments, or stopped at any call that touches the disk."""

import contextlib
import itertools
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import warnings


def write_forever(open_index, apply, folder, first):
    """Opens the index and applies operations from `first` on; prints the number of each once it has returned."""
    with open_index(folder, write=True) as store:
        os.write(1, b"open\n")
        number = first
        while True:
            apply(store, number, first)
            os.write(1, f"{number}\n".encode())
            number += 1


def nursery(open_index, apply):
    """Forks a writer for every line "folder first" on stdin, faster than starting Python; prints its pid."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        folder, first = line.rstrip("\n").rsplit(" ", 1)
        pid = os.fork()
        if pid == 0:
            write_forever(open_index, apply, folder, int(first))
        os.write(1, f"pid {pid}\n".encode())
        os.waitpid(pid, 0)
        os.write(1, b"gone\n")


def kill(command, folder, times, seed, play, check):
    """Starts a writer and kills it at a random moment, `times` times.

    Args:
      command: starts a `nursery`.
      folder: of the index.
      times, seed: how often, and of the moments.
      play: (state, number) applies an operation to what the index should hold.
      check: (state, number, write) compares the index, opened for writing or not, with what was acknowledged.

    Returns:
      The number of acknowledged writes.
    """
    moments, state, number, opened = random.Random(seed), {}, 0, 0
    root = str(pathlib.Path(__file__).resolve().parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": root}
    writers = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
    )
    try:
        for _ in range(times):
            print(f"{folder} {number}", file=writers.stdin, flush=True)
            lines = []
            while not lines or not lines[-1].startswith("pid "):
                assert (line := writers.stdout.readline()), "the nursery died"
                lines.append(line)
            pid = int(lines.pop().split()[1])
            for _ in range(moments.choice([0, 1, 2, 3, 8]) - len(lines)):  # lines to wait for: "open", then writes
                lines.append(writers.stdout.readline())
            time.sleep(moments.uniform(0, 0.06))
            os.kill(pid, signal.SIGKILL)
            while (line := writers.stdout.readline()) != "gone\n":
                assert line, "the nursery died"
                lines.append(line)
            opened += "open\n" in lines
            for done in [int(line) for line in lines if line != "open\n"]:
                assert done == number
                play(state, number)
                number += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check(state, number, bool(moments.getrandbits(1)))
            # The next writer repeats the interrupted write, after which the state is that of `play` again.
    finally:
        writers.stdin.close()
        writers.wait(20)
    assert opened
    return number


class Stop(BaseException):
    """What `stopped_after` raises."""


@contextlib.contextmanager
def stopped_after(monkeypatch, limit, names):
    """Raises Stop at the call after `limit` of the functions `names` of os, half way through if it is a write.

    Args:
      monkeypatch: pytest's.
      limit: calls that succeed.
      names: of functions of os.
    """
    real, calls = {name: getattr(os, name) for name in names}, itertools.count()

    def step(name, *args, **kwargs):
        if next(calls) >= limit:
            if name == "write":
                real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
            raise Stop
        return real[name](*args, **kwargs)

    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(os, name, lambda *args, name=name, **kwargs: step(name, *args, **kwargs))
        yield
