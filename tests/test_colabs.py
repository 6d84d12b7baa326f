"""The notebooks as they are committed: without outputs, with one first cell, and with no code but calls of the package.

pytest executes them as well (nbmake), those of LONG in colabs/conftest.py with `-m long`.
"""

import ast
import json

import pytest

from repository import ROOT

NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/"
)


def cells(file, kind: str) -> list[dict]:
    return [cell for cell in json.loads(file.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


@pytest.fixture(params=NOTEBOOKS, ids=lambda file: file.stem)
def notebook(request):
    return request.param


def test_there_are_five():
    names = ["attributes", "quickstart", "retrieval", "text_and_edits", "your_catalogue"]
    assert [file.stem for file in NOTEBOOKS] == names


def test_a_notebook_is_committed_without_outputs(notebook):
    for cell in cells(notebook, "code"):
        assert not cell["outputs"] and cell["execution_count"] is None, cell["id"]


def test_a_notebook_defines_nothing_and_needs_no_magic(notebook):
    for cell in cells(notebook, "code"):
        tree = ast.parse("".join(cell["source"]))
        assert not [node for node in ast.walk(tree) if isinstance(node, DEFINES)], f"{cell['id']}: into the package"


def test_notebooks_start_with_the_same_badge_and_cell(notebook):
    assert cells(notebook, "markdown")[0]["source"][0].startswith(BADGE)
    assert cells(notebook, "code")[0]["source"] == cells(NOTEBOOKS[0], "code")[0]["source"]


def test_the_documentation_lists_a_notebook(notebook):
    assert f"(../colabs/{notebook.name})" in (ROOT / "docs" / "README.md").read_text("utf-8")


def first_cell(monkeypatch, folder, installed=()):
    """Runs the first cell in a folder as on Colab; returns what it ran, and its names."""
    import importlib.metadata
    import subprocess
    import sys
    import types

    commands = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    there = [types.SimpleNamespace(name=name, version=version) for name, version in installed]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: there)
    names = {}
    exec("".join(cells(NOTEBOOKS[0], "code")[0]["source"]), names)
    return commands, names


def test_on_colab_the_package_is_installed_beside_the_jax_that_is_there(tmp_path, monkeypatch):
    clone = tmp_path / "retrieval_jax"
    (clone / "configs").mkdir(parents=True)
    (clone / "configs" / "quickstart.py").write_text("")
    installed = [("jax", "0.11.1"), ("jaxlib", "0.11.1"), ("jax-cuda12-plugin", "0.11.1"), ("numpy", "2.2.0")]
    (command,), names = first_cell(monkeypatch, tmp_path, installed)
    assert names["root"] == clone and command[1:4] == ["-m", "pip", "install"]
    assert f"--requirement={clone / 'requirements.txt'}" in command
    constraints = next(word for word in command if word.startswith("--constraint=")).partition("=")[2]
    with open(constraints) as file:
        assert file.read().split() == ["jax==0.11.1", "jaxlib==0.11.1", "jax-cuda12-plugin==0.11.1"]


def test_on_colab_without_a_clone_an_address_is_asked_for(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="set REPOSITORY above"):
        first_cell(monkeypatch, tmp_path)
