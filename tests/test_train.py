"""The loop: golden numbers of three steps, one device and eight, killed and resumed, and what it refuses.

After a change of the training step that is meant, write the golden numbers again: python tests/test_train.py --write
"""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from retrieval_jax.data import info as info_lib
from retrieval_jax.training.update import make_update

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402

import tiny  # noqa: E402
from retrieval_jax import mine, plans, tasks, train  # noqa: E402
from retrieval_jax.errors import InputError, RunFailed  # noqa: E402
from retrieval_jax.models.backbones import convnext  # noqa: E402
from retrieval_jax.training import checkpoints, optim, sharding  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "train_step.json"


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", tiny.TINY)


# ------------------------------------------------------------------------------------------------------- golden numbers


def three_steps(loss="sigmoid") -> dict:
    """Returns the losses of three steps and the mean absolute value of every group of parameters after them."""
    config = tiny.tiny_config().train
    config.task_kwargs.loss = loss
    task = tasks.get("multilabel").make(config, tiny.INFO)
    params = jax.jit(task.init)(jax.random.key(0), tiny.tiny_batch())
    optimizer, _ = optim.make(config, params, num_steps=10, steps_per_epoch=2.0)
    mesh = sharding.make_mesh(jax.devices()[:1])
    update = make_update(
        task, optimizer, jax.random.key(1), config.ema_decay, sharding.batch_sharding(mesh), sharding.replicated(mesh)
    )
    state = {
        "params": params,
        "ema": jax.tree.map(np.asarray, params),
        "opt_state": jax.jit(optimizer.init)(params),
        "step": np.int32(0),
    }
    numbers = {}
    for step in range(1, 4):
        state, values = update(state, tiny.tiny_batch(), None)
        numbers |= {f"step {step} {name}": float(value) for name, value in values.items()}
    for name in ("params", "ema"):
        groups = {}
        for path, leaf in zip(jax.tree.leaves(optim.paths(state[name])), jax.tree.leaves(state[name]), strict=True):
            groups.setdefault("/".join(path.split("/")[:2]), []).append(np.abs(leaf).ravel())
        numbers |= {
            f"{name} {group}": float(np.concatenate(leaves).astype(np.float64).mean())
            for group, leaves in groups.items()
        }
    return numbers


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_three_steps_equal_their_golden_numbers(loss):
    golden, now = json.loads(GOLDEN.read_text())[loss], three_steps(loss)
    wrong = [
        f"  {name}: golden {golden.get(name)}, now {now.get(name)}"
        for name in sorted(golden | now)
        if name not in golden or name not in now or not np.isclose(now[name], golden[name], rtol=2e-4, atol=1e-9)
    ]
    assert not wrong, (
        "three training steps from a fixed seed on a fixed batch give other numbers than before:\n"
        + "\n".join(wrong)
        + "\nSo every training gives another network from now on. What moves first tells where to look. Losses of step "
        "1: initialisation, pictures, network or loss. Later ones: gradients, optimiser or schedule. Only ema: the "
        "moving average. Missing names are renamed parameters: old checkpoints no longer load. Where no change of the "
        "numbers is meant (a refactor, a faster form, a new jax), it is a bug. Where it is meant, say so in the commit "
        "message and write the numbers again: python tests/test_train.py --write"
    )


# ------------------------------------------------------------------------------------------------- whole runs, apart

RUN = """
import pathlib, sys, time
import tiny
from retrieval_jax import mine, train
from retrieval_jax.training import sharding
from retrieval_jax.data import pipeline
from retrieval_jax.models.backbones import convnext
convnext.VARIANTS["tiny test"] = tiny.TINY
folder, slow = pathlib.Path(sys.argv[1]), sys.argv[2:] == ["slow"]
config = tiny.tiny_config()
if not (folder / "attributes").exists():
    mine.run(config, folder)
if slow:  # to be killed on the way: time enough between two steps
    real = pipeline.train_batches
    pipeline.train_batches = lambda *args, **kwargs: (time.sleep(0.3) or batch for batch in real(*args, **kwargs))
print(train.run(config, folder)["steps"], sharding.make_mesh().size)
"""


def start(folder, *args, devices=1) -> subprocess.Popen:
    # level 0: much less time in the compiler
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), *args],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process, timeout=900) -> str:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The work directory of a run of twelve steps on one device."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert finish(start(folder)) == "12 1"
    return folder


