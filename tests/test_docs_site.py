"""The docs site: its contents and reference are complete; built without warnings, it needs no network."""

import ast
import importlib.util
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from repository import ROOT, committed_files

SITE = runpy.run_path(str(ROOT / "docs" / "conf.py"))
INDEX = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")


def test_the_contents_have_every_page_and_notebook_once():
    listed = re.findall(r"^(?:.* <)?/([\w./-]+)>?$", SITE["contents"](INDEX), re.MULTILINE)
    pages = {file.relative_to(ROOT).with_suffix("").as_posix() for file in committed_files(".md", ".ipynb")}
    assert sorted(listed) == sorted(pages - {SITE["root_doc"]}), "docs/README.md lists the pages of the site"


def test_rows_of_the_reference_are_the_first_lines_of_their_modules():
    wrong = {}
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        for name, row in re.findall(r"^\| `(retrieval_jax[\w.]*)` \| (.*) \|$", page.read_text("utf-8"), re.MULTILINE):
            file = pathlib.Path(importlib.util.find_spec(name).origin)
            line = ast.get_docstring(ast.parse(file.read_text("utf-8"))).split("\n")[0].removesuffix(".")
            if row != line.replace("|", "\\|"):
                wrong[name] = line
    assert not wrong, f"docs/reference/ says something else than these modules: {wrong}"


def test_modules_of_the_reference_exist():
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    names = [
        name for page in pages for name in re.findall(r"automodule:: (\S+)", SITE["reference"](page.read_text("utf-8")))
    ]
    assert len(names) == len(set(names)) > 100, "a module is on two pages, or the tables have another form"
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    assert not missing, f"docs/reference/ names {missing}, which do not exist"


@pytest.mark.parametrize(
    "docstring, rst",
    [
        ("Takes `rows` [n, *k] | None.", "Takes ``rows`` [n, \\*k] \\| None."),
        ("Lists `Array`s of name_, see a_b.", "Lists ``Array``\\ s of name\\_, see a_b."),
        ("Runs:\n\n    a *\n    b\n\nThen.", "Runs:\n\n.. code-block:: none\n\n    a *\n    b\n\nThen."),
        ("Rules:\n- one\n- two", "Rules:\n\n- one\n- two"),
        ("Adds.\n\nArgs:\n    x: a.", "Adds.\n\nArgs:\n    x: a."),
    ],
)
def test_docstrings_become_what_they_look_like(docstring, rst):
    lines = docstring.split("\n")
    SITE["prepare"](None, "function", "f", None, None, lines)
    assert "\n".join(lines) == rst


def test_the_site_builds_without_warnings_and_needs_no_network(tmp_path):
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("Sphinx is not installed: pip install -r requirements-docs.txt")
    dry = subprocess.run([ROOT / "launch" / "docs.sh", "--dry-run"], capture_output=True, text=True, check=True)
    words = shlex.split(dry.stdout.splitlines()[-1])  # of launch/docs.sh, with this Python and other folders
    words[words.index("build/doctrees")] = str(tmp_path / "doctrees")
    done = subprocess.run(
        [sys.executable, *words[1:-1], str(tmp_path / "html")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    html = tmp_path / "html"
    assert "README.html" in (html / "index.html").read_text() and (html / "searchindex.js").exists()
    assert 'id="retrieval_jax.embeddings.Embeddings.load"' in (html / "docs/reference/search.html").read_text()
    assert "toctree-l1" in (html / "README.html").read_text()
    loaded = [
        f"{page.relative_to(html)}: {tag}"
        for page in html.rglob("*.html")
        for tag in re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*>", page.read_text()
        )
    ]
    assert not loaded, loaded
