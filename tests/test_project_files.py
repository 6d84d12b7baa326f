"""The repository itself: lint, what must not be in it, requirements that agree, a package that can be installed."""

import re
import subprocess
import sys
import tomllib

import pytest

from repository import ROOT, committed_files, text_of

# Put together so that this file does not find itself.
REGISTRIES = ("pypi" + ".org", "pythonhosted" + ".org", "registry." + "npmjs", "deb." + "debian.org")
PRIVATE = ("/" + "root/", "/" + "work/", "/" + "home/", "/" + "tmp/w/")


@pytest.mark.parametrize("command", [["check", "--no-cache"], ["format", "--check", "--no-cache"]], ids=" ".join)
def test_ruff_finds_nothing_to_change(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    if "No module named ruff" in done.stderr:
        pytest.skip("ruff is not installed: pip install -r requirements-dev.txt")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("words", [REGISTRIES, PRIVATE], ids=["registries", "private paths"])
def test_no_file_names_a_package_registry_or_a_private_path(words):
    found = [
        f"{file.relative_to(ROOT)}: {word}"
        for file in committed_files()
        for word in words
        if re.search(r"(?<![\w.~-])" + re.escape(word), text_of(file))
    ]
    assert not found, found


def test_no_file_is_larger_than_1_mib():
    found = [str(file.relative_to(ROOT)) for file in committed_files() if file.stat().st_size > 2**20]
    assert not found, found


def requirements(name: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(.*)", line).groups() for line in lines if line]
    assert len(found) == len(dict(found)), f"{name} names a package twice"
    return dict(found)


@pytest.mark.parametrize(
    "name, faiss", [("requirements-gpu.txt", "faiss-gpu-cu12"), ("requirements-tpu.txt", "faiss-cpu")]
)
def test_requirements_differ_in_jax_and_faiss_only_and_name_one_faiss(name, faiss):
    cpu, other = requirements("requirements.txt"), requirements(name)
    assert [package for package in other if package.startswith("faiss")] == [faiss]
    assert [package for package in cpu if package.startswith("faiss")] == ["faiss-cpu"]
    del cpu["faiss-cpu"], other[faiss]
    assert cpu == other


def test_pyproject_installs_the_package_and_reads_the_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
