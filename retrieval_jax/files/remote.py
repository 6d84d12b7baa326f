"""Folders at a URL (s3://, gs://, anything fsspec supports), each kept in sync with a local folder that verbs work in.

    <cache>/s3/bucket/runs/mine/       the local copy of s3://bucket/runs/mine; <cache> is $RETRIEVAL_JAX_CACHE/urls or
                                       ~/.cache/retrieval_jax/urls
      .remote.json                     what both sides held when they last agreed

Verbs memory-map, rename and lock files, which no object store supports. So files are written locally and uploaded:
every half minute while a verb runs, and when it ends, however it ends, with its record last. Half-written files are
never uploaded, and a checkpoint counts remotely once all of it is there. Checkpoints at gs:// are written there
directly, because processes on several machines write them together.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import sys
import threading
import time

from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents

SECONDS = 30.0  # between two uploads while a verb runs
_AT_ONCE = 1000  # files per download
_NOTE, _LOCK = ".remote.json", ".remote.lock"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)  # pathlib collapses the two slashes into one
_STEP = re.compile(r"((?:.*/)?checkpoints/\d+)/")  # also of the work directories in checkpoint_scores
_SCORES = re.compile("checkpoint_scores/")  # of evaluate_checkpoints, which writes beside the run
_SAME = {"gcs": "gs", "s3a": "s3"}  # aliases -> the schemes that orbax and others use
_EXTRAS = {"s3": "requirements-s3.txt", "gs": "requirements-gcs.txt"}
_kept: set[pathlib.Path] = set()  # folders of `keep_pushing`


def local_folder(path) -> pathlib.Path:
    """Returns the local folder that mirrors a URL; a local path is returned unchanged.

    Args:
      path: "s3://bucket/folder", "file:///folder" or a local path.

    Raises:
      InputError: a URL that names no folder.
    """
    found = _URL.fullmatch(os.fspath(path))
    if not found:
        return pathlib.Path(path)
    scheme, rest = found[1].lower(), found[2].strip("/")
    if scheme == "file":
        return pathlib.Path("/", rest)
    if not rest or ".." in rest.split("/"):
        raise InputError(f"{os.fspath(path)}: give the full address, {scheme}://bucket/folder")
    return _cache() / _SAME.get(scheme, scheme) / rest


def url(folder) -> str | None:
    """Returns the URL that a local folder mirrors, or None.

    Args:
      folder: path.
    """
    folder = pathlib.Path(folder).absolute()
    if not folder.is_relative_to(_cache()):
        return None
    scheme, *rest = folder.relative_to(_cache()).parts or ("",)
    return f"{scheme}://{'/'.join(rest)}" if rest else None


def checkpoint_folder(folder) -> str | os.PathLike:
    """Returns where the checkpoints of a folder are written: at gs://, the URL itself; otherwise the folder.

    Those that evaluate_checkpoints keeps are always written locally, because it replaces folders.

    Args:
      folder: path of a checkpoints folder.
    """
    there = url(folder)
    return there if there and _direct(there) else folder


def _direct(address: str) -> bool:
    """Returns whether orbax reads and writes the checkpoints at an address directly, without a local copy."""
    return address.startswith("gs://") and "checkpoint_scores" not in address.split("/")


def _cache() -> pathlib.Path:
    folder = os.environ.get("RETRIEVAL_JAX_CACHE")
    return (pathlib.Path(folder).absolute() if folder else pathlib.Path.home() / ".cache" / "retrieval_jax") / "urls"


# ----------------------------------------------------------------------------------------------------- copying


def pull(folder, *, below: str = "", settle: bool = False) -> None:
    """Updates a local folder to what its URL holds; does nothing for a folder that mirrors no URL.

    Files deleted remotely are deleted locally; local changes that have not been uploaded yet are kept.

    Args:
      folder: of `local_folder`.
      below: only files under this folder, "a/b".
      settle: for the start of a run: if the URL was written by someone else since both sides agreed, local changes that
        were not uploaded are dropped; otherwise they are what a run killed on this machine left, and are kept.

    Raises:
      InputError: the URL cannot be read.
    """
    folder, there = pathlib.Path(folder), url(folder)
    if there is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _reached(there, folder), _locked(folder):
        files, root = _filesystem(there)
        note, remote, here = _read_note(folder), _remote(files, root, there), _local(folder, there)
        moved_on = {name: known[:2] for name, known in note.items() if not _SCORES.match(name)} != {
            name: list(marks) for name, marks in remote.items() if not _SCORES.match(name)
        }
        if settle and moved_on:
            for name in here.keys() - remote.keys():
                if not _SCORES.match(name):
                    (folder / name).unlink(missing_ok=True)
        todo = []
        for name, marks in remote.items():
            known = note.get(name)
            altered = name in here and known is not None and here[name] != known[2:]
            current = known is not None and known[:2] == list(marks) and name in here
            settles = settle and moved_on and not _SCORES.match(name)
            if name.startswith(below) and (settles if altered else not current):
                todo.append(name)
        noted = time.monotonic()
        for start in range(0, len(todo), _AT_ONCE):
            names = todo[start : start + _AT_ONCE]
            beside = [str(_beside(folder / name)) for name in names]
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.get([f"{root}/{name}" for name in names], beside)
            for name, temporary in zip(names, beside, strict=True):
                os.replace(temporary, folder / name)
                note[name] = [*remote[name], *_stat(folder / name)]
            if time.monotonic() - noted > SECONDS:  # a download that is killed continues from here
                _write_note(folder, note)
                noted = time.monotonic()
        for name in [name for name in note if name.startswith(below) and name not in remote]:
            if here.get(name) == note.pop(name)[2:]:  # deleted remotely and not changed locally
                (folder / name).unlink(missing_ok=True)
        _drop_empty(folder)
        _write_note(folder, note)


def push(folder, *, below: str = "") -> None:
    """Uploads what changed in a local folder and deletes remotely what is gone; does nothing for one without a URL.

    Records of finished verbs are uploaded last.

    Args:
      folder: of `local_folder`.
      below: only files under this folder, "a/b".

    Raises:
      InputError: the URL cannot be written; the local files stay.
    """
    folder, there = pathlib.Path(folder), url(folder)
    if there is None or not folder.exists():
        return
    with _reached(there, folder), _locked(folder):
        note, here = _read_note(folder), _local(folder, there)
        changed = sorted(
            name
            for name, marks in here.items()
            if name.startswith(below) and (name not in note or note[name][2:] != marks)
        )
        gone = sorted(name for name in note if name.startswith(below) and name not in here)
        if not changed and not gone:
            return
        files, root = _filesystem(there)
        steps = {match[1] for name in (*changed, *gone) if (match := _STEP.match(name))}
        whole = {match[1] for name in here if (match := _STEP.match(name))}
        whole -= {match[1] for name in gone if (match := _STEP.match(name))}  # being deleted right now
        _remove(files, [f"{root}/{step}.whole" for step in sorted(steps)])
        parts = {step: [name for name in changed if name.startswith(f"{step}/")] for step in steps & whole}
        last = [name for name in changed if name.startswith("stages/") or name == "run.json"]
        rest = [name for name in changed if name not in last and not _STEP.match(name)]
        newest = sorted(
            parts, key=lambda step: int(step.rpartition("/")[2]), reverse=True
        )  # the newest is kept longest
        for step, names in [("", rest), *((step, parts[step]) for step in newest), ("", last)]:
            names = [name for name in names if (folder / name).exists()]  # the rest was deleted meanwhile
            if not names:
                continue
            try:
                files.put([str(folder / name) for name in names], [f"{root}/{name}" for name in names])
            except FileNotFoundError:
                if not step or all((folder / name).exists() for name in names):
                    raise
                _remove(files, [f"{root}/{name}" for name in names])  # the run has deleted it
                continue
            if step:
                files.pipe_file(f"{root}/{step}.whole", b"")
        _remove(files, [f"{root}/{name}" for name in gone])
        remote = _remote(files, root, there)
        note.update({name: [*remote[name], *here[name]] for name in changed if name in remote})
        _write_note(folder, {name: known for name, known in note.items() if name not in gone})


def keep_pushing(folder) -> None:
    """Calls `push` every `SECONDS` from now on; reports an error and tries again.

    Args:
      folder: of `local_folder`; one that mirrors no URL is left alone.
    """
    folder = pathlib.Path(folder)
    if url(folder) is None or folder in _kept:
        return
    _kept.add(folder)

    def again():
        while True:
            time.sleep(SECONDS)
            try_to_push(folder)

    threading.Thread(target=again, name=f"copies {folder}", daemon=True).start()


def push_before_the_end(seconds: float = 60.0) -> None:
    """Uploads what is new in the folders of `keep_pushing`, for a process that exits without cleaning up.

    Args:
      seconds: before it gives up.
    """
    threads = [threading.Thread(target=try_to_push, args=(folder,), daemon=True) for folder in _kept]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def try_to_push(folder, *, below: str = "") -> None:
    """Calls `push`, and reports an error instead of raising it.

    Args:
      folder, below: as for `push`.
    """
    try:
        push(folder, below=below)
    except InputError as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------------------- both sides


def _local(folder, there) -> dict[str, list[int]]:
    """Returns the files to keep in sync: name -> [size, time of last change]."""
    found = {}
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        with contextlib.suppress(FileNotFoundError):
            if _counts(name, there) and file.is_file():
                found[name] = _stat(file)
    return found


def _counts(name: str, there: str) -> bool:
    """Returns whether a file is to be synced: not one of our notes, half-written, or orbax's temporary."""
    hidden = [part for part in name.split("/") if part.startswith(".") and not part.endswith(".partial")]
    direct = _STEP.match(name) and _direct(f"{there}/{name}")
    return not (hidden or direct or name.endswith(".tmp") or "orbax-checkpoint-tmp" in name)


