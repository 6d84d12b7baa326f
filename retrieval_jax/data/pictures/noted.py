"""Fingerprints and thumbnails of pictures: whether a picture is still the same, and roughly what it looks like.

A picture is the same if the bytes of its file are (128-bit BLAKE2). To avoid reading a million files that nobody
touched, their size, times and inode (a stamp) are kept too; as in git, equal stamps stand for equal bytes, unless the
file was so new when it was read that a second change could have gone unnoticed within the same clock tick. A file is
read again only if its stamp differs, and the picture counts as changed only if its bytes differ: copying or touching a
catalogue changes nothing. Pictures in record files are compared by their bytes, drawn ones by their pixels.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import time
from typing import Any

import cv2
import numpy as np

from retrieval_jax.data.pictures.sources import FileImages

SIDE = 8  # pixels of a thumbnail
THUMBNAIL = SIDE * SIDE * 3  # bytes
_THREADS = 4  # to read files for comparison: disks and networks serve several requests at once
_TICK = 2_000_000_000  # ns, the coarsest clock of a file system or network share


class Noted:
    """A source of pictures that keeps a fingerprint and a thumbnail of each one it reads.

    Safe to read from several threads. Takes 216 bytes per listing, and only once the listing is read.

    Args:
      source: random access to uint8 [H, W, 3]; pictures in files (`FileImages`) have stamps, and encoded ones (`read`)
        are compared by their bytes.
    """

    def __init__(self, source: Any):
        self.source = source
        self._fingerprints = np.zeros((len(source), 3), np.uint64)  # two words of the digest, the stamp or 0
        self._thumbnails = np.zeros((len(source), THUMBNAIL), np.uint8)
        self._seen = np.zeros(len(source), bool)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> np.ndarray:
        row = int(row)
        if hasattr(self.source, "read"):
            mark = self._stamp(row)  # before the bytes are read, so that a later change shows in the next stamp
            data = self.source.read(row)
            image, digest = self.source.decode(data, row), _digest(data)
        else:
            image = self.source[row]
            mark, digest = 0, _digest_of_pixels(image)
        self._note(row, (*digest, mark), thumbnail(image))
        return image

    def notes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns fingerprints uint64 [n, 3] and thumbnails uint8 [n, 192] of rows; reads those not read yet."""
        self._each(lambda row: self[row], [row for row in rows if not self._seen[row]])
        return self._fingerprints[rows], self._thumbnails[rows]

    def unchanged(self, rows: np.ndarray, fingerprints: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
        """Returns which pictures are still the same as in earlier notes; those notes are kept as this source's own.

        Args:
          rows: int [n].
          fingerprints: uint64 [n, 3], from the earlier `notes`.
          thumbnails: uint8 [n, 192], from the earlier `notes`.

        Returns:
          bool [n].
        """
        same = np.zeros(len(rows), bool)

        def compare(i: int) -> None:
            row, old = int(rows[i]), tuple(fingerprints[i].tolist())
            if hasattr(self.source, "read"):
                mark = self._stamp(row)
                same[i] = mark == old[2] != 0 or _digest(self.source.read(row)) == old[:2]
            else:
                mark = 0
                same[i] = _digest_of_pixels(self.source[row]) == old[:2]
            if same[i]:
                self._note(row, (*old[:2], mark), thumbnails[i])

        self._each(compare, range(len(rows)))
        return same

    def _note(self, row: int, fingerprint: tuple[int, int, int], small: np.ndarray) -> None:
        self._fingerprints[row], self._thumbnails[row], self._seen[row] = fingerprint, small, True

    def _stamp(self, row: int) -> int:
        return stamp(self.source, row) if isinstance(self.source, FileImages) else 0

    def _each(self, function, items) -> None:
        if hasattr(self.source, "read"):
            with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
                for _ in pool.map(function, items):  # raises what the function raised
                    pass
        else:
            for item in items:
                function(item)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Returns the mean colours of a picture on an 8 x 8 grid, uint8 [192].

    Args:
      image: uint8 [H, W, 3].
    """
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(-1)


def stamp(source: FileImages, row: int) -> int:
    """Returns a 64-bit number that no other version of the file has, or 0 where the file's times cannot be trusted."""
    status = source.status(row)
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    if not 0 < latest < time.time_ns() - _TICK:
        return 0
    text = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) or 1


def _digest(*parts: bytes) -> tuple[int, int]:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    whole = digest.digest()
    return int.from_bytes(whole[:8]), int.from_bytes(whole[8:])


def _digest_of_pixels(image: np.ndarray) -> tuple[int, int]:
    return _digest(str(image.shape).encode(), np.ascontiguousarray(image).tobytes())
