"""Child processes with limits of memory and processor time, for files that could exhaust or crash the process itself.

A child is started when the first file needs one, kept for later files, and ends with the process that started it. It
exchanges frames through pipes (a length, JSON, a length, bytes); nothing is pickled. Processor time is limited and not
wall time, so that a busy machine refuses no file that an idle one reads.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

_MOST = max(1, min(4, os.cpu_count() or 1))  # children at once
_idle: list[subprocess.Popen] = []
_lock = threading.Lock()
_places = threading.BoundedSemaphore(_MOST)


class Exceeded(Exception):
    """A file needed more than its limits, or crashed the process that read it; the text says which."""


def call(
    function: str, arguments: dict, data: bytes = b"", *, memory: int, seconds: float
) -> Iterator[tuple[dict, bytearray]]:
    """Calls a generator function in a child process.

    Args:
      function: "module:name" of a function `(arguments, data)` that yields (answer, bytes), the answer as JSON.
      arguments: passed as JSON.
      data: passed as bytes.
      memory: in bytes, beyond what the child takes itself.
      seconds: of processor time.

    Yields:
      What the function yields.

    Raises:
      Exceeded: the limits were exceeded, or the child crashed.
      MemoryError: the machine lacks memory or processes; the text begins with "out of memory".
    """
    with _places:
        child = _taken()
        try:
            _send(
                child.stdin, {"function": function, "arguments": arguments, "memory": memory, "seconds": seconds}, data
            )
            while True:
                answer, content = _receive(child.stdout)
                if "end" in answer:
                    break
                if "failed" in answer:
                    raise (MemoryError if answer["lacking"] else Exceeded)(answer["failed"])
                yield answer, content
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise _why(child, memory, seconds) from None
        except BaseException:  # also where the caller stops listening: the child may still be writing
            _end(child)
            raise
        with _lock:
            _idle.append(child)


def _taken() -> subprocess.Popen:
    with _lock:
        while _idle:
            child = _idle.pop()
            if child.poll() is None:
                return child
            _end(child)
    code = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); import {__name__} as children; children.serve()"
    threads = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")} | {"POLARS_MAX_THREADS": str(_MOST)}
    try:
        return subprocess.Popen(
            # -P: no module of the current folder, which may be a stranger's, is imported.
            [sys.executable, "-P", "-c", code, json.dumps([place for place in sys.path if place])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | threads,
        )
    except (OSError, MemoryError) as error:
        raise MemoryError(f"out of memory or processes: {error} when a process was started; end others") from error


def _why(child: subprocess.Popen, memory: int, seconds: float) -> Exception:
    """Returns the error of a child that ended."""
    _end(child)
    status = -child.returncode
    if status in (signal.SIGPROF, signal.SIGXCPU):
        return Exceeded(f"it takes more than {seconds:g} s of processor time")
    if status == signal.SIGKILL:
        return MemoryError("out of memory: the process that read it was killed, as a machine out of memory does")
    if status > 0:
        name = signal.Signals(status).name
        return Exceeded(f"it crashes its reader ({name}), or needs more than {memory >> 20:,} MiB of memory")
    return MemoryError(f"out of memory or processes: the process that read it ended with status {child.returncode}")


def _end(child: subprocess.Popen) -> None:
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
    try:
        child.wait(5)  # it ends by itself once its input is closed, and its status is wanted
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _forget() -> None:
    """Leaves the children to the process that started them, after a fork."""
    global _lock, _places
    _idle.clear()
    _lock, _places = threading.Lock(), threading.BoundedSemaphore(_MOST)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _send(pipe: Any, header: dict, data: Any) -> None:
    text = json.dumps(header).encode()
    pipe.write(len(text).to_bytes(8) + len(data).to_bytes(8) + text)
    pipe.write(data)
    pipe.flush()


def _receive(pipe: Any) -> tuple[dict, bytearray]:
    lengths = _exactly(pipe, 16)
    text = _exactly(pipe, int.from_bytes(lengths[:8]))
    return json.loads(text), _exactly(pipe, int.from_bytes(lengths[8:]))


def _exactly(pipe: Any, count: int) -> bytearray:
    out = bytearray(count)
    view, at = memoryview(out), 0
    while at < count:
        read = pipe.readinto(view[at:])
        if not read:
            raise EOFError
        at += read
    return out


# --------------------------------------------------------------------------------------------------------- in the child


def serve() -> None:
    """Answers calls until the process that makes them ends."""
    for one in (signal.SIGTERM, signal.SIGINT):  # meant for the process that reads, which may still need this one
        signal.signal(one, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries may print
    while True:
        try:
            request, data = _receive(requests)
        except EOFError:
            return
        try:
            module, _, name = request["function"].partition(":")
            function = getattr(importlib.import_module(module), name)  # before its memory is limited
            with _limited(request["memory"], request["seconds"]) as lacking:
                for answer, content in function(request["arguments"], data):
                    _send(answers, answer, content)
        except MemoryError:
            short = lacking() or f"it needs more than {request['memory'] >> 20:,} MiB of memory"
            _send(answers, {"failed": short, "lacking": bool(lacking())}, b"")
        except BrokenPipeError:
            return
        except Exception as error:
            kind = "" if isinstance(error, Exceeded) else f"{type(error).__name__}: "
            _send(answers, {"failed": f"{kind}{error}", "lacking": False}, b"")
        else:
            _send(answers, {"end": True}, b"")


@contextlib.contextmanager
def _limited(memory: int, seconds: float) -> Iterator[Any]:
    """Limits memory and processor time of what runs inside.

    Yields:
      A function that returns what the machine lacks where memory ran out below the limit, else "".
    """
    try:
        import resource
    except ImportError:  # Windows has no such limits
        yield lambda: ""
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _address_space() + memory
    allowed = min([wanted, *(limit for limit in (before, hard) if limit != resource.RLIM_INFINITY)])

    def lacking() -> str:
        free = _available()
        if allowed < wanted:
            return f"out of memory: this process may use {allowed >> 20:,} MiB (ulimit -v); raise the limit"
        return f"out of memory: {free >> 20:,} MiB are free; free some" if free < memory else ""

    if _address_space():
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, in a C library too
    try:
        yield lacking
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if _address_space():
            resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def _address_space() -> int:
    """Returns the bytes of address space in use, or 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _available() -> int:
    """Returns the bytes of memory that the machine has left; very many where it does not say."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return 2**62
