"""Who may import whom: the house rule, read from every import statement, those inside functions included.

Longer than 400 lines: one table of all rooms, beside the tests of the test.
"""

import ast
import fnmatch
import pathlib
import subprocess
import sys

import pytest

import house

ROOT = house.ROOT

# Free to every room of the package. Everything else is listed per room.
FREE = {
    "msgspec",
    "numpy",
    "tqdm",
    "retrieval_jax.__version__",
    "retrieval_jax.arguments",
    "retrieval_jax.brief",
    "retrieval_jax.output",
    "retrieval_jax.errors",
    "retrieval_jax.pairs",
    "retrieval_jax.paths",
    "retrieval_jax.terms",
}
VERBS = {
    "mine",
    "train",
    "embed",
    "search",
    "evaluate",
    "report",
    "serve",
    "query",
    "run",
    "prepare",
    "leaks",
    "compare",
    "sweep",
    "propose_index",
    "evaluate_checkpoints",
    "export",
    "hub",
    "configs",
    "init",
    "pictures",
    "import_clicks",
    "upgrade",
    "nas",
}

# Room (a folder of the package, or a file at its root) -> what it may import; a module allows its submodules.
# A room may always import itself.
ROOMS = {
    # The door knows the verbs by name alone.
    "__main__.py": {"shtab", "retrieval_jax.__version__", "retrieval_jax.training.sharding", "retrieval_jax.workdir"},
    "brief.py": set(),
    "arguments.py": set(),
    "output.py": set(),
    "errors.py": set(),
    "pairs.py": set(),
    "paths.py": set(),
    "terms.py": set(),
    "views.py": {"jax"},
    # Reads programs of strangers, in a process of its own.
    "programs.py": {"jax"},
    "files": {"fsspec"},
    "settings": {"ml_collections"},
    # Edited data is noticed by a digest of the catalogue.
    "workdir": {
        "absl",
        "ml_collections",
        "retrieval_jax.data.digest",
        "retrieval_jax.data.loading",
        "retrieval_jax.files",
        "retrieval_jax.settings",
    },
    "embeddings": {"retrieval_jax.files"},
    "duplicates": set(),
    # Titles in, attribute ids out; colours of pictures help to decide which words are attributes.
    "attributes": {
        "apache_beam",
        "cv2",
        "polars",
        "pyarrow",
        "scipy",
        "sklearn",
        "retrieval_jax.data.pictures.histogram",
        "retrieval_jax.data.tables.tsv",  # Beam reads tables of its own accord, and reads them alike
        "retrieval_jax.data.tables.values",
        "retrieval_jax.files",
    },
    "scoring": {"etils", "rich", "retrieval_jax.duplicates", "retrieval_jax.embeddings", "retrieval_jax.files"},
    # The exact top-k on a GPU or TPU is the one that imports JAX, where it is asked for.
    "index": {
        "bm25s",
        "faiss",
        "jax",
        "pymilvus",
        "pyroaring",
        "scipy",
        "threadpoolctl",
        "retrieval_jax.embeddings",
        "retrieval_jax.files",
        "retrieval_jax.scoring.ranking",
        "retrieval_jax.workdir.provenance",
    },
    "postprocess": {
        "lightgbm",
        "scipy",
        "retrieval_jax.embeddings",
        "retrieval_jax.files",
        "retrieval_jax.index",
        "retrieval_jax.scoring",
        "retrieval_jax.workdir",
    },
    # Reading a catalogue also reads its truth and what its queries are about; grain asks absl whether flags are parsed.
    "data": {
        "PIL",
        "absl",
        "aiohttp",
        "array_record",
        "cv2",
        "etils",
        "google.protobuf",
        "grain",
        "polars",
        "simplejpeg",
        "tensorflow_datasets",
        "tokenizers",
        "retrieval_jax.duplicates",
        "retrieval_jax.embeddings.ids",
        "retrieval_jax.files",
        "retrieval_jax.scoring.ranking",
    },
    "models": {"flax", "huggingface_hub", "jax", "safetensors", "retrieval_jax.files"},
    "losses": {"jax", "optax"},
    "tasks": {
        "jax",
        "retrieval_jax.attributes",
        "retrieval_jax.data",
        "retrieval_jax.files",
        "retrieval_jax.losses",
        "retrieval_jax.models",
        "retrieval_jax.workdir.layout",  # the run that one starts from
    },
    "training": {
        "etils",
        "jax",
        "mlflow",
        "optax",
        "orbax",
        "tensorboardX",
        "wandb",
        "retrieval_jax.data.info",
        "retrieval_jax.embeddings.adapters",
        "retrieval_jax.files",
        "retrieval_jax.workdir",
    },
    # The bridge: it loads what train wrote, for those who have pictures and want vectors.
    "inference.py": {
        "jax",
        "ml_collections",
        "retrieval_jax.data",
        "retrieval_jax.embeddings",
        "retrieval_jax.files",
        "retrieval_jax.models.pretrained",
        "retrieval_jax.tasks",
        "retrieval_jax.training",
        "retrieval_jax.views",
        "retrieval_jax.workdir",
    },
    # Pictures cropped to what another run finds in them.
    "regions.py": {
        "retrieval_jax.data",
        "retrieval_jax.inference",
        "retrieval_jax.scoring.boxes",
        "retrieval_jax.training.checkpoints",
        "retrieval_jax.workdir",
    },
    # Turns listings into vectors, with and without networks.
    "embedders.py": {
        "jax",
        "retrieval_jax.data",
        "retrieval_jax.embeddings",
        "retrieval_jax.files",
        "retrieval_jax.inference",
        "retrieval_jax.models.pixels",
        "retrieval_jax.models.pretrained",
        "retrieval_jax.postprocess.binarise",
        "retrieval_jax.tasks",
        "retrieval_jax.training",
        "retrieval_jax.workdir",
    },
    # A run's gallery, by which looks are completed.
    "looks.py": {
        "ml_collections",
        "retrieval_jax.data",
        "retrieval_jax.embeddings",
        "retrieval_jax.index",
        "retrieval_jax.inference",
        "retrieval_jax.scoring",
        "retrieval_jax.workdir",
    },
    # Builds what train would build, as shapes.
    "plans.py": {
        "jax",
        "retrieval_jax.attributes",
        "retrieval_jax.data",
        "retrieval_jax.embeddings.evidence",
        "retrieval_jax.inference",
        "retrieval_jax.models.pixels",
        "retrieval_jax.models.pretrained",
        "retrieval_jax.settings",
        "retrieval_jax.tasks",
        "retrieval_jax.training",
        "retrieval_jax.views",
        "retrieval_jax.workdir",
    },
    "estimate.py": {
        "jax",
        "retrieval_jax.data.pictures.hand_made",
        "retrieval_jax.inference",
        "retrieval_jax.plans",
        "retrieval_jax.settings.sizes",
        "retrieval_jax.training",
        "retrieval_jax.workdir",
    },
    # Serves without the training code.
    "exported.py": {
        "jax",
        "safetensors",
        "retrieval_jax.data.examples",
        "retrieval_jax.data.pictures",
        "retrieval_jax.embeddings",
        "retrieval_jax.files",
        "retrieval_jax.data.text",
        "retrieval_jax.data.worded",
        "retrieval_jax.postprocess",
        "retrieval_jax.programs",
        "retrieval_jax.sharing.facts",
        "retrieval_jax.sharing.float16",
        "retrieval_jax.sharing.int8",
        "retrieval_jax.sharing.token_files",
        "retrieval_jax.workdir",
    },
    # Exported models, and what their runs found out, for others.
    "sharing": {
        "huggingface_hub",
        "jax",
        "jax2onnx",
        "onnx",
        "onnxruntime",
        "retrieval_jax.data.text",
        "retrieval_jax.embeddings",
        "retrieval_jax.files",
        "retrieval_jax.inference",
        "retrieval_jax.losses",
        "retrieval_jax.postprocess",
        "retrieval_jax.scoring",
        "retrieval_jax.tasks",
        "retrieval_jax.workdir",
    },
    # The runs are processes: nothing here loads what they do.
    "sweeps": {"rich", "scipy", "retrieval_jax.files", "retrieval_jax.scoring", "retrieval_jax.workdir"},
    "evaluators": {
        "jax",
        "retrieval_jax.data",
        "retrieval_jax.embeddings",
        "retrieval_jax.index",
        "retrieval_jax.inference",
        "retrieval_jax.postprocess",
        "retrieval_jax.scoring",
        "retrieval_jax.workdir",
    },
    # What they show is handed to them.
    "pages": {"cv2", "jinja2", "markupsafe", "matplotlib", "polars", "umap"}
    | {f"retrieval_jax.{room}" for room in ("attributes", "embeddings", "files", "scoring")},
}
ROOMS |= {
    # The search page and its API: it embeds queries as the bridge does, and searches what search has written.
    "server": {
        "cv2",
        "fastapi",
        "prometheus_client",
        "pydantic",
        "pydantic_core",
        "simplejpeg",
        "starlette",
        "uvicorn",
        "retrieval_jax.attributes.vocabulary",
        "retrieval_jax.data",
        "retrieval_jax.embeddings",
        "retrieval_jax.exported",
        "retrieval_jax.files",
        "retrieval_jax.index",
        "retrieval_jax.inference",
        "retrieval_jax.looks",
        "retrieval_jax.postprocess",
        "retrieval_jax.regions",
        "retrieval_jax.scoring",
        "retrieval_jax.workdir",
    },
}
# A verb: anything but other verbs and the libraries that one room alone imports.
ONE_ROOM = {"flax", "orbax", "faiss", "pymilvus"}
ROOMS |= {
    f"{verb}.py": {"PIL", "absl", "cv2", "etils", "jax", "matplotlib", "ml_collections", "polars", "rich", "scipy"}
    | {"retrieval_jax"}
    for verb in VERBS
}
# Libraries that one file of a room alone imports.
ONE_FILE = {
    "aiohttp": "retrieval_jax/data/fetching/client.py",
    "apache_beam": "retrieval_jax/attributes/beam.py",
    "mlflow": "retrieval_jax/training/trackers.py",
    "orbax": "retrieval_jax/training/checkpoints.py",
    "pymilvus": "retrieval_jax/index/milvus/*.py",
    "sklearn": "retrieval_jax/attributes/clusters.py",
    "tensorboardX": "retrieval_jax/training/metric_writer.py",
    "tokenizers": "retrieval_jax/data/text.py",
    "umap": "retrieval_jax/pages/maps.py",
    "wandb": "retrieval_jax/training/trackers.py",
}


