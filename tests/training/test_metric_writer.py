"""Metric lines: their content, and no duplicates after resuming."""

import json

import numpy as np

from retrieval_jax.training.metric_writer import MetricWriter


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(folder, steps, **kw):
    writer = MetricWriter(folder, **kw)
    for step in steps:
        writer.write(step, {"loss": np.float32(step / 2), "learning_rate": 0.1})
    writer.close()


def test_a_line_has_step_time_and_values(tmp_path):
    write(tmp_path, [3])
    [line] = lines(tmp_path)
    assert line["step"] == 3 and line["loss"] == 1.5 and line["learning_rate"] == 0.1 and line["time"] > 1e9
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_resuming_removes_lines_after_the_checkpoint_and_a_broken_line(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    write(tmp_path, [3, 4, 5], resume_step=2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_new_run_starts_with_an_empty_file(tmp_path):
    write(tmp_path, [0, 1])
    write(tmp_path, [0])
    assert [line["step"] for line in lines(tmp_path)] == [0]


def test_non_finite_values_are_valid_json(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, {"a": float("nan"), "b": np.inf, "c": None})
    writer.close()
    [line] = lines(tmp_path)
    assert line["a"] is None and line["b"] is None and "c" not in line  # unknown is not non-finite


def test_other_processes_write_nothing(tmp_path):
    write(tmp_path, [1], enabled=False)
    assert not list(tmp_path.iterdir())
