"""A signal ends a command within seconds, with a sentence and the status that clusters and shells expect."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from retrieval_jax.workdir import stopping

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = """
import hashlib, os, signal, sys, time
from retrieval_jax.workdir import command_line, stopping
stopping.GRACE = 1.0
def pure():
    try:
        time.sleep(60)
    except Exception:
        print("swallowed")
def compiled():
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)  # does not return to Python
def waits():
    try:
        time.sleep(60)
    finally:
        time.sleep(2)  # longer than GRACE
        print("saved", file=sys.stderr, flush=True)
def allowed():
    with stopping.allowing(60.0):
        waits()
def swallowed():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
def broken():
    try:
        time.sleep(60)
    except BaseException:
        raise RuntimeError("a process of the pool died")
with stopping.heard():
    print("begins", flush=True)
    command_line.guarded(globals()[sys.argv[1]])
"""


def stopped(action, sent):
    started = subprocess.Popen(
        [sys.executable, "-c", CODE, action], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert started.stdout.readline() == "begins\n"
    time.sleep(0.2)
    begin = time.monotonic()
    started.send_signal(sent)
    out, err = started.communicate(timeout=60)
    assert time.monotonic() - begin < 30 and out == ""
    return started.returncode, err


@pytest.mark.parametrize("action", ["pure", "compiled", "swallowed", "broken"])
def test_sigterm_ends_with_75_and_one_sentence(action):
    status, said = stopped(action, signal.SIGTERM)
    assert status == 75
    assert said == "stopped: SIGTERM; what is complete is kept, and the same command resumes from there\n"


def test_a_command_that_waits_for_others_to_save_gets_longer():
    assert "saved" not in stopped("waits", signal.SIGTERM)[1]
    status, said = stopped("allowed", signal.SIGTERM)
    assert status == 75 and said.startswith("saved\nstopped: SIGTERM")


def test_ctrl_c_ends_with_130_and_one_sentence():
    status, said = stopped("pure", signal.SIGINT)
    assert (status, said.startswith("stopped: interrupted; "), said.count("\n")) == (130, True, 1)


def test_a_command_that_ends_by_itself_leaves_the_signals_as_they_were():
    before = signal.getsignal(signal.SIGTERM)
    with stopping.heard():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before

    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))  # a program that calls us has a handler of its own
    try:
        with stopping.heard():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [1]


SERVED = """
import os, signal, sys, threading, time, types
from retrieval_jax import __main__ as door
def imports(given):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
def converts(given):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except BaseException as error:
        raise ImportError("a module in C failed to import")
def loads(given):
    import jax
    def compile():
        for number in range(10_000):
            jax.jit(lambda x: x + number).lower(1.0).compile()
    threading.Thread(target=compile, daemon=True).start()
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
sys.modules["retrieval_jax.serve"] = types.SimpleNamespace(main=globals()[sys.argv[1]])
door.main(["serve", "--workdir=a"])
"""


@pytest.mark.parametrize("action", ["imports", "converts", "loads"])
def test_a_service_that_is_stopped_before_it_answers_ends_with_0_and_no_crash(action):
    """A thread that compiles comes back to an interpreter that has ended, where the process ends in an orderly way."""
    ended = subprocess.run([sys.executable, "-c", SERVED, action], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "serve: stopped\n", "")