def _remote(files, root: str, there: str) -> dict[str, tuple[int, str]]:
    """Returns the files at the URL: name -> (size, what identifies the version)."""
    files.invalidate_cache()
    try:
        entries = files.find(root, detail=True)
    except FileNotFoundError:
        return {}
    found = {}
    for path, entry in entries.items():
        token = next(
            (
                entry[key]
                for key in ("ETag", "etag", "generation", "mtime", "LastModified", "created")
                if entry.get(key) is not None
            ),
            "",
        )
        found[path.removeprefix(root).lstrip("/")] = (int(entry["size"]), str(token))
    whole = {name.removesuffix(".whole") for name in found if re.fullmatch(r"(.*/)?checkpoints/\d+\.whole", name)}
    return {
        name: marks
        for name, marks in found.items()
        if _counts(name, there)
        and not name.endswith(".whole")
        and ((match := _STEP.match(name)) is None or match[1] in whole)
    }


def _filesystem(there: str):
    import fsspec

    files, root = fsspec.core.url_to_fs(there)
    return files, root.rstrip("/")


def _remove(files, paths) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(path)


def _stat(file) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _beside(file) -> pathlib.Path:
    return file.with_name(f".{file.name}.{os.getpid()}.tmp")


def _drop_empty(folder) -> None:
    """Removes folders of checkpoints without files: they would count as checkpoints."""
    for step in folder.rglob("checkpoints/[0-9]*"):
        for half in step.rglob(".*.tmp"):  # of a download that was killed
            half.unlink(missing_ok=True)
        for child in sorted([step, *step.glob("**/")], reverse=True):
            with contextlib.suppress(OSError):
                child.rmdir()


def _read_note(folder) -> dict[str, list]:
    try:
        return documents.read(folder / _NOTE, dict[str, list], remedy="")
    except (OSError, InputError):
        return {}


def _write_note(folder, note: dict) -> None:
    atomic.write_text(folder / _NOTE, json.dumps(note))


@contextlib.contextmanager
def _locked(folder):
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _reached(there: str, folder):
    """Turns whatever a file system raises into one sentence."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        scheme = there.partition(":")[0]
        remedy = f"pip install -r {_EXTRAS[scheme]}" if scheme in _EXTRAS else "install it"
        raise InputError(f"{there} needs a package that is not installed ({error}): {remedy}") from error
    except Exception as error:  # botocore, gcsfs, aiohttp ...: they share no base class
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{there} cannot be reached ({text}): check the address, your permissions and the network; nothing "
            f"is lost, the results are in {folder} and are uploaded by the next run"
        ) from error
