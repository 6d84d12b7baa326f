"""Guards: non-finite steps are skipped or stop the run and name the batch; long waits are reported, hangs end."""

import json
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.errors import InputError, RunFailed
from retrieval_jax.training import guards


def states():
    return {"w": jnp.zeros(2), "step": jnp.int32(3)}, {"w": jnp.ones(2), "step": jnp.int32(4)}


@pytest.mark.parametrize("loss, gradient, finite", [(1.0, 2.0, True), (np.nan, 2.0, False), (1.0, np.inf, False)])
def test_a_skipped_non_finite_step_changes_only_the_step_number(loss, gradient, finite):
    before, after = states()
    step = jax.jit(guards.keep_finite, static_argnums=4)
    state, out = step(before, after, jnp.float32(loss), {"w": jnp.array([gradient, 0.0])}, True)
    assert bool(out["finite"]) is finite and int(state["step"]) == 4
    assert np.array_equal(state["w"], [1, 1] if finite else [0, 0])
    if finite:
        assert float(out["gradient_norm"]) == 2.0
    state, out = step(before, after, jnp.float32(loss), {"w": jnp.array([gradient, 0.0])}, False)
    assert np.array_equal(state["w"], [1, 1]) and bool(out["finite"]) is finite


def test_a_non_finite_step_is_reported_with_its_listings(tmp_path, capsys):
    ids, values = [f"id{n}" for n in range(20)], {"loss": np.nan, "gradient_norm": np.inf}
    with pytest.raises(RunFailed, match="the loss is nan .* gradients inf at step 7, on the listings id0, .*, ..."):
        guards.non_finite(tmp_path, 7, values, ids, skip=False)
    guards.non_finite(tmp_path, 8, values, ids[:2], skip=True)
    assert "at step 8, on the listings id0, id1 (all in" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "non_finite.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 7, "loss": "nan", "gradient_norm": "inf", "ids": ids} and lines[1]["step"] == 8


def test_a_stalled_input_is_reported_with_the_places_of_its_threads(capsys):
    from retrieval_jax.data.pictures import sources

    class Slow:
        def __len__(self):
            return 1

        def __getitem__(self, row):
            time.sleep(0.6)
            return np.zeros((2, 2, 3), np.uint8)

    thread = threading.Thread(target=lambda: sources.Cached(Slow(), 100)[0])
    with guards.Watch(warn_seconds=0.1) as watch, watch.stage("input"):
        thread.start()
        thread.join()
    out = capsys.readouterr().err
    assert "for the input: its threads are 1 at data/pictures/sources.py:" in out and "__getitem__" in out
    assert 0.5 < watch.seconds["input"] < 30


def test_a_wait_between_two_steps_is_not_the_wait_for_the_start(capsys):
    with guards.Watch(warn_seconds=0.1) as watch:
        time.sleep(0.3)
        first = capsys.readouterr().err
        with watch.stage("device"):
            pass
        time.sleep(0.3)
    assert "for the catalogue to be read" in first
    later = capsys.readouterr().err
    assert "for its own work between two steps" in later and "catalogue" not in later


def test_a_hang_ends_the_process():
    code = (
        "import time\nfrom retrieval_jax.training import guards\n"
        "with guards.Watch(0.5, 0.2) as watch, watch.stage('device'):\n    time.sleep(600)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1 and "has waited" in done.stderr
    assert "error: nothing has happened for" in done.stderr and "waiting for the device to finish a step" in done.stderr
    assert 'File "<string>", line 4' in done.stderr  # where it stood


def test_a_run_resumes_with_other_settings_that_change_no_number(tmp_path):
    def run(**config):
        return {"vocabulary_hash": "v", "num_steps": 9, "config": {"seed": 0, "sharding_rules": [], **config}}

    guards.same_run(tmp_path, run(), run(sharding_rules=[["^heads_", [None, "fsdp"]]], num_threads=4))
    with pytest.raises(InputError, match="train.seed: 0 -> 1"):
        guards.same_run(tmp_path, run(), run(seed=1))
