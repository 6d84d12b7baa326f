"""A few faults of tests/fault_table.py, which makes docs/faults.md out of many."""

import pytest

from fault_table import Table


def test_a_killed_a_stopped_and_a_damaged_run_end_like_one_that_nobody_disturbed(tmp_path):
    table = Table(tmp_path, steps=60)
    table.kill(1, processes=1)
    table.damage(1)  # stopped by SIGTERM before
    assert [row[1] for row in table.rows] == [1, 1]


@pytest.mark.long
def test_two_processes_a_full_disk_and_other_topologies(tmp_path):
    table = Table(tmp_path, steps=60)
    table.terminate(2)
    table.kill(2)
    table.full_disk()
    table.gone_and_read_only()
    table.second_run()
    table.topologies("devices", (8, 2, 1))
    table.topologies("processes", (2, 1, 3))
    assert len(table.rows) >= 7
