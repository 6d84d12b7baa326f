"""Every published config, shrunk by :runlocal, goes the whole way: mine to report, predecessors and members first."""

import json
import pathlib

import jax
import pytest

from retrieval_jax import run, workdir
from retrieval_jax.workdir import command_line

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
# The ensemble comes last: its members have run by then and are skipped.
NAMES = sorted((file.stem for file in CONFIGS.glob("eproduct_*.py")), key=lambda name: ("ensemble" in name, name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of all runs; little time in the compiler."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield tmp_path_factory.mktemp("runs")
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("name", NAMES)
def test_published_config_runs_in_seconds(name, runs):
    config = command_line.load_config(CONFIGS / f"{name}.py", "runlocal")
    assert config.name == name
    folder = runs / workdir.default_name(name, "runlocal")
    run.run(config, folder, CONFIGS)
    stages = {(stage["model"], stage["stage"]) for stage in json.loads((folder / "metrics.json").read_text())["stages"]}
    assert ("ensemble" if "ensemble" in name else "trained", "reranking") in stages
    assert (folder / "report.html").exists()
    if name == "eproduct_v2l_self_supervised":
        counts = workdir.read_record(folder, "train")["summary"]["warm_start"]
        assert counts["from"].endswith("eproduct_v2l_categories-runlocal") and counts["tensors_taken"] > 5


@pytest.mark.parametrize("name", [name for name in NAMES if "ensemble" not in name])
def test_published_config_is_the_published_recipe(name):
    train = command_line.load_config(CONFIGS / f"{name}.py").train
    assert train.model.pretrained.name and train.model.kwargs.drop_path and train.dtype == "bfloat16"
    assert train.batch_size % 8 == 0 and train.weight_decay == 1e-4 and train.ema_decay == 0.999
    from retrieval_jax.models import pretrained

    model = pretrained.model(train.model.pretrained.name, **train.model.pretrained.kwargs, **train.model.kwargs)
    side = train.model.pretrained.kwargs.img_size
    assert len(jax.tree.leaves(pretrained.shapes_of(model, (side, side)))) > 100
