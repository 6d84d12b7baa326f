"""Files and folders that are written whole or not at all: a reader, or a crash, never sees half of one."""

import contextlib
import ctypes
import json
import os
import pathlib
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from retrieval_jax.errors import InputError, naming
from retrieval_jax.files import documents

_TEMPORARY = re.compile(r"\..*\.(\d+)\.([^.]*)\.[0-9a-f]{8}\.tmp", re.DOTALL)  # .<name>.<process>.<host>.<random>.tmp
_FOREIGN = 86400.0  # seconds after which what another machine has not touched counts as abandoned
_swept: set[str] = set()  # folders that this process has swept


def write(file: str | os.PathLike, fill: Callable[[BinaryIO], None]) -> None:
    """Writes a file under another name, then renames it.

    Args:
      file: path, in a folder that exists.
      fill: writes the content to the open binary file that it is given.

    Raises:
      InputError: the path cannot be written.
      RunFailed: the disk is full, over its quota or broken.
    """
    with written(file) as new, new.open("wb") as stream:
        fill(stream)


@contextlib.contextmanager
def written(file: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives the path of another file to write, which becomes `file` when the context ends without an error.

    For libraries that write to a path; `write` is for those that write to an open file.

    Args:
      file: path, in a folder that exists.
    """
    file = pathlib.Path(file)
    new = temporary(file)
    with naming(file):
        sweep(file.parent)
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the umask
            mode = os.fstat(descriptor).st_mode
            os.close(descriptor)
            yield new
            _set_mode(new, mode)
            sync(new)  # else a crash of the machine may leave the new name with nothing in it
            os.replace(new, file)
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                new.unlink(missing_ok=True)
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

    write(file, lambda stream: np.save(_Plain(stream), array, allow_pickle=False))


def write_npz(file: str | os.PathLike, **arrays) -> None:
    """Writes arrays by name as .npz, see `write`."""
    import numpy as np

    write(file, lambda stream: np.savez(stream, **arrays))


class _Plain:
    """A stream that NumPy does not take for a file: its own writing in C loses the number of the error."""

    def __init__(self, stream: BinaryIO):
        self.write = stream.write


def read_json(file: str | os.PathLike) -> dict:
    """Returns the object that `write_json` wrote; a reader that knows its keys uses `documents.read`.

    Args:
      file: path of a file that exists.

    Raises:
      InputError: it is not a JSON object, or cannot be read.
    """
    with naming(file):
        return documents.read(file, dict, remedy="delete it and run again")


def replace_folder(folder: str | os.PathLike, fill: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Fills a new folder and puts it in the place of `folder`: a kill leaves the old one or the new one, never half.

    A reader that opens several files of it may get some of each: `versions.replace` is for folders with readers.

    Args:
      folder: the final place; an older folder there is removed once the new one is complete.
      fill: writes the files into the empty folder that it is given.

    Returns:
      `folder`.

    Raises:
      InputError: the path cannot be written.
      RunFailed: the disk is full, over its quota or broken.
    """
    folder = pathlib.Path(folder)
    with naming(folder):
        real = resolved(folder)
        if real.exists() and pathlib.Path.cwd().is_relative_to(real):
            raise InputError(f"{folder} holds the current folder, so it cannot be replaced: give the path of another")
    new = filled(folder, fill)
    with naming(folder):
        try:
            if not real.exists():
                os.replace(new, real)
            elif not _exchange(new, real):  # then the old one is removed under the new one's name, below
                old = temporary(real)
                os.replace(real, old)
                os.replace(new, real)  # a process that is killed just before leaves neither
                shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder


def resolved(folder: str | os.PathLike) -> pathlib.Path:
    """Returns where a folder really is: what is renamed into its place must lie beside that, not beside a link to it.

    Args:
      folder: the folder, which may be missing, "." or a symbolic link, perhaps to another disk.
    """
    return pathlib.Path(os.path.realpath(folder))


def filled(folder: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Returns a new folder beside `folder`, or beside what it links to, filled and on disk.

    Args:
      folder: the final place, whose name the new folder's begins with.
      fill: writes the files into the empty folder that it is given.
    """
    with naming(folder):
        new = temporary(resolved(folder))
        new.parent.mkdir(parents=True, exist_ok=True)
        sweep(new.parent, again=True)
        try:
            new.mkdir()
            fill(new)
            settle_files(new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return new


def settle_files(folder: pathlib.Path) -> None:
    """Gives all files of a folder one mode and waits until they are on disk."""
    mode = folder.stat().st_mode & 0o666
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _set_mode(path, mode)  # some libraries write files for this user alone
            sync(path)


def temporary(path: pathlib.Path) -> pathlib.Path:
    """Returns a name beside a path that no other process, thread or machine uses; `sweep` knows whose it is."""
    return path.with_name(f".{path.name[:80]}.{os.getpid()}.{_host()}.{secrets.token_hex(4)}.tmp")


def sweep(folder: str | os.PathLike, again: bool = False) -> None:
    """Removes what killed processes have left in a folder under a name of `temporary`; looks once per process.

    What a process of this machine left is removed once that has ended; what another machine left, once it is a day old.

    Args:
      folder: the folder; may be missing.
      again: looks even if this process has already done so.
    """
    folder = os.path.abspath(folder)
    if folder in _swept and not again:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (found := _TEMPORARY.fullmatch(entry.name)) and _abandoned(entry, int(found[1]), found[2]):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)


def _abandoned(entry: os.DirEntry, process: int, host: str) -> bool:
    if host != _host():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FOREIGN
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # of another user; not the number of a process
        return False
    return False


def _host() -> str:
    """Returns a name for the machine; processes that cannot see each other, in containers, have different ones."""
    try:
        space = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux
        space = ""
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{platform.node()[:32]}-{space}")


def sync(path: str | os.PathLike) -> None:
    """Waits until a file, or the entries of a folder (new, renamed, removed files), are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_mode(path: pathlib.Path, mode: int) -> None:
    """Gives a file the bits that the umask leaves: some libraries write files for this user alone."""
    if stat.S_IMODE(path.stat().st_mode) != stat.S_IMODE(mode):
        path.chmod(stat.S_IMODE(mode))


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Exchanges two folders in one step; returns False where system or file system cannot (not Linux, NFS)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one.absolute()), here, os.fsencode(other.absolute()), exchange) == 0