# Files of rooms that may not import everything their room may.
NARROWER = {
    "retrieval_jax/index/*": ({"jax"}, "retrieval_jax/index/accelerator.py"),
    "retrieval_jax/postprocess/*": ({"jax"}, ""),
    # Exported models are read without the training code.
    "retrieval_jax/sharing/*": (
        {"retrieval_jax.inference", "retrieval_jax.tasks"},
        "retrieval_jax/sharing/exportable.py",
    ),
    "retrieval_jax/attributes/*": ({"scipy", "cv2"}, "retrieval_jax/attributes/[acd]*.py"),
}
UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LINES = 400  # of a file; one with more says why at its top ("Longer than 400 lines: ..."), and none has more than 600


def rule(path: str) -> set[str]:
    """Returns what a file may import beside its own room and what is free."""
    parts = pathlib.PurePath(path).parts
    if parts[0] == "configs":
        return {"ml_collections", "retrieval_jax.settings"}
    if path == "retrieval_jax/__init__.py":
        return set()
    allowed = set(ROOMS.get(parts[1], ())) | FREE | ({f"{parts[0]}.{parts[1]}"} if len(parts) > 2 else set())
    for pattern, (without, exception) in NARROWER.items():
        if fnmatch.fnmatch(path, pattern) and not fnmatch.fnmatch(path, exception):
            allowed -= without
    return allowed - {library for library, file in ONE_FILE.items() if not fnmatch.fnmatch(path, file)}