def test_one_device_and_eight_give_the_same_losses(uninterrupted, tmp_path):
    assert finish(start(tmp_path, devices=8)) == "12 8"
    one, eight = tiny.logged(uninterrupted), tiny.logged(tmp_path)
    assert [line["step"] for line in one] == [line["step"] for line in eight] == list(range(1, 13))
    for name in ("loss", "title_loss", "category_loss"):
        ours, theirs = ([line[name] for line in lines] for lines in (eight, one))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)
    assert one[-1]["loss"] < one[0]["loss"]


def test_killed_and_resumed_gives_what_an_uninterrupted_run_gives(uninterrupted, tmp_path):
    process = start(tmp_path, "slow")
    deadline = time.monotonic() + 900
    while not (tmp_path / "checkpoints" / "4").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    stopped_at = tiny.logged(tmp_path)[-1]["step"]
    assert 4 <= stopped_at < 12
    killed = checkpoints.meta(tmp_path / "checkpoints", 4)["sessions"]
    finish(start(tmp_path))
    assert tiny.logged(tmp_path) == tiny.logged(uninterrupted)
    for which in ("ema", "params"):
        ours, _, step = checkpoints.load_params(tmp_path / "checkpoints", which=which)
        theirs, _, _ = checkpoints.load_params(uninterrupted / "checkpoints", which=which)
        assert step == 12
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), ours, theirs)
    first, both = (checkpoints.meta(folder / "checkpoints")["sessions"] for folder in (uninterrupted, tmp_path))
    assert (first["number"], both["number"]) == (1, 2)  # times are the sums of both
    assert both["seconds"] > killed["seconds"] and both["cpu_seconds"] > killed["cpu_seconds"]


@pytest.fixture
def little_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_a_start_from_another_run_with_everything_switched_on(uninterrupted, tmp_path, monkeypatch, little_compilation):
    """Two steps, the first at rate 0: other labels, a frozen stem, mixed pictures, a view more, unlabelled pictures."""
    config = tiny.tiny_config()
    config.mine.threshold = 6
    mine.run(config, tmp_path)
    config.train.update(
        {
            "init_from": str(uninterrupted),
            "frozen": ("/stem/",),
            "ema_paths": "^backbone/",
            "layer_decay": 0.8,
            "epochs": 32 / 60,
            "accumulate_steps": 2,
            "schedule": "constant",
            "warmup_epochs": 0.0,
            "batch_transforms": (("mixup", {}), ("cutmix", {})),
            "views": ({"transforms": config.train.transforms, "image_size": (8, 8)},),
        }
    )
    config.train.unlabelled.update({"split": "gallery", "batch_size": 4})
    config.train.task_kwargs.update({"distill_share": 0.5, "unlabelled_weight": 1.0})
    summary = train.run(config, tmp_path)
    assert summary["steps"] == 2 and np.isfinite(summary["final_loss"])
    counts, old_labels, labels = (
        summary["warm_start"],
        *(info_lib.load(folder / "checkpoints" / "data_info.json").label_names for folder in (uninterrupted, tmp_path)),
    )
    assert counts["tensors_fresh"] == counts["tensors_left_over"] == counts["labels_fresh"] == 0
    assert set(labels) < set(old_labels) and counts["labels_matched"] > len(labels)  # and the categories

    source, _, _ = checkpoints.load_params(uninterrupted / "checkpoints")
    params, _, _ = checkpoints.load_params(tmp_path / "checkpoints", which="params")
    ema, meta, _ = checkpoints.load_params(tmp_path / "checkpoints")
    assert meta["warm_start"] == counts
    np.testing.assert_array_equal(params["backbone"]["stem"]["kernel"], source["backbone"]["stem"]["kernel"])
    np.testing.assert_array_equal(ema["backbone"]["stem"]["kernel"], source["backbone"]["stem"]["kernel"])
    np.testing.assert_array_equal(ema["heads_titles"]["kernel"], params["heads_titles"]["kernel"])
    block, new, old = (tree["backbone"]["stage1_block0"]["fc1"]["kernel"] for tree in (ema, params, source))
    assert np.abs(new - old).max() > 0
    np.testing.assert_allclose(block, 9 / 11 * new + 2 / 11 * old, rtol=1e-5, atol=1e-7)  # in a buffer of its own

    monkeypatch.setattr(train.warm_start, "put", None)  # a run that goes on does not start again
    assert train.run(config, tmp_path)["warm_start"] == counts


