"""Files and folders that are written whole or not at all: a reader, or a crash, never sees half of one."""

import ctypes
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import BinaryIO

from retrieval_jax.errors import InputError


def write(file: str | os.PathLike, fill: Callable[[BinaryIO], None]) -> None:
    """Writes a file under another name, then renames it.

    Args:
      file: path, in a folder that exists.
      fill: writes the content to the open binary file that it is given.
    """
    file = pathlib.Path(file)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())  # else a crash of the machine may leave the new name with nothing in it
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(file: str | os.PathLike, content: bytes) -> None:
    """Writes a file of these bytes, see `write`."""
    write(file, lambda stream: stream.write(content))


def write_text(file: str | os.PathLike, text: str) -> None:
    """Writes a file of this text as UTF-8, see `write`."""
    write_bytes(file, text.encode("utf-8"))


def write_json(file: str | os.PathLike, value) -> None:
    """Writes a JSON-able value, see `write`."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_npy(file: str | os.PathLike, array) -> None:
    """Writes an array as .npy, see `write`; nothing is pickled."""
    import numpy as np  # here: a command line that only asks for --help waits for no library

    write(file, lambda stream: np.save(stream, array, allow_pickle=False))


def write_npz(file: str | os.PathLike, **arrays) -> None:
    """Writes arrays by name as .npz, see `write`."""
    import numpy as np

    write(file, lambda stream: np.savez(stream, **arrays))


def read_json(file: str | os.PathLike):
    """Returns what `write_json` wrote.

    Args:
      file: path of a file that exists.

    Raises:
      InputError: it is not JSON.
    """
    try:
        return json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not readable JSON ({error}); delete it and run again") from error


def replace_folder(folder: str | os.PathLike, fill: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Fills a new folder and puts it in the place of `folder`: readers see the old one or the new one, never half.

    Args:
      folder: the final place; an older folder there is removed once the new one is complete.
      fill: writes the files into the empty folder that it is given.

    Returns:
      `folder`.
    """
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new.chmod(0o777 & ~_umask())
        fill(new)
        if not folder.exists():
            os.replace(new, folder)
        elif not _exchange(new, folder):  # then the old one is removed under the new one's name, below
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, old)  # allowed over an empty folder
            os.replace(new, folder)  # a process that is killed just before leaves neither
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Exchanges two folders in one step; returns False where system or file system cannot (not Linux, NFS)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one.absolute()), here, os.fsencode(other.absolute()), exchange) == 0


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
