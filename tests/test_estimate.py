"""The estimate of a run: counts as training has them, and nothing is written."""

import jax
import numpy as np
import pytest

import tiny
from retrieval_jax import __main__ as door
from retrieval_jax import estimate, mine, tasks, train
from retrieval_jax.data import info as info_lib

pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant")


@pytest.mark.parametrize("task", ["multilabel", "category"])
def test_counts_are_those_of_the_training(task, tmp_path):
    config = tiny.tiny_config()
    if task == "category":
        config.train.task, config.train.task_kwargs = task, {}
    folder = tmp_path / "run"
    found = estimate.of(config, folder)
    assert not folder.exists()
    folder.mkdir()
    mine.run(config, folder)
    summary = train.run(config, folder)
    assert (found.steps, found.parameters) == (summary["steps"], summary["parameters"])
    info = info_lib.load(folder / "checkpoints" / "data_info.json")
    assert found.labels == len(info.label_names) > 0
    assert estimate.of(config, folder) == found  # with the mined attributes of the run
    module = tasks.get(config.train.task).make(config.train, info)
    batch = {"image": np.zeros((1, 16, 16, 3), np.uint8)}
    embedding = jax.eval_shape(lambda: module.predict_fns["embed_image"](module.init(jax.random.key(0), batch), batch))
    assert found.dim == embedding["embedding"].shape[1]
    assert found.listings == {"train": 60, "val": 10, "query": 8, "gallery": 20}
    assert found.embedding_bytes == 28 * found.dim * 4 * len(config.embed.models)
    assert 4 * found.parameters <= found.state_bytes < found.device_bytes
    assert 0 < found.embed_flops < found.train_flops


def test_the_command_prints_every_run_and_starts_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = [f"--config.data.kwargs.num_{split}=40" for split in ("train", "val", "query", "gallery")]
    door.main(["run", "--config=quickstart_losses:runlocal", *sizes, "--estimate"])
    out = capsys.readouterr().out
    assert out.count(" steps of 32, ") == 4 and "quickstart:loss=both,runlocal: 1 steps of 32" in out
    assert "quickstart_losses: no training" in out and "together: about" in out
    assert "train 40, val 40, query 40, gallery 40" in out and "GFLOP/s per core" in out and "Time is rough" in out
    assert not list(tmp_path.iterdir())
