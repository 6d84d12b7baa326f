"""Processes of a sweep: as many at a time as asked for, each with its log, and none left behind."""

import sys
import time

import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.sweeps import processes


def job(tmp_path, name, code):
    return processes.Job(name, (sys.executable, "-c", code), tmp_path / "logs" / f"{name}.log")


def test_all_run_and_report_how_they_ended(tmp_path):
    code = (
        "import os, sys, time, retrieval_jax; print(os.environ['PLACE'], time.time()); time.sleep(.5); "
        "print(time.time()); sys.exit({})"
    )
    jobs, ended = [job(tmp_path, str(number), code.format(number)) for number in range(4)], {}
    processes.run(jobs, [{"PLACE": "a"}, {"PLACE": "b"}], lambda one, status, seconds: ended.update({one.name: status}))
    assert ended == {"0": 0, "1": 1, "2": 2, "3": 3}
    found = [one.log.read_text().split() for one in jobs]
    assert {place for place, _, _ in found} == {"a", "b"}
    times = [(float(start), float(end)) for _, start, end in found]
    assert all(sum(low <= start < high for low, high in times) <= 2 for start, _ in times)
    assert processes.last_line(jobs[0].log) == found[0][2]


def test_a_second_try_adds_to_the_log(tmp_path):
    for word in ("one", "two"):
        processes.run([job(tmp_path, "a", f"print('{word}\\n')")], [{}], lambda *_: None)
    assert (tmp_path / "logs" / "a.log").read_text().split() == ["one", "two"]
    assert processes.last_line(tmp_path / "logs" / "a.log") == "two"


def test_processes_save_when_the_sweep_is_stopped(tmp_path):
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({saved!r}).write_text('saved'), sys.exit(75)))\n"
        "pathlib.Path({up!r}).write_text('up'); time.sleep(60)"
    )
    slow = job(tmp_path, "slow", code.format(saved=str(tmp_path / "saved"), up=str(tmp_path / "up")))
    waiting = "import pathlib, time\nwhile not pathlib.Path({!r}).exists(): time.sleep(.05)"

    def stop(*_):
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        processes.run([slow, job(tmp_path, "quick", waiting.format(str(tmp_path / "up")))], [{}, {}], stop)
    assert (tmp_path / "saved").read_text() == "saved" and time.monotonic() - start < 30


def test_gpus_are_dealt_out(tmp_path):
    dealt = processes.shares(2, {"CUDA_VISIBLE_DEVICES": "0,1,2"})
    assert dealt == [{"CUDA_VISIBLE_DEVICES": "0,2"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / "machine").mkdir(exist_ok=True)
        (tmp_path / "machine" / name).touch()
    machine = str(tmp_path / "machine")
    assert processes.shares(2, {}, machine) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    for none in ({"JAX_PLATFORMS": "cpu"}, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}):
        assert processes.shares(3, none, machine) == [{}] * 3
    with pytest.raises(InputError, match="this machine has fewer GPUs .2.: give --parallel=2"):
        processes.shares(3, {}, machine)
    assert processes.shares(3, {}, str(tmp_path)) == [{}] * 3 and processes.shares(
        1, {"CUDA_VISIBLE_DEVICES": "0,1"}
    ) == [{}]
    with pytest.raises(InputError, match="lists fewer GPUs"):
        processes.shares(3, {"CUDA_VISIBLE_DEVICES": "0,1"})
