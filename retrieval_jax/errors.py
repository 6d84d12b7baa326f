"""The exceptions whose messages are written for users instead of developers."""

import contextlib
import errno
import sys


class InputError(ValueError):
    """Something the user gave cannot be used: the message names the file, the row and the remedy.

    Command lines print the message alone and exit with status 2; from Python it is an ordinary `ValueError`.
    """


class RunFailed(RuntimeError):
    """Something that stops a run midway: a non-finite loss, a full disk, another process that died.

    The message says what, and from where a restart resumes. Command lines print it alone and exit with status 1.
    """


class Preempted(RuntimeError):
    """The run was asked to stop (SIGTERM) and has saved everything: the same command resumes it.

    Command lines exit with status `REQUEUE`, which tells a cluster to queue the job again.
    """

    REQUEUE = 75  # EX_TEMPFAIL of sysexits.h


# Errors of a disk that is full, over quota, too small for the file, read-only, or gone.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}


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
    if isinstance(error, OSError) and error.errno in _DISK:
        return (
            f"error: {error.strerror}: {error.filename or 'a file of the work directory'} could not be written; "
            "what was complete before is kept, and the same command resumes from there"
        ), 1
    return None
