"""The lock of a work directory: two runs that write the same checkpoints would spoil both."""

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
import time

from retrieval_jax.errors import InputError

NAME = ".lock"


@contextlib.contextmanager
def held(folder, verb: str):
    """Holds the lock of a work directory for as long as the context lasts.

    It is the operating system's (flock): it ends with its process, however that ends, and so never has to be removed
    by hand. On NFS the server keeps it, for all machines. Where the file system knows no locks, that is said, and the
    run goes on without.

    Args:
      folder: the work directory, which exists.
      verb: what runs; stands in the message to who comes second.

    Raises:
      InputError: another process holds it.
    """
    file = pathlib.Path(folder) / NAME
    with file.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                stream.seek(0)
                owner = stream.read().strip() or "another process"
                raise InputError(f"{folder} is in use by {owner}: wait until it ends, end it, or give another "
                                 "--workdir") from None
            print(f"lock: {folder} lies on a file system without locks ({error.strerror}): see to it that no second "
                  "run uses it", flush=True)
        stream.seek(0)
        stream.truncate()
        stream.write(f"{verb}, process {os.getpid()} on {platform.node()}, since "
                     f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}\n")
        stream.flush()
        yield
