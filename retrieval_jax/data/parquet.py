"""Reads Parquet files in a process with limits: a few kilobytes can ask for gigabytes, or abort the reader."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import polars as pl

from retrieval_jax import errors
from retrieval_jax.data import children
from retrieval_jax.errors import InputError, Shortage, first_line

MEMORY = 2 * 2**30  # bytes, and `EXPANSION` times the file
EXPANSION = 64  # dictionaries and runs make a file smaller than its values, seldom by more
SECONDS = 60  # of processor time, and one for every MiB of the file
_CELL = 16  # bytes, the least that a cell takes once it is text
_ROWS = 2**18  # sent at once


def names(file: Any, called: Any = None) -> list[str]:
    """Returns the names of a file's columns.

    Args:
      file: path of the Parquet file.
      called: what it is called in messages; its path by default.

    Raises:
      InputError: it is not Parquet, or takes more memory or time to read than its size justifies.
      Shortage: the machine lacks memory or the like.
    """
    return list(_asked(file, {"columns": None}, called or file))[0][0]["names"]


def read(file: Any, columns: list[str] | None = None, called: Any = None) -> pl.DataFrame:
    """Reads columns of a file.

    Args:
      file: path of the Parquet file.
      columns: their names, each once; all by default.
      called: what it is called in messages; its path by default.

    Returns:
      The frame.

    Raises:
      InputError: it is not Parquet, or takes more memory or time to read than its size justifies.
      Shortage: the machine lacks memory or the like.
    """
    columns = names(file, called) if columns is None else columns
    answers = _asked(file, {"columns": columns}, called or file)
    frames = [pl.read_ipc_stream(io.BytesIO(content)) for _, content in answers]
    return pl.concat(frames, rechunk=True) if len(frames) > 1 else frames[0]


def _asked(file: Any, arguments: dict, called: Any) -> Iterator[tuple[dict, Any]]:
    try:
        size = os.stat(file).st_size
        arguments = arguments | {"file": os.path.abspath(file), "memory": MEMORY + EXPANSION * size}
        limits = {"memory": arguments["memory"], "seconds": SECONDS + size / 2**20}
        problem = None
        for answer, content in children.call(f"{__name__}:in_child", arguments, **limits):
            if "refused" in answer:  # raised once the child has finished, so that it is kept
                problem = InputError(f"{called}: not a readable Parquet file ({answer['refused']})")
            elif "lacking" in answer:
                problem = Shortage(answer["lacking"])
            else:
                yield answer, content
        if problem:
            raise problem
    except children.Exceeded as error:
        raise InputError(
            f"{called}: not a readable Parquet file ({size:,} bytes): {error}; write it again from the table it was "
            "made of, or as CSV"
        ) from None
    except (MemoryError, OSError) as error:
        errors.raise_shortage(error, str(called))
        raise InputError(f"{called}: not a readable Parquet file ({first_line(error)})") from None


def in_child(arguments: dict, data: bytes) -> Iterator[tuple[dict, Any]]:
    """Reads a file in a child process, see `children.call`."""
    file, columns = arguments["file"], arguments["columns"]
    try:
        if columns is None:
            yield {"names": list(pl.read_parquet_schema(file))}, b""
            return
        frame = pl.read_parquet(file, columns=columns)
    except MemoryError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # whatever polars raises, the file is not Parquet
        try:
            errors.raise_shortage(error, file)
        except Shortage as lacking:
            yield {"lacking": str(lacking)}, b""
        else:
            yield {"refused": first_line(error)}, b""
        return
    if len(frame) * max(1, frame.width) * _CELL > arguments["memory"]:  # a column of nulls takes no memory here
        raise children.Exceeded(f"{len(frame):,} rows need more than {arguments['memory'] >> 20:,} MiB of memory")
    for start in range(0, max(1, len(frame)), _ROWS):
        content = io.BytesIO()
        frame[start : start + _ROWS].write_ipc_stream(content, compression="uncompressed")
        yield {}, content.getbuffer()
