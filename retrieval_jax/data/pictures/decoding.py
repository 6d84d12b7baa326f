"""Decodes picture files to arrays, partly if only a crop is needed, and explains why a file is not usable."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from retrieval_jax import errors
from retrieval_jax.data import children
from retrieval_jax.data.pictures import headers
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import opening

cv2.setNumThreads(1)  # pictures are read by several threads; OpenCV's own would compete with them

MAX_PIXELS = 64 * 2**20  # larger pictures are treated as decompression bombs
# Pillow's other readers are never used. Its JPEG reader also reads MPO, written by phones with two lenses.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# A picture that its header does not bound (see `headers.needs_limits`) is decoded with these limits. Both grow with
# max_pixels beyond MAX_PIXELS.
SECONDS = 10  # of processor time
MEMORY = 16  # bytes per pixel of max_pixels
_BASE = 256 * 2**20  # bytes, and four times the file

_LARGE = 2**24  # pixels: fewer are decoded by all threads at once
_STRIP = 2**22  # pixels converted at once
_ROWS = 32  # largest number of rows that share the blocks of a JPEG
_REMEDY = {
    "missing image file": "add the file or remove the row",
    "truncated image file": "copy the file again",
    "not an image file": "replace it by a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM",
    "image too large": "shrink it or raise config.data.kwargs.max_pixels",
    "image too costly": "save it again as an ordinary JPEG or PNG",
    "path leaves the root": "give paths relative to the image folder, without '..' or links to elsewhere",
}


class Encoded:
    """A picture that is not decoded yet, so that only the crop of it needs to be.

    Args:
      data: the file's bytes.
      whole: function without arguments that decodes the whole picture to uint8 [H, W, 3], or raises.
      max_pixels: pictures with more pixels are left to `whole`.

    Attributes:
      shape: (H, W, 3), read from the header of an ordinary upright JPEG, and by decoding any other picture.
    """

    def __init__(self, data: bytes, whole: Any, max_pixels: int = MAX_PIXELS):
        self._data, self._whole, self._pixels = data, whole, None
        header = headers.jpeg(data)
        self._frame, (width, height) = header.frame, header.size
        if (
            header.plain
            and not header.turned
            and 0 < width * height <= max_pixels
            and headers.ends_well(data[:8], data[-12:])
            and not headers.too_many_scans(data, header)
        ):
            self.shape = height, width, 3
        else:
            self.shape = self.pixels().shape

    def pixels(self) -> np.ndarray:
        """Returns the whole picture, uint8 [H, W, 3]."""
        if self._pixels is None:
            self._pixels = self._whole()
        return self._pixels

    def cut(self, top: int, left: int, height: int, width: int, needed: tuple[int, int]) -> np.ndarray:
        """Decodes a rectangle, without the rows below it and at no higher resolution than needed.

        Args:
          top, left, height, width: the rectangle, in pixels of the picture.
          needed: (height, width) in pixels that it will be resized to.

        Returns:
          uint8 [h, w, 3]: exactly the pixels of the whole picture, unless both sides of the rectangle are at least
          twice those needed. Then it is decoded at 1/2, 1/4 or 1/8 (the JPEG's own averages), with its edges rounded
          to whole pixels of that size.
        """
        if self._pixels is None:
            factor = next((n for n in (8, 4, 2) if height >= n * needed[0] and width >= n * needed[1]), 1)
            rows, data = -(-(top + height + 1) // _ROWS) * _ROWS, self._data
            if rows < self.shape[0]:  # decoders stop at the height given in the header
                data = b"".join((data[: self._frame + 5], rows.to_bytes(2), data[self._frame + 7 :]))
            else:
                rows = self.shape[0]
            try:  # not strict, because unread bytes would be an error
                with _room(self.shape[0] * self.shape[1]):
                    image = simplejpeg.decode_jpeg(data, min_height=-(-rows // factor), min_factor=factor, strict=False)
                if image.shape[:2] == (-(-rows // factor), -(-self.shape[1] // factor)):  # else a second header differs
                    (above, below), (before, behind) = (
                        ((first + factor // 2) // factor, (first + length + factor // 2) // factor)
                        for first, length in ((top, height), (left, width))
                    )
                    return image[above:below, before:behind]
            except ValueError:  # another decoder may read it, or explain the problem
                pass
        # A damaged file may be smaller than its header says, or rotated.
        pixels = self.pixels()
        top, left = min(top, len(pixels) - 1), min(left, pixels.shape[1] - 1)
        return pixels[top : top + height, left : left + width]


def encoded(source: Any, row: int) -> Encoded:
    """Reads a picture without decoding it, from a source of encoded pictures (see `sources`)."""
    data = source.read(row)
    return Encoded(data, lambda: source.decode(data, row), source.max_pixels)


class BadImage(Exception):
    """A file that cannot be used as a picture: `reason` is the key for counts, `detail` describes the finding."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def sentence(self, path: Any) -> str:
        """Returns reason, file, detail and remedy in one sentence.

        Args:
          path: path of the file as the user gave it.
        """
        detail = f" ({short(self.detail, 300)})" if self.detail else ""
        return f"{self.reason}: {short(str(path), 300)}{detail}; {_REMEDY[self.reason]}"


def picture(number: int, image: Any) -> np.ndarray:
    """Returns a picture given by a user as an array or a path.

    Args:
      number: its index in the user's list, for messages.
      image: uint8 [h, w, 3] RGB, or the path of a picture file.

    Returns:
      uint8 [h, w, 3] RGB.

    Raises:
      InputError: it is neither, or the file cannot be read.
    """
    if isinstance(image, str | pathlib.Path):
        try:
            with opening.opened(image) as file:
                return decode(file.read())
        except (OSError, MemoryError) as error:
            errors.raise_shortage(error, f"picture {number}: {image}")
            raise InputError(f"picture {number}: {image} cannot be read ({error.strerror})") from error
        except BadImage as error:
            raise InputError(f"picture {number}: {error.sentence(image)}") from error
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"picture {number} is {image.dtype} {image.shape}: give uint8 [height, width, 3] in RGB, or a path"
        )
    return image


