"""The lock of a work directory: one run at a time, and no stale lock after kill -9."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.files import lock

HOLD = (
    "import sys, time\nfrom retrieval_jax.files import lock\n"
    "with lock.held(sys.argv[1], 'train'):\n    print('held', flush=True)\n    time.sleep(600)\n"
)


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"in use by train, process {child.pid} on .*, since .*: wait for it to end"):
        with lock.held(tmp_path, "train"):
            pass
    child.kill()
    child.wait()
    child.stdout.close()
    for _ in range(2):
        with lock.held(tmp_path, "embed"):
            pass


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "socket", "folder"])
def test_what_another_kind_of_file_is_gets_a_sentence_and_is_not_touched(tmp_path, kind):
    folder, victim = tmp_path / "work", tmp_path / "victim"
    folder.mkdir()
    file = folder / ".lock"
    if kind in ("link", "dangling"):
        file.symlink_to("../victim")
    if kind == "link":
        victim.write_text("mine")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        if kind == "pipe":
            os.mkfifo(file)
        if kind == "socket":
            listener.bind(os.path.relpath(file))
        if kind == "folder":
            file.mkdir()
        expected = "cannot be used .*folder" if kind == "folder" else "not a regular file .*: remove it"
        with pytest.raises(InputError, match=expected):
            with lock.held(folder, "train"):
                pass
    assert victim.read_text() == "mine" if kind == "link" else not victim.exists()


@pytest.fixture
def no_locks(monkeypatch):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    monkeypatch.setattr(lock, "LEASE", 3.0)


def test_without_locks_a_file_that_keeps_changing_means_another_run(tmp_path, no_locks):
    with lock.held(tmp_path, "train"):
        with pytest.raises(InputError, match="in use by train, process .*: wait for it to end"):
            with lock.held(tmp_path, "train"):
                pass
    assert not (tmp_path / ".lock-lease").exists()


def test_without_locks_a_file_that_no_longer_changes_is_taken_over(tmp_path, no_locks, capsys):
    (tmp_path / ".lock-lease").write_text("train, process 1 on elsewhere, since yesterday #7")
    with lock.held(tmp_path, "train"):
        assert "was in use by train, process 1 on elsewhere, since yesterday; waiting" in capsys.readouterr().out
        assert f"process {os.getpid()} on" in (tmp_path / ".lock-lease").read_text()
