"""Sends an exported model to a hub and fetches one, with checks of every file before it is used."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

from huggingface_hub import CommitOperationAdd, HfApi, errors
from huggingface_hub.hf_api import RepoFile

from retrieval_jax.errors import InputError, RunFailed, first_line, raise_shortage, short
from retrieval_jax.files import documents, versions
from retrieval_jax.files.arrays import file_sha256
from retrieval_jax.sharing import card, folders
from retrieval_jax.workdir import layout

MOST_BYTES = 64 * 2**30  # of a model
CONFIG, CARD = "config.json", "README.md"
KINDS = (".json", ".safetensors", ".npz", ".jax_export", ".onnx", ".md")  # nothing that runs, or is unpickled
_REMEDY = "export again, or pull another revision"


class Described(TypedDict):
    """What config.json says of the other files."""

    programs: dict[str, documents.FileName]
    sha256: dict[documents.FileName, documents.Sha256]


def verify(folder: pathlib.Path) -> dict[str, Any]:
    """Checks every file of an exported model against the checksums in its config.json.

    Args:
      folder: a local folder.

    Returns:
      config.json.

    Raises:
      InputError: it is not an exported model, or a file is missing, damaged, or of a kind that no export writes.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} holds no exported model: make one with `retrieval-jax export`")
    about = documents.read(folder / CONFIG, dict, remedy=_REMEDY)
    documents.check(about, Described, name=str(folder / CONFIG), remedy=_REMEDY)
    needed = {"model.safetensors", "labels.json", *about["programs"].values()}
    if missing := sorted(needed - set(about["sha256"])):
        raise InputError(f"{folder / CONFIG} has no checksum of {missing[0]}: {_REMEDY}")
    for name, digest in about["sha256"].items():
        file = folder / name
        if file.suffix not in KINDS:
            raise InputError(f"{file}: exported models have no such files, only {', '.join(KINDS)}: {_REMEDY}")
        if file.is_symlink() or not file.is_file() or file_sha256(file) != digest:
            raise InputError(f"{file} is missing, or is not the file whose checksum config.json has: {_REMEDY}")
    return about


def push(folder: pathlib.Path, repository: str, *, private: bool = False, licence: str = "") -> str:
    """Uploads an exported model with its model card, as one commit.

    Args:
      folder: the exported model.
      repository: "owner/name"; it is made where it does not exist.
      private: whether a new repository is private; a public one is refused then.
      licence: see `card.of_folder`.

    Returns:
      The address of the commit.

    Raises:
      InputError: the folder is not a complete exported model, or the hub refuses it.
      RunFailed: the hub cannot be reached.
    """
    _check_name(repository)
    about = verify(folder)
    names = [CONFIG, *sorted(about["sha256"])]
    api = HfApi()
    with _asked(f"push to {repository}"):
        if private and api.repo_exists(repository) and not api.model_info(repository).private:
            raise InputError(
                f"--private: {repository} is public, and everybody would see the model: make it private on the hub, "
                "or push to a new repository"
            )
        api.create_repo(repository, private=private, exist_ok=True)
        add = [CommitOperationAdd(name, str(folder / name)) for name in names]
        if _owns_card(api, repository):
            text = card.of_folder(folder, repository, licence)
            add.append(CommitOperationAdd(CARD, text.encode()))
        else:
            print(f"push: README.md of {repository} was written by hand, so it stays as it is")
        done = api.create_commit(repository, add, commit_message="retrieval-jax hub push")
    return str(done.commit_url)


def _owns_card(api: HfApi, repository: str) -> bool:
    """Returns whether the card on the hub is missing, the hub's own empty one, or one of ours."""
    if not api.file_exists(repository, CARD):
        return True
    with tempfile.TemporaryDirectory() as place:
        found = api.hf_hub_download(repository, CARD, local_dir=place)
        text = pathlib.Path(found).read_text(encoding="utf-8", errors="replace")
    return card.MARK in text or not re.sub(r"\A---\n.*?\n---\n?", "", text, flags=re.DOTALL).strip()


