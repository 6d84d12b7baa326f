"""Pictures by row number: files under a folder, or any source cached in memory; and checks of picture files.

A source has `len(source)` and `source[row]`, uint8 [H, W, 3] RGB. A source of encoded pictures also has `read(row)`,
which returns bytes, `decode(data, row)`, which turns them into `source[row]`, and `max_pixels`, its limit. Then a crop
can be chosen before decoding (`decoding.Encoded`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pathlib
import stat
import threading
import time
import unicodedata
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval_jax import errors
from retrieval_jax.data.pictures import decoding, headers
from retrieval_jax.data.pictures.decoding import MAX_PIXELS, BadImage
from retrieval_jax.errors import InputError

_MOST_BYTES = 2**30  # largest picture file: more than MAX_PIXELS need in any format
_MOST_NAMES = 100_000  # most names of a folder that a missing file is compared with
_PASSING = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EIO}
_PAUSES = (0.1, 1.0, 5.0)  # seconds before a file is tried again after one of these errors


class NoPictures:
    """The pictures of a split that has none: typed queries, or listings of which only titles are known.

    Args:
      count: listings of the split.
      split: its name, for the message.
    """

    def __init__(self, count: int, split: str):
        self.count, self.split = count, split

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> np.ndarray:
        raise InputError(
            f"the {self.split} split has no pictures: use a model that reads its text, such as 'lexical' or a predict "
            "function of a text task"
        )


class FileImages:
    """Random access to picture files under a folder; links that lead out of it are not followed.

    Args:
      root: the folder.
      relative_paths: n paths below it.
      max_pixels: pictures with more pixels raise InputError before they are decoded.
      at_least: None decodes at full size. A number decodes JPEGs at 1/2, 1/4 or 1/8 as long as both sides keep at
        least that many pixels: far cheaper for large photos that are resized afterwards.
    """

    def __init__(
        self, root: Any, relative_paths: Sequence[str], max_pixels: int = MAX_PIXELS, at_least: int | None = None
    ):
        self.root = str(root)
        self._real_root = os.path.realpath(self.root)
        self._folders: dict[str, bool] = {}  # {folder: whether it is under the root}
        self.relative_paths = relative_paths
        self.max_pixels = max_pixels
        self.at_least = at_least

    def __len__(self) -> int:
        return len(self.relative_paths)

    def __getitem__(self, row: int) -> np.ndarray:
        """Returns uint8 [H, W, 3] RGB.

        Raises:
          InputError: the file cannot be read or decoded.
          Shortage: the machine lacks memory, open files, access or a disk that answers.
        """
        return self.decode(self.read(row), row)

    def read(self, row: int) -> bytes:
        """Returns the bytes of a picture file; raises InputError that names it if it cannot be read."""

        def read(path: str, _) -> bytes:
            with open(path, "rb") as file:
                return file.read()

        return self._at(row, read)

    def decode(self, data: bytes, row: int) -> np.ndarray:
        """Decodes the bytes from `read` to uint8 [H, W, 3]; raises InputError that names the file."""
        try:
            return decoding.decode(data, self.max_pixels, self.at_least)
        except BadImage as error:
            raise self._error(row, error) from None
        except (MemoryError, OSError) as error:
            errors.raise_shortage(error, self._path(row))
            raise

    def status(self, row: int) -> os.stat_result:
        """Returns size and times of a picture file; raises InputError that names it if it is missing."""
        return self._at(row, lambda _, status: status)

    def _at(self, row: int, function: Any) -> Any:
        try:
            try:
                return _patiently(lambda: function(*_locate(self._real_root, self.relative_paths[row], self._folders)))
            except (OSError, MemoryError) as error:
                errors.raise_shortage(error, self._path(row))
                raise BadImage("missing image file", error.strerror or str(error)) from None
        except BadImage as error:
            raise self._error(row, error) from None

    def _path(self, row: int) -> str:
        return os.path.join(self.root, self.relative_paths[row])

    def _error(self, row: int, error: BadImage) -> InputError:
        return InputError(f"row {row} of the pictures: {error.sentence(self._path(row))}")


def _patiently(function: Any) -> Any:
    """Calls a function that reads a file, again after a pause where the error may pass: a network share that answers
    late, or more files open for a moment than allowed."""
    for pause in _PAUSES:
        try:
            return function()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            time.sleep(pause)
    return function()


class Cached:
    """A source that caches decoded pictures in memory, as many as fit.

    Safe to read from several threads: at worst a picture is decoded twice. The arrays are read-only, because all
    readers share them.

    Args:
      source: random access to uint8 arrays.
      max_bytes: size of the cache; pictures beyond it are decoded at every access.
    """

    def __init__(self, source: Any, max_bytes: int):
        self.source = source
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def __getstate__(self):  # another process starts with an empty cache
        return {"source": self.source, "max_bytes": self.max_bytes}

    def __setstate__(self, state):
        self.__init__(**state)

    def __getitem__(self, row: int) -> np.ndarray:
        row = int(row)
        image = self._kept.get(row)
        if image is None:
            image = self.source[row]
            with self._lock:
                if row not in self._kept and self.num_bytes + image.nbytes <= self.max_bytes:
                    image = np.ascontiguousarray(image)
                    image.setflags(write=False)
                    self._kept[row] = image
                    self.num_bytes += image.nbytes
        return image


def kept(source: Any, max_bytes: int) -> Any:
    """Returns the source with a cache of decoded pictures, or the source itself if max_bytes is 0."""
    return Cached(source, max_bytes) if max_bytes else source


def path_problem(relative: str) -> str:
    """Returns why a path, judged by its text alone, leads out of its root, or ""."""
    parts = relative.replace("\\", "/").split("/")
    if "\0" in relative:
        return "it has a NUL character"
    if relative.startswith(("/", "\\", "~")) or ":" in relative and pathlib.PureWindowsPath(relative).drive:
        return "it is absolute"
    return "it has '..'" if ".." in parts else ""


def check(
    root: str, relative: str, max_pixels: int = MAX_PIXELS, folders: dict | None = None, whole: bool = False
) -> BadImage | None:
    """Checks a picture by its path and its first and last bytes, and decodes it only if those are inconclusive.

    Damage between header and end of a JPEG or PNG is found with `whole` only; otherwise it is raised when the picture
    is read.

    Args:
      root: real path (without links) of the folder that the picture must be under.
      relative: path below it.
      max_pixels: most pixels allowed.
      folders: cache of facts about folders, shared between calls.
      whole: decode the picture in any case.

    Returns:
      The problem, or None.

    Raises:
      Shortage: the machine lacks memory, open files, access or a disk that answers: the picture may be fine.
    """
    folders = {} if folders is None else folders
    try:
        return _patiently(lambda: _check(root, relative, max_pixels, folders, whole))
    except BadImage as error:
        return error
    except (OSError, MemoryError) as error:
        errors.raise_shortage(error, os.path.join(root, relative))
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        return BadImage(
            "missing image file", _near(root, relative, folders) if missing else error.strerror or str(error)
        )


def _check(root: str, relative: str, max_pixels: int, folders: dict, whole: bool) -> None:
    path, status = _locate(root, relative, folders)
    with open(path, "rb", buffering=0) as file:
        head = file.read(4096)
        if not headers.kind(head):
            raise decoding.not_a_picture(head)
        _, size = headers.peek(head)
        if size is None and head.startswith(headers.JPEG):
            head += file.read(headers.HEAD)
            _, size = headers.peek(head)
        tail = head[-12:]
        if status.st_size > len(head):
            file.seek(-12, os.SEEK_END)
            tail = file.read(12)
        if size is not None:
            decoding.check_size(size, max_pixels)
        if whole or size is None or not headers.ends_well(head[:8], tail):
            file.seek(0)
            decoding.decode(file.read(), max_pixels)


def _near(root: str, relative: str, folders: dict[str, Any]) -> str:
    """Returns where a missing file was looked for, with a path that differs in case, Unicode form, blanks or percent
    signs only."""
    if "://" in relative:
        return f"it is an address; fetch the picture into {root}"
    found = ""
    for part in urllib.parse.unquote(relative).split("/"):
        if ("names", found) not in folders:
            folders["names", found] = _names(root, os.path.realpath(os.path.join(root, found)))
        if (name := folders["names", found].get(_loose(part))) is None:
            return f"looked in {root}"
        found = os.path.join(found, name)
    return f"there is {found!r} in {root}"


def _names(root: str, folder: str) -> dict[str, str]:
    """Returns {loose form: name} of the names in a folder; empty for a folder outside the root."""
    if not _is_under(root, folder):
        return {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        # Sorted, so that the choice between two names with one loose form is deterministic.
        return {_loose(name): name for name in sorted(entry.name for entry in itertools.islice(entries, _MOST_NAMES))}
    return {}


def _loose(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _locate(root: str, relative: str, folders: dict[str, bool]) -> tuple[str, os.stat_result]:
    """Returns path and status of a regular file under the real path `root`, after resolving links.

    Raises:
      BadImage: it is elsewhere, or a folder or device.
      OSError: it does not exist.
    """
    if problem := path_problem(relative):
        raise BadImage("path leaves the root", problem)
    path = os.path.join(root, relative)
    folder = os.path.dirname(path)
    if folder not in folders:
        folders[folder] = _is_under(root, os.path.realpath(folder))
    status = os.lstat(path)
    if not folders[folder] or (stat.S_ISLNK(status.st_mode) and not _is_under(root, os.path.realpath(path))):
        raise BadImage("path leaves the root", "a link leads elsewhere")
    if stat.S_ISLNK(status.st_mode):
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BadImage("not an image file", "a folder or device")
    if status.st_size > _MOST_BYTES:
        raise BadImage("image too large", f"{status.st_size:,} bytes, at most {_MOST_BYTES:,} are read")
    return path, status


def _is_under(root: str, path: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
