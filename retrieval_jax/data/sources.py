"""Pictures by row number: files under a folder, or any source kept in memory; and what makes a file no picture."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import stat
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from retrieval_jax.errors import InputError

MAX_PIXELS = 64 * 2**20  # a larger picture is taken for a decompression bomb
# Pillow's readers of more are never started. Its JPEG reader also does MPO, the files of phones with two lenses.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

_HEAD = 65_536
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_REMEDY = {
    "missing image file": "add the file or remove the row",
    "truncated image file": "copy the file again",
    "not an image file": "replace it by a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM",
    "image too large": "make it smaller or raise config.data.kwargs.max_pixels",
    "path leaves the root": "give paths relative to the image folder, without '..' or links to elsewhere",
}


class BadImage(Exception):
    """A file that cannot be used as a picture: `reason` is a key to count by, `detail` says what was seen."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def sentence(self, path: Any) -> str:
        """Returns reason, file, detail and remedy in one sentence.

        Args:
            path: the file's, as the user knows it.
        """
        return f"{self.reason}: {path}{f' ({self.detail})' if self.detail else ''}; {_REMEDY[self.reason]}"


class FileImages:
    """Random access to the pictures in files under a folder; a link that leads out of it is not followed.

    Args:
        root: the folder.
        relative_paths: n paths below it.
        max_pixels: a picture with more pixels raises InputError before it is decoded.
        at_least: None decodes at the picture's own size. A number decodes JPEGs at 1/2, 1/4 or 1/8 as long as
            both sides keep at least that many pixels: far cheaper for large photos that are resized afterwards.
    """

    def __init__(
        self, root: Any, relative_paths: Sequence[str], max_pixels: int = MAX_PIXELS, at_least: int | None = None
    ):
        self.root = str(root)
        self._real_root = os.path.realpath(self.root)
        self._folders: dict[str, bool] = {}  # which folders lie under the root
        self.relative_paths = relative_paths
        self.max_pixels = max_pixels
        self.at_least = at_least

    def __len__(self) -> int:
        return len(self.relative_paths)

    def __getitem__(self, row: int) -> np.ndarray:
        """Returns uint8 [H, W, 3] RGB; raises InputError, naming the file, when it cannot be read or decoded."""
        return self.decode(self.read(row), row)

    def read(self, row: int) -> bytes:
        """Returns the bytes of a picture's file; raises InputError, naming it, when it cannot be read."""

        def read(path: str, _) -> bytes:
            with open(path, "rb") as file:
                return file.read()

        return self._at(row, read)

    def decode(self, data: bytes, row: int) -> np.ndarray:
        """Returns the picture, uint8 [H, W, 3], that `read` gave the bytes of; raises InputError, naming the file."""
        try:
            return decode(data, self.max_pixels, self.at_least)
        except BadImage as error:
            raise self._error(row, error) from None

    def status(self, row: int) -> os.stat_result:
        """Returns size and times of a picture's file; raises InputError, naming it, when it is not there."""
        return self._at(row, lambda _, status: status)

    def _at(self, row: int, function: Any) -> Any:
        try:
            try:
                return function(*_locate(self._real_root, self.relative_paths[row], self._folders))
            except OSError as error:
                raise BadImage("missing image file", error.strerror or str(error)) from None
        except BadImage as error:
            raise self._error(row, error) from None

    def _error(self, row: int, error: BadImage) -> InputError:
        path = os.path.join(self.root, self.relative_paths[row])
        return InputError(f"row {row} of the pictures: {error.sentence(path)}")


class Cached:
    """A source whose decoded pictures stay in memory, as many as fit.

    Safe to read from several threads: at worst a picture is decoded twice. The arrays are read-only, because every
    later reader gets the same one.

    Args:
        source: random access to uint8 arrays.
        max_bytes: of pictures to keep; further ones are decoded at every access.
    """

    def __init__(self, source: Any, max_bytes: int):
        self.source = source
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

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


def path_problem(relative: str) -> str:
    """Says why a path's text alone leads out of its root, or returns ""."""
    parts = relative.replace("\\", "/").split("/")
    if "\0" in relative:
        return "it has a NUL character"
    if relative.startswith(("/", "\\", "~")) or pathlib.PureWindowsPath(relative).drive:
        return "it is absolute"
    return "it has '..'" if ".." in parts else ""


def picture(number: int, image: Any) -> np.ndarray:
    """Returns a picture that a user handed over.

    Args:
        number: its place in the user's list, for messages.
        image: uint8 [h, w, 3] RGB, or the path of a picture file.

    Returns:
        uint8 [h, w, 3] RGB.

    Raises:
        InputError: it is neither.
    """
    if isinstance(image, str | pathlib.Path):
        try:
            return decode(pathlib.Path(image).read_bytes())
        except OSError as error:
            raise InputError(f"picture {number}: {image} cannot be read ({error.strerror})") from error
        except BadImage as error:
            raise InputError(f"picture {number}: {error.sentence(image)}") from error
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"picture {number} is {image.dtype} {image.shape}: give uint8 [height, width, 3] in RGB, "
                         "or a path")
    return image


