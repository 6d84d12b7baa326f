"""The documentation: its code runs, its commands parse, its links, paths and settings exist.

A Python block of docs/extending.md whose first line is a comment with a path is a file: one of the package is put where
the package finds it, one of tests is run by pytest. "# in <path>" adds to a module that exists. All other blocks of a
section run with `config`, a small config.
"""

import ast
import importlib
import pathlib
import re
import shlex
import sys

import pytest

import tiny
from fenced import blocks
from repository import ROOT, committed_files
from retrieval_jax import __main__ as door
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import metrics
from retrieval_jax.settings import base

PAGES = sorted(file.relative_to(ROOT).as_posix() for file in committed_files(".md"))
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Returns {heading: text} of the second-level headings."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def path_of(block: str) -> str:
    """Returns the path in the first line of a block that is a file, "" for other blocks."""
    found = re.match(r"# ([\w/]+\.py)\n", block)
    return found[1] if found else ""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that puts a file of the package in a temporary folder where lookups by name find it."""
    added = set()

    def put(path: str, source: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
        name = path.removesuffix(".py").replace("/", ".")
        parent = importlib.import_module(name.rpartition(".")[0])
        assert not (ROOT / path).exists(), f"{path} exists: the example needs another name"
        monkeypatch.setattr(parent, "__path__", [*parent.__path__, str(file.parent)])
        forget(parent, name)  # what another test has put there under this name
        added.add((parent, name))

    def forget(parent, name: str) -> None:
        sys.modules.pop(name, None)
        vars(parent).pop(name.rpartition(".")[2], None)

    yield put
    for parent, name in added:
        forget(parent, name)


class Outcomes:
    """A plugin of pytest that keeps the outcomes of a session's tests."""

    def __init__(self):
        self.passed, self.failed = [], []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(f"{report.nodeid}\n{report.longreprtext}")
        elif report.when == "call":
            self.passed.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed.append(report.longreprtext)


@pytest.mark.parametrize("heading", sections(EXTENDING))
def test_examples_of_extending_run(heading, package, tmp_path, monkeypatch, little_compilation, tiny_variant):
    given, tests = {"config": tiny.tiny_config()}, []
    for block in blocks(sections(EXTENDING)[heading]):
        path, inside = path_of(block), re.match(r"# in (retrieval_jax/[\w/]+)\.py\n", block)
        if path.startswith("retrieval_jax/"):
            package(path, block)
        elif path.startswith("tests/"):
            tests.append(tmp_path / path)
            tests[-1].parent.mkdir(parents=True, exist_ok=True)
            tests[-1].write_text(block, encoding="utf-8")
        elif inside:
            module = importlib.import_module(inside[1].replace("/", "."))
            before = dict(module.VERBS)
            exec(compile(block, inside[1], "exec"), vars(module))
            for name in set(module.VERBS) - set(before):  # taken out again after the test
                monkeypatch.setitem(module.VERBS, name, module.VERBS.pop(name))
        else:
            exec(compile(block, f"docs/extending.md, {heading}", "exec"), given)
    assert tests, f"the section {heading!r} has no test"
    outcomes = Outcomes()
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={tmp_path}", "-c", "/dev/null"]
    pytest.main([*options, f"--basetemp={tmp_path / 'made'}", *map(str, tests)], plugins=[outcomes])
    assert outcomes.passed and not outcomes.failed, "\n\n".join(outcomes.failed)


def imports_and_uses(block: str) -> list[str]:
    """Returns the import lines of a block."""
    return re.findall(r"^(?:from \S+ import .+|import .+)$", block, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_compile_and_import_what_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) % 2 == 0, f"{page}: a code block does not end"
    for block in blocks(text):
        compile(block, page, "exec")
        if page != "docs/extending.md":  # its files import each other, and run above
            for line in imports_and_uses(block):
                if "retrieval_jax" in line:
                    exec(line, {})


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page}: {target} does not exist"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            known = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in known, f"{page}: {target}: the page has no such heading"


# Paths that a page names in code quotes; a work directory's or a user's own are not the repository's.
PATH = re.compile(r"`(?:\.\./)?((?:benchmarks|colabs|configs|docs|launch|retrieval_jax|tests)/[\w./-]*\w)(?::[^`]*)?`")


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_the_repository_exist(page):
    found = {name for name in PATH.findall((ROOT / page).read_text(encoding="utf-8")) if "*" not in name}
    missing = sorted(name for name in found if not (ROOT / name).exists())
    assert not missing, f"{page} names {', '.join(missing)}, which do not exist"


