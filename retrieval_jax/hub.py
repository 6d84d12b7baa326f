"""Shares exported models: `push` uploads a folder to a hub, `pack` makes one file of it, `pull` fetches and checks one.

The hub is Hugging Face's, or any that speaks its protocol (HF_ENDPOINT); the token is that of its own client. `pull`
also takes a packed file or an exported folder of this machine, and needs no network then.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("hub")

import pathlib
import re

from retrieval_jax import paths
from retrieval_jax.errors import InputError
from retrieval_jax.sharing import archives, card, transfer


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    if given.action == "push":
        folder = paths.expanded(given.source)
        if given.dry_run:
            about = transfer.verify(folder)
            print(card.of_folder(folder, given.target, given.licence))
            print(f"hub: would push {1 + len(about['sha256'])} files and this card to {given.target}")
            return
        address = transfer.push(folder, given.target, private=given.private, licence=given.licence)
        print(f"hub: pushed {folder}: {address}")
        return
    if given.private or given.dry_run:
        raise InputError(f"hub {given.action}: --private and --dry-run are options of push")
    if given.action == "pack":
        archive = paths.expanded(given.target)
        digest = archives.pack(paths.expanded(given.source), archive, licence=given.licence)
        size = archive.stat().st_size
        print(f"hub: packed {given.source} into {archive}, {size / 1e6:.1f} MB, sha256 {digest}")
        return
    if given.licence:
        raise InputError("hub pull: --licence is an option of push and pack")
    source = paths.expanded(given.source)
    if _is_here(given.source, source):
        if given.revision != "main":
            raise InputError(f"hub pull: --revision is of a hub, and {given.source} is on this machine")
        digest = archives.pull(source, paths.expanded(given.target))
        print(f"hub: pulled {given.source} (sha256 {digest[:12]}) into {given.target}; all checksums match")
        return
    commit = transfer.pull(given.source, paths.expanded(given.target), revision=given.revision)
    print(f"hub: pulled {given.source} at {commit[:12]} into {given.target}; all checksums match")


def _is_here(given: str, source: pathlib.Path) -> bool:
    """Returns whether a source is on this machine: a file, an exported folder, or what names no repository."""
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", given, re.ASCII)
    return source.is_file() or (source / transfer.CONFIG).is_file() or source.suffix == ".tar" or not named
