"""The shell scripts, on a PATH of our making; nothing is downloaded."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from retrieval_jax import __main__ as door

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh")) + [ROOT / ".ci" / "run"]
TOOLS = ("bash", "dirname", "grep", "cut", "sha256sum", "rm", "mkdir", "touch", "mv", "flock", "cat", "ln", "sleep")

# Stands for Python: knows its version, whether venv is there, makes environments that log what pip installs.
PYTHON = """#!/bin/bash
case "$*" in
  *version_info*) [[ -z ${FAKE_VERSION:-} ]] ;;
  --version) echo "Python $FAKE_VERSION" ;;
  *ensurepip*) [[ -z ${FAKE_NO_VENV:-} ]] ;;
  "-m venv "*) mkdir -p .venv/bin; ln -s "$0" .venv/bin/python ;;
  "-m pip install "*) echo "$*" >>pip.log; [[ -z ${FAKE_INTERRUPTED:-} ]] ;;
  "-m retrieval_jax.run"*|"-m pytest"*) echo "STARTED $*"; echo "IN $PWD WITH ${PYTHONPATH:-nothing}" ;;
  "-c ") ;;
  *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the scripts, requirements of one line each, and a bin/ with the basic tools and no Python."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "launch", folder / "launch")
    for kind in ("", "-gpu", "-milvus", "-docs", "-dev"):
        name = f"requirements{kind}.txt"
        (folder / name).write_text(f"{name}\n")
    (folder / "bin").mkdir()
    for tool in TOOLS:
        if shutil.which(tool):
            (folder / "bin" / tool).symlink_to(shutil.which(tool))
    return folder


def add_python(checkout, name="python3"):
    file = checkout / "bin" / name
    file.write_text(PYTHON)
    file.chmod(0o755)


def start(checkout, script="local.sh", *options, **env):
    return subprocess.run(
        [str(checkout / "launch" / script), *options],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout / "home"), **env},
    )


