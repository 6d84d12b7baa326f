"""The installed package: experiments and configs of one's own, in any folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib

import pytest

from repository import ROOT, committed_files


def test_the_wheel_takes_the_configs_along_and_has_a_console_script():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"retrieval-jax": "retrieval_jax.__main__:main"}
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "retrieval_jax.__version__"}
    assert '"retrieval_jax._configs": "configs"' in (ROOT / "setup.py").read_text()


@pytest.mark.long
def test_an_installed_package_works_in_any_folder(tmp_path):
    """In a folder with a `configs` package of its own: the shipped experiments, and a config file beside them."""
    for file in committed_files():
        (tmp_path / "source" / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, tmp_path / "source" / file.relative_to(ROOT))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}

    def call(*words, folder=tmp_path):
        words = [str(word) for word in words]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", tmp_path / "source")
    shutil.rmtree(tmp_path / "source")
    packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # The requirements are those that the tests run with.
    (pathlib.Path(packages) / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    shop = tmp_path / "shop"
    (shop / "configs").mkdir(parents=True)
    (shop / "configs" / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    (shop / "mine.py").write_text(
        "from retrieval_jax.settings import arguments, quickstart\n\n\ndef get_config():\n"
        "    return quickstart.experiment('mine', arguments.parse('runlocal'))\n"
    )
    program = tmp_path / "venv" / "bin" / "retrieval-jax"
    assert "fashion_best\n" in call(program, "configs", folder=shop)
    assert "report: runs/quickstart-runlocal" in call(program, "run", "--config=quickstart:runlocal", folder=shop)
    assert "mine: done" in call(python, "-m", "retrieval_jax", "mine", "--config=mine.py", folder=shop)
