"""Child processes with limits: what they answer, what exceeds the limits, what the machine lacks."""

import os
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from retrieval_jax.data import children

SMALL = {"memory": 2**28, "seconds": 5.0}


def echo(arguments, data):
    for number in range(arguments["times"]):
        yield {"number": number, "pid": os.getpid()}, bytes(data)


def fail(arguments, data):
    match arguments["how"]:
        case "memory":
            np.ones(2**30, np.uint8)
        case "loop":
            while True:
                pass
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), 9)
        case "raise":
            raise ValueError("wrong")
        case "print":
            print("not an answer", flush=True)
    yield {}, b""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    while children._idle:  # started by other tests, with their path
        children._end(children._idle.pop())


def _call(name, arguments, data=b"", **limits):
    return list(children.call(f"test_children:{name}", arguments, data, **SMALL | limits))


def test_answers_and_bytes_come_back_and_the_child_is_kept():
    data = bytes(range(256)) * 5000
    first = _call("echo", {"times": 3}, data)
    assert [answer["number"] for answer, _ in first] == [0, 1, 2] and all(found == data for _, found in first)
    assert _call("echo", {"times": 1})[0][0]["pid"] == first[0][0]["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("memory", "needs more than 256 MiB of memory"),
        ("loop", "takes more than 0.3 s of processor time"),
        ("abort", "crashes its reader"),
        ("raise", "ValueError: wrong"),
    ],
)
def test_what_exceeds_the_limits_says_which(how, says):
    with pytest.raises(children.Exceeded, match=says):
        _call("fail", {"how": how}, seconds=0.3 if how == "loop" else 5.0)
    assert len(_call("echo", {"times": 2})) == 2  # a later file is read


@pytest.mark.parametrize("how", ["killed", "exit"])
def test_a_child_that_is_taken_away_is_a_shortage_of_the_machine(how):
    with pytest.raises(MemoryError, match="out of memory"):
        _call("fail", {"how": how})


def test_what_a_library_prints_is_not_an_answer():
    assert _call("fail", {"how": "print"}) == [({}, b"")]


def test_a_reader_that_stops_early_leaves_nothing_behind():
    answers = children.call("test_children:echo", {"times": 1000}, b"x" * 2**20, **SMALL)
    next(answers)
    answers.close()
    assert len(_call("echo", {"times": 2})) == 2


def test_a_limit_of_the_machine_is_a_shortage():
    code = (
        "import resource, sys; from retrieval_jax.data import children\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "try: list(children.call('test_children:fail', {'how': 'memory'}, memory=2**33, seconds=5))\n"
        "except MemoryError as error: print(error)"
    )
    path = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert "ulimit -v" in out.stdout, out


def test_children_end_with_the_process_that_started_them():
    code = (
        "from retrieval_jax.data import children\n"
        "found = list(children.call('test_children:echo', {'times': 1}, memory=2**28, seconds=5))\n"
        "print(found[0][0]['pid'], flush=True)\n"
        "import os; os.kill(os.getpid(), 9)"
    )
    path = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    pid, end = int(out.stdout), time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z"


def test_limits_are_of_the_child_alone():
    before = resource.getrlimit(resource.RLIMIT_AS)
    _call("echo", {"times": 1})
    assert resource.getrlimit(resource.RLIMIT_AS) == before
