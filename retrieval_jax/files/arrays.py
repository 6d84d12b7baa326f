"""Arrays and checksums of files, read without unpickling anything."""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np

from retrieval_jax.errors import InputError


def file_sha256(file: pathlib.Path) -> str:
    """Returns the checksum of a file's bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_npy(file: pathlib.Path, *, mmap: bool) -> np.ndarray:
    """Returns the array of a .npy file; nothing is unpickled.

    Args:
      file: the file.
      mmap: memory-map the file, so that values stay on disk until they are read.

    Raises:
      InputError: the file is missing, truncated, or of another kind.
    """
    try:
        return np.load(file, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{file} not found: run the command that made {file.parent} again") from error
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{file} is truncated or not a .npy file ({error}): run the command that made {file.parent} again"
        ) from error
