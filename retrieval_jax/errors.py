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


# What the operating system refuses because of a disk: the same command may work later, so it counts as a `RunFailed`.
_DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or use another file system",
    errno.EIO: "check the disk (dmesg shows what failed)",
    errno.ESTALE: "the file server replaced the folder: mount it again",
    errno.ENODEV: "check that the disk is still attached",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or use fewer workers",
    errno.ENFILE: "the machine has too many open files: end other processes, or raise fs.file-max",
    errno.ENOMEM: "free some memory, or use smaller batches and fewer workers",
    errno.EAGAIN: "end some processes or threads, or raise their limit (ulimit -u)",
    errno.ENOLCK: "the file system gives no locks: use another one",
}
# What it refuses because of a path: another path is needed, so it counts as an `InputError`.
_PATH = {
    errno.EACCES: "give a path that this user may read and write, or change its permissions",
    errno.EPERM: "give a path that this user may read and write, or change its permissions",
    errno.EROFS: "give a path on a file system that is not read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder: give another path",
    errno.EISDIR: "that is a folder: give the path of a file",
    errno.ENOENT: "check the path, and that nothing removes its folder meanwhile",
    errno.EEXIST: "something else has this name, or that of one of its folders: give another path",
    errno.ENOTEMPTY: "give another path, or one of an empty folder",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "its symbolic links form a loop: give another path",
    errno.EINVAL: "the file system does not take this name, or this kind of access: give another path",
    errno.EILSEQ: "the file system does not take this name: give another path",
    errno.ETXTBSY: "another program uses it: end that, or give another path",
    errno.EBUSY: "another program uses it: end that, or give another path",
    errno.EXDEV: "give a path on the same file system",
}
# Errors of a path itself: any other error while a picture or table is read is the machine's.
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
# How libraries that raise exceptions of their own pass on an error of the operating system.
_PASSED_ON = re.compile(r"os error (\d+)|\[Errno (\d+)\]|errno[ =:]+(\d+)", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(
    r"insufficient memory|outofmemory|out of memory|cannot allocate memory|bad_alloc|realloc of size|malloc of size|"
    r"unable to allocate",
    re.IGNORECASE,
)


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
    return f"{os.strerror(number)}: {(_DISK | _PATH).get(number, 'check the disk or the network share')}"


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


def refusal(error: BaseException, path=None) -> InputError | RunFailed | None:
    """Returns what the operating system refused as one sentence for users.

    Libraries wrap its errors, some of them (safetensors, polars, faiss, NumPy) as text: the whole chain is searched.

    Args:
      error: the exception.
      path: what was read or written, where the error does not name it.

    Returns:
      A `RunFailed` for a disk that is full, over its quota or broken, an `InputError` for a path that cannot be used;
      None for an exception that has another cause.
    """
    one, direct = error, True
    while one is not None:
        if isinstance(one, (InputError, RunFailed)):
            return one
        if path is not None and (isinstance(one, UnicodeEncodeError) or "null byte" in str(one)):
            return InputError(f"{os.fspath(path)!r} cannot be the name of a file: give another path")
        number, named = _errno(one), path if path is not None else _path_of(one)
        if number in _DISK:
            return RunFailed(
                f"{named or 'a file'} could not be read or written ({os.strerror(number)}): {_DISK[number]}; what was "
                "complete before is kept, and the same command resumes from there"
            )
        if number in _PATH and direct and named:
            return InputError(f"{named} cannot be used ({os.strerror(number)}): {_PATH[number]}")
        # An error that came up while another was handled may be a mistake of ours: only a full disk explains it.
        one, direct = (one.__cause__, direct) if one.__cause__ is not None else (one.__context__, False)
    return None


def _path_of(error: BaseException) -> str | None:
    """Returns the path that the operating system named, the second where it was given two."""
    found = getattr(error, "filename2", None) or getattr(error, "filename", None)
    return os.fsdecode(found) if isinstance(found, (str, bytes, os.PathLike)) and found else None


def _errno(error: BaseException) -> int | None:
    """Returns the operating system's number of an error, also of one that a library repeats as text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if found := re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", text):
        return int(found[1] or found[2])
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", text):  # of np.save
        return errno.ENOSPC
    return next((number for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO) if os.strerror(number) in text), None)


@contextlib.contextmanager
def naming(path):
    """Raises what the operating system refuses inside as an `InputError` or a `RunFailed` that names the path.

    Args:
      path: what is read or written.
    """
    try:
        yield
    except (InputError, RunFailed):
        raise
    except Exception as error:  # libraries raise their own
        if (refused := refusal(error, path)) is None:
            raise
        raise refused from error


def explain(error: Exception) -> tuple[str, int] | None:
    """Returns the message and the exit status for an error meant for users; None for any other."""
    if isinstance(error, Preempted):
        return f"stopped: {error}", Preempted.REQUEUE
    if not isinstance(error, (InputError, RunFailed)):
        if isinstance(error, MemoryError):
            return f"error: {_MEMORY}; the same command continues from what was complete", 1
        error = refusal(error)
    if error is None:
        return None
    return f"error: {error}", 2 if isinstance(error, InputError) else 1
