"""A few faults of tests/fault_table.py, which runs many for docs/faults.md."""

import pytest

from fault_table import Table, checkpoint_steps, compare, resumed_from
from retrieval_jax.training import checkpoints
from retrieval_jax.workdir import read_record


@pytest.fixture
def table(tmp_path):
    made = Table(tmp_path, steps=80)
    yield made
    made.end()


def test_a_run_that_is_killed_stopped_and_damaged_ends_like_an_undisturbed_one(table):
    workdir = table.workdir()
    run = table.start(workdir)
    assert run.wait_for(lambda: checkpoint_steps(workdir))
    run.kill()
    whole = checkpoint_steps(workdir)
    stopped_at = table.stopped(workdir, 25)  # by SIGTERM: status 75, everything is saved
    assert stopped_at >= max(25, whole[-1])
    before = checkpoint_steps(workdir)[-2]
    run_id = checkpoints.meta(workdir / "checkpoints")["run"]
    file = table.alter(workdir, flip=True)
    run = table.start(workdir)
    run.finish()
    assert f"{stopped_at} is damaged" in run.log() and resumed_from(run.log()) == before, file
    compare(workdir, table.reference())
    assert checkpoints.meta(workdir / "checkpoints")["run"] == run_id  # the same run, and not the undisturbed one
    assert read_record(workdir, "train")["summary"]["run"] == run_id
    assert checkpoints.meta(table.reference() / "checkpoints")["run"] != run_id


@pytest.mark.long
def test_two_processes_a_full_disk_and_other_topologies(table):
    table.terminate(2)
    table.kill(2)
    table.full_disk()
    table.gone_and_read_only()
    table.second_run()
    table.topologies("devices", (8, 2, 1))
    table.topologies("processes", (2, 1, 3))
    assert len(table.rows) >= 7
