"""The examples seam is general: three tasks in tests/tiny_tasks alone, with columns the package does not know.

A triplet over three columns of pictures (two sizes, a set of examples beside), sets of four pictures with a frozen
network as constants, and token ids beside a picture. Adding each took its own file.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import tiny
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.training import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = ("triplet", "quartet", "words")


def start(folder, *args, devices=1) -> subprocess.Popen:
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
    }
    command = [sys.executable, str(ROOT / "tests" / "tiny_tasks" / "run.py"), str(folder), *args]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process) -> list[str]:
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return [line for line in out.splitlines() if line.split()[0] in NAMES]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of the work directories of three runs on one device."""
    folder = tmp_path_factory.mktemp("tiny_tasks")
    assert finish(start(folder, "whole", *NAMES)) == [f"{name} 12 1" for name in NAMES]
    return folder


def params(folder, which="params"):
    tree, meta, step = checkpoints.load_params(folder / "checkpoints", which=which)
    assert step == 12
    return tree


def test_eight_devices_give_the_losses_of_one(uninterrupted, tmp_path):
    assert finish(start(tmp_path, *NAMES, devices=8)) == [f"{name} 12 8" for name in NAMES]
    for name in NAMES:
        one, eight = tiny.logged(uninterrupted / name), tiny.logged(tmp_path / name)
        assert [line["step"] for line in eight] == list(range(1, 13))
        np.testing.assert_allclose([line["loss"] for line in eight], [line["loss"] for line in one], rtol=1e-5)


def test_killed_runs_resume_bit_for_bit(uninterrupted, tmp_path):
    for name in NAMES:
        process = start(tmp_path, "slow", name)
        deadline = time.monotonic() + 900
        while not (tmp_path / name / "checkpoints" / "4").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert 4 <= tiny.logged(tmp_path / name)[-1]["step"] < 12
    assert finish(start(tmp_path, *NAMES)) == [f"{name} 12 1" for name in NAMES]
    for name in NAMES:
        assert tiny.logged(tmp_path / name) == tiny.logged(uninterrupted / name)
        for which in ("params", "ema"):
            ours, theirs = params(tmp_path / name, which), params(uninterrupted / name, which)
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_every_task_learns(uninterrupted):
    for name in NAMES:
        losses = [line["loss"] for line in tiny.logged(uninterrupted / name)]
        assert np.mean(losses[-3:]) < np.mean(losses[:3]), (name, losses)


def test_every_task_is_embedded_and_searched(uninterrupted):
    for name in NAMES:
        ranking = Ranking.load(uninterrupted / name / "rankings" / "trained" / "cosine")
        assert ranking.item_rows.shape == (8, 5) and np.isfinite(ranking.scores).all()
        assert (np.diff(ranking.scores) <= 0).all() and 0 <= ranking.item_rows.min() <= ranking.item_rows.max() < 20


def test_constants_are_in_no_checkpoint(uninterrupted):
    """The frozen network is as large as the trained one: parameters, average and two moments, and nothing else."""
    assert jax.tree.map(np.shape, params(uninterrupted / "quartet")) == {"w": (16 * 16 * 3, 6)}
    step = uninterrupted / "quartet" / "checkpoints" / "12"
    assert {"params", "ema", "opt_state", "step"} >= {file.parent.name for file in step.glob("*/_METADATA")}
    tree, data = 16 * 16 * 3 * 6 * 4, {}
    for part in ("params", "ema", "opt_state"):
        data[part] = sum(file.stat().st_size for file in (step / part).rglob("d/*")) / tree
    assert data["params"] < 1.2 and data["ema"] < 1.2 and data["opt_state"] < 2.2, data


def test_adding_each_task_took_its_own_file():
    named = [file for file in (ROOT / "retrieval_jax").rglob("*.py") if "tiny_tasks" in file.read_text()]
    assert not named
    for name in NAMES:
        assert (ROOT / "tests" / "tiny_tasks" / f"{name}.py").exists()