def broken(path: str, source: str) -> list[str]:
    """Returns the imports of a file that its room may not make."""
    allowed, wrong = rule(path), []
    name, at_root = pathlib.PurePath(path).stem, len(pathlib.PurePath(path).parts) == 2
    for module in house.imports(ast.parse(source)):
        parts = module.split(".")
        if parts[0] in sys.stdlib_module_names:
            continue
        verb = parts[1] if parts[0] == "retrieval_jax" and len(parts) > 1 and parts[1] in VERBS else None
        if verb and not (at_root and name in ("run", verb)):
            wrong.append(module)
        elif at_root and parts[0] in ONE_ROOM:
            wrong.append(module)
        elif not any(module == good or module.startswith(good + ".") for good in allowed):
            wrong.append(module)
    return sorted(wrong)


PYTHON = ("benchmarks", "configs", "retrieval_jax", "tests")
FILES = sorted(
    file.relative_to(ROOT).as_posix() for room in ("configs", "retrieval_jax") for file in (ROOT / room).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES)
def test_imports_follow_the_table(path):
    wrong = broken(path, (ROOT / path).read_text(encoding="utf-8"))
    assert not wrong, f"{path} may not import {', '.join(wrong)}; it may import {', '.join(sorted(rule(path)))}"


@pytest.mark.parametrize(
    "path, line",
    [
        ("retrieval_jax/search.py", "from retrieval_jax import embed"),
        ("retrieval_jax/search.py", "def f():\n    import retrieval_jax.train"),
        ("retrieval_jax/data/tables/loading.py", "from retrieval_jax.mine import run"),
        ("retrieval_jax/losses/triplet.py", "import flax.linen as nn"),
        ("retrieval_jax/models/backbones/vit.py", "from retrieval_jax.losses import multilabel"),
        ("retrieval_jax/postprocess/whitening.py", "import jax"),
        ("retrieval_jax/index/exact/blocks.py", "import jax"),
        ("retrieval_jax/train.py", "import orbax.checkpoint as ocp"),
        ("retrieval_jax/training/optim.py", "import orbax.checkpoint as ocp"),
        ("retrieval_jax/training/optim.py", "from retrieval_jax import inference"),
        ("retrieval_jax/scoring/metrics.py", "import importlib\nimportlib.import_module('jax')"),
        ("retrieval_jax/attributes/titles.py", "import sklearn.cluster"),
        ("configs/quickstart.py", "import numpy as np"),
        ("retrieval_jax/pages/charts.py", "from retrieval_jax import workdir"),
        ("retrieval_jax/pages/rows.py", "from retrieval_jax import report"),
        ("retrieval_jax/pages/rows.py", "from retrieval_jax.data import catalog"),
        ("retrieval_jax/new.py", "from retrieval_jax import workdir"),
        ("retrieval_jax/new/file.py", "from retrieval_jax import workdir"),
    ],
)
def test_the_test_itself_sees_a_wrong_import(path, line):
    assert broken(path, line)


