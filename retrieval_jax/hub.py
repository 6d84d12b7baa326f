"""Shares exported models: `push` uploads a folder to a hub, `pack` makes one file of it, `pull` fetches and checks one.

The hub is Hugging Face's, or any that speaks its protocol (HF_ENDPOINT); the token is that of its own client. `pull`
also takes a packed file or an exported folder of this machine, and needs no network then; "owner/name" is always a
repository, and "./owner/name" a folder.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("hub")

import re

from retrieval_jax import paths
from retrieval_jax.errors import InputError
from retrieval_jax.sharing import archives, card, transfer


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    if given.revision and given.action != "pull":
        raise InputError(f"hub {given.action}: --revision is an option of pull")
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
    source, target = paths.expanded(given.source), paths.expanded(given.target)
    if _is_here(given.source):
        if given.revision:
            raise InputError(
                f"hub pull: --revision applies to a repository on a hub, and {given.source} is on this machine"
            )
        digest = archives.pull(source, target)
        print(f"hub: pulled {given.source} (sha256 {digest[:12]}) into {given.target}; all checksums match")
        return
    if (source / transfer.CONFIG).is_file() and source.resolve() != target.resolve():
        print(f"hub: {given.source} is fetched from the hub; for the folder of that name give ./{given.source}")
    commit = transfer.pull(given.source, target, revision=given.revision or "main")
    print(f"hub: pulled {given.source} at {commit[:12]} into {given.target}; all checksums match")


def _is_here(given: str) -> bool:
    """Returns whether a source is on this machine: a packed file, or what cannot be the name of a repository."""
    return given.endswith(".tar") or not re.fullmatch(r"(?!\.{1,2}/)[\w.-]+/[\w.-]+", given, re.ASCII)
