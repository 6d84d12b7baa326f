"""Folders that are replaced while others read them: a reader gets one version, and a kill leaves one.

Such a folder has a description, a JSON object that is written last, and the files that it describes. A new version is
made in a folder beside it, which becomes `.<name>.moving`. Then

    1. the description is replaced by the new one with a key "moving": from this moment on the new version counts
    2. the new files are moved to their places, under the same names as ever, and other files of the old are removed
    3. the description is replaced by the new one as it is

A reader looks for each file of a description with "moving" in `.<name>.moving` first and then in its place. In the end
it checks that the description is still the same file, and reads again if it is not. After a kill between 1 and 3 the
folder reads as the new version, and whoever writes next does the rest first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from typing import TypedDict, TypeVar

from retrieval_jax.errors import InputError, naming
from retrieval_jax.files import atomic, documents, opening

MOVING = "moving"  # key of a description; beside the names of files to move, those of the old version to remove
_TRIES = 200  # of a reader, while the folder is replaced again and again
_TRIES_MOVING = 20  # of a reader that misses a file while files are moved
_PAUSE = 0.001  # seconds between the first two tries; longer between later ones

Result = TypeVar("Result")


class _Moves(TypedDict):
    files: list[str]
    remove: list[str]


_Description = TypedDict("_Description", {MOVING: _Moves})


def replace(
    folder: str | os.PathLike,
    description: str,
    fill: Callable[[pathlib.Path], None],
    *,
    whole: bool = True,
    keep: Collection[str] = (),
) -> pathlib.Path:
    """Fills a new folder and puts it in the place of `folder`.

    Args:
      folder: the final place.
      description: name of the JSON file that describes the others, an object.
      fill: writes the files, the description among them, into the empty folder that it is given.
      whole: files of the old folder that the new one does not have are removed; those whose names begin with a dot,
        and all of a folder without a description, stay.
      keep: names of further files of the old folder that stay.

    Returns:
      `folder`.

    Raises:
      InputError: the path cannot be written.
      RunFailed: the disk is full, over its quota or broken; the old version stays.
    """
    folder = pathlib.Path(folder)
    new = atomic.filled(folder, fill)
    try:
        commit(new, folder, description, whole=whole, keep=keep)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # there only if nothing was put in its place
    return folder


def commit(
    new: pathlib.Path, folder: pathlib.Path, description: str, *, whole: bool = True, keep: Collection[str] = ()
) -> None:
    """Puts a complete folder, whose files are on disk, in the place of another; `new` is gone afterwards.

    Args:
      new: with the files and their description, on the same file system.
      folder: the final place; may be missing.
      description, whole, keep: see `replace`.
    """
    with naming(folder):
        folder = atomic.resolved(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists() and not os.path.lexists(_source(folder)):
            try:
                os.replace(new, folder)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was first
                    raise
        folder.mkdir(exist_ok=True)  # an empty one is filled, not replaced: it may be somebody's current folder
        with _alone(folder):
            if (folder / description).exists():
                _finish(folder, description)  # of a process that was killed
            else:
                _remove(_source(folder))  # never counted, or the folder that it belonged to was deleted
            atomic.sweep(folder, again=True)
            os.replace(new, _source(folder))
            _finish(folder, description, whole, keep)


def settle(folder: str | os.PathLike, description: str) -> None:
    """Finishes a replacement that a kill interrupted; does nothing where there is none.

    Args:
      folder, description: see `replace`.
    """
    with naming(folder):
        folder = atomic.resolved(folder)
        if _source(folder).is_dir():
            folder.mkdir(exist_ok=True)
            with _alone(folder):
                _finish(folder, description)


def read(folder: str | os.PathLike, description: str, load: Callable[[pathlib.Path], Result]) -> Result:
    """Returns what `load` reads from one version of a folder.

    Args:
      folder: the folder.
      description: see `replace`.
      load: takes the place of the files, where `place / "name"` is the path of one, as in a folder; it has everything
        open when it returns. It is called again if the folder was replaced meanwhile.

    Raises:
      InputError: what `load` raises; or the folder is replaced too often to be read, or cannot be read.
    """
    folder = pathlib.Path(folder)
    file = folder / description
    with naming(file):
        for number in range(_TRIES):
            try:
                stream = opening.opened(file, documents.MOST_BYTES)
            except (FileNotFoundError, NotADirectoryError):
                return load(folder)  # which says what is missing
            with stream:  # as long as it is open, no other file has its number
                moves = _moves(stream.read()) is not None
                try:
                    found, failed = load(_Place(folder) if moves else folder), None
                except (ValueError, OSError) as error:  # a file was moved or removed under the reader, maybe
                    found, failed = None, error
                same = _is_same(stream.fileno(), file)
            if same and failed is None:
                return found
            if same and not (moves and number < _TRIES_MOVING):
                raise failed
            time.sleep(min(0.1, _PAUSE * (number + 1)))
    raise InputError(f"{folder} was replaced {_TRIES} times while it was read: wait for the process that writes it")


class _Place:
    """A folder whose files are being moved: `place / name` is the path where a file is now."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._source = _source(atomic.resolved(folder))

    def __truediv__(self, name: str) -> pathlib.Path:
        there = self._source / name
        return there if there.exists() else self._folder / name

    def __str__(self) -> str:
        return str(self._folder)


