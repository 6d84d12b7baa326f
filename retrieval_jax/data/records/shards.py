"""Shards of a prepared catalogue: ArrayRecord files of resized pictures, written whole and checked record by record."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from retrieval_jax import brief, errors
from retrieval_jax.data.pictures import decoding, headers
from retrieval_jax.data.pictures.decoding import BadImage
from retrieval_jax.data.pictures.sources import FileImages
from retrieval_jax.data.records import reading as records
from retrieval_jax.errors import InputError, first_line

FORMAT = 1  # of prepared catalogues


@dataclasses.dataclass(frozen=True)
class Shard:
    """Rows of a split that become one file.

    Attributes:
      path: of the file.
      split: name of the split.
      start: its first row.
      ids: n ids.
      titles: n titles, or None.
      categories: int32 [n, levels], or None.
      key: digest of everything that the file is made of.
    """

    path: pathlib.Path
    split: str
    start: int
    ids: Sequence[str]
    titles: Sequence[str] | None
    categories: np.ndarray | None
    key: str = ""

    __repr__ = brief.line

    @property
    def part(self) -> pathlib.Path:
        """The path under which the file is written until it is complete."""
        return self.path.with_name(f".{self.path.name}.part")

    @property
    def about(self) -> pathlib.Path:
        """The JSON file that marks the shard as complete."""
        return self.path.parent / "catalogue" / "shards" / f"{self.path.name}.json"


def features(category_names: Sequence[Sequence[str]]) -> Any:
    """Returns the tfds features of a record.

    Args:
      category_names: of every level.
    """
    import tensorflow_datasets as tfds

    columns = {
        "id": tfds.features.Text(),
        "row": tfds.features.Scalar(np.int64),
        "image": tfds.features.Image(),
        "title": tfds.features.Text(),
    }
    for level, names in enumerate(category_names):
        # tfds keeps names in a text file, one per line: they must be distinct and printable
        nameable = len(set(names)) == len(names) and all(name.strip() and name.isprintable() for name in names)
        named = {"names": list(names)} if nameable else {"num_classes": len(names)}
        columns[f"category_{level}"] = tfds.features.ClassLabel(**named)
    return tfds.features.FeaturesDict(columns)


def key(shard: Shard, source: Any, settings: dict) -> str:
    """Digests what a shard is made of: settings, the source's max_pixels, listings, sizes and times of its pictures.

    Args:
      shard: without its key.
      source: random access to the pictures of the whole split.
      settings: JSON-able; also identifies pictures that are not in files.
    """
    rows = range(shard.start, shard.start + len(shard.ids))
    made_of = [FORMAT, settings, shard.split, shard.start, getattr(source, "max_pixels", None)]
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for column in (shard.ids, shard.titles):
        digest.update(json.dumps(None if column is None else list(column)).encode())
    digest.update(b"" if shard.categories is None else np.ascontiguousarray(shard.categories).tobytes())
    if isinstance(source, FileImages):
        for row in rows:
            try:
                status = source.status(row)
                digest.update(f"{source.relative_paths[row]}\0{status.st_size} {status.st_mtime_ns}\n".encode())
            except InputError:
                digest.update(b"missing\n")
    elif isinstance(source, records.RecordImages):
        digest.update(source.rows[shard.start : shard.start + len(shard.ids)].tobytes())
        for file in sorted(pathlib.Path(source.folder).glob(f"*-{source.split}*")):
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def make(shard: Shard, about: dict | None, source: Any, made: Any, settings: dict, tick: Callable[[], None]) -> dict:
    """Makes the file of a shard under its temporary name, unless the complete one passes every check.

    Args:
      shard: the shard.
      about: what an earlier run recorded about the complete file, or None.
      source: random access to the pictures of the whole split.
      made: the `features`.
      settings: with "side" and "quality".
      tick: called after every listing.

    Returns:
      What to record about the file: key, sha256, bytes, rows (kept), set_aside [(row, reason, sentence)], as_is
      (pictures copied byte for byte), bytes_before; and "new", whether it is under its temporary name.

    Raises:
      RuntimeError: the file cannot be read back.
      Shortage: the machine lacks memory or the like; see `errors.shortage`.
    """
    if about is not None and not problem(shard.path, shard, about):
        for _ in shard.ids:
            tick()
        return about | {"new": False}
    from array_record.python.array_record_module import ArrayRecordWriter

    about = {"key": shard.key, "rows": [], "set_aside": [], "as_is": 0, "bytes_before": 0}
    writer = ArrayRecordWriter(str(shard.part), "group_size:1")  # so that single records can be read
    levels = sum(name.startswith("category_") for name in made)
    for at, listing in enumerate(shard.ids):
        row = shard.start + at
        try:
            data, as_is, before = fitted(source, row, settings["side"], settings["quality"])
        except (MemoryError, OSError) as error:
            errors.raise_shortage(error, f"split {shard.split}, {_where(source, row)}")
            raise
        except BadImage as error:
            reason = error.reason
            sentence = f"split {shard.split}, row {row} (id {listing}): {error.sentence(_where(source, row))}"
            about["set_aside"].append([row, reason, sentence])
        except InputError as error:
            about["set_aside"].append([row, "unreadable picture", f"split {shard.split} (id {listing}): {error}"])
        else:
            record = {"id": listing, "row": row, "image": data, "title": shard.titles[at] if shard.titles else ""}
            for level in range(levels):
                record[f"category_{level}"] = -1 if shard.categories is None else int(shard.categories[at, level])
            writer.write(records.in_fixed_order(made.serialize_example(record)))
            about["rows"].append(row)
            about["as_is"] += as_is
            about["bytes_before"] += before
        tick()
    writer.close()
    with shard.part.open("rb+") as file:
        os.fsync(file.fileno())
        about["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    about["bytes"] = shard.part.stat().st_size
    if wrong := problem(shard.part, shard, about):
        raise RuntimeError(f"{shard.part} cannot be read back ({wrong})")
    return about | {"new": True}


def fitted(source: Any, row: int, side: int, quality: int) -> tuple[bytes, bool, int]:
    """Reads a picture and shrinks it until its shorter side has at most `side` pixels.

    Args:
      source: random access to pictures, with or without `read` of their bytes.
      row: of the source.
      side: in pixels.
      quality: of the JPEG, 1 to 100.

    Returns:
      (encoded picture, whether it is the source's byte for byte, size in bytes before, or 0 if it was not encoded).

    Raises:
      BadImage: it cannot be decoded.
      InputError: it cannot be read.
    """
    if hasattr(source, "read"):
        data = source.read(row)
        size = headers.peek(data)[1]
        fits = bool(size and min(size) <= side and _ordinary(data))
        image = decoding.decode(data, getattr(source, "max_pixels", decoding.MAX_PIXELS), None if fits else side)
        if fits:  # decoding has shown that it is not damaged
            return data, True, len(data)
    else:
        data, image, size = b"", source[row], None
    height, width = image.shape[:2]
    # Decoding at a fraction of the size rounds both sides: the aspect ratio is taken from the whole picture.
    low, high = sorted(size or (height, width))
    if low > side:
        high = round(high * side / low)
        image = cv2.resize(image, (high, side) if width > height else (side, high), interpolation=cv2.INTER_AREA)
    if max(image.shape) > 65_500:
        raise BadImage("image too large", "after resizing, its longer side still exceeds the 65,500 pixels of a JPEG")
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes(), False, len(data)


def _ordinary(data: bytes) -> bool:
    """Returns whether all readers decode it alike: a gray or RGB JPEG or PNG of 8 bits, not transparent, upright."""
    if data.startswith(headers.JPEG):
        return headers.peek(data)[0] and headers.ends_well(data[:8], data[-12:]) and not headers.turned(data)
    png = data.startswith(headers.PNG) and headers.ends_well(data[:8], data[-12:])
    return png and data[24] == 8 and data[25] in (0, 2) and b"tRNS" not in data[: headers.HEAD]


def _where(source: Any, row: int) -> str:
    return os.path.join(source.root, source.relative_paths[row]) if isinstance(source, FileImages) else f"picture {row}"


def problem(path: pathlib.Path, shard: Shard, about: dict) -> str:
    """Returns what is wrong with the file of a shard, or "".

    Args:
      path: of the file.
      shard: what it should contain.
      about: what was recorded when it was written.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != about["sha256"]:
                return "its checksum differs"
        if not about["rows"]:
            return ""  # nothing was left to write
        opened = ArrayRecordDataSource([str(path)])
        if len(opened) != len(about["rows"]):
            return f"it has {len(opened)} records instead of {len(about['rows'])}"
        for at, row in enumerate(about["rows"]):
            fields = records.parse(opened[at])
            found = fields["id"].bytes_list.value[0].decode(), fields["row"].int64_list.value[0]
            if found != (shard.ids[row - shard.start], row) or not fields["image"].bytes_list.value[0]:
                return f"record {at} is listing {found[0]!r} of row {found[1]}"
    except Exception as error:  # a damaged file can raise anything in its reader
        return first_line(error)
    return ""
