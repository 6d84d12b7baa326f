"""The lock of a work directory: two runs writing the same checkpoints would corrupt both."""

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
import stat
import threading
import time

from retrieval_jax.errors import InputError, naming

NAME = ".lock"
LEASE = 60.0  # seconds without a heartbeat after which an owner counts as gone, where there are no real locks


@contextlib.contextmanager
def held(folder, verb: str):
    """Holds the lock of a work directory for as long as the context lasts.

    It is the operating system's lock (flock): it is released when its process ends, however it ends, and never has to
    be removed by hand. On NFS the server keeps it for all machines. A remote folder, or a file system without locks,
    gets a file that its owner keeps rewriting; a process that finds one waits to see whether it still changes.

    Args:
      folder: the work directory, which exists.
      verb: what runs; part of the message that a second process gets.

    Raises:
      InputError: another process holds it.
    """
    owner = (
        f"{verb}, process {os.getpid()} on {platform.node()}, since "
        f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}"
    )
    if "://" in os.fspath(folder):
        with _leased(os.fspath(folder), owner):
            yield
        return
    with naming(folder):
        stream = _opened(pathlib.Path(folder) / NAME)
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                stream.seek(0)
                raise _in_use(folder, stream.read()) from None
            with _leased(os.fspath(folder), owner):
                yield
            return
        with contextlib.suppress(OSError):  # on a full disk the owner has no name, but the lock
            os.ftruncate(stream.fileno(), 0)
            os.pwrite(stream.fileno(), owner.encode(), 0)
        yield


def _opened(file):
    """Opens the file of a lock for reading and writing; never what a link leads to, since the file is truncated."""
    other = f"{file} is not a regular file (link, pipe, socket or device), so it cannot be the lock: remove it"
    try:  # without O_NONBLOCK, opening a device may wait for ever
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(file, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            raise InputError(other) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(other)
    return open(descriptor, "r+", encoding="utf-8")


def _in_use(folder, owner):
    return InputError(
        f"{folder} is in use by {owner.partition(' #')[0].strip() or 'another process'}: wait for it to "
        "end, stop it, or give another --workdir"
    )


@contextlib.contextmanager
def _leased(folder, owner):
    import fsspec  # every file system that work directories may lie on

    files, root = fsspec.core.url_to_fs(folder)
    file, mine = f"{root.rstrip('/')}/{NAME}-lease", owner

    def read():
        try:
            return files.cat_file(file).decode()
        except FileNotFoundError:
            return ""

    def write(text):
        files.pipe_file(file, text.encode())

    found, end = read(), time.monotonic() + LEASE
    if found:
        owned = found.partition(" #")[0]
        print(f"lock: {folder} was in use by {owned}; waiting {LEASE:.0f} s to see whether it still is", flush=True)
    while found and time.monotonic() < end:  # compares contents, not times: the clocks of two machines may differ
        time.sleep(LEASE / 60)
        now = read()
        if now and now != found:
            raise _in_use(folder, now)
        found = now
    write(mine)
    time.sleep(LEASE / 30)
    if read() != mine:  # another process started at the same moment
        raise _in_use(folder, read())
    ended = threading.Event()

    def renew():
        count = 0
        while not ended.wait(LEASE / 6):
            count += 1
            with contextlib.suppress(Exception):  # either the network comes back or the run itself fails
                write(f"{mine} #{count}")

    thread = threading.Thread(target=renew, daemon=True, name="lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):
            files.rm_file(file)
