"""Checkpoints: round trips, other device counts, retention, errors in the background."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from retrieval_jax.errors import InputError, RunFailed
from retrieval_jax.training import checkpoints, sharding


def make_state(seed=0):
    params = {"stem": {"kernel": jax.random.normal(jax.random.key(seed), (4, 6)), "bias": jnp.ones(6, jnp.bfloat16)}}
    return {
        "params": params,
        "ema": jax.tree.map(lambda x: x * 2, params),
        "opt_state": optax.adamw(1e-3).init(params),
        "step": jnp.int32(7),
    }


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.array_equal(np.asarray(x), np.asarray(y))


def test_round_trip_keeps_structure_types_and_meta(tmp_path):
    state, meta = make_state(), {"vocabulary_hash": "ab12", "position": 7, "config": {"lr": 0.1, "names": ["x"]}}
    saved = checkpoints.Checkpoints(tmp_path / "c")
    assert saved.latest_step() is None
    saved.save(7, state, meta)
    saved.close()
    opened = checkpoints.Checkpoints(tmp_path / "c")
    assert opened.latest_step() == 7
    restored, read = opened.restore(jax.eval_shape(lambda: state), sharding=sharding.replicated(sharding.make_mesh()))
    same(restored, state)
    assert read == meta and isinstance(restored["params"]["stem"]["kernel"], jax.Array)
    opened.close()


def test_two_trainings_of_one_config_are_two_spaces():
    meta = {"run": checkpoints.new_run(), "config": {"seed": 0}, "num_steps": 9}
    again = {**meta, "run": checkpoints.new_run()}
    spaces = [checkpoints.space(meta, 9), checkpoints.space(meta, 8), checkpoints.space(meta, 9, "params")]
    assert len({*spaces, checkpoints.space(again, 9)}) == 4 and spaces[0] == f"{meta['run']}/9/ema"
    assert checkpoints.space({**meta, "seconds": 4.0, "loss": 0.1}, 9) == spaces[0]
    old = {"config": {"seed": 0}, "num_steps": 9}  # of a checkpoint saved before runs had ids
    assert checkpoints.space(old, 9) == checkpoints.space({**old, "seconds": 4.0}, 9)
    assert checkpoints.space(old, 9) != checkpoints.space({**old, "config": {"seed": 1}}, 9)


def test_only_the_last_ones_stay_and_a_known_step_is_left_alone(tmp_path):
    (tmp_path / "data_info.json").write_text("{}")  # training keeps a file beside the checkpoints
    saved = checkpoints.Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 3):
        saved.save(step, make_state(step), {"n": step})
    saved.wait()
    assert saved.steps() == [2, 3] and (tmp_path / "data_info.json").exists()
    same(saved.restore(make_state(), 2)[0], make_state(2))
    assert saved.restore(make_state())[1] == {"n": 3}
    saved.close()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, capsys, damage):
    saved = checkpoints.Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        saved.save(step, make_state(step), {"n": step})
    saved.close()
    checkpoints.set_aside_damaged(tmp_path)
    assert not capsys.readouterr().out and checkpoints.load_params(tmp_path)[2] == 3
    for step in (3, 2):
        files = [f for f in (tmp_path / str(step) / "ema").rglob("*") if f.is_file()]
        file = max(files, key=lambda f: f.stat().st_size)
        content = bytearray(file.read_bytes())
        if damage == "truncated":
            del content[len(content) // 2 :]
        content[len(content) // 2 - 1] ^= 4
        file.write_bytes(content)
        if damage == "missing":
            file.unlink()
    with pytest.raises(InputError, match="is damaged .*; give an earlier one"):
        checkpoints.load_params(tmp_path)
    assert checkpoints.load_params(tmp_path, which="params")[2] == 3  # which is whole
    checkpoints.set_aside_damaged(tmp_path)
    out = capsys.readouterr().out
    assert out.count("is damaged") == 2 and "renamed to damaged-3; the one before it is used" in out
    opened = checkpoints.Checkpoints(tmp_path)
    assert opened.steps() == [1] and checkpoints.meta(opened.folder) == {"n": 1}
    same(opened.restore(make_state())[0], make_state(1))
    opened.save(3, make_state(3), {"n": 3})
    opened.close()
    assert opened.steps() == [1, 3] and (tmp_path / "damaged-3").exists()


def test_no_silent_start_from_nothing_where_all_are_damaged(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(1, make_state(), {})
    saved.close()
    (tmp_path / "1" / checkpoints.CHECKSUMS).write_text("{")
    with pytest.raises(InputError, match="every checkpoint is damaged .*a new start trains from scratch"):
        checkpoints.set_aside_damaged(tmp_path)
    checkpoints.set_aside_damaged(tmp_path)


def test_a_folder_that_vanished_fails_the_save(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path / "c")
    (tmp_path / "c").rmdir()
    with pytest.raises(RunFailed, match="has vanished: the checkpoint of step 5 is not written"):
        saved.save(5, make_state(), {})
    assert not (tmp_path / "c").exists()


def test_the_state_may_be_donated_right_after_save(tmp_path):
    state = {"params": {"w": jnp.zeros(1 << 20)}}
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(0, state, {})
    for _ in range(5):
        state = step(state)
    saved.close()
    assert not checkpoints.load_params(tmp_path)[0]["w"].any()


def test_params_alone(tmp_path):
    state = make_state()
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(4, state, {"vocabulary_hash": "x"})
    saved.save(5, {k: v for k, v in state.items() if k != "ema"}, {})
    saved.close()
    params, meta, step = checkpoints.load_params(tmp_path, step=4)
    assert meta == {"vocabulary_hash": "x"} and step == 4 and isinstance(params["stem"]["kernel"], np.ndarray)
    same(params, state["ema"])
    same(checkpoints.load_params(tmp_path, 4, which="params")[0], state["params"])
    same(checkpoints.load_params(tmp_path)[0], state["params"])  # step 5 kept no moving average


def test_messages_name_the_folder_the_steps_and_the_parameter(tmp_path):
    with pytest.raises(InputError, match="nowhere.*train first"):
        checkpoints.load_params(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    saved = checkpoints.Checkpoints(tmp_path)
    with pytest.raises(InputError, match="no checkpoint there"):
        saved.restore(make_state())
    saved.save(4, make_state(), {})
    saved.wait()
    with pytest.raises(InputError, match="step 9; there are steps 4"):
        saved.restore(make_state(), 9)
    with pytest.raises(InputError, match="'ema' and 'params'"):
        checkpoints.load_params(tmp_path, which="best")
    other = make_state()
    other["params"] = {"stem": {"kernel": jnp.zeros((4, 5)), "bias": jnp.zeros(6)}}
    with pytest.raises(InputError, match=r"\['kernel'\] has shape \(4, 6\) in the checkpoint and \(4, 5\)"):
        saved.restore(other)
    with pytest.raises(InputError, match="but not teacher"):
        saved.restore({**make_state(), "teacher": jnp.zeros(1)})
    saved.close()


SAVE = """
import resource, signal, sys, time
import jax, numpy as np
from retrieval_jax.training import checkpoints, sharding
mesh = sharding.make_mesh()
state = {"params": {"w": jax.device_put(np.random.default_rng(0).random((16, 40000)), sharding.batch_sharding(mesh))}}
saved = checkpoints.Checkpoints(sys.argv[1])
saved.save(1, state, {"devices": jax.device_count()})
saved.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the disk is full
try:
    saved.save(2, state, {})
    while True:
        saved.check()  # as the loop does
        time.sleep(0.01)
