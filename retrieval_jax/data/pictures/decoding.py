"""Decodes picture files to arrays, partly if only a crop is needed, and explains why a file is not usable."""

from __future__ import annotations

import io
import os
import pathlib
import re
import warnings
import zlib
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from retrieval_jax.errors import InputError, short

cv2.setNumThreads(1)  # pictures are read by several threads; OpenCV's own would compete with them

MAX_PIXELS = 64 * 2**20  # larger pictures are treated as decompression bombs
# Pillow's other readers are never used. Its JPEG reader also reads MPO, written by phones with two lenses.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

HEAD = 65_536
JPEG = b"\xff\xd8\xff"
# An EXIF orientation other than upright, in either byte order.
_TURNED = re.compile(
    rb"\x01\x12\x00(?!\x03\x00\x00\x00\x01\x00\x01)|\x12\x01.\x00(?<!\x03\x00)|"
    rb"\x12\x01\x03\x00(?!\x01\x00\x00\x00\x01\x00)",
    re.DOTALL,
)
_ROWS = 32  # largest number of rows that share the blocks of a JPEG
PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
# Signatures of files that are not pictures, or of unsupported formats: (offset, bytes, description).
_KNOWN = (
    (0, b"<", "an HTML, XML or SVG page"),
    (0, b"{", "JSON"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x1f\x8b", "compressed (gzip)"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"8BPS", "Photoshop's"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    *(
        (4, b"ftyp" + brand, name)
        for name, brands in {
            "AVIF": (b"avif", b"avis"),
            "HEIC": (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"),
        }.items()
        for brand in brands
    ),
)
_REMEDY = {
    "missing image file": "add the file or remove the row",
    "truncated image file": "copy the file again",
    "not an image file": "replace it by a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM",
    "image too large": "shrink it or raise config.data.kwargs.max_pixels",
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
        self._frame, (width, height), plain, turned = _jpeg_header(data)
        if plain and not turned and 0 < width * height <= max_pixels and ends_well(data[:8], data[-12:]):
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
                image = simplejpeg.decode_jpeg(data, min_height=-(-rows // factor), min_factor=factor, strict=False)
                (top, bottom), (left, right) = (
                    ((first + factor // 2) // factor, (first + length + factor // 2) // factor)
                    for first, length in ((top, height), (left, width))
                )
                return image[top:bottom, left:right]
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
            return decode(pathlib.Path(image).read_bytes())
        except OSError as error:
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
    without an end marker at their end. The EXIF orientation is applied, 16 bits become 8, grey becomes RGB, and an
    animation is reduced to its first frame.

    Args:
      data: the file's bytes.
      max_pixels: largest number of pixels to decode.
      at_least: see `FileImages`.

    Returns:
      uint8 [H, W, 3] RGB.

    Raises:
      BadImage: not a picture, truncated, or too large.
    """
    plain, size = peek(data)
    if size:
        check_size(size, max_pixels)
    if data.startswith(PNG) and not _checksums_match(data):  # Pillow may return the rest of such a picture as black
        raise BadImage("truncated image file", "a checksum is wrong")
    if plain and size and ends_well(data[:8], data[-12:]):
        flag = cv2.IMREAD_COLOR_RGB
        if at_least:
            fits = [n for n in (8, 4, 2) if min(size) // n >= at_least]
            flag = (
                {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}[fits[0]]
                if fits
                else flag
            )
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        except cv2.error:
            image = None
        if image is not None:
            return image if flag == cv2.IMREAD_COLOR_RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return pillow_decode(io.BytesIO(data), max_pixels)


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises BadImage if a picture of (width, height) has too many pixels."""
    if size[0] * size[1] > max_pixels:
        raise BadImage("image too large", f"{size[0]} x {size[1]} pixels, at most {max_pixels:,} are decoded")


def ends_well(head: bytes, tail: bytes) -> bool:
    """Returns whether a JPEG or PNG ends with its end marker; False for other formats and after trailing bytes."""
    return tail.endswith(b"\xff\xd9") if head.startswith(JPEG) else head.startswith(PNG) and tail == _PNG_END


def _checksums_match(png: bytes) -> bool:
    """Returns whether the checksums of a PNG's critical chunks are right."""
    view, at = memoryview(png), 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(view[at : at + 4])
        critical = not view[at + 4] & 32  # by the case of its name's first letter; a broken comment does no harm
        if critical and end + 4 <= len(png) and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
            return False
        at = end + 4
    return True


def peek(data: bytes) -> tuple[bool, tuple[int, int] | None]:
    """Reads a header: (whether OpenCV decodes this kind as we want, (width, height) or None if not found)."""
    if data.startswith(PNG):
        if len(data) < 33 or data[12:16] != b"IHDR":
            return False, None
        # OpenCV's reader needs gigabytes and a minute for some damaged PNGs of 69 bytes.
        return False, (int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    frame, size, plain, _ = _jpeg_header(data)
    return plain, size if frame else None


def turned(jpeg: bytes) -> bool:
    """Returns whether a JPEG may have an EXIF orientation to apply, which not every reader does."""
    return _jpeg_header(jpeg)[3]


def _jpeg_header(data: bytes) -> tuple[int, tuple[int, int], bool, bool]:
    """Reads a JPEG's header.

    Returns:
      (offset of the frame header, 0 if not found; (width, height); whether it has 8 bits and one or three channels;
      whether EXIF may have an orientation to apply).
    """
    at, frame, turns = 2, (0, (0, 0), False), False
    while data.startswith(JPEG) and at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # fill bytes and markers without content
            at += 1 if marker == 0xFF else 2
        elif marker in (0xD9, 0xDA):
            break
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not frame[0]:
                size = int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
                frame = at, size, data[at + 9] in (1, 3) and data[at + 4] == 8
            if marker == 0xE1 and data[at + 4 : at + 8] == b"Exif" and _TURNED.search(data, at, end):
                turns = True  # decoders also read it after the frame header
            at = end
    return *frame, turns


def pillow_decode(file: Any, max_pixels: int) -> np.ndarray:
    """Decodes an open file with Pillow to uint8 [H, W, 3]; raises BadImage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit applies below
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("image too large", str(error)) from None
    except Exception as error:  # Pillow's readers raise all kinds of exceptions
        file.seek(0, os.SEEK_END)
        empty = file.tell() == 0
        file.seek(0)
        head = file.read(64).lstrip()
        what = next((f"it is {name}" for at, magic, name in _KNOWN if head[at:].startswith(magic)), "")
        detail = "" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        if head.startswith((JPEG, PNG, b"GIF8")) or head[8:12] == b"WEBP":
            raise BadImage("truncated image file", detail) from None
        raise BadImage("not an image file", "it is empty" if empty else what or detail) from None
    with image:
        check_size(image.size, max_pixels)
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
