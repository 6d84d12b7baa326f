"""Preemption: SIGTERM, sent by Slurm, Kubernetes and TPU pods, stops all processes at the same step.

Until there is something to save, SIGTERM ends the process as it ends any other command, within seconds even while a
program is being compiled (workdir/stopping.py). From then on it is noted, and the loop saves and stops.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from retrieval_jax.errors import Preempted

_PATIENCE = 5.0  # seconds from SIGTERM until a thread that does not return from a compiler is left behind


class Stop:
    """Whether to stop: call it.

    Every process must call it at the same points (after each step, after each batch of an evaluation); it turns True in
    all of them at the same call, whichever of them received the signal, and stays True. A call is cheap: it only reads
    a variable.

    Attributes:
      left_behind: whether a thread still runs that will not end soon. Then only `guards.leave` can end the process: an
        orderly exit would abort in the middle of the compiler.
    """

    def __init__(self):
        self.left_behind = False
        self._received, self._before, self._calls = threading.Event(), None, 0
        self._several = jax.process_count() > 1

    def __call__(self) -> bool:
        # jax.distributed.initialize handles SIGTERM: the process that receives it notifies the coordinator, which picks
        # the next call that no process has reached yet.
        if self._several and not self._received.is_set():
            self._calls += 1
            if multihost_utils.reached_preemption_sync_point(self._calls):
                self._received.set()
        return self._received.is_set()

    def hold(self) -> None:
        """Makes SIGTERM wait for the next call from now on, because there is something to save."""
        # Python allows signal handlers in no other thread.
        main = threading.current_thread() is threading.main_thread()
        if self._before is None and main and not self._several:
            self._before = signal.signal(signal.SIGTERM, lambda *_: self._received.set())

    def release(self) -> None:
        """Undoes `hold`."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def during(self, function: Callable):
        """Calls a function in a thread, so that SIGTERM is heard while it compiles; returns what it returns.

        Args:
          function: without arguments; it raises `Preempted` where it finds that this object is true.

        Raises:
          Preempted: by the function, or in its place where it does not end soon after SIGTERM.
        """
        if self._before is None:
            return function()
        found: dict = {}

        def call():
            try:
                found["result"] = function()
            except BaseException as error:
                found["error"] = error

        thread = threading.Thread(target=call, daemon=True, name="evaluation")
        thread.start()
        try:
            while thread.is_alive() and not self._received.wait(0.05):
                thread.join(0.05)
            thread.join(_PATIENCE)
        except KeyboardInterrupt:
            self._received.set()
            thread.join()
            raise
        if thread.is_alive():
            self.left_behind = True
            raise Preempted("while a program was compiled")
        if "error" in found:
            raise found["error"]
        return found["result"]


@contextlib.contextmanager
def noticed() -> Iterator[Stop]:
    """Yields a `Stop`, and gives SIGTERM back to whoever handled it before."""
    stop = Stop()
    try:
        yield stop
    finally:
        stop.release()
