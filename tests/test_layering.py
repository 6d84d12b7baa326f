"""Who may import whom: the house rule, read from every import statement, those inside functions included."""

import ast
import fnmatch
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Free to every room of the package. Everything else is listed per room.
FREE = {"numpy", "tqdm", "retrieval_jax.errors"}
NOUNS = {"retrieval_jax.embeddings", "retrieval_jax.scoring.ranking", "retrieval_jax.scoring.metrics"}
VERBS = {"mine", "train", "embed", "search", "evaluate", "compare", "report", "serve", "run", "evaluate_checkpoints",
         "export", "propose_index", "prepare", "leaks"}
INDEX = {"faiss", "threadpoolctl", *NOUNS}

# File pattern, relative to the checkout -> what it may import (a module allows its submodules); the first match counts.
# A room (a folder below the package) may always import itself; the package's own files only what stands here.
RULES = {
    "configs/*.py": {"ml_collections", "configs.common"},
    "retrieval_jax/__init__.py": set(),
    "retrieval_jax/errors.py": set(),
    "retrieval_jax/workdir/provenance.py": set(),
    "retrieval_jax/files/lock.py": {"fsspec"},
    "retrieval_jax/files/remote.py": {"fsspec"},
    "retrieval_jax/workdir/records.py": {"retrieval_jax.files.lock", "retrieval_jax.workdir.provenance", "retrieval_jax.files.remote"},
    "retrieval_jax/workdir/command_line.py": {"absl", "ml_collections", "retrieval_jax.workdir"},
    "retrieval_jax/attributes/clusters.py": {"polars", "scipy", "sklearn"},
    "retrieval_jax/attributes/beam.py": {"apache_beam", "pyarrow"},
    "retrieval_jax/attributes/*": {"polars"},
    "retrieval_jax/embeddings/vectors.py": set(),
    "retrieval_jax/embeddings/folder.py": {"etils", "retrieval_jax.embeddings.vectors"},
    "retrieval_jax/embeddings/writer.py": {"retrieval_jax.embeddings", "retrieval_jax.workdir"},
    "retrieval_jax/duplicates/thumbnails.py": set(),
    # Part of the verb mine.
    "retrieval_jax/attributes/deciding.py": {"cv2", "polars", "retrieval_jax.attributes", "retrieval_jax.data.pictures.histogram"},
    "retrieval_jax/duplicates/hashes.py": set(),
    "retrieval_jax/scoring/slices.py": set(),
    "retrieval_jax/scoring/ranking.py": {"etils", "retrieval_jax.embeddings"},
    "retrieval_jax/scoring/metrics.py": {"retrieval_jax.embeddings", "retrieval_jax.scoring.ranking"},
    "retrieval_jax/scoring/step_effects.py": {"retrieval_jax.scoring.metrics", "retrieval_jax.scoring.ranking"},
    "retrieval_jax/postprocess/*": {"scipy", "threadpoolctl", "retrieval_jax.index", "retrieval_jax.workdir.provenance",
                                    "retrieval_jax.embeddings.vectors", *NOUNS},
    "retrieval_jax/index/accelerator.py": {"jax", *INDEX},
    "retrieval_jax/index/milvus.py": {"pymilvus", *INDEX},
    "retrieval_jax/index/faiss_index.py": INDEX,
    "retrieval_jax/index/binary/*": {"retrieval_jax.index.exact", *INDEX},
    "retrieval_jax/index/*": {"threadpoolctl", "retrieval_jax.workdir.provenance", "retrieval_jax.index.running_best", *NOUNS},
    # Reading a catalogue also reads its truth, a noun; grain asks absl whether flags are parsed.
    "retrieval_jax/data/*": {"grain", "tensorflow_datasets", "array_record", "polars", "etils", "cv2", "PIL", "absl",
                             "simplejpeg", "retrieval_jax.attributes.vocabulary", "retrieval_jax.scoring.ranking",
                             "retrieval_jax.files.remote"},
    "retrieval_jax/models/*": {"jax", "flax", "safetensors", "huggingface_hub"},
    "retrieval_jax/losses/*": {"jax", "optax"},
    "retrieval_jax/tasks/*": {"jax", "retrieval_jax.models", "retrieval_jax.losses"},
    "retrieval_jax/training/optim.py": {"jax", "optax"},
    "retrieval_jax/training/sharding.py": {"jax", "optax", "retrieval_jax.training.optim"},
    "retrieval_jax/training/memory.py": {"jax"},
    "retrieval_jax/training/guards.py": {"jax", "optax", "retrieval_jax.files.remote", "retrieval_jax.workdir"},
    "retrieval_jax/training/preemption.py": {"jax"},
    "retrieval_jax/training/telemetry.py": {"jax", "retrieval_jax.workdir.provenance"},
    "retrieval_jax/training/mixing.py": {"jax", "retrieval_jax.training.device_transforms"},
    "retrieval_jax/training/device_transforms.py": {"jax"},
    "retrieval_jax/views.py": {"jax"},
    "retrieval_jax/training/checkpoints.py": {"jax", "orbax", "etils", "retrieval_jax.files.remote"},
    "retrieval_jax/training/metric_writer.py": {"jax", "tensorboardX", "etils"},
    "retrieval_jax/training/soups.py": {"jax"},
    "retrieval_jax/exported.py": {"jax", "safetensors", "retrieval_jax.data", "retrieval_jax.embeddings",
                                  "retrieval_jax.workdir"},
    "retrieval_jax/training/warm_start.py": {"jax", "retrieval_jax.training.checkpoints", "retrieval_jax.inference",
                                    "retrieval_jax.training.optim"},
    # The bridge: it loads what train wrote, for those who have pictures and want vectors.
    "retrieval_jax/inference.py": {"jax", "ml_collections", "retrieval_jax.embeddings", "retrieval_jax.training.sharding",
                                   "retrieval_jax.training.checkpoints", "retrieval_jax.tasks", "retrieval_jax.data",
                                   "retrieval_jax.models.pretrained", "retrieval_jax.views", "retrieval_jax.workdir"},
    "retrieval_jax/evaluators/*": {"retrieval_jax.data", "retrieval_jax.inference", "retrieval_jax.index",
                                   "retrieval_jax.postprocess", *NOUNS},
    # Parts of the verb report: what they show is handed to them.
    "retrieval_jax/pages/scores.py": set(),
    "retrieval_jax/pages/charts.py": set(),
    "retrieval_jax/pages/rows.py": {"cv2", *NOUNS},
}
# A verb: anything but flax, orbax, faiss (their rooms are the only importers) and other verbs. A file that has no row
# here imports nothing beyond what is free: give it one.
RULES |= {f"retrieval_jax/{verb}.py": {"absl", "ml_collections", "jax", "etils", "scipy", "polars", "cv2", "PIL",
                                       "matplotlib", "rich", "grain", "retrieval_jax"} for verb in VERBS}


