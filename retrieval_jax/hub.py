"""Shares exported models through a hub: `push` uploads a folder with its model card, `pull` fetches and checks one.

The hub is Hugging Face's, or any that speaks its protocol (HF_ENDPOINT); the token is that of its own client.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("hub")

from retrieval_jax import paths
from retrieval_jax.errors import InputError
from retrieval_jax.sharing import card, transfer


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
    if given.private or given.licence or given.dry_run:
        raise InputError("hub pull: --private, --licence and --dry-run are options of push")
    commit = transfer.pull(given.source, paths.expanded(given.target), revision=given.revision)
    print(f"hub: pulled {given.source} at {commit[:12]} into {given.target}; all checksums match")
