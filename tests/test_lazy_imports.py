"""A training on a prepared catalogue imports neither polars nor faiss: little has to travel to a machine with a GPU."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from retrieval_jax import prepare
from retrieval_jax.data import loading

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Raises at whatever imports them.
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("polars", "faiss"):
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Blocked())
"""
IMPORTS = """
import importlib, pkgutil
import retrieval_jax.train, retrieval_jax.tasks, retrieval_jax.evaluators, retrieval_jax.data.records.tfds_datasets
for package in (retrieval_jax.tasks, retrieval_jax.evaluators):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
"""


def run(code: str, *arguments: str) -> str:
    """Runs code where polars and faiss cannot be imported, and returns its output."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    sizes = {"num_train": 64, "num_val": 16, "num_query": 8, "num_gallery": 16, "image_size": 32}
    prepare.run(ConfigDict({"data": {"source": "synthetic", "kwargs": sizes}}), folder, side=32, processes=1)
    return folder


def test_training_and_all_it_loads_by_name_import_neither():
    run(IMPORTS)


def test_a_prepared_catalogue_is_the_same_without_polars(prepared):
    code = """
import json
from retrieval_jax.data import loading
catalog = loading.load({"source": "tfds", "kwargs": {"root": sys.argv[1]}})
print(json.dumps({name: [list(split.ids), split.titles, split.categories.tolist(), len(split.images[0])]
                  for name, split in catalog.splits().items()}))
"""
    found = json.loads(run(code, str(prepared)).splitlines()[-1])
    catalog = loading.load({"source": "tfds", "kwargs": {"root": str(prepared)}})
    for file in (prepared / "catalogue").glob("*.npz"):  # as earlier versions left it, with Parquet alone
        if file.name != "truth.npz":
            file.rename(file.with_suffix(".gone"))
    from_parquet = loading.load({"source": "tfds", "kwargs": {"root": str(prepared)}})
    for file in (prepared / "catalogue").glob("*.gone"):
        file.rename(file.with_suffix(".npz"))
    for one in (catalog, from_parquet):
        wanted = {
            name: [list(split.ids), split.titles, split.categories.tolist(), len(split.images[0])]
            for name, split in one.splits().items()
        }
        assert found == wanted and len(found["train"][0]) == 64


@pytest.mark.long
def test_a_training_on_a_prepared_catalogue_needs_neither(prepared, tmp_path):
    config = """
import sys
from ml_collections import ConfigDict
from retrieval_jax.settings import arguments, quickstart

config = quickstart.experiment("prepared", arguments.parse("runlocal"))
config.data.source = "tfds"
config.data.kwargs = ConfigDict({"root": sys.argv[1]})
config.data.image_size = (32, 32)
config.train.task_kwargs.loss = "softmax"
config.mine.threshold = 4
"""
    script = "import pathlib\nfrom retrieval_jax import {0}\n{0}.run(config, pathlib.Path(sys.argv[2]))"
    arguments = [str(prepared), str(tmp_path)]
    subprocess.run([sys.executable, "-c", config + script.format("mine"), *arguments], cwd=ROOT, check=True)
    run(config + script.format("train"), *arguments)
    assert (tmp_path / "checkpoints").is_dir()