def _source(folder: pathlib.Path) -> pathlib.Path:
    """Returns where the files of a new version wait; `folder` is resolved."""
    return folder.with_name(f".{folder.name}.moving")


def _moves(description: bytes) -> dict | None:
    """Returns the value of "moving" in a description, None where it has none."""
    if f'"{MOVING}"'.encode() not in description:
        return None
    try:
        found = documents.parse(description, _Description, name="", remedy="")[MOVING]
    except InputError:
        return None
    names = [pathlib.PurePath(name) for name in (*found["files"], *found["remove"])]
    plain = all(name.parts and not name.is_absolute() and ".." not in name.parts for name in names)
    return found if plain else None


def _is_same(descriptor: int, file: pathlib.Path) -> bool:
    try:
        now, then = os.stat(file), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)


def _files(folder: pathlib.Path) -> list[str]:
    """Returns the names of the files of a folder, also of those in folders below it; hidden ones are left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _finish(folder: pathlib.Path, description: str, whole: bool = False, keep: Collection[str] = ()) -> None:
    """Does what is left of the steps for the version in `.<name>.moving`."""
    source, file = _source(folder), folder / description
    _check_no_link(source)
    if not (source / description).exists():  # there is none, or all its files are in their places
        shutil.rmtree(source, ignore_errors=True)
        return
    _check_no_link(source / description)
    about = documents.read(source / description, dict, remedy=f"delete {source}, and run again")
    moves = _moves(file.read_bytes()) if file.exists() else None
    counts = moves is not None and json.loads(file.read_bytes()) == {MOVING: moves, **about}
    if not counts:
        files = _files(source)
        old = (
            _files(folder) if whole and file.exists() else []
        )  # without a description the files are not known to be ours
        stays = {*files, *keep, description}
        moves = {"files": files, "remove": [name for name in old if name not in stays]}
    for name in (*moves["files"], *moves["remove"]):  # before anything changes
        for path in (name, *pathlib.PurePath(name).parents):
            _check_no_link(source / path)
        for path in pathlib.PurePath(name).parents:  # a link in the place of the file itself is replaced, not followed
            if path.parts:
                _check_no_link(folder / path)
    if not counts:
        atomic.write_text(file, json.dumps({MOVING: moves, **about}))
    for name in moves["files"]:
        if name != description and (source / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(source / name, folder / name)
    for name in moves["remove"]:
        (folder / name).unlink(missing_ok=True)
    os.replace(source / description, file)
    atomic.sync(folder)
    shutil.rmtree(source, ignore_errors=True)


def _check_no_link(path: pathlib.Path) -> None:
    if path.is_symlink():
        raise InputError(
            f"{path} is a symbolic link, so files would be moved or removed elsewhere: remove it, or put a copy of "
            "what it links to in its place, and run again"
        )


def _remove(source: pathlib.Path) -> None:
    if source.is_symlink():
        source.unlink()
    elif source.exists():
        shutil.rmtree(source)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Waits until no other process moves files in a folder; where folders cannot be locked (NFS), does not wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock
