"""Folders whose files are numbered by generation: which generation is current, and who may write.

folder/current.json      {"generation": 1}
folder/000001.<kind>     files of generation 1, in use
folder/000002.<kind>     files of the next one, complete before current.json names them, or left by a kill

Used by indexes that append to their files and rewrite them from time to time (index/binary, index/attribute).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import TypedDict

from retrieval_jax.errors import InputError, naming
from retrieval_jax.files import atomic, documents

LOCK = "writer.lock"


class _Current(TypedDict):
    """current.json."""

    generation: documents.Size


def path(folder: pathlib.Path, generation: int, kind: str) -> pathlib.Path:
    """Returns the path of a file of a generation."""
    return folder / f"{generation:06d}.{kind}"


def current(folder: pathlib.Path) -> int:
    """Returns the current generation.

    Raises:
      InputError: current.json is missing or invalid.
    """
    remedy = "restore it from a backup, or rebuild the index"
    return documents.read(folder / "current.json", _Current, remedy=remedy, most_bytes=1 << 20)["generation"]


def set_current(folder: pathlib.Path, generation: int) -> None:
    """Makes the files of a generation current, atomically and durably."""
    atomic.sync(folder)  # the new files must be on disk before current.json points to them
    atomic.write_text(folder / "current.json", json.dumps({"generation": generation}))
    atomic.sync(folder)


def remove_others(folder: pathlib.Path, generation: int, kinds: tuple[str, ...]) -> None:
    """Removes the files, and folders, of other generations; processes that have them open can keep reading.

    Args:
      folder: the folder.
      generation: the current one, which stays.
      kinds: endings of the names, such as "log".
    """
    for file in folder.iterdir():
        found = re.fullmatch(rf"(\d{{6}})\.({'|'.join(kinds)})", file.name)
        if file.name == "current.json.new" or (found and int(found[1]) != generation):
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink()


@contextlib.contextmanager
def closing_on_failure(index) -> Iterator[None]:
    """Closes an index if a write fails (disk full, signal): reopening it truncates the incomplete write.

    Args:
      index: with `folder` and `close()`.
    """
    try:
        with naming(index.folder):
            yield
    except BaseException:
        index.close()
        raise


def lock(folder: pathlib.Path) -> int:
    """Returns a descriptor that holds the writer's lock of a folder until it is closed.

    Raises:
      InputError: another process, or another object of this one, is writing.
    """
    with naming(folder):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(
            f"{folder} is already open for writing: close it there first, or open it without write=True"
        ) from error
    return descriptor
