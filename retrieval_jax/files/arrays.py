"""Arrays (.npy, .npz) that others may have made, and checksums of files: nothing is unpickled or allocated unchecked.

A header says what dtype and shape an array has, and NumPy believes it: here both are compared with what the reader
expects, and the number of bytes with those that are there, before anything is allocated or mapped.
"""

from __future__ import annotations

import hashlib
import math
import os
import pathlib
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from retrieval_jax.errors import InputError, first_line, short
from retrieval_jax.files.opening import opened

_MOST_HEADER = 10_000  # bytes; ours have 128


def file_sha256(file: str | os.PathLike) -> str:
    """Returns the checksum of a file's bytes.

    Raises:
      FileNotFoundError: there is no such file.
      InputError: it is not a regular file.
    """
    with opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_npy(
    file: pathlib.Path, *, mmap: bool, dtypes: Sequence[str] = (), ndim: int | None = None, remedy: str = ""
) -> np.ndarray:
    """Returns the array of a .npy file; nothing is unpickled.

    Args:
      file: the file.
      mmap: memory-map the file, so that values stay on disk until they are read.
      dtypes: the expected ones by name ("float32"), "str" for text of any length; none for any numbers.
      ndim: the expected number of dimensions; None for any.
      remedy: what the user can do about a file that cannot be used.

    Raises:
      InputError: the file is missing, truncated, of another kind, or holds another dtype or number of dimensions.
    """
    remedy = remedy or f"run the command that made {file.parent} again"
    try:
        with opened(file) as stream:
            dtype, shape, order = _header(stream, os.fstat(stream.fileno()).st_size)
            _expect(dtype, shape, dtypes, ndim)
            if mmap:
                return np.memmap(stream, dtype, "r", stream.tell(), shape, order)
            return np.fromfile(stream, dtype, math.prod(shape)).reshape(shape, order=order)
    except FileNotFoundError as error:
        raise InputError(f"{file} not found: {remedy}") from error
    except _NotAnArray as error:
        raise InputError(f"{file} is truncated or not a .npy file ({error}): {remedy}") from error


def load_npz(
    file: str | os.PathLike, wanted: Mapping[str, tuple[Sequence[str], int]], *, remedy: str
) -> dict[str, np.ndarray]:
    """Returns arrays of an .npz file that is not compressed; nothing is unpickled.

    Args:
      file: the file.
      wanted: {name: (dtypes by name, number of dimensions)}, see `load_npy`. Other arrays are not read.
      remedy: what the user can do about a file that cannot be used.

    Raises:
      InputError: the file is missing, damaged, compressed, or an array is missing or of another kind.
    """
    found = {}
    try:
        with opened(file) as stream, zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            for name, (dtypes, ndim) in wanted.items():
                here = [entry for entry in entries if entry.filename == f"{name}.npy"]
                if len(here) != 1:
                    raise _NotAnArray(f"it has {'no' if not here else 'more than one'} array {name!r}")
                # Those that this package writes are not: so one byte of a file never becomes a thousand in memory.
                if here[0].compress_type != zipfile.ZIP_STORED:
                    raise _NotAnArray(f"its array {name!r} is compressed")
                if here[0].file_size > os.fstat(stream.fileno()).st_size:
                    raise _NotAnArray(f"its array {name!r} is larger than the file")
                with archive.open(here[0]) as member:
                    dtype, shape, order = _header(member, here[0].file_size)
                    _expect(dtype, shape, dtypes, ndim)
                    flat = np.frombuffer(member.read(), dtype, math.prod(shape)).copy()
                    found[name] = flat.reshape(shape, order=order)
    except FileNotFoundError as error:
        raise InputError(f"{file} not found: {remedy}") from error
    except (MemoryError, InputError):
        raise
    except OSError:  # of the machine, not of the file
        raise
    except Exception as error:  # zipfile raises a dozen kinds for damaged archives
        raise InputError(f"{file} cannot be read ({first_line(error)}): {remedy}") from error
    return found


class _NotAnArray(ValueError):
    """A file is not the array that its reader expects; the message says why."""


def _header(stream: BinaryIO, size: int) -> tuple[np.dtype, tuple[int, ...], str]:
    """Reads the header of a .npy file; compares what it announces with the size of the file, in bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser warns about odd literals
            version = np.lib.format.read_magic(stream)
            readers = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            if version not in readers:
                raise ValueError(f"its version is {version}")
            shape, fortran, dtype = readers[version](stream, max_header_size=_MOST_HEADER)
    except OSError:
        raise
    except Exception as error:  # the header is a Python literal, whose parser can raise almost anything
        raise _NotAnArray(first_line(error)) from error
    shape = tuple(int(side) for side in shape)
    if dtype.kind not in "biufU" or not dtype.isnative or any(side < 0 for side in shape):
        raise _NotAnArray(f"it holds {short(str(dtype))} of shape {short(str(shape))}")
    there = size - stream.tell()
    if math.prod(shape) * dtype.itemsize != there:
        raise _NotAnArray(f"it announces {dtype} of shape {short(str(shape))}, but holds {there:,} bytes")
    return dtype, shape, "F" if fortran else "C"


def _expect(dtype: np.dtype, shape: tuple[int, ...], dtypes: Sequence[str], ndim: int | None) -> None:
    """Raises `_NotAnArray` unless an array has one of the dtypes, and as many dimensions, as expected."""
    name: Any = "str" if dtype.kind == "U" else dtype.name
    if (dtypes and name not in dtypes) or (not dtypes and name == "str"):
        raise _NotAnArray(f"it holds {name}, not {' or '.join(dtypes) or 'numbers'}")
    if ndim is not None and len(shape) != ndim:
        raise _NotAnArray(f"its shape is {short(str(shape))}, not of {ndim} dimensions")
