"""Sphinx's settings for the docs site, which launch/docs.sh builds.

The pages are the Markdown files of the repository as they stand, so their relative links work here and on a code host.
The contents at the left are the sections of docs/README.md. A page of docs/reference/ names modules in its table; here
each is followed by its reference, from the docstrings.
"""

import logging
import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]

project = "retrieval_jax"
version = re.search(r'__version__ = "(.+)"', (ROOT / "retrieval_jax" / "__init__.py").read_text(encoding="utf-8"))[1]
copyright = f"the authors of {project}, {version}, Apache-2.0"
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/**.md",
    "benchmarks/README.md",
    "launch/README.md",
    "retrieval_jax/models/README.md",
    "colabs/*.ipynb",
]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 4  # links to headings work as on a code host
nb_execution_mode = "off"  # the tests run the notebooks
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # Args give shapes and units, and signatures stay short
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes of a class in its own description

logging.getLogger("faiss").setLevel(logging.WARNING)  # what it loads is of no interest here

highlight_language = "none"  # of code blocks that name no language: commands and drawings

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False


def contents(index: str) -> str:
    """Returns the tables of contents of the site, one per section of the index.

    Args:
      index: the text of docs/README.md.
    """
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)
    blocks = ["```{toctree}\n:hidden:\n\nAll pages </docs/README>\n```"]
    for caption, text in zip(parts[1::2], parts[2::2], strict=True):
        pages = re.findall(r"\]\(([\w./-]+)\.(?:md|ipynb)\)", text)
        lines = [f":caption: {caption}", ":hidden:", "", *(posixpath.normpath(f"/docs/{page}") for page in pages)]
        blocks.append("\n".join(["```{toctree}", *lines, "```"]))
    return "\n\n" + "\n\n".join(blocks) + "\n"


def reference(page: str) -> str:
    """Returns the references of the modules that the table of a page names in its first column."""
    names = re.findall(r"^\| `(retrieval_jax[\w.]*)` \|", page, flags=re.MULTILINE)
    return "".join(f"\n## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in names)


def extend(app, name: str, source: list[str]) -> None:
    """Adds the contents to the first page and docstrings to the reference; makes the badges of notebooks text."""
    if name == root_doc:
        index = ROOT / "docs" / "README.md"
        app.env.note_dependency(str(index))
        source[0] += contents(index.read_text(encoding="utf-8"))
    if name.startswith("docs/reference/"):
        source[0] += reference(source[0])
    if name.startswith("colabs/"):  # the badge is a picture from elsewhere, and the site loads nothing
        source[0] = re.sub(r"!\[(Open in Colab)\]\([^)]*\)", r"\1", source[0])


def as_rst(line: str) -> str:
    """Returns a line of a docstring as reStructuredText: names in backticks are literal, other marks are themselves."""
    parts = re.split(r"(`[^`]+`)", line)
    for i, part in enumerate(parts):
        if i % 2:  # a null separator where a letter follows, as in "`Array`s"
            parts[i] = f"`{part}`" + ("\\ " if re.match(r"\w", parts[i + 1]) else "")
        else:
            parts[i] = re.sub(r"[*|]|_(?!\w)", r"\\\g<0>", part)
    return "".join(parts)


def prepare(app, what, name, found, options, lines: list[str]) -> None:
    """Turns a docstring into reStructuredText; indented paragraphs before its sections are code."""
    out, before, code, sections = [], "", False, False
    for line in lines:
        sections = sections or re.match(r"(?:Args|Attributes|Returns|Yields|Raises):$", line) is not None
        code = line.startswith("    ") and not sections and (code or not before) or (code and not line)
        if code and not before and line:
            out += [".. code-block:: none", ""]
        if line.lstrip().startswith("- ") and before and not before.lstrip().startswith("- ") and before[0] != " ":
            out.append("")
        out.append(line if code else as_rst(line))
        before = line
    lines[:] = out


def open_at_the_first_page(app, error) -> None:
    """Writes index.html, so that the folder opens at the README."""
    if error is None and app.builder.name == "html":
        page = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=README.html">\n'
        (pathlib.Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app) -> None:
    app.connect("source-read", extend)
    app.connect("autodoc-process-docstring", prepare, priority=100)  # before napoleon
    app.connect("build-finished", open_at_the_first_page)
