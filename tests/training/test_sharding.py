"""Mesh, rules and batches; and training does not depend on the number of devices and processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import tiny
from retrieval_jax import mine
from retrieval_jax.errors import InputError
from retrieval_jax.training import memory, sharding

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_mesh_has_two_auto_axes_over_all_devices():
    mesh = sharding.make_mesh()
    assert mesh.axis_names == ("data", "fsdp") and mesh.size == jax.device_count()
    assert mesh.axis_types == (AxisType.Auto,) * 2 and mesh.shape["fsdp"] == 1
    for sizes in ({"fsdp": 3}, {"data": 7}, {"fsdp": 0}, {"data": -1, "fsdp": -1}):
        with pytest.raises(InputError, match="config.train.mesh has data=.* devices; set fsdp to a divisor"):
            sharding.make_mesh(jax.devices()[:1], **sizes)


def abstract_mesh(data, fsdp):
    return jax.sharding.AbstractMesh((data, fsdp), ("data", "fsdp"))


@pytest.mark.parametrize(
    "path, shape, expected",
    [
        ("backbone/stage2_block3/fc1/kernel", (1024, 4096), (None, "fsdp")),
        ("backbone/stage2_block3/fc2/kernel", (4096, 1024), ("fsdp",)),
        ("backbone/blocks/fc1/kernel", (4096, 512, 2048), (None, None, "fsdp")),  # not along the layer axis
        ("backbone/stage3_down/kernel", (2, 2, 1024, 2048), (None, None, None, "fsdp")),
        ("heads_titles/kernel", (2048, 20000), (None, "fsdp")),
        ("heads_titles/kernel", (2048, 20001), ("fsdp",)),  # labels not divisible by eight
        ("title_tower/embedding", (20000, 512), ("fsdp",)),
        ("backbone/stem/kernel", (16, 16, 3, 1024), ()),
        ("backbone/stage0_block0/dw_kernel", (7, 7, 2048), ()),
        ("backbone/block0/attention/relative_bias", (8192, 16), ()),
        ("backbone/positions", (1, 4096, 1024), ()),
        ("heads_titles/bias", (80000,), ()),
        ("backbone/block0/attention/proj/kernel", (192, 192), ()),  # too small
        ("backbone/block0/attention/proj/kernel", (1023, 1023), ()),  # not divisible by eight
    ],
)
def test_default_rules(path, shape, expected):
    assert sharding.spec(path, shape, abstract_mesh(2, 8)) == PartitionSpec(*expected)


def test_rules_of_a_config_take_precedence_and_bad_ones_are_refused():
    mesh = abstract_mesh(2, 4)
    assert sharding.spec("heads_titles/kernel", (8, 20), mesh, (("^heads_", (None, "fsdp")),)) == (
        PartitionSpec(None, "fsdp")
    )
    assert sharding.spec("a/kernel", (512, 1024), mesh, (("^a/", ()),)) == PartitionSpec()
    for rule, words in (
        ((None, "fsdb"), "unknown axis 'fsdb'; the axes are data, fsdp"),
        (("fsdp",), "divides 7 by 4"),
        (((("data", "fsdp")),), "divides 7 by 2 x 4"),
        ((None,) * 3, "more dimensions"),
    ):
        with pytest.raises(InputError, match=f"config.train.sharding_rules: .*{words}"):
            sharding.spec("a/kernel", (7, 7), mesh, (("^a/", rule),))
    with pytest.raises(InputError, match="config.train.sharding_rules: '\\^b' matches no parameter"):
        sharding.state_sharding({"params": {"a": np.zeros(3)}}, mesh, (("^b", ()),))


def test_memory_check_reports_the_largest_part():
    counts = {"parameters": 3 * 2**30, "optimiser state": 6 * 2**30, "batch": 2**20}
    assert memory.check(counts, 10 * 2**30) == (
        "9.0 GiB of memory on each device: optimiser state 6.0 GiB, parameters 3.0 GiB, batch 1.0 MiB; it has 10.0 GiB"
    )
    with pytest.raises(
        InputError,
        match="has only 8.0 GiB. The largest part is optimiser state: use a larger config.train.mesh.fsdp",
    ):
        memory.check(counts, 8 * 2**30)
    with pytest.raises(InputError, match="largest part is activations: use config.train.accumulate_steps"):
        memory.check({**counts, "activations": 2**36}, 8 * 2**30)
    assert 2**20 < memory.limit(jax.devices()[0]) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_batch_keeps_values_and_types():
    mesh = sharding.make_mesh(jax.devices()[:1])
    batch = {"image": np.zeros((4, 2, 2, 3), np.uint8), "_mask": np.ones(4, bool)}
    out = sharding.shard_batch(batch, mesh)
    assert out["image"].dtype == np.uint8 and out["_mask"].shape == (4,)
    assert out["image"].sharding.is_equivalent_to(sharding.batch_sharding(mesh), 4)


def test_bad_variable_is_refused(monkeypatch):
    monkeypatch.setenv(sharding.VARIABLE, "yes")
    with pytest.raises(InputError, match="rank"):
        sharding.initialize()
    monkeypatch.delenv(sharding.VARIABLE)
    sharding.initialize()


CHILD = """
import jax, numpy as np
from retrieval_jax.training import sharding
from retrieval_jax.errors import InputError
sharding.initialize()
mesh = sharding.make_mesh()
p, count = jax.process_index(), jax.process_count()
rows = np.arange(8, dtype=np.float32)
batch = sharding.shard_batch({"x": rows[p * 8 // count:(p + 1) * 8 // count]}, mesh)
gram = jax.jit(lambda x: x[:, None] @ x[None], out_shardings=sharding.replicated(mesh))(batch["x"])
assert np.array_equal(np.asarray(gram), np.outer(rows, rows))
try:
    sharding.shard_batch({"x": rows[:3]}, mesh)
except InputError as error:
    print(count, mesh.size, batch["x"].shape, "multiple of 4" in str(error))
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def processes(code, count, devices, *args):
    """Starts the processes of a run with a number of devices each."""
    port, started = free_port(), []
    for rank in range(count):
        env = {
            **os.environ,
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles much faster
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
        }
        env.pop(sharding.VARIABLE, None)
        if count > 1:
            env[sharding.VARIABLE] = f"127.0.0.1:{port},{count},{rank}"
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *map(str, args)],
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    return started


def finished(started, timeout=900):
    """Waits for processes and returns the last line that each printed."""
    lines = []
    try:
        for process in started:
            out, err = process.communicate(timeout=timeout)
            assert process.returncode == 0, err
            lines.append(out.splitlines()[-1])
    finally:
        for process in started:
            process.kill()
    return lines


@pytest.mark.parametrize("count", [1, 2])
def test_four_devices_in_one_or_two_processes(count):
    assert finished(processes(CHILD, count, 4 // count)) == [f"{count} 4 (8,) True"] * count


# Four steps of the tiny network on batches of 11 rows, if "drawn" with drop path and mixup, then the scores of 21
# queries in a gallery of 60 by batches of 7, for each mesh: sizes that nothing divides.
STEPS = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
import tiny, tiny_linear
from retrieval_jax import inference, tasks, train
from retrieval_jax.training import optim, sharding
from retrieval_jax.data import pipeline
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.training.update import make_update
from retrieval_jax.evaluators import retrieval
from retrieval_jax.models.backbones import convnext
sharding.initialize()
sharding._SMALL = 16  # cut everything that can be cut
convnext.VARIANTS["tiny test"] = tiny.TINY
whole, rng = tiny.tiny_config(), np.random.default_rng(0)
config = whole.train
examples = Examples({
    "image": Pictures(rng.integers(0, 256, (40, 16, 16, 3), np.uint8)),
    "label_ids": Ragged(np.arange(41) * 2, rng.integers(0, 5, 80).astype(np.int32)),
    "category": rng.integers(-1, 3, 40)})

def make(drawn):
    config.model.kwargs.drop_path = 0.2 * drawn
    return tasks.get("multilabel").make(config, tiny.INFO)

def init():
    params = make(0).init(jax.random.key(0), {"image": np.zeros((1, 16, 16, 3), np.uint8)})
    return {"params": params, "ema": params, "opt_state": optim.make(config, params, 10, 2.0)[0].init(params),
            "step": jnp.int32(0)}

abstract = jax.eval_shape(init)
optimizer, _ = optim.make(config, abstract["params"], 10, 2.0)
found = {}
for devices, fsdp, parts, drawn in json.loads(sys.argv[1]):
    task = make(drawn)
    mesh = sharding.make_mesh(jax.devices()[:devices], fsdp=fsdp)
    by_state = sharding.state_sharding(abstract, mesh)
    state = jax.jit(init, out_shardings=by_state)()
    update = make_update(task, optimizer, jax.random.key(1), 0.9, sharding.batch_sharding(mesh), by_state,
                               accumulate_steps=parts, pictures=("image",),
                         batch_transforms=(("mixup", {}),) if drawn else ())
    losses = []
    for batch in pipeline.train_batches(
            examples, transform=(("resize", {}), ("flip", {})), image_size=(16, 16), batch_size=11, seed=0, num_steps=4,
            places=sharding.local_places(mesh, 11, parts)):
        state, values = update(state, sharding.shard_batch(batch, mesh), None)
        losses.append({name: float(value) for name, value in values.items()})
    cut = [leaf.sharding.shard_shape(leaf.shape) != leaf.shape for leaf in jax.tree.leaves(state["opt_state"])]
    whole.embed.batch_size, whole.evaluate.selection_share, whole.data.image_size = 7, 1.0, (16, 16)
    scores = retrieval.make(task, tiny_linear.make_catalog(), config=whole, mesh=mesh)(state["ema"])
    found[f"{devices},{fsdp},{parts},{drawn}"] = {"losses": losses, "scores": dict(scores), "cut": sum(cut)}
print(json.dumps(found))
"""


def equal(ours, theirs, rtol):
    for step, (one, other) in enumerate(zip(ours["losses"], theirs["losses"], strict=True)):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=1e-7, err_msg=f"step {step}: {name}")
    assert ours["scores"] == theirs["scores"]


def test_losses_and_scores_do_not_depend_on_devices_processes_or_parts():
    """Losses agree to 1e-5: sums over rows are taken in another order. Scores are ranks, and agree exactly."""
    one, *two = map(
        json.loads,
        finished(  # at the same time
            processes(STEPS, 1, 8, "[[1, 1, 1, 1], [2, 1, 1, 1], [8, 2, 1, 1], [1, 1, 1, 0], [2, 2, 3, 0]]")
            + processes(STEPS, 2, 4, "[[8, 4, 1, 1]]")
        ),
    )
    alone = one["1,1,1,1"]
    assert alone["losses"][0]["loss"] > alone["losses"][-1]["loss"] > 0 and alone["scores"]["retrieval/mar@10"] > 0
    assert alone["cut"] == 0 and one["8,2,1,1"]["cut"] > 10
    for key in ("2,1,1,1", "8,2,1,1"):
        equal(one[key], alone, 1e-5)
    equal(one["2,2,3,0"], one["1,1,1,0"], 1e-5)  # three parts of twelve rows, one of them padding
    for ours in two:
        assert ours["8,4,1,1"]["cut"] > 10
        equal(ours["8,4,1,1"], alone, 1e-5)


RESUMED = """
import os, pathlib, sys, time
import tiny
from retrieval_jax.training import sharding
from retrieval_jax import train
from retrieval_jax.data import pipeline
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.training.update import make_update
from retrieval_jax.models.backbones import convnext
sharding.initialize()
convnext.VARIANTS["tiny test"] = tiny.TINY
folder, stop, fsdp = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
config = tiny.tiny_config()
config.train.mesh.fsdp = fsdp
config.train.batch_size, config.train.epochs = 17, 3.4  # twelve steps
real = pipeline.train_batches

def batches(*args, start_step, **kwargs):
    for step, batch in enumerate(real(*args, start_step=start_step, **kwargs), start_step + 1):
        while step == stop + 2 and not (folder / "checkpoints" / str(stop)).exists():
            time.sleep(0.05)
        if step == stop + 2:
            os._exit(0)
        yield batch

pipeline.train_batches = batches
sharding._SMALL = 16
train.run(config, folder)
"""


@pytest.mark.long
def test_a_run_resumed_with_other_processes_sees_the_next_examples(tmp_path):
    """Two processes of two devices, stopped at step 4; one, at step 8; then three of one: 17 rows for all of them."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        mine.run(tiny.tiny_config(), folder)
    for folder, count, devices, stop, fsdp in (
        (whole, 1, 1, 99, 1),
        (parts, 2, 2, 4, 4),
        (parts, 1, 1, 8, 1),
        (parts, 3, 1, 99, 3),
    ):
        for process in processes(RESUMED, count, devices, folder, stop, fsdp):
            out, err = process.communicate(timeout=900)
            assert process.returncode == 0, err
    ours, theirs = tiny.logged(parts), tiny.logged(whole)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, 13))
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "title_loss", "category_loss"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5, err_msg=f"step {one['step']}: {name}")
