"""What is remembered of every picture that was read: whether it is still the same, and what it looks like, small.

A picture is the same when the bytes of its file are (128-bit BLAKE2). To spare reading a million files that nobody
touched, their size, times and place on disk (a stamp) are remembered too; equal stamps stand for equal bytes, as git
has it, unless the file was so new when it was read that a second change could have hidden in the same tick of the
clock. Only a stamp that differs makes the file be read, and only bytes that differ make it a changed picture: copying
a catalogue, or touching it, changes nothing. Pictures in records are compared by their bytes, those that are drawn
by their pixels.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import time
from typing import Any

import cv2
import numpy as np

from retrieval_jax.data.pictures.sources import FileImages

SIDE = 8  # of a thumbnail
THUMBNAIL = SIDE * SIDE * 3  # bytes
_THREADS = 4  # that read files to compare them: disks and networks answer several at once
_TICK = 2_000_000_000  # ns; file systems and networks tell time this coarsely at worst


class Noted:
    """A source of pictures that notes of each one that it reads a fingerprint and a thumbnail.

    Safe to read from several threads. 216 bytes a listing, which take memory only once the listing is read.

    Args:
      source: random access to uint8 [H, W, 3]; pictures in files (`FileImages`) have stamps, and of all that are
        encoded (`read`) the bytes are compared.
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
            mark = self._stamp(row)  # before the bytes are read: a later change shows in the next stamp
            data = self.source.read(row)
            image, digest = self.source.decode(data, row), _digest(data)
        else:
            image = self.source[row]
            mark, digest = 0, _digest_of_pixels(image)
        self._note(row, (*digest, mark), thumbnail(image))
        return image

    def notes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns fingerprints uint64 [n, 3] and thumbnails uint8 [n, 192] of rows; reads what was not read yet."""
        self._each(lambda row: self[row], [row for row in rows if not self._seen[row]])
        return self._fingerprints[rows], self._thumbnails[rows]

    def unchanged(self, rows: np.ndarray, fingerprints: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
        """Tells which pictures are still those that were noted earlier; what was noted of these is taken over.

        Args:
          rows: int [n].
          fingerprints: uint64 [n, 3], of the earlier `notes`.
          thumbnails: uint8 [n, 192], of the earlier `notes`.

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
    """Returns a picture's mean colours on a grid of 8 x 8, uint8 [192].

    Args:
      image: uint8 [H, W, 3].
    """
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(-1)


def stamp(source: FileImages, row: int) -> int:
    """Returns a number of 64 bits that another version of the file does not have, or 0 where none can be trusted."""
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
