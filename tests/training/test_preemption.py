import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import repository
from retrieval_jax.errors import Preempted
from retrieval_jax.training import preemption

CHILD = """
import sys, time
import jax, jax.numpy as jnp
from retrieval_jax.errors import Preempted
from retrieval_jax.training import guards, preemption
from retrieval_jax.workdir import stopping

def compiled(x):
    for i in range(4000):  # half a minute, in which no Python runs
        x = jnp.sin(x @ x) + jnp.tanh(x) * i
    return x

lowered = jax.jit(compiled).lower(jnp.ones((64, 64)))
stopping.GRACE, preemption._PATIENCE = 0.5, 0.5
with stopping.heard(), preemption.noticed() as stop:
    if sys.argv[1] == "trained":
        stop.hold()
    print("compiling", flush=True)
    try:
        stop.during(lowered.compile)
    except Preempted:
        print("saved", flush=True)
        assert stop.left_behind
        guards.leave("stopped: SIGTERM: stopped after step 5", 75)
"""


@pytest.mark.parametrize("when, printed", [("nothing trained", "compiling\n"), ("trained", "compiling\nsaved\n")])
def test_sigterm_is_heard_while_a_program_compiles(when, printed):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, when],
        cwd=repository.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository.ROOT), "JAX_ENABLE_COMPILATION_CACHE": "0"},
    )
    first = child.stdout.readline()
    time.sleep(1.0)
    start = time.monotonic()
    child.send_signal(signal.SIGTERM)
    out, said = child.communicate(timeout=60)
    assert child.returncode == 75 and first + out == printed, said
    assert time.monotonic() - start < 6 and said.startswith("stopped: SIGTERM") and said.count("\n") == 1


def test_what_the_function_returns_or_raises_comes_through():
    with preemption.noticed() as stop:
        before = signal.getsignal(signal.SIGTERM)
        stop.hold()
        assert signal.getsignal(signal.SIGTERM) != before
        assert stop.during(lambda: threading.current_thread().name) == "evaluation"
        with pytest.raises(ZeroDivisionError):
            stop.during(lambda: 1 / 0)
        assert not stop()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_function_that_looks_ends_by_itself():
    def evaluation():
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(500):
            if stop():
                raise Preempted("between two batches")
            time.sleep(0.01)

    with preemption.noticed() as stop:
        stop.hold()
        with pytest.raises(Preempted, match="between two batches"):
            stop.during(evaluation)
        assert stop() and not stop.left_behind


def test_before_anything_is_held_and_in_other_threads_the_function_is_just_called():
    with preemption.noticed() as stop:
        assert stop.during(lambda: threading.current_thread()) is threading.current_thread()
        results = []
        thread = threading.Thread(target=lambda: (stop.hold(), results.append(stop.during(lambda: 3))))
        thread.start()
        thread.join()
        assert results == [3]
