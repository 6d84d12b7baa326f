"""The exceptions that speak to a user instead of a developer."""

import contextlib
import errno
import sys


class InputError(ValueError):
    """Something the user gave cannot be used: the message names the file, the row and the remedy.

    Command lines print the message alone and exit with status 2; from Python it is an ordinary `ValueError`.
    """


class RunFailed(RuntimeError):
    """Something a run met on its way: a loss that is no number, a disk that is full, another process that is gone.

    The message says what, and from where a new start goes on. Command lines print it alone and exit with status 1.
    """


class Preempted(RuntimeError):
    """The run was asked to stop (SIGTERM), and everything is saved: the same command goes on from there.

    Command lines exit with status `REQUEUE`, by which a cluster knows that the job is to be queued again.
    """

    REQUEUE = 75  # EX_TEMPFAIL of sysexits.h


# What a disk says that is full, over its quota, too small for the file, read-only, or gone.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}


def short(text: str, limit: int = 100) -> str:
    """Returns what of a user's text goes into a sentence: its beginning, where it is long."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


@contextlib.contextmanager
def spoken():
    """Makes an `InputError` inside one message and exit status 2, for command lines that need no more than that."""
    try:
        yield
    except InputError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def explain(error: Exception) -> tuple[str, int] | None:
    """Returns what to print of an error that speaks to the user, and the exit status; None for all others."""
    if isinstance(error, Preempted):
        return f"stopped: {error}", Preempted.REQUEUE
    if isinstance(error, (InputError, RunFailed)):
        return f"error: {error}", 2 if isinstance(error, InputError) else 1
    if isinstance(error, OSError) and error.errno in _DISK:
        return (
            f"error: {error.strerror}: {error.filename or 'a file of the work directory'} could not be written; "
            "what was complete before is kept, and the same command goes on from there"
        ), 1
    return None
