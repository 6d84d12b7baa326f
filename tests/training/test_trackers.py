"""Weights & Biases and MLflow: the real libraries, offline; what they lack stops no training."""

import json
import math
import sys

import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.training import trackers
from retrieval_jax.training.metric_writer import MetricWriter

CONFIG = {"name": "tiny", "train": {"learning_rate": 0.1, "model": {"name": "convnext"}, "views": ()}}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def train(folder, entries, steps, resumes=False):
    """Writes metrics as a training does."""
    made = trackers.opened(entries, folder, CONFIG, resumes=resumes)
    writer = MetricWriter(folder, resume_step=min(steps) - 1 or None, trackers=made)
    for step in steps:
        writer.write(step, {"loss": 1 / step, "retrieval/recall@1": 0.5, "odd": math.nan})
    writer.close()
    return made


def test_mlflow_keeps_settings_and_metrics_and_goes_on_after_a_resume(offline, tmp_path):
    tracking = pytest.importorskip("mlflow.tracking", reason="pip install -r requirements-tracking.txt")
    train(tmp_path, (("mlflow", {"experiment": "shop"}),), [1, 2])
    train(tmp_path, (("mlflow", {"experiment": "shop"}),), [2, 3], resumes=True)
    client = tracking.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("shop").experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "tracking.json").read_text())["mlflow"]
    assert run.info.status == "FINISHED" and run.info.run_name == "tiny"
    assert run.data.params["train.learning_rate"] == "0.1" and run.data.params["train.model.name"] == "convnext"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(1, 1.0), (2, 0.5), (2, 0.5), (3, 1 / 3)]
    assert "retrieval/recall_at_1" in run.data.metrics and "odd" not in run.data.metrics


def test_wandb_writes_a_run_offline_and_goes_on_after_a_resume(offline, tmp_path):
    pytest.importorskip("wandb", reason="pip install -r requirements-tracking.txt")
    (tracker,) = train(tmp_path, (("wandb", {"project": "shop"}),), [1, 2])
    known = json.loads((tmp_path / "tracking.json").read_text())["wandb"]
    train(tmp_path, (("wandb", {"project": "shop"}),), [2, 3], resumes=True)
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{known}/run-{known}.wandb"))
    content = b"".join(file.read_bytes() for file in files)
    assert files and b"learning_rate" in content and b"retrieval/recall@1" in content
    assert tracker.name == "wandb" and (tmp_path / "metrics.jsonl").exists()


def test_a_new_training_starts_new_runs(offline, tmp_path):
    pytest.importorskip("mlflow", reason="pip install -r requirements-tracking.txt")
    ids = []
    for _ in range(2):
        train(tmp_path, (("mlflow", {}),), [1])
        ids.append(json.loads((tmp_path / "tracking.json").read_text())["mlflow"])
    assert ids[0] != ids[1]


def test_a_tracker_that_fails_is_left_out_with_one_line(tmp_path, capsys):
    sent = []

    def write(step, values):
        sent.append(step)
        raise ConnectionError("the server is gone\nlong story")

    tracker = trackers.Tracker("wandb", write, lambda: sent.append("closed"))
    writer = MetricWriter(tmp_path, trackers=[tracker])
    for step in (1, 2, 3):
        writer.write(step, {"loss": 1.0})
    writer.close()
    assert sent == [1] and len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    said = capsys.readouterr().out
    assert said == "wandb: the server is gone; nothing more is sent there, the training goes on\n"


def test_a_tracker_that_cannot_be_opened_is_left_out(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("no such project")

    monkeypatch.setitem(trackers._OPENED, "wandb", refuse)
    assert trackers.opened((("wandb", {}),), tmp_path, CONFIG) == [] and not list(tmp_path.iterdir())
    assert "wandb: no such project; nothing is sent there" in capsys.readouterr().out


@pytest.mark.parametrize(
    "entries, words",
    [
        ((("wandbb", {}),), "there is no tracker named 'wandbb'; did you mean wandb?"),
        ((("wandb", {"projekt": "x"}),), "has no argument 'projekt'; did you mean project?"),
        ((("mlflow", {"experiment": 3}),), "experiment of 'mlflow' is text, not 3"),
        (("wandb",), r"write \(name, arguments\)"),
    ],
)
def test_wrong_settings_are_refused(entries, words):
    with pytest.raises(InputError, match=words):
        trackers.check(entries)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match="pip install mlflow-skinny, or the extra"):
        trackers.check((("mlflow", {}),))
