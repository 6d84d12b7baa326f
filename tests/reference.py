"""Where tests find the reference data: a real catalogue and parity numbers, too large for the repository."""

import os
import pathlib
import shutil
import tarfile
import tempfile

import pytest

ROOT = pathlib.Path(os.environ.get("RETRIEVAL_JAX_REFERENCE", pathlib.Path(__file__).resolve().parents[2] / "shared"))


def path(name: str) -> pathlib.Path:
    """Returns the path of a file of the reference data, or skips the calling test, with the reason."""
    file = ROOT / name
    if not file.exists():
        pytest.skip(f"reference data {name} not found under {ROOT}; set RETRIEVAL_JAX_REFERENCE to its folder")
    return file


def extracted(name: str) -> pathlib.Path:
    """Returns the folder of an archive's files, unpacked once into a cache, or skips the calling test.

    Args:
      name: of the archive in the folder of the data, such as "shops.tar".
    """
    archive = path(f"data/{name}")
    cache = pathlib.Path(os.environ.get("RETRIEVAL_JAX_CACHE", pathlib.Path.home() / ".cache" / "retrieval_jax"))
    folder = cache / f"{name.partition('.')[0]}-{archive.stat().st_size}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = pathlib.Path(tempfile.mkdtemp(dir=cache))
        with tarfile.open(archive) as tar:
            tar.extractall(part, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # 3.11.4 has it
        try:
            part.rename(folder)  # whole or not at all, whoever else unpacks at the same time
        except OSError:
            shutil.rmtree(part)
    return folder


def fashion_root() -> pathlib.Path:
    """Returns the folder of the real fashion catalogue, or skips the calling test."""
    found = sorted(extracted("fashion.tar.gz").glob("**/metadata/train.csv"))
    if not found:
        pytest.skip("fashion.tar.gz holds no metadata/train.csv")
    return found[0].parents[1]