def pull(repository: str, out: pathlib.Path, *, revision: str = "main") -> str:
    """Fetches an exported model; it is put in its place after every file has been checked.

    Only config.json, the files that it lists and README.md are fetched, whatever else the repository holds.

    Args:
      repository: "owner/name".
      out: local folder; an earlier exported model there is replaced.
      revision: branch, tag or commit.

    Returns:
      The commit that was fetched.

    Raises:
      InputError: there is no such model, or a file is not what the hub or config.json says it is.
      RunFailed: the hub cannot be reached.
    """
    _check_name(repository)
    folders.check_replaceable(out)
    api = HfApi()
    with _asked(f"pull {repository}"):
        commit = str(api.model_info(repository, revision=revision).sha)
        tree = api.list_repo_tree(repository, revision=commit)
        listed = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def fetch(name: str, folder: pathlib.Path) -> pathlib.Path:
        entry = listed.get(name)
        if entry is None:
            raise InputError(f"{repository} has no {name}, which a model of retrieval_jax has: {_REMEDY}")
        with tempfile.TemporaryDirectory(dir=folder.parent) as place, _asked(f"pull {repository}"):
            file = pathlib.Path(api.hf_hub_download(repository, name, revision=commit, local_dir=place))
            _check_file(file, entry, repository)
            shutil.move(file, folder / name)
        return folder / name

    def fill(folder: pathlib.Path) -> None:
        config = listed.get(CONFIG)
        if config is not None and config.size > documents.MOST_BYTES:
            raise InputError(f"{repository}: config.json has {config.size:,} bytes: it is not one of retrieval_jax")
        file = fetch(CONFIG, folder)
        about = documents.read(file, dict, remedy=_REMEDY)
        documents.check(about, Described, name=f"config.json of {repository}", remedy=_REMEDY)
        names = [*about["sha256"], *([CARD] if CARD in listed else [])]
        size = sum(listed[name].size for name in names if name in listed)
        if size > MOST_BYTES:
            raise InputError(f"{repository} has {size:,} bytes, and at most {MOST_BYTES:,} are fetched")
        if wrong := [name for name in names if pathlib.PurePath(name).suffix not in KINDS]:
            raise InputError(f"{repository} lists {short(wrong[0])!r}: exported models have only {', '.join(KINDS)}")
        for name in names:
            fetch(name, folder)
        verify(folder)

    put(out, fill)
    return commit


def put(out: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> None:
    """Fills a new folder with a checked model and puts it in its place; its click log stays.

    Args:
      out: local folder; an earlier exported model there is replaced.
      fill: writes the files into the folder that it is given, and checks them.

    Raises:
      InputError: something else is there.
    """
    folders.check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    versions.replace(out, CONFIG, fill, keep=[layout.CLICK_LOG])


def _check_file(file: pathlib.Path, entry: Any, repository: str) -> None:
    """Raises InputError unless a fetched file is the one that the hub listed: its size and its hash there."""
    digest, wanted = "", ""
    if entry.lfs is not None:
        digest, wanted = file_sha256(file), entry.lfs.sha256
    elif file.stat().st_size == entry.size:
        content = file.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        wanted = entry.blob_id
    if file.stat().st_size != entry.size or digest != wanted:
        raise InputError(f"{entry.path} of {repository} differs from what the hub lists: pull again")


def _check_name(repository: str) -> None:
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", repository, re.ASCII):
        raise InputError(f"{short(repository)!r} is not the name of a repository: give owner/name, such as me/fashion")


@contextlib.contextmanager
def _asked(what: str) -> Iterator[None]:
    """Turns what the hub's client raises into a sentence."""
    try:
        yield
    except (InputError, RunFailed):
        raise
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        remedies = {
            401: "log in with `hf auth login`, or set HF_TOKEN",
            403: "the token may not do this: use one with write access to the repository",
            404: "check the name, the revision, and HF_ENDPOINT; a private repository needs HF_TOKEN",
        }
        text = f"{what}: {first_line(error)}; {remedies.get(status, 'try again later')}"
        raise (RunFailed(text) if status >= 500 or status == 429 else InputError(text)) from error
    except Exception as error:  # the hub's client passes on whatever its network layers raise
        if isinstance(error, OSError):
            raise_shortage(error, what)
        if not type(error).__module__.startswith(("huggingface_hub", "httpx", "httpcore", "requests")):
            raise
        raise RunFailed(f"{what}: {first_line(error)}; check the network and HF_ENDPOINT, then try again") from error