def imports(tree: ast.AST) -> set[str]:
    """Returns the modules an import statement anywhere in the tree names; `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full, not relative"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return found


def rule(path: str) -> set[str]:
    return next((allowed for pattern, allowed in RULES.items() if fnmatch.fnmatch(path, pattern)), set())


def broken(path: str, source: str) -> list[str]:
    """Returns the imports of a file that its room may not make."""
    room = path.rpartition("/")[0].replace("/", ".")
    allowed = set() if room == "configs" else rule(path) | FREE | ({room} - {"retrieval_jax"})
    allowed |= rule(path)
    name, wrong = pathlib.PurePath(path).stem, []
    for module in imports(ast.parse(source)):
        parts = module.split(".")
        if parts[0] in sys.stdlib_module_names:
            continue
        verb = parts[1] if parts[0] == "retrieval_jax" and len(parts) > 1 and parts[1] in VERBS else None
        if verb and (name != "run" or room != "retrieval_jax") and not (room == "retrieval_jax" and verb == name):
            wrong.append(module)
        elif not any(module == good or module.startswith(good + ".") for good in allowed):
            wrong.append(module)
    return sorted(wrong)


FILES = sorted(file.relative_to(ROOT).as_posix() for room in ("configs", "retrieval_jax")
               for file in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_imports_follow_the_table(path):
    wrong = broken(path, (ROOT / path).read_text(encoding="utf-8"))
    assert not wrong, f"{path} may not import {', '.join(wrong)}; it may import {', '.join(sorted(rule(path) | FREE))}"


@pytest.mark.parametrize("path, line", [
    ("retrieval_jax/search.py", "from retrieval_jax import embed"),
    ("retrieval_jax/search.py", "def f():\n    import retrieval_jax.train"),
    ("retrieval_jax/data/tables/loading.py", "from retrieval_jax.mine import run"),
    ("retrieval_jax/losses/triplet.py", "import flax.linen as nn"),
    ("retrieval_jax/models/backbones/vit.py", "from retrieval_jax.losses import multilabel"),
    ("retrieval_jax/postprocess/whitening.py", "import jax"),
    ("retrieval_jax/index/exact.py", "import faiss"),
    ("retrieval_jax/train.py", "import orbax.checkpoint as ocp"),
    ("retrieval_jax/scoring/metrics.py", "import importlib\nimportlib.import_module('jax')"),
    ("configs/quickstart.py", "import numpy as np"),
    ("retrieval_jax/pages/scores.py", "import cv2"),
    ("retrieval_jax/pages/charts.py", "from retrieval_jax import workdir"),
    ("retrieval_jax/pages/rows.py", "from retrieval_jax import report"),
    ("retrieval_jax/pages/rows.py", "from retrieval_jax.data import catalog"),
    ("retrieval_jax/report_new.py", "from retrieval_jax import workdir"),
])
def test_the_test_itself_sees_a_wrong_import(path, line):
    assert broken(path, line)


@pytest.mark.parametrize("path, line", [
    ("retrieval_jax/run.py", "from retrieval_jax import mine"),
    ("retrieval_jax/train.py", "from retrieval_jax.data import pipeline"),
    ("configs/quickstart.py", "from configs import common\nfrom ml_collections import ConfigDict"),
])
def test_the_test_itself_lets_a_right_import_through(path, line):
    assert not broken(path, line)


def test_no_file_is_longer_than_600_lines():
    long = [path for path in FILES if len((ROOT / path).read_text(encoding="utf-8").splitlines()) > 600]
    assert not long, f"{long} should be two files each"


def test_search_and_evaluate_do_not_load_jax():
    code = ("import retrieval_jax.search, retrieval_jax.evaluate, retrieval_jax.run, retrieval_jax.postprocess, sys; "
            "loaded = [m for m in ('jax', 'flax', 'grain') if m in sys.modules]; assert not loaded, loaded")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
