"""The lock of a work directory: one run at a time, and none in the way after kill -9."""

import subprocess
import sys

import pytest

from retrieval_jax import lock
from retrieval_jax.errors import InputError

HOLD = "import sys, time\nfrom retrieval_jax import lock\n" \
       "with lock.held(sys.argv[1], 'train'):\n    print('held', flush=True)\n    time.sleep(600)\n"


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"in use by train, process {child.pid} on .*, since .*: wait until it ends"):
        with lock.held(tmp_path, "train"):
            pass
    child.kill()
    child.wait()
    child.stdout.close()
    for _ in range(2):
        with lock.held(tmp_path, "embed"):
            pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with lock.held(tmp_path, "train"):
        assert "file system without locks (Operation not supported)" in capsys.readouterr().out