except Exception as error:
    print("raised", type(error).__name__, error)
print(jax.device_count(), checkpoints.load_params(sys.argv[1])[2])
"""


def test_saved_on_eight_devices_restored_on_one_and_a_failed_save_is_raised(tmp_path):
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("raised RunFailed ") and done.stdout.endswith("8 1\n")
    assert "the checkpoint of step 2 could not be written" in done.stdout and "resumes from step 1" in done.stdout
    opened = checkpoints.Checkpoints(tmp_path)
    one = sharding.make_mesh(jax.devices()[:1])
    state, meta = opened.restore(
        {"params": {"w": jax.ShapeDtypeStruct((16, 40000), jnp.float32)}}, sharding=sharding.batch_sharding(one)
    )
    opened.close()
    assert meta == {"devices": 8} and len(state["params"]["w"].devices()) == 1
    assert np.array_equal(state["params"]["w"], np.random.default_rng(0).random((16, 40000)).astype(np.float32))


def test_at_gs_a_checkpoint_counts_once_it_is_marked_complete(monkeypatch):
    memory = pytest.importorskip("fsspec.implementations.memory")

    class Bucket(memory.MemoryFileSystem):
        protocol, store, pseudo_dirs = "gs", {}, [""]

    for scheme in ("gs", "gcs"):  # epath asks for the second
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, scheme, Bucket)
    assert checkpoints.steps("gs://bucket/run/checkpoints") == []
    files = Bucket()
    for name in ("5/a", "5/commit_success.txt", "6/a"):
        files.pipe_file(f"gs://bucket/run/checkpoints/{name}", b"")
    assert checkpoints.steps("gs://bucket/run/checkpoints") == [5]
