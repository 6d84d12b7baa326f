"""Preemption: SIGTERM, sent by Slurm, Kubernetes and TPU pods, stops all processes at the same step."""

import contextlib
import signal
import threading

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def noticed():
    """Handles SIGTERM within a context.

    Yields:
      Function without arguments that returns whether to stop, and True from then on. Every process must call it at the
      same points (after each step, after each batch of an evaluation); it turns True in all of them at the same call,
      whichever of them received the signal. A call is cheap: it only reads a variable.
    """
    if jax.process_count() > 1:
        # jax.distributed.initialize handles SIGTERM: the process that receives it notifies the coordinator, which picks
        # the next call that no process has reached yet.
        calls, stopped = 0, False

        def stop():
            nonlocal calls, stopped
            if not stopped:
                calls += 1
                stopped = multihost_utils.reached_preemption_sync_point(calls)
            return stopped

        yield stop
        return
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python allows signal handlers in no other thread
        yield received.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
