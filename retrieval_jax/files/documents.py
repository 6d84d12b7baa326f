"""JSON that others may have made: parsed and compared with the shape that its reader expects.

    class Shard(typing.TypedDict):
        file: documents.FileName
        rows: documents.Count

    info = documents.read(folder / "shards.json", list[Shard], remedy="run embed again")

A document that is too large, too deep, ambiguous (a key that occurs twice) or of another shape gets a sentence with its
path and the place in it. Keys beyond the expected ones are kept, so that older versions read what newer ones add.
"""

import collections
import json
import os
import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from retrieval_jax.errors import InputError, short
from retrieval_jax.files.opening import opened

MOST_BYTES = 1 << 30  # of a file; a vocabulary of ten million words has a third of it
DEPTH = 64  # of nested lists and objects; settings have about 8, and Python's own functions recurse to about 1,000

Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]  # beyond 2^53, other readers of JSON round
Size = Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]  # a dimension, or the side of a picture
# The name of a file in the same folder: no path, so it cannot lead anywhere else.
FileName = Annotated[str, msgspec.Meta(pattern=r"\A(?!\.{1,2}\Z)[^/\\\x00-\x1f]{1,255}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


def read(
    file: str | os.PathLike, kind: Any = Any, *, remedy: str, missing: str = "", most_bytes: int = MOST_BYTES
) -> Any:
    """Reads a JSON file.

    Args:
      file: path of the file.
      kind: the expected shape: a type, such as `dict[str, int]` or a `TypedDict`.
      remedy: what the user can do about a file that cannot be used; ends the message.
      missing: the same for a file that is not there; by default `remedy`.
      most_bytes: the largest size of the file.

    Returns:
      The content, as `json.loads` returns it.

    Raises:
      InputError: the file is missing, is not JSON, or has another shape.
    """
    try:
        with opened(file, most_bytes) as stream:
            data = stream.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise InputError(f"{file} not found: {missing or remedy}") from error
    return parse(data, kind, name=str(file), remedy=remedy)


def parse(text: str | bytes, kind: Any = Any, *, name: str, remedy: str) -> Any:
    """Parses JSON.

    Args:
      text: the JSON; bytes are UTF-8.
      kind: see `read`.
      name: names the document at the beginning of a message.
      remedy: see `read`.

    Returns:
      The content, as `json.loads` returns it.

    Raises:
      InputError: it is not JSON, or has another shape.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=_distinct)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can be neither shown nor written
    except RecursionError as error:
        raise InputError(f"{name} is nested too deeply to be read: {remedy}") from error
    except ValueError as error:
        raise InputError(f"{name} is not readable JSON ({short(str(error))}): {remedy}") from error
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise InputError(f"{name} is nested too deeply, in more than {DEPTH} levels: {remedy}")
    check(value, kind, name=name, remedy=remedy)
    return value


def check(value: Any, kind: Any, *, name: str, remedy: str) -> None:
    """Raises InputError unless a parsed document has the expected shape.

    Args:
      value: as `json.loads` returns it.
      kind: see `read`.
      name: names the document at the beginning of the message.
      remedy: see `read`.
    """
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{name} has an unexpected content ({short(str(error), 200)}): {remedy}") from error


def lines(file: str | os.PathLike, kind: Any = dict[str, Any]) -> Iterator[Any]:
    """Yields the records of a file of JSON lines; a line that is not a record is skipped, as a kill may have cut it.

    Args:
      file: path of the file; need not exist.
      kind: the expected shape of a line, see `read`.

    Raises:
      InputError: it is not a file that can be read.
    """
    try:
        stream = opened(file)
    except FileNotFoundError:
        return
    with stream:
        for line in stream:
            try:
                yield parse(line, kind, name=str(file), remedy="")
            except InputError:
                continue


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object; raises ValueError for a key that occurs twice: which value counts depends on the reader."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {short(twice)!r} occurs twice")
    return found


def _depth(value: Any) -> int:
    """Returns how deeply lists and objects are nested; stops counting beyond `DEPTH`."""
    level, depth = [value], 0
    while level and depth <= DEPTH:
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            if isinstance(child, (dict, list))
        ]
        depth += 1
    return depth
