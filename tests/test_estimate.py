"""The estimate of a run: counts as training has them, and nothing is written."""

import jax
import numpy as np
import pytest

import tiny
from retrieval_jax import __main__ as door
from retrieval_jax import estimate, mine, plans, tasks, train
from retrieval_jax.data import info as info_lib

pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant")


FOUND = estimate.Estimate(
    listings={"train": 5000, "gallery": 300},
    labels=194,
    steps=1094,
    batch_size=64,
    parameters=1125218,
    state_bytes=20 * 2**20,
    activation_bytes=5 * 2**20,
    device_bytes=10 * 2**20,
    train_flops=1e13,
    evidence={"train": 2000, "altered": 300},
    embed_flops=None,
    dim=448,
    checkpoint_bytes=50 * 2**20,
    embedding_bytes=30 * 2**20,
)


def test_counts_are_those_of_the_training(tmp_path):
    config = tiny.tiny_config()
    config.search.steps = (("chosen", {}),)
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
    widths = {"histogram": 512, "colour_and_edges": 1872}
    assert found.evidence == {"train": 60, "altered": 20}
    assert found.embedding_bytes == 80 * 4 * found.dim + 28 * 4 * sum(
        widths.get(model, found.dim) for model in config.embed.models
    )
    config.search.steps = (("whitening", {}),)
    assert plans.evidence_rows(config, "trained") == {"train": 0, "altered": 0}
    assert 4 * found.parameters <= found.state_bytes < found.device_bytes
    assert 0 < found.activation_bytes < found.device_bytes
    assert 0 < found.embed_flops < found.train_flops


def test_the_command_prints_and_starts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate, "of", lambda config, folder: FOUND)
    door.main(["run", "--config=quickstart_losses", "--estimate"])
    out = capsys.readouterr().out
    assert out.count(" steps of 64, ") == 4 and "quickstart:loss=both: 1,094 steps of 64, 1,125,218 parameters" in out
    assert "quickstart_losses: no training" in out and "together: about" in out and "320.0 MiB on disk" in out
    assert "train 5,000, gallery 300; 194 mined attributes" in out and "GFLOP/s per core" in out and "is rough" in out
    assert (
        "memory: about 25.0 MiB per device, 5.0 MiB of it for a batch and its activations; a device has 10.0 MiB" in out
    )
    assert "MiB: does not fit" in out and "to choose search steps by: 2,000 train, 300 altered" in out
    assert "embed unknown" in out and not list(tmp_path.iterdir())
