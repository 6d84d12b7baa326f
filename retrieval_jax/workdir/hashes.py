"""What a verb's result depends on, hashed: its own settings and, chained, those of the verbs before it."""

import hashlib
import json

from retrieval_jax.files import atomic
from retrieval_jax.workdir.layout import VERBS, as_path, member_folder, members, verbs
from retrieval_jax.workdir.settings import plain

# Everything later was learnt from these blocks: a directory that holds results of one value never takes another.
FIXED_BLOCKS = ("data", "mine", "train")
# Settings of the machine and not of the result: they may change when a run goes on somewhere else.
OF_THE_MACHINE = {"train": ("mesh", "sharding_rules", "hang_seconds")}


def _blocks(config, verb: str) -> dict:
    """Returns the blocks a verb's result depends on, as plain settings: data, every earlier block, its own."""
    names = ["data"] + [name for name in verbs(config) if VERBS.index(name) <= VERBS.index(verb)]
    return {name: _of_result(name, plain(config.get(name))) for name in names}


def _of_result(name: str, block):
    """Returns a block (of `plain`) without the settings of the machine."""
    if not isinstance(block, dict):
        return block
    return {key: value for key, value in block.items() if key not in OF_THE_MACHINE.get(name, ())}


def stage_hash(config, verb: str, folder=None) -> str:
    """Returns the hash of everything a verb's result depends on: its own block and, chained, all the earlier ones.

    Args:
      config: the whole config; its name and the later verbs' blocks do not count.
      verb: one of `VERBS`.
      folder: the work directory; an ensemble needs it, because its members' embeddings count too.

    Returns:
      A short hexadecimal hash.
    """
    return _chain(_blocks(config, verb), _member_hashes(config, folder))


def _chain(blocks: dict, member_hashes: dict) -> str:
    digest = ""
    for name, block in blocks.items():
        content = [digest, name, block] + ([member_hashes] if name == "search" and member_hashes else [])
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return digest


def _member_hashes(config, folder) -> dict:
    """Returns, per member, the hash of its embeddings as they were last made, with the time they were made."""
    if not members(config):
        return {}
    if folder is None:
        raise ValueError("the hash of an ensemble needs its work directory: its members lie beside it")
    found = {}
    for member in members(config):
        record = read_record(member_folder(folder, member), "embed")
        found[member] = None if record is None else [record["hash"], record["finished"]]
    return found


def _read_stage(folder, verb: str) -> dict | None:
    file = as_path(folder) / "stages" / f"{verb}.json"
    return atomic.read_json(file) if file.exists() else None


def read_record(folder, verb: str) -> dict | None:
    """Returns the record of a finished verb, or None when it never finished or was made stale since."""
    stage = _read_stage(folder, verb)
    return stage if stage is not None and "hash" in stage else None