def installs(checkout):
    log = checkout / "pip.log"
    return [line.rpartition("-r ")[2] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_is_bash_and_executable(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


def test_continuous_integration_calls_the_test_command():
    assert './launch/test.sh "$@"' in (ROOT / ".ci" / "run").read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_without_python_or_venv_the_missing_apt_line_is_printed(checkout):
    done = start(checkout)
    assert done.returncode == 1 and "\n  apt-get install -y python3 python3-venv\n" in done.stderr
    add_python(checkout)
    done = start(checkout, FAKE_NO_VENV="1")
    assert done.returncode == 1 and "\n  apt-get install -y python3-venv\n" in done.stderr
    for version in ("3.9.2", "3.14.0"):
        done = start(checkout, FAKE_VERSION=version)
        assert done.returncode == 1 and f"Python {version} does not do: Python 3.11, 3.12 or 3.13" in done.stderr
        assert "RETRIEVAL_JAX_PYTHON" in done.stderr
    assert not (checkout / ".venv").exists()
    assert start(checkout).returncode == 0  # once the line was followed


def test_set_up_is_done_once_and_again_when_a_file_changed(checkout):
    add_python(checkout)
    done = start(checkout, "local.sh", "--config=a b.py", "--config.search.k=5")
    assert "STARTED -m retrieval_jax.run --config=a b.py --config.search.k=5" in done.stdout, done.stderr
    assert installs(checkout) == ["requirements.txt"]
    assert start(checkout).stderr == ""
    assert "STARTED -m pytest -k hash" in start(checkout, "test.sh", "-k", "hash").stdout
    four = ["requirements.txt", "requirements-milvus.txt", "requirements-docs.txt", "requirements-dev.txt"]
    assert installs(checkout) == four
    (checkout / "requirements.txt").write_text("newer\n")
    start(checkout)
    start(checkout, "test.sh")
    assert installs(checkout) == [*four, "requirements.txt"]


def test_milvus_is_not_installed_beside_faiss_for_gpus(checkout):
    add_python(checkout)
    start(checkout, "test.sh", RETRIEVAL_JAX_REQUIREMENTS="requirements-gpu.txt")
    assert installs(checkout) == ["requirements-gpu.txt", "requirements-docs.txt", "requirements-dev.txt"]


def test_docs_are_built_in_the_same_environment(checkout):
    add_python(checkout)
    (checkout / "requirements-docs.txt").write_text("sphinx\n")
    start(checkout)
    lines = start(checkout, "docs.sh", "--dry-run", "-E").stdout.splitlines()
    assert lines[0].split() == ["./launch/setup.sh", "requirements.txt", "requirements-docs.txt"]
    assert "--fail-on-warning" in lines[1] and lines[1].split()[-3:] == ["-E", ".", "build/docs"]
    done = start(checkout, "setup.sh", "--dry-run", "requirements.txt", "requirements-docs.txt")
    assert done.stdout == f"install {checkout}/requirements-docs.txt\n", done.stderr


def test_local_stays_in_the_folder_it_was_called_from(checkout):
    add_python(checkout)
    assert f"IN / WITH {checkout}\n" in start(checkout).stdout
    assert f"IN / WITH {checkout}:/mine\n" in start(checkout, PYTHONPATH="/mine").stdout
    assert f"IN {checkout} WITH nothing\n" in start(checkout, "test.sh").stdout
    assert re.search(r"STARTED -m pytest -n [1-4] --dist loadfile\n", start(checkout, "test.sh").stdout)


def test_what_remote_folders_need_comes_beside_the_rest(checkout):
    add_python(checkout)
    for name in ("requirements-s3.txt", "requirements-gcs.txt"):
        (checkout / name).write_text(f"{name}\n")
    start(checkout)
    assert "STARTED" in start(checkout, RETRIEVAL_JAX_REQUIREMENTS="requirements.txt requirements-s3.txt").stdout
    assert "STARTED" in start(checkout, RETRIEVAL_JAX_REQUIREMENTS="requirements.txt requirements-gcs.txt").stdout
    start(checkout)
    assert installs(checkout) == ["requirements.txt", "requirements-s3.txt", "requirements-gcs.txt"]
    done = start(checkout, "setup.sh", "--dry-run", "requirements.txt", "requirements-milvus.txt")
    assert done.stdout == f"install {checkout}/requirements-milvus.txt\n", done.stderr


@pytest.mark.parametrize(
    "version, good", [((3, 10, 14), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)]
)
def test_the_versions_that_set_up_takes(version, good):
    code = re.search(r"-c '(import sys; [^']*version_info[^']*)'", (ROOT / "launch" / "setup.sh").read_text())[1]
    with pytest.raises(SystemExit) as exited:
        exec(code.replace("sys.version_info", repr(version)))
    assert exited.value.code == (not good)


def test_an_interrupted_set_up_is_done_again(checkout):
    add_python(checkout)
    assert start(checkout, FAKE_INTERRUPTED="1").returncode != 0
    assert "STARTED" in start(checkout).stdout
    assert installs(checkout) == ["requirements.txt"] * 2
    # Interrupted while .venv itself was made: nothing in it is trusted.
    (checkout / ".venv" / ".setup-unfinished").touch()
    (checkout / ".venv" / "rubbish").touch()
    assert "STARTED" in start(checkout).stdout
    assert not (checkout / ".venv" / "rubbish").exists()


def test_other_requirements_get_a_new_environment(checkout):
    add_python(checkout)
    start(checkout)
    (checkout / ".venv" / "faiss-cpu").touch()
    done = start(checkout, RETRIEVAL_JAX_REQUIREMENTS="requirements-gpu.txt")
    assert "STARTED" in done.stdout and installs(checkout)[-1] == "requirements-gpu.txt"
    assert not (checkout / ".venv" / "faiss-cpu").exists()


def test_another_python_can_be_named_and_a_foreign_venv_is_left_alone(checkout):
    add_python(checkout, "python3.12")
    assert "STARTED" in start(checkout, RETRIEVAL_JAX_PYTHON="python3.12").stdout
    shutil.rmtree(checkout / ".venv")
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "mine").touch()
    done = start(checkout, RETRIEVAL_JAX_PYTHON="python3.12")
    assert done.returncode == 1 and "rm -rf .venv" in done.stderr and (checkout / ".venv" / "mine").exists()


def test_two_set_ups_at_the_same_time_install_once(checkout):
    if shutil.which("flock") is None:
        pytest.skip("no flock on this machine")
    add_python(checkout)
    env = {"PATH": str(checkout / "bin"), "HOME": str(checkout)}
    running = [
        subprocess.Popen(
            [str(checkout / "launch" / "local.sh")], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in running:
        assert b"STARTED" in process.communicate(timeout=60)[0]
    assert installs(checkout) == ["requirements.txt"]


def test_the_release_is_trained_exported_and_packed(checkout):
    done = start(checkout, "release.sh", "--dry-run", RETRIEVAL_JAX_RELEASE="my release")
    first, *verbs = done.stdout.splitlines()
    assert first.split() == ["./launch/setup.sh", "requirements.txt"], done.stderr
    two = {"RETRIEVAL_JAX_REQUIREMENTS": "requirements-gpu.txt requirements-onnx.txt"}
    line = start(checkout, "release.sh", "--dry-run", **two).stdout.splitlines()[0]
    assert line.split() == ["./launch/setup.sh", "requirements-gpu.txt", "requirements-onnx.txt"]
    given = [door.tree().parse_args(shlex.split(line)[3:]) for line in verbs]
    assert [one.verb for one in given] == ["run", "export", "hub"] and given[2].action == "pack"
    assert given[2].source == str(given[1].out) == "my release/quickstart"
