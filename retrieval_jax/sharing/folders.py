"""Which folders an exported model may be written to."""

from __future__ import annotations

import pathlib
from typing import Any

from retrieval_jax.errors import InputError
from retrieval_jax.files import documents


def check_replaceable(folder: pathlib.Path) -> None:
    """Checks that a folder may be replaced by an exported model: it is missing, empty, or holds one.

    Args:
      folder: where the model is to be written.

    Raises:
      InputError: it holds something else, or its config.json cannot be read, so that nothing says what it holds.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        known = "programs" in documents.read(folder / "config.json", dict[str, Any], remedy="")
    except (InputError, NotADirectoryError):
        known = False
    if not known:
        raise InputError(f"{folder} exists and is not an exported model: give another folder, or delete it")
