"""The Python of the documentation's pages runs: settings against the defaults, the rest on a run of a few seconds.

The blocks of a page run in order and share their names; `config` is the default config and `tasks` the settings of
tasks. Folders that pages name (runs/quickstart, served/fashion) are a tiny run and its export, and shoe.jpg is a
picture. docs/extending.md has a test of its own, in test_docs.py.
"""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import tiny
import tiny_trained
from fenced import blocks
from repository import ROOT, committed_files
from retrieval_jax import embed, export
from retrieval_jax.data import loading
from retrieval_jax.index.attribute import conditions
from retrieval_jax.models import pretrained
from retrieval_jax.models.backbones import efficientnet
from retrieval_jax.settings import base, tasks
from retrieval_jax.sweeps import ranges
from retrieval_jax.workdir import checks

ONNX = "needs onnxruntime and an export of minutes; tests/test_export.py runs the same"
FILES = "needs a file of weights of a public network; tests/models/test_pretrained.py runs the same"
ELSEWHERE = "needs another project, written from its documentation"
# Blocks that do not run, by page and number from 0, and why; all others do.
NOT_RUN = {
    "docs/attributes.md": {1: "needs a run of the task attribute_sequence; tests/test_inference.py has one"},
    "docs/attributes_search.md": {
        4: "goes on with vectors of a shop's own; tests/index/test_attribute.py runs the same",
        5: "goes on with vectors of a shop's own; tests/index/test_attribute_store.py runs the same",
        6: "goes on with vectors of a shop's own; tests/index/test_attribute.py runs the same",
        7: "goes on with vectors of a shop's own; tests/index/test_attribute.py runs the same",
    },
    "docs/clicks.md": {2: "needs a run with fused rankings; tests/test_lexical_run.py runs the same"},
    "docs/clicked_search.md": {2: "needs a run of the task click_triplet; tests/tasks/test_click_triplet.py has one"},
    "docs/edits.md": {0: "needs a run of the task edit; tests/tasks/test_edit.py has one"},
    "docs/from_pytorch.md": {1: ELSEWHERE, 2: ELSEWHERE, 4: ELSEWHERE, 5: ELSEWHERE},
    "docs/milvus.md": {0: "needs a Milvus server", 1: "needs a database of Milvus", 2: "needs a Milvus server"},
    "docs/outfits.md": {1: "needs a run of the task outfit; tests/test_looks.py has one"},
    "docs/serving_a_checkpoint.md": {2: ONNX},
    "docs/small_query.md": {0: "needs two runs and an adapter; tests/test_upgrade.py has them"},
    "docs/text.md": {3: "needs a run of the task text_picture; tests/tasks/test_text_picture.py has one"},
    "retrieval_jax/models/README.md": {0: FILES, 1: FILES},
}
# What differs here: the sizes of pictures.
SMALLER = {"(5, 80, 64, 3)": "(5, 16, 16, 3)", "about.input_size": "(32, 32)"}
ON_THE_RUN = {
    "docs/using.md",
    "docs/serving_a_checkpoint.md",
    "docs/hub.md",
    "docs/from_pytorch.md",
    "docs/quickstart.md",
}
PAGES = {
    page: found
    for file in committed_files(".md")
    if (page := file.relative_to(ROOT).as_posix()) != "docs/extending.md"
    and (found := blocks(file.read_text(encoding="utf-8")))
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, little_compilation, tiny_variant):
    """A folder with a run (random parameters, the embedded catalogue embedded), its export, and pictures."""
    folder, config = tmp_path_factory.mktemp("docs"), tiny.tiny_config()
    config.data.kwargs.num_query = 100
    config.embed.models = ("trained",)
    workdir = tiny_trained.save(folder / "runs" / "quickstart", config)
    embed.run(config, workdir)
    export.run(workdir, folder / "served" / "fashion", platforms=("cpu",))
    for name in ("shoe.jpg", "dress.jpg", "dress.png", "photo.jpg"):
        write_picture(folder / name, 0)
    write_table(folder)
    backbone = efficientnet.from_timm(**efficientnet.TIMM["tf_efficientnet_lite0"])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), pretrained.shapes_of(backbone, 32))
    (folder / "weights").mkdir()
    pretrained.save(backbone, zeros, folder / "weights" / "model.safetensors")
    return folder


def write_picture(file, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def write_table(folder):
    """Writes a table in the format of Open Metric Learning, df.csv, and its pictures: four products of three."""
    lines = ["label,path,split,is_query,is_gallery"]
    for number in range(12):
        write_picture(folder / f"{number}.png", number)
        part = "train,," if number < 6 else f"validation,{number % 3 == 0},{number % 3 != 1}"  # 6 and 9: on both sides
        lines.append(f"{number // 3},{number}.png,{part}")
    (folder / "df.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, request, tmp_path, monkeypatch):
    config = base.defaults()
    given = {"config": config, "tasks": tasks, "__name__": "a page"}
    folder = tmp_path
    if page in ON_THE_RUN:
        folder = tmp_path / "folder"
        shutil.copytree(request.getfixturevalue("runs"), folder)
    monkeypatch.chdir(folder)
    for number, block in enumerate(PAGES[page]):
        if number in NOT_RUN.get(page, {}):
            continue
        for before, after in SMALLER.items():
            block = block.replace(before, after)
        exec(compile(block, f"{page}, block {number}", "exec"), given)
        checks.check(config, f"{page}, block {number}")


def test_a_table_of_open_metric_learning_becomes_a_catalogue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path)
    given = {"config": base.defaults(), "tasks": tasks}
    exec(PAGES["docs/from_pytorch.md"][0], given)
    catalog = loading.load(given["config"].data)
    assert len(catalog.train) == 6 and len(catalog.query) == 2 and len(catalog.gallery) == 4
    assert catalog.truth.num_relevant.tolist() == [1, 1], "not the query itself, which is in the gallery too"


def test_ranges_and_conditions_of_pages_are_read(tmp_path):
    texts = [file.read_text(encoding="utf-8") for file in committed_files(".md")]
    found = [block for text in texts for block in blocks(text, "toml")]
    for block in found:
        (tmp_path / "ranges.toml").write_text(block, encoding="utf-8")
        assert len(ranges.read(tmp_path / "ranges.toml").lines) > 1
    clauses = [block for text in texts for block in blocks(text, "json")]
    assert all(conditions.parse(block) != conditions.parse(None) for block in clauses) and found and clauses


def test_blocks_that_do_not_run_exist_and_say_which_test_runs_the_same():
    for page, numbers in NOT_RUN.items():
        assert max(numbers) < len(PAGES[page]), f"{page} has {len(PAGES[page])} blocks"
        for reason in numbers.values():
            named = [word.strip(",;") for word in reason.split() if word.startswith("tests/")]
            assert all(pathlib.Path(ROOT / name).exists() for name in named), reason
