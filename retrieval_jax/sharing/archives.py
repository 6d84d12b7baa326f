"""Exported models as one file: packs a folder, the same bytes every time, and unpacks what others packed.

An archive is a plain tar without compression, of config.json, the files that it lists and the model card, in the order
of their names; times, owners and permissions are fixed. A `.sha256` file beside it has its checksum, as
`sha256sum --check` reads it. Unpacking copies the listed files alone, to names that cannot lead anywhere else; links,
folders and devices are refused before a byte is written. An archive cannot hold more than its own size.
"""

from __future__ import annotations

import io
import pathlib
import re
import shutil
import tarfile
from typing import BinaryIO

from retrieval_jax.errors import InputError, naming, short
from retrieval_jax.files import atomic, documents
from retrieval_jax.files.arrays import file_sha256
from retrieval_jax.files.opening import opened
from retrieval_jax.sharing import card, transfer

MOST_FILES = 1000  # of an archive
MOST_BYTES = 8**11 - 1  # of a file: 8 GiB, as many as its header can write
_REMEDY = "pack the folder again with `retrieval-jax hub pack`"


def pack(folder: pathlib.Path, archive: pathlib.Path, *, licence: str = "") -> str:
    """Writes an exported model with its model card as one file, and its checksum beside it.

    Args:
      folder: the exported model.
      archive: to write, <name>.tar; the card is of the model <name>.
      licence: see `card.of_folder`.

    Returns:
      The SHA-256 of the archive.

    Raises:
      InputError: the folder is not a complete exported model, or has what no archive may hold; or the name of the
        archive ends otherwise.
    """
    if archive.suffix != ".tar":
        raise InputError(f"{archive}: the name of an archive ends in .tar; it is not compressed")
    about = transfer.verify(folder)
    own = folder / transfer.CARD
    if own.is_file() and card.MARK not in own.read_text(encoding="utf-8", errors="replace"):
        text = own.read_bytes()  # written by hand, as `push` leaves those alone
    else:
        text = card.of_folder(folder, archive.stem, licence, archive.name).encode()
    names = sorted({transfer.CONFIG, transfer.CARD, *about["sha256"]})
    if len(names) > MOST_FILES:
        raise InputError(f"{folder} has {len(names):,} files, and an archive holds {MOST_FILES:,} at most")
    for name in names:
        _check_name(name, folder)
        size = len(text) if name == transfer.CARD else (folder / name).stat().st_size
        if size > MOST_BYTES:
            raise InputError(
                f"{folder / name} has {size:,} bytes, and a file of an archive {MOST_BYTES:,} at most: export with "
                "--weights=int8, or push the folder to a hub"
            )

    def fill(stream: BinaryIO) -> None:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.mode, entry.mtime = 0o644, 0
                if name == transfer.CARD:
                    entry.size = len(text)
                    tar.addfile(entry, io.BytesIO(text))
                    continue
                with (folder / name).open("rb") as content:
                    entry.size = (folder / name).stat().st_size
                    tar.addfile(entry, content)

    archive.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(archive, fill)
    digest = file_sha256(archive)
    atomic.write_text(archive.with_name(archive.name + ".sha256"), f"{digest}  {archive.name}\n")
    return digest


def pull(source: pathlib.Path, out: pathlib.Path) -> str:
    """Puts an exported model from this machine in its place, after every file has been checked.

    Args:
      source: an archive of `pack`, or the folder of an exported model.
      out: local folder; an earlier exported model there is replaced.

    Returns:
      The SHA-256 of the archive, or of the folder's config.json, which has those of all other files.

    Raises:
      InputError: it is not an exported model, is damaged, or holds what no exported model holds; or it lies in `out`,
        which is replaced.
    """
    if source.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{source} is in the folder {out} that is to be replaced: give another folder to write")
    if source.is_dir():
        about = transfer.verify(source)
        there = [transfer.CONFIG, *about["sha256"], *([transfer.CARD] if (source / transfer.CARD).is_file() else [])]

        def fill(folder: pathlib.Path) -> None:
            for name in there:
                shutil.copyfile(source / name, folder / name, follow_symlinks=False)
            transfer.verify(folder)

        transfer.put(out, fill)
        return file_sha256(out / transfer.CONFIG)
    digest = _checked(source)

    def unpack(folder: pathlib.Path) -> None:
        with opened(source) as stream:
            _unpack(stream, folder, source)
        transfer.verify(folder)

    transfer.put(out, unpack)
    return digest


