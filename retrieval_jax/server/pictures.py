"""Pictures of a request, decoded within limits, and thumbnails of listings, kept in memory."""

from __future__ import annotations

import base64
import binascii
import collections
import hashlib
import os
import threading

import cv2
import numpy as np
import simplejpeg

from retrieval_jax.data.catalog import Split
from retrieval_jax.data.pictures import colour, decoding
from retrieval_jax.errors import InputError

MOST_PIXELS = 40 * 2**20  # of a picture in a request: phones take up to 50 megapixels, and most send 12
HELD_PIXELS = 2**21  # of a picture that waits for the network, whose input is smaller still
_decoding = threading.BoundedSemaphore(os.cpu_count() or 1)  # a picture takes up to 126 MB, and there are 40 threads
KEPT = 128 * 2**20  # bytes of thumbnails in memory


def of_base64(text: str) -> bytes:
    """Returns the bytes of a picture that JSON holds; raises InputError where it is not base64."""
    text = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"picture is not base64 ({error}): encode the bytes of a picture file") from None


def decoded(data: bytes, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """Returns a picture of a request, uint8 [h, w, 3] RGB.

    Args:
      data: of the file.
      box: ymin, xmin, ymax, xmax as shares, to crop to; None for the whole picture.

    Raises:
      InputError: not a picture, damaged, too large, too costly, or an empty box.
    """
    with _decoding:
        return _decoded(data, box)


def _decoded(data: bytes, box: tuple[float, float, float, float] | None) -> np.ndarray:
    try:
        image = decoding.decode(data, MOST_PIXELS)
    except decoding.BadImage as error:
        raise InputError(error.sentence("the picture of the request").partition("; ")[0]) from None
    if box is not None:
        if not (box[0] < box[2] and box[1] < box[3]):
            raise InputError(f"box is {list(box)}: give ymin, xmin, ymax, xmax with ymin < ymax and xmin < xmax")
        image = np.ascontiguousarray(colour.crop(image, np.array(box)))
    return _shrunk(image, (HELD_PIXELS / (image.shape[0] * image.shape[1])) ** 0.5)


def _shrunk(image: np.ndarray, scale: float) -> np.ndarray:
    """Returns a picture [h, w, 3] at a scale, itself from 1 on."""
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def jpeg(image: np.ndarray, size: int) -> bytes:
    """Returns a picture [h, w, 3] as a JPEG whose longer side has at most `size` pixels."""
    image = _shrunk(image, size / max(image.shape[:2]))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=85)


class Thumbnails:
    """JPEGs of the listings of a gallery; the most recently shown ones are kept in memory.

    Args:
      most: bytes to keep.
    """

    def __init__(self, most: int = KEPT):
        self._most, self._bytes, self._lock = most, 0, threading.Lock()
        self._kept: collections.OrderedDict[tuple, tuple[bytes, str]] = collections.OrderedDict()

    def get(self, split: Split, row: int, size: int) -> tuple[bytes, str]:
        """Returns a thumbnail, and its ETag.

        Args:
          split: the listings; their source of pictures refuses paths that lead out of the catalogue's root.
          row: of the split.
          size: longest side in pixels.

        Raises:
          InputError: the picture is missing or damaged.
        """
        key = id(split), row, size
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][:2]
        with _decoding:
            data = jpeg(split.images[row], size)
        made = data, f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        with self._lock:
            if key not in self._kept:
                self._kept[key] = (*made, split)  # the split is kept too, so that its id is not given to another
                self._bytes += len(data)
            while self._bytes > self._most:
                _, (old, *_) = self._kept.popitem(last=False)
                self._bytes -= len(old)
        return made
