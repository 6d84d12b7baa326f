"""Opens files that others may have made: regular files of a bounded size, nothing that blocks or never ends."""

import errno
import os
import stat
from typing import BinaryIO

from retrieval_jax.errors import InputError

# What a path can be, as opposed to what a machine can lack (memory, file handles, a working disk).
_PATHS = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL}


def opened(file: str | os.PathLike, most_bytes: int | None = None) -> BinaryIO:
    """Opens a file for reading.

    Args:
      file: path of the file.
      most_bytes: the largest size; None for any.

    Returns:
      The open binary file.

    Raises:
      FileNotFoundError: there is no such file.
      InputError: it is a folder, a pipe or a device, it cannot be read by this user, or it is larger.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits for somebody to write into it.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(file)) from error
    except OSError as error:
        if error.errno in _PATHS:
            raise InputError(f"{file} cannot be read ({error.strerror}): check the path and its permissions") from error
        raise
    except ValueError as error:  # a null character in the name
        raise InputError(f"{os.fspath(file)!r} is not the name of a file ({error})") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe, socket or device"
            raise InputError(f"{file} is a {kind}, not a file: copy the folder again")
        if most_bytes is not None and found.st_size > most_bytes:
            raise InputError(
                f"{file} has {found.st_size:,} bytes, and files of its kind have at most {most_bytes:,}: it is not "
                "what its name says"
            )
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
