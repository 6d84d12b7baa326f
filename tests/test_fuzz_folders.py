"""A little of `fuzz_folders.py` in every run of the tests, 10,000 inputs of each kind in the long ones."""

import subprocess
import sys

import pytest

import fuzz_folders

LITTLE = {"embeddings": 200, "ranking": 200, "files": 100, "binary": 60, "workdir": 40, "prepared": 20, "exported": 8}


@pytest.mark.parametrize("target, inputs", LITTLE.items())
def test_a_little_fuzzing_of_folders(target, inputs):
    found = fuzz_folders.run(target, inputs=inputs)
    assert found["failures"] == {} and found["read"] + found["refused"] == inputs


@pytest.mark.long
@pytest.mark.parametrize("target", fuzz_folders.TARGETS)
def test_much_fuzzing_of_folders(target):
    done = subprocess.run([sys.executable, fuzz_folders.__file__, target, "--inputs=10000"], capture_output=True)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-5000:]
