"""Append-only log of records with checksums, which distinguish a write cut short by a kill from damage in the middle.

A record is: magic, kind, length and checksum of the payload, checksum of these (24 bytes), then the payload.
"""

from __future__ import annotations

import io
import os
import pathlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from retrieval_jax.errors import InputError
from retrieval_jax.files.opening import opened

MAGIC = b"RJB1"
HEADER = struct.Struct("<4sIQII")
MAX_PAYLOAD = 1 << 31


def append(descriptor: int, kind: int, parts: list[bytes]) -> int:
    """Appends a record to a file and waits until it is on disk.

    Args:
      descriptor: file descriptor, open for appending.
      kind: kind of record.
      parts: the payload, in pieces.

    Returns:
      The record's length in bytes.
    """
    size = sum(len(part) for part in parts)
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    head = HEADER.pack(MAGIC, kind, size, crc, 0)[:-4]
    write_all(descriptor, b"".join([head, struct.pack("<I", zlib.crc32(head)), *parts]))
    os.fdatasync(descriptor)
    return HEADER.size + size


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes all of `data`; a single os.write may write less."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[os.write(descriptor, view) :]


def open_repaired(log: pathlib.Path, vectors: pathlib.Path, log_end: int, vectors_end: int) -> list[int]:
    """Opens a log and the vectors beside it for appending, without what was never acknowledged; warns if there is any.

    Args:
      log, vectors: the files.
      log_end, vectors_end: their acknowledged bytes.

    Returns:
      Descriptors of the vectors and of the log.
    """
    size = log.stat().st_size
    if size > log_end:
        warnings.warn(
            f"{log}: truncated {size - log_end} bytes of an incomplete record at the end (a write was interrupted "
            "before it was acknowledged)",
            stacklevel=4,
        )
    descriptors = [os.open(file, os.O_WRONLY | os.O_APPEND) for file in (vectors, log)]
    for descriptor, length in zip(descriptors, (vectors_end, log_end), strict=True):
        if os.fstat(descriptor).st_size > length:
            os.ftruncate(descriptor, length)
            os.fdatasync(descriptor)
    return descriptors


def _header(data: bytes) -> tuple[int, int, int] | None:
    """Returns kind, length and checksum, or None if `data` is not a header."""
    if len(data) < HEADER.size:
        return None
    magic, kind, size, crc, head_crc = HEADER.unpack(data)
    good = magic == MAGIC and zlib.crc32(data[:-4]) == head_crc and size <= MAX_PAYLOAD
    return (kind, size, crc) if good else None


def read(file: pathlib.Path, offset: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """Yields (kind, payload, end) of the complete records from `offset` on; stops if the last one is cut or garbled.

    The caller compares the last `end` with the file size: bytes past it were never acknowledged.

    Args:
      file: the log.
      offset: start of a record, such as an earlier `end`.

    Raises:
      InputError: the file is missing, or a record is broken and more data follows it.
    """
    try:
        stream = opened(file)
    except FileNotFoundError as error:
        raise InputError(f"{file} not found: restore it from a backup, or rebuild the index") from error
    with stream:
        stream.seek(offset)
        while True:
            record = _record(stream)
            if record is None:  # retry with a single read: a writer may have finished this record meanwhile
                stream.seek(offset)
                rest = stream.read()
                record = _record(io.BytesIO(rest))
                if record is None:
                    if rest and _goes_on(rest):
                        raise InputError(
                            f"{file} is damaged at byte {offset}, and more data follows: restore this file from a "
                            "backup, or rebuild the index; nothing was changed"
                        )
                    return
                stream.seek(offset + HEADER.size + len(record[1]))
            offset += HEADER.size + len(record[1])
            yield *record, offset


def _record(stream: BinaryIO) -> tuple[int, bytes] | None:
    """Returns kind and payload of the record at the current position, or None if there is no valid one."""
    header = _header(stream.read(HEADER.size))
    if header is None:
        return None
    payload = stream.read(header[1])
    return (header[0], payload) if len(payload) == header[1] and zlib.crc32(payload) == header[2] else None


def _goes_on(rest: bytes) -> bool:
    """Returns whether anything was written after the broken record at the start of `rest`."""
    header = _header(rest[: HEADER.size])
    if header is not None and HEADER.size + header[1] < len(rest):
        return True  # the next record had been started, so this one had been acknowledged
    start, work = rest.find(MAGIC, 1), 0
    while start >= 0:
        header = _header(rest[start : start + HEADER.size])
        body = start + HEADER.size
        work += 0 if header is None else min(header[1], len(rest) - body)
        if work > 100 * len(rest):  # only where somebody wrote many headers, each with a length that is not there
            return True
        if header is not None and zlib.crc32(rest[body : body + header[1]]) == header[2]:
            return True
        start = rest.find(MAGIC, start + 1)
    return False
