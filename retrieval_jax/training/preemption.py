"""SIGTERM, by which Slurm, Kubernetes and TPU pods announce the end: noticed by all processes at the same step."""

import contextlib
import signal
import threading

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def noticed():
    """Takes SIGTERM over for as long as the context lasts.

    Yields:
      Function without arguments that says whether to stop now, and from then on says so always. It takes part in an
      agreement: every process calls it at the same places (after each step, after each batch of an evaluation), and it
      turns true in all of them at the same call, whichever of them got the signal. It only looks at a variable.
    """
    if jax.process_count() > 1:
        # JAX took SIGTERM over in jax.distributed.initialize. Whoever gets it tells the coordinator, which names the
        # next call that no process has reached yet.
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
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in no other
        yield received.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
