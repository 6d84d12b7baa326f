"""Files and folders written whole or not at all: a reader, or a crash, never sees half of one."""

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

from retrieval_jax.errors import InputError


def write_json(file, value) -> None:
    """Writes JSON so that a reader, or a crash, never sees half a file.

    Args:
      file: path, in a folder that exists.
      value: what is written, json-able.
    """
    write_bytes(file, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def write_bytes(file, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, never sees half of it.

    Args:
      file: path, in a folder that exists.
      content: all of it.
    """
    file = pathlib.Path(file)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())  # else a crash of the machine may leave the new name with nothing in it
    os.replace(temporary, file)


def read_json(file) -> dict:
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
    """Calls fill(new empty folder) and renames the result to `folder`: readers see the old or the new one, never half.

    Args:
      folder: the final place; an older folder there is removed once the new one is complete.
      fill: writes the files.
    """
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new.chmod(0o777 & ~_umask())
        fill(new)
        old = None
        if folder.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, old)  # over an empty folder: allowed
        os.replace(new, folder)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
