"""Where tests find the reference data: a real catalogue and parity numbers, too large for the repository."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(
    os.environ.get("RETRIEVAL_JAX_REFERENCE", pathlib.Path(__file__).resolve().parents[2] / "shared"))


def path(name: str) -> pathlib.Path:
    """Returns the path of a file of the reference data, or skips the calling test, with the reason."""
    file = ROOT / name
    if not file.exists():
        pytest.skip(f"reference data {name} not found under {ROOT}; set RETRIEVAL_JAX_REFERENCE to its folder")
    return file
