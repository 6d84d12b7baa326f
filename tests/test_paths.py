import ast
import pathlib
import re
import shlex

import pytest

from retrieval_jax import __main__ as door
from retrieval_jax import paths, workdir
from retrieval_jax.data import loading
from retrieval_jax.data.tables import left_out
from retrieval_jax.errors import InputError
from retrieval_jax.models.timm import files as timm_files
from retrieval_jax.settings import base
from retrieval_jax.workdir import config_files, freshness

ROOT = pathlib.Path(paths.__file__).resolve().parent


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a blank in its name."""
    folder = tmp_path / "my home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_the_home_folder_is_expanded_wherever_a_path_is_given(home):
    assert workdir.as_path("~/runs") == home / "runs" and workdir.as_path("s3://b/~/x").name == "x"
    (home / "shop.py").write_text("")
    assert config_files.find("~/shop.py") == home / "shop.py"
    (home / "weights.safetensors").write_bytes(b"")
    assert timm_files.find("convnext_tiny", "", "~/weights.safetensors", True)[0] == home / "weights.safetensors"
    (home / "out.csv").write_text("split,id,reason\ntrain,a,b\n")
    assert len(left_out.read("~/out.csv")) == 1
    with pytest.raises(InputError, match=re.escape(f"{home}/shop")):
        loading.load({"source": "eproduct", "kwargs": {"root": "~/shop"}})
    config = base.defaults()
    config.data.kwargs.root, config.data.leave_out, config.mine.overrules = "~/shop", "~/out.csv", "~/words.txt"
    assert freshness.places(config) == [str(home / name) for name in ("out.csv", "shop", "words.txt")]
    given = door.tree().parse_args(["compare", "~/new", "--against", "~/old", "--out=~/x.json"])
    assert (given.new, given.against, given.out) == ([home / "new"], [home / "old"], home / "x.json")
    config.train.init_from = "~/runs/x"
    assert workdir.predecessor_folder(config, "runs/y") == home / "runs" / "x"


def test_only_what_begins_with_the_home_folder_is_expanded(home):
    given = {"root": "~/a", "columns": {"id": "~id", "of": ("~", "b~/c")}, "share": 0.5}
    assert paths.expanded_text(given) == {
        "root": f"{home}/a",
        "columns": {"id": "~id", "of": (str(home), "b~/c")},
        "share": 0.5,
    }
    with pytest.raises(InputError, match="~nobody-of-that-name/x: there is no user of that name"):
        paths.expanded("~nobody-of-that-name/x")


def test_a_command_can_be_pasted():
    words = ["run", "--config=a b.py", "--workdir=/x/$(rm y)/'z'"]
    assert shlex.split(paths.command(*words)) == ["retrieval-jax", *words]


@pytest.mark.parametrize(
    ("original", "given", "starts"),
    [
        ([".venv/bin/python", "-m", "retrieval_jax", "init"], ["/x/retrieval_jax/__main__.py"], ".venv/bin/python -m"),
        (["{here}/.venv/bin/python", "-m", "retrieval_jax.run"], ["/x/retrieval_jax/run.py"], ".venv/bin/python -m"),
        (["python", "-u", "-m", "retrieval_jax", "init"], ["/x/retrieval_jax/__main__.py"], "python -m"),
        (["/v/bin/python", "../v/bin/retrieval-jax", "init"], ["../v/bin/retrieval-jax", "init"], "../v/bin/"),
        (["/v/bin/python", "{on_path}", "init"], ["{on_path}", "init"], ""),
        (["python", "-m", "pytest"], ["/x/pytest/__main__.py"], ""),
        (["python", "-c", "..."], ["-c"], ""),
    ],
)
def test_a_command_starts_as_this_process_did(tmp_path, monkeypatch, original, given, starts):
    installed = tmp_path / "bin" / "retrieval-jax"
    installed.parent.mkdir()
    installed.write_text("")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", str(installed.parent))
    monkeypatch.chdir(tmp_path)
    words = [[one.format(here=tmp_path, on_path=installed) for one in side] for side in (original, given)]
    name = "retrieval_jax" if starts.endswith("-m") else "retrieval-jax"
    assert " ".join(paths.program(*words)) == f"{starts}{' ' if starts.endswith('-m') else ''}{name}"


def test_messages_name_commands_that_an_installation_has_and_quote_what_they_are_given():
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = ast.unparse(node)
                assert "python -m retrieval_jax" not in text, (file, text)
                assert not re.search(r"retrieval-jax [a-z_]+ [^`]*--\w+=\{", text), (file, text)
            if isinstance(node, ast.Raise):
                assert "python -m retrieval_jax" not in ast.unparse(node), (file, node.lineno)


def used(folder):
    """Makes a used work directory of a config and returns the message that refuses other settings."""
    config = config_files.load("quickstart", "runlocal")
    workdir.run_stage(config, workdir.prepare(config, folder), "mine", lambda *_: {})
    config.mine.threshold = 6
    with pytest.raises(InputError) as caught:
        workdir.prepare(config, folder)
    return str(caught.value)


def test_advice_to_remove_a_folder_is_quoted_absolute_and_hits_nothing_else(tmp_path, monkeypatch):
    folder = tmp_path / "my runs" / "x"
    monkeypatch.chdir(tmp_path)
    advice = used(pathlib.Path("my runs/x")).rpartition("rm ")[2]
    assert shlex.split(advice) == ["-r", "--", str(folder)]
    (folder / "notes.txt").write_text("mine")
    said = used(folder)
    assert "rm " not in said and "this one also holds 'notes.txt', which no run wrote" in said
    (folder / "notes.txt").unlink()
    (tmp_path / "link").symlink_to(folder)
    assert "rm " not in used(tmp_path / "link")