def _unpack(stream: BinaryIO, folder: pathlib.Path, source: pathlib.Path) -> None:
    """Copies the files of an archive; raises InputError for one that it may not hold, before the first is written."""
    entries = _entries(stream, source)
    if (config := entries.get(transfer.CONFIG)) is None:
        raise InputError(f"{source} has no {transfer.CONFIG}, which an exported model has: {_REMEDY}")
    if config[1] > documents.MOST_BYTES:
        raise InputError(
            f"{source}: its {transfer.CONFIG} has {config[1]:,} bytes, and {documents.MOST_BYTES:,} are read at most: "
            f"{_REMEDY}"
        )
    stream.seek(config[0])
    name = f"{transfer.CONFIG} of {source}"
    about = documents.parse(stream.read(config[1]), dict, name=name, remedy=_REMEDY)
    documents.check(about, transfer.Described, name=name, remedy=_REMEDY)
    if strange := sorted(set(entries) - {transfer.CONFIG, transfer.CARD, *about["sha256"]}):
        raise InputError(f"{source} holds {strange[0]!r}, which its {transfer.CONFIG} does not list: {_REMEDY}")
    for name, (start, size) in entries.items():
        stream.seek(start)
        with (folder / name).open("xb") as content:
            while size:
                if not (block := stream.read(min(size, 1 << 20))):
                    raise InputError(f"{source} ends before its file {name!r} does: fetch it again")
                content.write(block)
                size -= len(block)


def _entries(stream: BinaryIO, source: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Returns {name: (place, bytes)} of the files of an archive, read from the headers of plain files alone.

    `tarfile` would read what extends headers (long names, links, sparse files) into memory, however large it is.
    """
    entries: dict[str, tuple[int, int]] = {}
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    while (block := stream.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        try:
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise InputError(f"{source} cannot be read as a tar archive ({short(str(error))}): {_REMEDY}") from error
        name = entry.name
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise InputError(f"{source} holds {short(name)!r}, which is not a plain file: {_REMEDY}")
        _check_name(name, source)
        if name in entries:
            raise InputError(f"{source} holds two files with the name {name!r}: {_REMEDY}")
        start = stream.tell()
        if not 0 <= entry.size <= end - start:
            raise InputError(f"{source} ends before its file {name!r} does: fetch it again")
        entries[name] = start, entry.size
        if len(entries) > MOST_FILES:
            raise InputError(f"{source} holds more than {MOST_FILES:,} files: {_REMEDY}")
        stream.seek(start + -(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    return entries


def _check_name(name: str, source: pathlib.Path) -> None:
    """Raises InputError unless a file may be in an archive by its name: what is packed and what is unpacked."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(
            f"{source} holds a file with the name {short(name)!r}: names have up to 100 letters A to Z, digits, "
            "'_', '-' and '.'; export again"
        )
    if pathlib.PurePath(name).suffix not in transfer.KINDS:
        raise InputError(f"{source} holds {name!r}: exported models have only {', '.join(transfer.KINDS)}")


def _checked(archive: pathlib.Path) -> str:
    """Returns the SHA-256 of an archive; raises InputError where the file with its checksum names another one."""
    with naming(archive):
        if not archive.is_file():
            raise InputError(f"{archive} is neither an archive nor the folder of an exported model")
        digest = file_sha256(archive)
        beside = archive.with_name(archive.name + ".sha256")
        if beside.is_file():
            with opened(beside, 4096) as stream:
                wanted = stream.read(4096).decode("utf-8", "replace").split()
            if wanted[:1] != [digest]:
                raise InputError(f"{archive} is not the file whose checksum {beside.name} has: fetch both again")
    return digest