def decode(data: bytes, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> np.ndarray:
    """Decodes a picture.

    OpenCV decodes ordinary JPEGs, Pillow the rest: CMYK, transparency (composited on white), other formats, JPEGs
    without an end marker at their end. Formats whose header does not bound the cost are decoded in a child process with
    limits. The EXIF orientation is applied, 16 bits become 8, grey becomes RGB, and an
    animation is reduced to its first frame.

    Args:
      data: the file's bytes.
      max_pixels: largest number of pixels to decode.
      at_least: see `FileImages`.

    Returns:
      uint8 [H, W, 3] RGB.

    Raises:
      BadImage: not a picture, truncated, too large or too costly.
      MemoryError: the machine lacks memory; the picture may be fine.
    """
    image = _plain(data, max_pixels, at_least)
    if image is not None:
        return image
    of, png = headers.kind(data), None
    if not of:
        raise not_a_picture(data)
    if of == "PNG":
        png = headers.png(data)
        if not png.intact:  # Pillow may return the rest of such a picture as black
            raise BadImage("truncated image file", "a checksum is wrong")
    if of == "BMP" and (slow := headers.slow_bmp(data)):
        raise BadImage("image too costly", slow)
    if png.heavy if png else headers.needs_limits(data, of):
        return _with_limits(data, max_pixels)
    return _here(png.data if png else data, max_pixels)


def _plain(data: bytes, max_pixels: int, at_least: int | None) -> np.ndarray | None:
    """Decodes an ordinary JPEG with OpenCV, None for any other file; raises BadImage if it is too large or costly."""
    if not data.startswith(headers.JPEG):
        if size := headers.peek(data)[1]:
            check_size(size, max_pixels)
        return None
    header = headers.jpeg(data)
    if header.frame:
        check_size(header.size, max_pixels)
    if many := headers.too_many_scans(data, header):
        raise BadImage("image too costly", many)
    if not (header.plain and header.frame and headers.ends_well(data[:8], data[-12:])):
        return None
    size = header.size
    flag = cv2.IMREAD_COLOR_RGB
    if at_least:
        fits = [n for n in (8, 4, 2) if min(size) // n >= at_least]
        flag = (
            {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}[fits[0]]
            if fits
            else flag
        )
    try:
        with _room(size[0] * size[1]):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem or errors.shortage(error):
            raise MemoryError(f"out of memory: OpenCV could not decode {size[0]} x {size[1]} pixels") from error
        return None
    return image if image is None or flag == cv2.IMREAD_COLOR_RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class _Room:
    """Lets large pictures be decoded at the same time as long as their pixels together fit; a larger one alone."""

    def __init__(self, pixels: int):
        self._most, self._taken, self._changed = pixels, 0, threading.Condition()

    def __call__(self, pixels: int) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if pixels <= _LARGE else self._held(pixels)

    @contextlib.contextmanager
    def _held(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + pixels <= self._most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_room = _Room(max(MAX_PIXELS, _LARGE * (os.cpu_count() or 1)))


def _here(data: bytes, max_pixels: int) -> np.ndarray:
    """Decodes a picture with Pillow in this process, twice if a lack of memory may have looked like damage."""
    size = headers.peek(data)[1]
    pixels = size[0] * size[1] if size else 0
    try:
        with _room(pixels):
            return pillow_decode(io.BytesIO(data), max_pixels)
    except BadImage as error:
        if pixels <= _LARGE // 16 or error.reason != "truncated image file":
            raise
    with _room(max(pixels, MAX_PIXELS)):  # alone, and with memory to spare
        np.empty(MEMORY * pixels, np.uint8)  # raises MemoryError
        return pillow_decode(io.BytesIO(data), max_pixels)


def _with_limits(data: bytes, max_pixels: int) -> np.ndarray:
    scale = max(1.0, max_pixels / MAX_PIXELS)
    limits = {"memory": MEMORY * max(max_pixels, MAX_PIXELS) + 4 * len(data) + _BASE, "seconds": SECONDS * scale}
    try:
        for answer, pixels in children.call(f"{__name__}:in_child", {"max_pixels": max_pixels}, data, **limits):
            if "bad" in answer:
                problem = BadImage(*answer["bad"])
            else:
                problem, image = None, np.frombuffer(pixels, np.uint8).reshape(answer["shape"])
    except children.Exceeded as error:
        problem = BadImage("image too costly", str(error))
    if problem:
        raise problem
    return image


def in_child(arguments: dict, data: bytes) -> Iterator[tuple[dict, Any]]:
    """Decodes a picture in a child process, see `children.call`."""
    try:
        image = _here(bytes(data), arguments["max_pixels"])
    except BadImage as error:
        yield {"bad": [error.reason, error.detail]}, b""
    else:
        yield {"shape": image.shape}, memoryview(np.ascontiguousarray(image)).cast("B")


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises BadImage if a picture of (width, height) has too many pixels."""
    if size[0] * size[1] > max_pixels:
        raise BadImage("image too large", f"{size[0]} x {size[1]} pixels, at most {max_pixels:,} are decoded")


def not_a_picture(head: bytes) -> BadImage:
    """Returns the problem of a file whose first bytes are those of no supported format."""
    return BadImage("not an image file", headers.known(head) if head else "it is empty")


def pillow_decode(file: Any, max_pixels: int) -> np.ndarray:
    """Decodes an open file with Pillow to uint8 [H, W, 3]; raises BadImage, and MemoryError for lack of memory."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit applies below
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("image too large", str(error)) from None
    except Exception as error:  # Pillow's readers raise all kinds of exceptions
        _refuse_shortage(error)
        file.seek(0)
        head = file.read(64)
        detail = "" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        if headers.kind(head) in ("JPEG", "PNG", "GIF", "WEBP"):
            raise BadImage("truncated image file", detail) from None
        raise BadImage("not an image file", headers.known(head) or detail) from None
    with image:
        check_size(image.size, max_pixels)
        if tile := _large_tile(image):
            raise BadImage("image too costly", tile)
        try:
            image.load()
            return _as_rgb(image)
        except BadImage:
            raise
        except Exception as error:
            _refuse_shortage(error)
            raise BadImage("truncated image file", str(error)) from None


def _refuse_shortage(error: Exception) -> None:
    """Raises MemoryError if an exception of a decoder is due to a lack of memory or the like."""
    if lack := errors.shortage(error):
        raise MemoryError(lack if lack.startswith("out of memory") else f"out of memory: {lack}") from error


def _large_tile(image: Image.Image) -> str:
    """Returns what is wrong with a TIFF whose tiles are much larger than the picture, else ""."""
    tags = getattr(image, "tag_v2", {})
    for tag, side, name in ((322, image.width, "wide"), (323, image.height, "high")):
        try:
            length = int(tags.get(tag, 0))
        except (TypeError, ValueError):
            return "the size of its tiles is not a number"
        if length > max(4096, 2 * side):
            return f"its tiles are {length:,} pixels {name}, the picture {side:,}"
    return ""


def _as_rgb(image: Image.Image) -> np.ndarray:
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise BadImage("not an image file", "its pixels are floating-point numbers of unknown range")
    width, height = image.size
    if width * height <= _STRIP:
        return _converted(image)
    out, rows = np.empty((height, width, 3), np.uint8), max(1, _STRIP // width)
    for top in range(0, height, rows):  # converting all of a large picture at once would take several times its memory
        bottom = min(top + rows, height)
        out[top:bottom] = _converted(image.crop((0, top, width, bottom)))
    return out


def _converted(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.int64)
        return np.repeat((np.clip(gray, 0, 65_535) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.array(image.convert("RGB"))