def decode(data: bytes, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> np.ndarray:
    """Decodes an encoded picture.

    OpenCV does ordinary JPEGs and PNGs; Pillow the odd ones: CMYK, transparency (put on white), other formats, JPEGs
    whose end is not where it should be. The EXIF orientation is applied; 16 bits become 8; gray becomes RGB; of an
    animation the first frame counts.

    Args:
        data: the file's bytes.
        max_pixels: the most that are decoded.
        at_least: see `FileImages`.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        BadImage: not a picture, truncated, or too large.
    """
    plain, size = _peek(data)
    if size:
        _check_size(size, max_pixels)
    if plain and size and _ends_well(data[:8], data[-12:]):
        flag = cv2.IMREAD_COLOR
        if at_least and data.startswith(_JPEG):
            fits = [n for n in (8, 4, 2) if min(size) // n >= at_least]
            flag = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4,
                    2: cv2.IMREAD_REDUCED_COLOR_2}[fits[0]] if fits else flag
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        except cv2.error:
            image = None
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return _pillow_decode(io.BytesIO(data), max_pixels)


def check(root: str, relative: str, max_pixels: int = MAX_PIXELS, folders: dict | None = None) -> BadImage | None:
    """Looks at a picture's path, first and last bytes, and decodes it only where those leave a doubt.

    Args:
        root: the real path (no links) of the folder that the picture must lie under.
        relative: path below it.
        max_pixels: the most a picture may have.
        folders: memory between calls of which folders lie under the root.

    Returns:
        What is wrong, or None.
    """
    try:
        path, status = _locate(root, relative, {} if folders is None else folders)
        with open(path, "rb", buffering=0) as file:
            head = file.read(4096)
            plain, size = _peek(head)
            if size is None and head.startswith(_JPEG):
                head += file.read(_HEAD)
                plain, size = _peek(head)
            tail = head[-12:]
            if status.st_size > len(head):
                file.seek(-12, os.SEEK_END)
                tail = file.read(12)
            if size is not None:
                _check_size(size, max_pixels)
            if size is None or not _ends_well(head[:8], tail):
                file.seek(0)
                _pillow_decode(file, max_pixels)
    except BadImage as error:
        return error
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        return BadImage("missing image file", "" if missing else error.strerror or str(error))
    return None


def _locate(root: str, relative: str, folders: dict[str, bool]) -> tuple[str, os.stat_result]:
    """Returns path and status of an ordinary file that lies under the real path `root`, links resolved.

    Raises:
        BadImage: it lies elsewhere, or is a folder or device.
        OSError: it is not there.
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
    return path, status


def _is_under(root: str, path: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise BadImage("image too large", f"{size[0]} x {size[1]} pixels, at most {max_pixels:,} are decoded")


def _ends_well(head: bytes, tail: bytes) -> bool:
    """Tells whether a JPEG or PNG ends with its end marker; other formats, and trailing bytes, leave a doubt."""
    return tail.endswith(b"\xff\xd9") if head.startswith(_JPEG) else head.startswith(_PNG) and tail == _PNG_END


def _peek(data: bytes) -> tuple[bool, tuple[int, int] | None]:
    """Reads a header: (is it a kind that OpenCV decodes as we want, (width, height) or None where it is not seen)."""
    if data.startswith(_PNG):
        if len(data) < 33 or data[12:16] != b"IHDR":
            return False, None
        # Palettes may be transparent (tRNS), and color types 4 and 6 are: Pillow puts those on white.
        opaque = data[25] in (0, 2) and b"tRNS" not in data[:_HEAD]
        return opaque, (int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    if not data.startswith(_JPEG):
        return False, None
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return False, None
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # fill bytes and markers without content
            at += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame header
            size = int.from_bytes(data[at + 7:at + 9]), int.from_bytes(data[at + 5:at + 7])
            return data[at + 9] in (1, 3) and data[at + 4] == 8, size
        elif marker in (0xD9, 0xDA):
            return False, None
        else:
            at += 2 + int.from_bytes(data[at + 2:at + 4])
    return False, None


def _pillow_decode(file: Any, max_pixels: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("image too large", str(error)) from None
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        file.seek(0, os.SEEK_END)
        empty = file.tell() == 0
        unknown = empty or isinstance(error, Image.UnidentifiedImageError)
        raise BadImage("not an image file", "it is empty" if empty else "" if unknown else str(error)) from None
    with image:
        _check_size(image.size, max_pixels)
        try:
            image.load()
            return _as_rgb(image)
        except BadImage:
            raise
        except Exception as error:
            raise BadImage("truncated image file", str(error)) from None


def _as_rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.int64)
        return np.repeat((np.clip(gray, 0, 65_535) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise BadImage("not an image file", "its pixels are floating-point numbers of unknown range")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.array(image.convert("RGB"))
