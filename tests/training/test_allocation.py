"""What is freed stays with the process: no page of a large block is faulted in twice."""

import json
import subprocess
import sys

import pytest

import repository

FAULTS = """
import ctypes, json, resource, sys, threading
if sys.argv[1] == "kept":
    from retrieval_jax.training import allocation
    print(allocation.keep_memory(), allocation.keep_memory(), file=sys.stderr)
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.empty(64 << 20, np.uint8)
    block[:: 4096] = 1
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = [faults() for _ in range(3)]
thread = threading.Thread(target=lambda: found.extend(faults() for _ in range(3)))
thread.start()
thread.join()
print(json.dumps(found))
"""


def _faults(how):
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository.ROOT)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_a_block_that_was_freed_is_not_faulted_in_again():
    found, shown = _faults("kept")
    if "False" in shown:
        pytest.skip("not glibc")
    assert max(found[1], found[2], *found[4:]) < 500, found  # of 16,384 pages, from two threads


def test_other_c_libraries_are_left_alone(monkeypatch):
    from retrieval_jax.training import allocation

    class Musl:
        def mallopt(self, *_):
            raise AssertionError("musl's mallopt was called")

    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda _: Musl())
    assert allocation.keep_memory.__wrapped__() is False
