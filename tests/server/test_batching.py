"""Requests that wait together are computed together, in their order, and a failure is its request's alone."""

import threading

import pytest

from retrieval_jax.server import batching
from retrieval_jax.server.batching import Batcher, Busy


def test_what_waits_is_one_call_per_key():
    started, go, calls = threading.Event(), threading.Event(), []

    def compute(key, items):
        calls.append((key, list(items)))
        started.set()
        go.wait(10)
        return [item * 10 for item in items]

    made = Batcher(compute, 3, "test")
    first = made.submit("a", 1)
    assert started.wait(10)
    others = [made.submit(key, item) for key, item in (("a", 2), ("b", 3), ("a", 4), ("a", 5), ("a", 6), ("b", 7))]
    go.set()
    assert [one.result(10) for one in (first, *others)] == [10, 20, 30, 40, 50, 60, 70]
    assert calls == [("a", [1]), ("a", [2, 4, 5]), ("b", [3, 7]), ("a", [6])]
    made.close()


def test_a_failure_is_its_own_and_the_thread_goes_on():
    def compute(key, items):
        if key == "broken":
            raise RuntimeError("broken")
        return [ValueError("this one") if item == 2 else item for item in items]

    made = Batcher(compute, 4, "test")
    with pytest.raises(RuntimeError, match="broken"):
        made.submit("broken", 1).result(10)
    one, two = made.submit("fine", 1), made.submit("fine", 2)
    assert one.result(10) == 1
    with pytest.raises(ValueError, match="this one"):
        two.result(10)
    made.close()


def test_more_than_can_wait_are_refused(monkeypatch):
    monkeypatch.setattr(batching, "WAITING", 2)
    started, go = threading.Event(), threading.Event()

    def compute(_, items):
        started.set()
        go.wait(10)
        return items

    made = Batcher(compute, 1, "test")
    first = made.submit("a", 0)
    assert started.wait(10)
    waiting = [made.submit("a", number) for number in (1, 2)]
    with pytest.raises(Busy, match="try again"):
        made.submit("a", 3)
    go.set()
    assert [one.result(10) for one in (first, *waiting)] == [0, 1, 2]
    made.close()
