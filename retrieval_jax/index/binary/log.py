"""An append-only file of records with checksums: what a kill cuts off at the end is told from damage in the middle.

A record: magic, kind, length and checksum of its payload, checksum of these (24 bytes), then the payload.
"""

from __future__ import annotations

import io
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from retrieval_jax.errors import InputError

MAGIC = b"RJB1"
HEADER = struct.Struct("<4sIQII")
MAX_PAYLOAD = 1 << 31


def append(descriptor: int, kind: int, parts: list[bytes]) -> int:
    """Writes a record at the end of a file and waits until it is on the disk.

    Args:
      descriptor: of the file, open for appending.
      kind: what the payload is.
      parts: the payload.

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
    """Writes all of `data`; os.write alone may write less."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[os.write(descriptor, view) :]


def _header(data: bytes) -> tuple[int, int, int] | None:
    """Returns kind, length and checksum, or None where no header stands."""
    if len(data) < HEADER.size:
        return None
    magic, kind, size, crc, head_crc = HEADER.unpack(data)
    good = magic == MAGIC and zlib.crc32(data[:-4]) == head_crc and size <= MAX_PAYLOAD
    return (kind, size, crc) if good else None


def read(file: pathlib.Path, offset: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """Yields (kind, payload, end) of the whole records from `offset` on; stops where the last one is cut or garbled.

    The caller compares the last `end` with the file's size: what lies behind was never acknowledged.

    Args:
      file: the log.
      offset: where a record starts, such as an `end` of before.

    Raises:
      InputError: a broken record with more behind it, or no such file.
    """
    try:
        stream = open(file, "rb")
    except FileNotFoundError as error:
        raise InputError(f"{file} not found: copy it back from a backup, or build the index again") from error
    with stream:
        stream.seek(offset)
        while True:
            record = _record(stream)
            if record is None:  # once more, from one read: a writer may have finished this record meanwhile
                stream.seek(offset)
                rest = stream.read()
                record = _record(io.BytesIO(rest))
                if record is None:
                    if rest and _goes_on(rest):
                        raise InputError(
                            f"{file} is damaged at byte {offset}, with more behind it: copy this file back from a "
                            "backup, or build the index again; nothing was changed"
                        )
                    return
                stream.seek(offset + HEADER.size + len(record[1]))
            offset += HEADER.size + len(record[1])
            yield *record, offset


def _record(stream: BinaryIO) -> tuple[int, bytes] | None:
    """Returns kind and payload of the record that starts here, or None where none does."""
    header = _header(stream.read(HEADER.size))
    if header is None:
        return None
    payload = stream.read(header[1])
    return (header[0], payload) if len(payload) == header[1] and zlib.crc32(payload) == header[2] else None


def _goes_on(rest: bytes) -> bool:
    """Returns whether bytes that start with a broken record hold anything written after it."""
    header = _header(rest[: HEADER.size])
    if header is not None and HEADER.size + header[1] < len(rest):
        return True  # the next record was begun: this one had been acknowledged
    start = rest.find(MAGIC, 1)
    while start >= 0:
        header = _header(rest[start : start + HEADER.size])
        body = start + HEADER.size
        if header is not None and zlib.crc32(rest[body : body + header[1]]) == header[2]:
            return True
        start = rest.find(MAGIC, start + 1)
    return False


def sync(path: str | os.PathLike) -> None:
    """Waits until a file, or the names in a folder (new, renamed, removed files), are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