def test_a_batch_in_parts_gives_the_step_of_the_whole_batch(little_compilation):
    config = tiny.tiny_config().train
    config.model.kwargs.drop_path = 0.0
    task = tasks.get("multilabel").make(config, tiny.INFO)
    params = jax.tree.map(np.asarray, jax.jit(task.init)(jax.random.key(0), tiny.tiny_batch()))
    optimizer, _ = optim.make(config, params, num_steps=10, steps_per_epoch=0.0)
    mesh = sharding.make_mesh(jax.devices()[:1])
    batch, found = tiny.tiny_batch(), []
    for steps in (1, 4):
        update = make_update(
            task,
            optimizer,
            jax.random.key(1),
            0.9,
            sharding.batch_sharding(mesh),
            sharding.replicated(mesh),
            accumulate_steps=steps,
        )
        state = {"params": params, "ema": params, "opt_state": optimizer.init(params), "step": np.int32(0)}
        for _ in range(2):
            state, values = update(state, batch, None)
        found.append((jax.tree.map(np.asarray, state["params"]), values))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), *found)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.fixture
def mined(tmp_path):
    config = tiny.tiny_config()
    mine.run(config, tmp_path)
    return config, tmp_path


def test_a_loss_that_is_no_number_stops_the_run(mined):
    config, folder = mined
    config.train.learning_rate = 1e38
    with pytest.raises(RunFailed, match="the loss is .* at step .* listings .*: lower config.train.learning_rate"):
        train.run(config, folder)
    assert checkpoints.Checkpoints(folder / "checkpoints").latest_step() is None


def test_another_config_or_vocabulary_than_the_checkpoint_has(uninterrupted, tmp_path):
    folder, config = tmp_path / "copy", tiny.tiny_config()
    shutil.copytree(uninterrupted, folder)
    config.train.learning_rate = 1e-3
    with pytest.raises(InputError, match="was trained with other settings:\n  train.learning_rate: 0.002 -> 0.001\n"):
        train.run(config, folder)
    config = tiny.tiny_config()
    config.train.log_every_steps = 5  # no number depends on it
    assert train.run(config, folder)["final_loss"] == tiny.logged(uninterrupted)[-1]["loss"]
    config.mine.threshold = 6
    shutil.rmtree(folder / "attributes")
    mine.run(config, folder)
    with pytest.raises(InputError, match="was trained with another vocabulary than .*attributes now holds"):
        train.run(config, folder)


def test_parts_of_a_batch_whose_rows_are_compared_and_a_mesh_of_other_devices(mined):
    config, folder = mined
    config.train.mesh.fsdp = 7
    with pytest.raises(InputError, match="config.train.mesh has data=0 and fsdp=7, but there are "):
        train.run(config, folder)
    config.train.mesh.fsdp = 1
    config.train.accumulate_steps = 2
    config.train.task_kwargs.category_loss = "supcon"
    with pytest.raises(InputError, match="accumulate_steps=2: the loss of category_loss='supcon' compares the rows"):
        train.run(config, folder)


def test_mixed_pictures_are_refused_where_their_labels_are_not_weighed():
    config = tiny.tiny_config()
    config.train.task, task = "self_supervised", tasks.Task(None, None, {}, "space")
    plans.check_batches(config.train, task)
    for name in ("mixup", "cutmix"):
        config.train.batch_transforms = (("flip", {}), (name, {}))
        plans.check_batches(config.train, dataclasses.replace(task, mixes=True))
        with pytest.raises(InputError, match=f"has '{name}', and the task 'self_supervised' would learn a picture"):
            plans.check_batches(config.train, task)


def test_mined_attributes_that_are_missing_or_of_another_catalogue(mined, tmp_path):
    config, folder = mined
    with pytest.raises(InputError, match="holds no mined attributes: run `retrieval-jax mine`"):
        train.run(config, tmp_path / "empty")
    config.data.kwargs.num_train = 61
    with pytest.raises(InputError, match="has 60 rows, the train split 61"):
        train.run(config, folder)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    convnext.VARIANTS["tiny test"] = tiny.TINY
    GOLDEN.write_text(json.dumps({loss: three_steps(loss) for loss in ("sigmoid", "softmax")}, indent=1) + "\n")
    print(f"wrote {GOLDEN}")
