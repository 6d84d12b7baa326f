"""The command line as a user meets it: one tree of parsers, overrides, and verbs that only print."""

import json
import os
import pathlib
import resource
import shlex
import subprocess
import sys
import types

import pytest

from retrieval_jax import __main__ as door
from retrieval_jax import __version__, workdir
from retrieval_jax.errors import InputError
from retrieval_jax.workdir import command_line, options

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.py"


def start(folder, *words, module="retrieval_jax"):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Calls the command line in this process, in an empty folder; mine and prepare only print their settings."""
    monkeypatch.chdir(tmp_path)

    def run(config, folder):
        print("RESULT", json.dumps([config.search.k, config.train.learning_rate, str(folder)]))

    monkeypatch.setitem(sys.modules, "retrieval_jax.mine", types.SimpleNamespace(run=run))
    leaks = types.SimpleNamespace(main=lambda given: run(given.config, given.workdir))
    monkeypatch.setitem(sys.modules, "retrieval_jax.leaks", leaks)

    def call(*words, status=0):
        try:
            door.main([str(word) for word in words])
        except SystemExit as ended:
            assert ended.code == status, capsys.readouterr().err
        else:
            assert status == 0
        out = capsys.readouterr()
        return out.err if status else out.out

    return call


# ------------------------------------------------------------------------------------------------------- the tree


@pytest.mark.parametrize("verb", options.VERBS)
def test_help_shows_every_option_and_two_examples(verb, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = call(verb, "--help")
    text = " ".join(out.split())
    parser = door.tree()._subparsers._group_actions[0].choices[verb]
    for action in parser._actions:
        assert all(option in text for option in action.option_strings) and action.help.partition(" (default")[0] in text
    examples = [line for line in out.partition("examples:\n")[2].splitlines() if line]
    assert len(examples) == 2 and all(line.startswith(f"  retrieval-jax {verb}") for line in examples)
    for line in examples:  # they parse, and name experiments that exist
        words = shlex.split(line.replace("shop/mine.py", str(QUICKSTART)))
        assert door.parse(words[1:]).verb == verb


@pytest.mark.parametrize("module", ["retrieval_jax", "retrieval_jax.train", "retrieval_jax.evaluate_checkpoints"])
def test_help_takes_less_than_a_second_and_imports_no_jax(module, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = start(tmp_path, "--help", module=module)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and "usage: retrieval-jax" in done.stdout and not done.stderr
    assert (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    )  # of the processor: machines are busy
    code = (
        f"import runpy, sys; sys.argv[1:] = ['--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'numpy', 'ml_collections', 'absl', 'polars'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_the_name_of_a_smoke_run_says_so():
    for arg, name in (("", ""), (":runlocal", ":runlocal"), (":loss=both,runlocal", ":runlocal"), (":seed=1", "")):
        assert door.parse(["run", f"--config=quickstart{arg}"]).config.name == "quickstart" + name
    assert door.parse(["run", "--config=quickstart:runlocal", "--config.name=mine"]).config.name == "mine"


def test_every_verb_is_a_module_with_the_three_lines_that_start_it():
    files = {
        file.stem
        for file in (ROOT / "retrieval_jax").glob("*.py")
        if "from retrieval_jax.__main__ import start" in file.read_text()
    }
    assert files == set(options.VERBS)
    for verb in options.VERBS:
        text = (ROOT / "retrieval_jax" / f"{verb}.py").read_text()
        assert f'\n    start("{verb}")\n' in text
        assert f"\ndef {'run' if verb in workdir.VERBS else 'main'}(" in text


def test_alone_it_lists_the_verbs_one_line_each(call):
    out = call()
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("    ")}
    assert all(verb.line in lines[name] for name, verb in options.VERBS.items())
    assert call("--help") == out
    assert call("--version") == f"retrieval_jax {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_verbs_options_and_experiments(shell, call):
    pytest.importorskip("shtab")
    out = call("--print-completion", shell)
    assert "evaluate_checkpoints" in out and "workdir" in out
    if shell == "bash":
        script = (
            out
            + 'COMP_WORDS=(retrieval-jax run --config qui); COMP_CWORD=3; _shtab_retrieval_jax; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["quickstart", "quickstart_losses"], done.stderr


# ------------------------------------------------------------------------------------------------------- configs


def test_overrides_argument_and_default_work_directory(call, tmp_path):
    options = (f"--config={QUICKSTART}:runlocal", "--config.search.k=50", "--config.train.learning_rate", "1")
    result = json.loads(call("leaks", *options).partition("RESULT")[2])
    assert result == [50, 1.0, "runs/quickstart-runlocal-search.k=50-train.learning_rate=1.0"]
    assert not (tmp_path / "runs").exists()  # leaks is not a verb of the work directory: nothing is made or recorded
    assert json.loads(call("leaks", "--config", "quickstart:runlocal", *options[1:]).partition("RESULT")[2]) == result


@pytest.mark.parametrize(
    "words, key, value",
    [
        (["--config.search.k=7"], "search.k", 7),
        (["--config.search.k", "7"], "search.k", 7),
        (["--config.evaluate.near_duplicates.max_difference", "-1"], "evaluate.near_duplicates.max_difference", -1.0),
        (["--config.mine.normalise"], "mine.normalise", True),
        (["--config.mine.normalise=true"], "mine.normalise", True),
        (["--config.mine.normalise", "--noconfig.mine.normalise"], "mine.normalise", False),
        (["--config.search.steps=(('whitening', {'dim': 8}),)"], "search.steps", (("whitening", {"dim": 8}),)),
        (["--config.search.steps=()"], "search.steps", ()),
        (["--config.data.image_size=(96, 80)"], "data.image_size", (96, 80)),
        (["--config.train.init_from=a b"], "train.init_from", "a b"),
        (["--config.data.kwargs.seed=3"], "data.kwargs.seed", 3),
    ],
)
def test_an_override_has_the_type_of_its_setting(words, key, value):
    config = command_line.load_config("quickstart")
    _, rest = command_line._split(config, words)
    assert not rest
    assert command_line.override(config, words) == {key: value}
    for part in key.split("."):
        config = config[part]
    assert config == value and type(config) is type(value)


def test_a_verb_records_itself_skips_and_runs_again(call, tmp_path):
    options = (f"--config={QUICKSTART}", "--workdir=here")
    assert "RESULT" in call("mine", *options)
    assert json.loads((tmp_path / "here" / "stages" / "mine.json").read_text())["verb"] == "mine"
    assert "complete and unchanged" in call("mine", *options)
    assert "RESULT" in call("mine", *options, "--again")
    assert "run `retrieval-jax train" in call("search", *options, status=2)


def test_a_module_started_by_itself_is_the_same_verb(tmp_path):
    done = start(tmp_path, "--config=quickstart", "--config.search.k=ten", module="retrieval_jax.search")
    assert done.returncode == 2 and done.stderr == start(tmp_path, "search", *done.args[3:]).stderr
    assert "search.k must be a whole number" in done.stderr


@pytest.mark.parametrize(
    "given, words",
    [
        ((), ["--config=<name>", "quickstart"]),
        (["--config=my_shop.py"], ["my_shop.py does not exist; `", "init my_shop.csv --images=pictures/` writes one"]),
        (["--config=configs/quickstrat.py"], ["does not exist", "did you mean quickstart"]),
        (["--config=quickstrat"], ["no experiment named 'quickstrat'", "did you mean quickstart"]),
        ([f"--config={QUICKSTART}:runlocl"], ["runlocl", "did you mean runlocal"]),
        (
            [f"--config={QUICKSTART}", "--config.trian.lr=1"],
            ["no setting trian.lr", "did you mean train.learning_rate"],
        ),
        ([f"--config={QUICKSTART}", "--config.search.kk=1"], ["search.k"]),
        ([f"--config={QUICKSTART}", "--config.search.k=ten"], ["search.k must be a whole number", "'ten'"]),
        ([f"--config={QUICKSTART}", "--config.search=3"], ["search is a block of settings", "search.k"]),
        ([f"--config={QUICKSTART}", "--config.mine.normalise", "yes"], ["'yes' is not an option"]),
        ([f"--config={QUICKSTART}", "--config.data.image_size=64"], ["height and width", "(64, 64)"]),
        (
            [f"--config={QUICKSTART}", "--config.train.task=category"],
            ["no option 'category_weight'", "tasks.category()"],
        ),
        ([f"--config={QUICKSTART}", "--wrokdir=x"], ["wrokdir", "did you mean --workdir?"]),
        ([f"--config={QUICKSTART}", "extra"], ["'extra' is not an option"]),
        (["--config=fashion_ensemble"], ["is an ensemble", "fashion_softmax"]),
        (["--config=pretrained"], ["has no mine", "embed"]),
        (["--config"], ["--config", "expected one argument", "mine --help"]),
    ],
)
def test_what_a_user_gets_wrong_is_one_message(call, tmp_path, given, words):
    message = call("mine", *given, status=2)
    assert message.startswith("error: ") and all(word in message for word in words), message
    assert len(message.splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_an_unknown_verb_lists_the_near_ones(call):
    assert "no verb 'evalute'; did you mean evaluate" in call("evalute", status=2)
    with pytest.raises(InputError, match="invalid int value"):
        door.parse(["prepare", "--side=small"])
