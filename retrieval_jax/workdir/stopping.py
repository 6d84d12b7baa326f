"""SIGTERM and Ctrl-C while a command runs: it ends within seconds, with one sentence and a status that says so.

A training handles SIGTERM itself (training/preemption.py): it saves its state first. Everything else is written whole
or not at all, so it can stop anywhere: Python raises `Stopped` there. Where that takes too long, because a compiler or
a large sort does not return to Python, a thread ends the process.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from retrieval_jax.errors import Preempted

GRACE = 8.0  # seconds from the signal to the end of the process, at most; see `allowing`
_INTERRUPTED = 130  # the status of a command that Ctrl-C ended


class Stopped(BaseException):
    """SIGTERM arrived. Not an `Exception`: nothing that handles errors on the way may keep the command alive."""


_state = {"requested": False, "said": False, "grace": 0.0}  # grace: where it is not `GRACE`


def requested() -> bool:
    """Returns whether SIGTERM arrived: then errors come from processes and connections that it ended as well."""
    return _state["requested"]


@contextlib.contextmanager
def allowing(seconds: float) -> Iterator[None]:
    """Gives a command longer than `GRACE` to end while inside, because it waits for others that save.

    Args:
      seconds: from the signal to the end of the process, at most.
    """
    before, _state["grace"] = _state["grace"], seconds
    try:
        yield
    finally:
        _state["grace"] = before


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Ends the process with a sentence where a signal arrives inside: status 75 for SIGTERM, 130 for Ctrl-C.

    In a thread other than the main one, where Python allows no signal handlers, only Ctrl-C is handled.
    """
    main = threading.current_thread() is threading.main_thread()
    with _watched() if main else contextlib.nullcontext():
        try:
            yield
        except (Stopped, KeyboardInterrupt) as error:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            status = Preempted.REQUEUE if isinstance(error, Stopped) else _INTERRUPTED
            _say("SIGTERM" if isinstance(error, Stopped) else "interrupted")
            if os.environ.get("RETRIEVAL_JAX_DISTRIBUTED") or "jax" in sys.modules:
                _leave(status)  # an orderly exit would also wait for the other processes
            sys.exit(status)


@contextlib.contextmanager
def serving(verb: str) -> Iterator[None]:
    """Ends the process with status 0 where a signal arrives inside, or what is inside returns; for use within `heard`.

    A service is stopped by a signal, whenever that comes: while its modules are imported, while it loads, or later.

    Args:
      verb: of the service, for the line that it prints.
    """
    try:
        yield
    except BaseException as error:
        if not _of_signal(error):
            raise
    with contextlib.suppress(OSError, ValueError):
        print(f"{verb}: stopped", flush=True)
        sys.stderr.flush()
    _leave(0)


def _of_signal(error: BaseException | None) -> bool:
    """Returns whether an error is a signal's, or one that somebody made of it: modules in C do when they import."""
    while error is not None and not isinstance(error, Stopped | KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None or requested()


def _leave(status: int) -> None:
    """Ends the process and its children at once.

    A compiler that a signal interrupts goes on in threads, which an orderly exit takes the memory and the interpreter
    from under: such a process aborts.
    """
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(status)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL:  # ours already, or of someone who calls us from Python or C
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    woken = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(receiving,), daemon=True, name="signals")
    thread.start()
    try:
        yield
    finally:
        if not requested():  # else the thread has to see to the end
            signal.set_wakeup_fd(woken)
            signal.signal(signal.SIGTERM, before)
            os.close(sending)
            thread.join()
            os.close(receiving)


def _stop(number: int, frame) -> None:
    del number, frame
    if not requested():
        _state["requested"] = True
        raise Stopped


def _watch(receiving: int) -> None:
    """Ends the process where Python does not get to raise `Stopped`, or where cleaning up takes too long."""
    while numbers := os.read(receiving, 64):
        if signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) is _stop:
            time.sleep(_state["grace"] or GRACE)
            _say("SIGTERM")
            os._exit(Preempted.REQUEUE)


def _say(what: str) -> None:
    if not _state["said"]:
        _state["said"] = True
        with contextlib.suppress(OSError):
            os.write(
                2, f"stopped: {what}; what is complete is kept, and the same command resumes from there\n".encode()
            )
