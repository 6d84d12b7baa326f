"""Compose and the Kubernetes example of the search page: what is run, and that the two say the same."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from retrieval_jax import __main__ as door

ROOT = pathlib.Path(__file__).resolve().parents[1]
yaml = pytest.importorskip("yaml", reason="pip install -r requirements-dev.txt")
COMPOSE = yaml.safe_load((ROOT / "launch" / "compose.yaml").read_text())


@pytest.fixture
def run(tmp_path):
    (tmp_path / "runs" / "my shop").mkdir(parents=True)
    (tmp_path / "runs" / "my shop" / "config.json").write_text("{}")
    (tmp_path / "data").mkdir()
    stand_in = tmp_path / "bin" / "docker"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{shlex.quote(str(tmp_path / "called"))}\n'
        f"env | grep RETRIEVAL_JAX >{shlex.quote(str(tmp_path / 'env'))}\n"
    )
    stand_in.chmod(0o755)
    return tmp_path


def start(run, *words, **env):
    return subprocess.run(
        [str(ROOT / "launch" / "compose.sh"), *words],
        cwd=run,
        env={"PATH": f"{run / 'bin'}:{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        timeout=20,
    )


FOLDERS = ("--workdir=runs/my shop", "--data=data")


def test_a_dry_run_prints_the_command_and_makes_nothing(run):
    done = start(run, "--dry-run", "up", *FOLDERS)
    words = shlex.split(done.stdout.splitlines()[0])
    assert words[:3] == ["env", f"RETRIEVAL_JAX_RUN={run / 'runs' / 'my shop'}", f"RETRIEVAL_JAX_DATA={run / 'data'}"]
    file = str(ROOT / "launch" / "compose.yaml")
    assert words[5:] == ["docker", "compose", "--file", file, "up", "--build", "--detach", "--wait", "page", "milvus"]
    assert not (run / "called").exists() and sorted(os.listdir(run / "runs")) == ["my shop"]


def test_up_makes_a_token_once_that_only_its_owner_reads(run):
    assert start(run, "up", *FOLDERS).returncode == 0
    token = run / "runs" / "my shop.token"
    first = token.read_text()
    assert len(first.strip()) >= 16 and token.stat().st_mode & 0o077 == 0
    done = start(run, "up", *FOLDERS)
    assert token.read_text() == first and first.strip() not in done.stdout and "http://127.0.0.1:8000/" in done.stdout
    assert f"RETRIEVAL_JAX_TOKEN_FILE={token}" in (run / "env").read_text()


def test_search_puts_the_gallery_into_milvus(run):
    done = start(run, "search", *FOLDERS, "--config=quickstart")
    words = (run / "called").read_text().splitlines()
    at = words.index("run")
    assert words[at:] == [
        *("run", "--rm", "search", "search", "--config=quickstart"),
        f"--workdir={run / 'runs' / 'my shop'}",
        "--config.search.index=milvus",
    ], done.stderr
    given = door.parse(words[at + 3 :])
    assert given.verb == "search" and given.config.search.index == "milvus"


def test_stopping_needs_no_run(run):
    for verb, last in (("down", "down"), ("logs", "--follow")):
        assert start(run, verb).returncode == 0
        assert (run / "called").read_text().splitlines()[-1] == last


@pytest.mark.parametrize(
    "words, said",
    [
        (["up"], "give --workdir="),
        (["up", "--workdir=data", "--data=data"], "data holds no run"),
        (["up", FOLDERS[0], "--data=nowhere"], "is not a folder"),
        (["up", *FOLDERS, "--port=1"], "not --port=1"),
        (["search", *FOLDERS], "search needs --config="),
        ([], "what?"),
        (["start"], "what?"),
    ],
)
def test_what_cannot_be_is_refused(run, words, said):
    done = start(run, *words)
    assert done.returncode == 1 and said in done.stderr and not (run / "called").exists()


def test_every_variable_has_a_value_or_a_sentence():
    """Docker's own check, where it is there; the variables in any case."""
    text = (ROOT / "launch" / "compose.yaml").read_text()
    script = (ROOT / "launch" / "compose.sh").read_text()
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        assert name in script, name
        assert rest.startswith((":-", ":?")) or f"${{{name}:?" in text, name
    version = ["docker", "compose", "version"]
    if shutil.which("docker") and subprocess.run(version, capture_output=True, timeout=30).returncode == 0:
        env = {"RETRIEVAL_JAX_RUN": "/r", "RETRIEVAL_JAX_DATA": "/d", "RETRIEVAL_JAX_TOKEN_FILE": "/t"}
        words = ["docker", "compose", "--file", str(ROOT / "launch" / "compose.yaml"), "config", "--quiet"]
        done = subprocess.run(words, env={**os.environ, **env}, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr


def commands():
    """Returns the words of `serve` in both files, and the ports of their containers."""
    page = COMPOSE["services"]["page"]
    documents = list(yaml.safe_load_all((ROOT / "launch" / "gke" / "page.yaml").read_text()))
    box = documents[0]["spec"]["template"]["spec"]["containers"][0]
    return [(page["entrypoint"], page["command"]), (box["command"], box["args"])]


@pytest.mark.parametrize("entrypoint, words", commands(), ids=["compose", "kubernetes"])
def test_the_page_is_started_with_options_that_serve_has(entrypoint, words):
    assert entrypoint == ["tini", "--", "python", "-m", "retrieval_jax"]
    assert words[0] == "serve" and any(word.startswith("--token_file=") for word in words)
    given = door.parse([word.replace("${RETRIEVAL_JAX_RUN}", "runs/x") for word in words])
    assert given.host == "0.0.0.0" and given.port == 8000


def test_only_this_machine_reaches_the_page_and_nothing_outside_reaches_milvus():
    services = COMPOSE["services"]
    assert all(port.startswith("127.0.0.1:") for port in services["page"]["ports"])
    assert "ports" not in services["milvus"] and "ports" not in services["search"]
    assert all(services[name]["cap_drop"] == ["ALL"] for name in ("page", "search"))
    assert services["page"]["environment"]["RETRIEVAL_JAX_MILVUS_URI"] == "http://milvus:19530"
    assert set(services["page"]["secrets"]) <= set(COMPOSE["secrets"])
    assert {one["source"] for one in services["milvus"]["configs"]} <= set(COMPOSE["configs"])


def test_the_image_installs_what_the_build_asks_for():
    text = (ROOT / "launch" / "Dockerfile").read_text()
    asked = COMPOSE["services"]["page"]["build"]["args"]
    assert asked == {"EXTRAS": "requirements-milvus.txt"} and "ARG EXTRAS" in text
    (loop,) = re.findall(r"RUN (for file .*?)\n(?=COPY)", text, re.DOTALL)
    shown = loop.replace("pip install", "printf '%s '")
    env = {"REQUIREMENTS": "requirements.txt", "EXTRAS": "a.txt b.txt", "PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", shown], env=env, capture_output=True, text=True, check=True)
    files = ("requirements.txt", "requirements-gcs.txt", "requirements-s3.txt", "a.txt", "b.txt")
    assert done.stdout.split() == ["--no-cache-dir", *(word for file in files for word in ("--requirement", file))]
