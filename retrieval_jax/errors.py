"""The exceptions whose messages are written for users instead of developers."""

import contextlib
import errno
import os
import re
import sys


class InputError(ValueError):
    """Something the user gave cannot be used: the message names the file, the row and the remedy.

    Command lines print the message alone and exit with status 2; from Python it is an ordinary `ValueError`.
    """


class RunFailed(RuntimeError):
    """Something that stops a run midway: a non-finite loss, a full disk, another process that died.

    The message says what, and from where a restart resumes. Command lines print it alone and exit with status 1.
    """


class Shortage(RunFailed):
    """The machine lacks memory, open files, access or a disk that answers: what was to be read may be fine.

    Never counted as a bad row. The same command continues once the cause is gone.
    """


class Preempted(RuntimeError):
    """The run was asked to stop (SIGTERM) and has saved everything: the same command resumes it.

    Command lines exit with status `REQUEUE`, which tells a cluster to queue the job again.
    """

    REQUEUE = 75  # EX_TEMPFAIL of sysexits.h


# Errors of a path itself: any other error while a file is read is the machine's.
OF_A_PATH = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EISDIR,
    errno.EILSEQ,
    errno.EINVAL,
    errno.ENXIO,
}
_MEMORY = "out of memory: free some, or use fewer threads or smaller batches"
_REMEDY = {
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the whole machine has too many open files: close some, or raise fs.file-max",
    errno.EACCES: "give this user read access",
    errno.EPERM: "give this user read access",
    errno.EAGAIN: "too many processes or threads: end some, or raise their limit (ulimit -u)",
}
# How libraries that raise exceptions of their own pass on an error of the operating system.
_PASSED_ON = re.compile(r"os error (\d+)|\[Errno (\d+)\]|errno[ =:]+(\d+)", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(
    r"insufficient memory|outofmemory|out of memory|cannot allocate memory|bad_alloc|realloc of size|malloc of size|"
    r"unable to allocate",
    re.IGNORECASE,
)

# Errors of a disk that is full, over quota, too small for the file, read-only, or gone.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}


def shortage(error: BaseException) -> str:
    """Returns what the machine lacks, with a remedy, if that caused an error; "" for an error of the data.

    Args:
      error: an exception raised while something was read or decoded.
    """
    if isinstance(error, InputError):
        return ""
    if isinstance(error, Shortage):
        return str(error)
    if isinstance(error, MemoryError):
        return str(error) if str(error).startswith("out of memory") else _MEMORY
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _PASSED_ON.search(str(error))):
        number = int(next(filter(None, found.groups())))
    if number is None:
        return _MEMORY if _OUT_OF_MEMORY.search(str(error)) else ""
    if number in OF_A_PATH:
        return ""
    return f"{os.strerror(number)}: {_REMEDY.get(number, 'check the disk or the network share')}"


def raise_shortage(error: BaseException, what: str) -> None:
    """Raises `Shortage` if an error is the machine's; returns if it is one of the data.

    Args:
      error: see `shortage`.
      what: what was being read, such as a path.
    """
    if isinstance(error, Shortage):
        raise error
    if lack := shortage(error):
        raise Shortage(
            f"{short(what, 300)} could not be read ({lack}). The data may be fine, so nothing is set aside; the same "
            "command continues from what was complete"
        ) from error


def short(text: str, limit: int = 100) -> str:
    """Returns a user's text for a sentence, truncated where it is long."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, truncated where it is long; its kind where it has none."""
    return short((str(error).strip().splitlines() or [type(error).__name__])[0], 300)


@contextlib.contextmanager
def spoken():
    """Prints an `InputError` raised inside as one message and exits with status 2."""
    try:
        yield
    except InputError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def explain(error: Exception) -> tuple[str, int] | None:
    """Returns the message and the exit status for an error meant for users; None for any other."""
    if isinstance(error, Preempted):
        return f"stopped: {error}", Preempted.REQUEUE
    if isinstance(error, (InputError, RunFailed)):
        return f"error: {error}", 2 if isinstance(error, InputError) else 1
    if isinstance(error, MemoryError):
        return f"error: {_MEMORY}; the same command continues from what was complete", 1
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return f"error: {error.strerror}: {_REMEDY[error.errno]}; the same command continues from what was complete", 1
    if isinstance(error, OSError) and error.errno in _DISK:
        return (
            f"error: {error.strerror}: {error.filename or 'a file of the work directory'} could not be written; "
            "what was complete before is kept, and the same command resumes from there"
        ), 1
    return None