COMMAND = re.compile(
    r"(?:\bretrieval-jax |\bpython -m retrieval_jax[ .]|(?<![\w/])\./launch/local\.sh (?=--config))([^`\n|]*)"
)


def commands(text: str) -> list[str]:
    """Returns the command lines of a page, as the words after `retrieval-jax`.

    Those with placeholders are left out, and so are mere mentions: a verb alone, or one that lacks its --config.
    """
    found = []
    for match in COMMAND.finditer(text):
        words = re.sub(r"\s{2,}.*|\s#.*", "", match[1])
        if re.search(r"\.\.\.|[<>$]|my_shop|shop/", words):
            continue
        words = words.rstrip(" ,.;:)&\\")
        words = f"run {words}" if match[0].startswith("./launch") else words
        complete = r".*--config=.*|(?:compare|propose_index|evaluate_checkpoints|export) .*"
        if re.fullmatch(complete, words):
            found.append(words)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_verbs_options_configs_and_settings_that_exist(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands((ROOT / page).read_text(encoding="utf-8")):
        try:
            door.parse(shlex.split(words))
        except (InputError, SystemExit) as error:
            pytest.fail(f"{page}: retrieval-jax {words}: {error}")


def test_the_config_of_the_page_of_shops_is_a_config(tmp_path):
    (block,) = blocks((ROOT / "docs" / "shops.md").read_text(encoding="utf-8"))
    file = tmp_path / "my_shop.py"
    file.write_text(block, encoding="utf-8")
    given = door.parse(["run", f"--config={file}", "--config.search.k=20"])
    assert given.config.data.kwargs.files["gallery"] == "gallery.parquet" and given.config.search.k == 20


def test_commands_are_seen():
    text = (
        "`retrieval-jax run --config=quickstart`, `python -m retrieval_jax.search --config=x --again` and ...\n"
        "    ./launch/local.sh --config=configs/y.py     # a comment\n`retrieval-jax mine --config=...`, "
        "retrieval-jax mine --again"
    )
    assert commands(text) == ["run --config=quickstart", "search --config=x --again", "run --config=configs/y.py"]


def test_settings_named_in_the_documentation_exist():
    """Every config.<block>.<key> in a page is a setting, or an argument of an open block of keyword arguments."""
    config, missing = base.defaults(), []
    for page in PAGES:
        for name in re.findall(r"\bconfig\.([a-z_]+(?:\.[a-z_]+)+)", (ROOT / page).read_text(encoding="utf-8")):
            block = config
            for key in name.split("."):
                if not hasattr(block, "keys") or key in ("py", "json"):
                    break
                if key not in block:
                    missing.append(f"{page}: config.{name}")
                    break
                block = block[key]
                if key.endswith("kwargs"):
                    break
    assert not missing, missing


def texts_of(source: str) -> list[str]:
    """Returns the texts in a Python file, with NUL where an f-string puts a value."""

    def text(node) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(text(part) for part in node.values)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "\0"

    return [text(node) for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.JoinedStr, ast.Constant))]


def test_messages_of_the_page_of_troubleshooting_are_in_the_source():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    files = [file for file in committed_files(".py") if file.is_relative_to(ROOT / "retrieval_jax")]
    source = {text for file in files for text in texts_of(file.read_text(encoding="utf-8")) if len(text) > 15}
    messages, missing = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE), []
    assert len(messages) > 40
    for message in messages:
        parts = [part for part in message.split("...") if part.strip()]
        assert sum(map(len, parts)) > 15, f"{message!r} could be any message"
        in_order = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
        if not any(max(parts, key=len) in text and in_order.search(text) for text in source):
            missing.append(message)
    assert not missing, f"no such message any more; correct docs/troubleshooting.md: {missing}"


def test_the_glossary_explains_every_score():
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    missing = [name for name in metrics.NAMES if not re.search(rf"\b{name}\b(?!@)", page)]
    assert not missing, f"docs/glossary.md does not explain {missing}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [page for page in PAGES if page.startswith("docs/") and pathlib.PurePath(page).name not in index]
    assert missing in ([], ["docs/README.md"]), missing


def test_the_examples_seen_by_the_tests_are_all_of_them():
    assert len(sections(EXTENDING)) >= 4
    assert all(path_of(blocks(text)[0]) for text in sections(EXTENDING).values())
