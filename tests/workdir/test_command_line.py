"""The command line as a user meets it: a verb that only prints, in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.py"
VERB = """
from retrieval_jax.workdir import command_line
def run(config, workdir):
    print("RESULT", json.dumps([config.search.k, config.train.learning_rate, str(workdir)]))
import json, sys
command_line.main(run, sys.argv.pop(1))
"""


def start(folder, verb, *options):
    return subprocess.run(
        [sys.executable, "-c", VERB, verb, *map(str, options)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )


def fails(folder, *options):
    done = start(folder, "mine", *options)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert not (folder / "runs").exists()
    return done.stderr


def test_overrides_argument_and_default_work_directory(tmp_path):
    done = start(
        tmp_path,
        "serve",
        f"--config={QUICKSTART}:runlocal",
        "--config.search.k=50",
        "--config.train.learning_rate",
        "1",
    )
    result = json.loads(done.stdout.partition("RESULT")[2])
    assert result == [50, 1.0, "runs/quickstart-runlocal-search.k=50-train.learning_rate=1.0"]
    assert not (tmp_path / "runs").exists()  # "serve" is no verb of the work directory: nothing is made or recorded


def test_a_verb_records_itself_skips_and_runs_again(tmp_path):
    options = (f"--config={QUICKSTART}", "--workdir=here")
    assert "RESULT" in start(tmp_path, "mine", *options).stdout
    assert json.loads((tmp_path / "here" / "stages" / "mine.json").read_text())["verb"] == "mine"
    assert "complete and unchanged" in start(tmp_path, "mine", *options).stdout
    assert "RESULT" in start(tmp_path, "mine", *options, "--again").stdout
    done = start(tmp_path, "search", *options)
    assert done.returncode == 2 and "run `python -m retrieval_jax.train" in done.stderr


@pytest.mark.parametrize(
    "options, words",
    [
        ((), ["--config=configs/<name>.py", "quickstart"]),
        (["--config=configs/quickstrat.py"], ["not found", "did you mean", "quickstart.py"]),
        ([f"--config={QUICKSTART}:runlocl"], ["runlocl", "did you mean runlocal"]),
        (
            [f"--config={QUICKSTART}", "--config.trian.lr=1"],
            ["no setting trian.lr", "did you mean train.learning_rate"],
        ),
        ([f"--config={QUICKSTART}", "--config.search.kk=1"], ["search.k"]),
        ([f"--config={QUICKSTART}", "--config.search.k=ten"], ["search.k wants a whole number", "'ten'"]),
        ([f"--config={QUICKSTART}", "--wrokdir=x"], ["wrokdir", "workdir"]),
        ([f"--config={QUICKSTART}", "extra"], ["'extra' is no option"]),
    ],
)
def test_what_a_user_gets_wrong_is_one_message(tmp_path, options, words):
    message = fails(tmp_path, *options)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) == 1