@pytest.mark.parametrize(
    "path, line",
    [
        ("retrieval_jax/run.py", "from retrieval_jax import mine"),
        ("retrieval_jax/train.py", "from retrieval_jax.data import pipeline"),
        ("retrieval_jax/index/accelerator.py", "import jax"),
        ("configs/quickstart.py", "from ml_collections import ConfigDict"),
    ],
)
def test_the_test_itself_lets_a_right_import_through(path, line):
    assert not broken(path, line)


def test_no_circle_of_imports():
    graph = house.arrows()
    assert not house.circles(graph)
    assert not house.circles(house.by_room(graph))


def test_the_test_of_circles_sees_one():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert house.circles(graph) == [["a", "b", "c"]]


def test_few_files_at_the_root():
    """The root holds verbs, and what is neither a verb nor a room: bridge, errors, views, the exported side."""
    others = {"__init__", "__main__", "arguments", "brief", "embedders", "errors", "estimate", "exported"}
    others |= {"inference", "looks", "output", "pairs", "paths", "plans", "programs", "regions", "terms", "views"}
    found = {file.stem for file in (ROOT / "retrieval_jax").glob("*.py")}
    assert found <= VERBS | others, f"{sorted(found - VERBS - others)} belong in a room"


def test_a_long_file_says_why_and_none_is_very_long():
    for path in sorted(file.relative_to(ROOT).as_posix() for room in PYTHON for file in (ROOT / room).rglob("*.py")):
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 600, f"{path} should be two files"
        if len(lines) > LINES:
            docstring = ast.get_docstring(ast.parse("\n".join(lines))) or ""
            assert f"Longer than {LINES} lines: " in docstring, f"{path} has {len(lines)} lines and does not say why"


def unpickling(source: str) -> list[str]:
    """Returns what in a module's source can execute code from a file: pickle and its kin, np.load with pickles."""
    tree = ast.parse(source)
    found = [module for module in house.imports(tree) if module.split(".")[0] in UNPICKLES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            if not any(word.arg == "allow_pickle" and ast.unparse(word.value) == "False" for word in node.keywords):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES)
def test_nothing_unpickles(path):
    assert not unpickling((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("line", ["import pickle", "from joblib import load", "np.load(file)", "np.load(file, 'r')"])
def test_the_test_of_unpickling_sees_it(line):
    assert unpickling(line) and not unpickling("np.load(file, mmap_mode='r', allow_pickle=False)")


def test_search_and_evaluate_do_not_load_jax():
    code = (
        "import retrieval_jax.search, retrieval_jax.evaluate, retrieval_jax.run, retrieval_jax.postprocess, sys; "
        "loaded = [m for m in ('jax', 'flax', 'grain') if m in sys.modules]; assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
