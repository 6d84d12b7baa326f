"""Which settings a verb's result depends on, hashed: its own and, chained, those of the verbs before it."""

import dataclasses
import fnmatch
import hashlib
import json

from retrieval_jax.workdir import sides
from retrieval_jax.workdir.layout import VERBS, as_path, member_folder, members, verbs
from retrieval_jax.workdir.settings import plain, read_stage

# Everything later was learned from these blocks: a directory with results of one value never takes another.
FIXED_BLOCKS = ("data", "mine", "train")

# Settings of these blocks that change how fast or how often something happens and never a number that comes out. They
# are in no hash, so they may change in a used directory and when a training resumes (`training.guards.same_run`).
# Dotted name, "*" for any part -> how it was decided.
#
# Looks like speed and is not, hence not here: crop_before_decoding and decode_at_least (other pixels), the batch sizes
# of train and embed, accumulate_steps, label_block and remat (sums in another order), shard_rows (which pictures share
# a batch), check_images (which rows are set aside), evaluations (other scores in metrics.jsonl), non_finite. Later
# blocks need no entry: a change there runs its verb again and is never refused.
FREE = {
    "data.cache_bytes": "a picture is decoded to the same pixels, once or again",
    "data.kwargs.root": "the data's digests decide, not its place: see workdir.freshness",
    "data.kwargs.data_dir": "the same place, as tfds calls it",
    "data.kwargs.catalogs.*.kwargs.root": "the same, of joined catalogues",
    "data.kwargs.catalogs.*.kwargs.data_dir": "the same, of joined catalogues",
    "train.num_threads": "batches are the same bits for every number of threads: tests/data/test_pipeline.py",
    "train.num_workers": "and for every number of worker processes",
    "train.mesh": "the rows of a batch are the same; sums are taken in another order, within 1e-6: docs/faults.md",
    "train.sharding_rules": "where a tensor lies, not what is in it",
    "train.hang_seconds": "when a hanging process gives up",
    "train.log_every_steps": "which steps are written to metrics.jsonl, not what they compute",
    "train.trackers": "where metrics are sent as well",
    "train.checkpoint_every_steps": "a resumed training gives the bits of one that was not interrupted",
    "train.keep_checkpoints": "embed takes the last one",
    "train.eval_every_epochs": "an evaluation reads the parameters and changes none",
}
# What settings were before they could be set: directories that were made then do not hold them.
BEFORE = {
    "mine.rule": 1,
    "train.task_kwargs.code_weight": 0.0,
    "train.task_kwargs.bank": 0,
    "train.task_kwargs.max_items": 8,  # outfits were not cut before; only those of nine items or more differ
    "train.task_kwargs.map_residual": False,
    "embed.appearance": {"stage": 2, "bands": [4, 3]},
    "embed.regions": {"run": "", "splits": ["query", "gallery"], "margin": 0.1, "guided": False},
    "search.gallery_from.adapter": "",
    "search.lexical": {"query": "query", "columns": ["title"], "k1": 1.5, "b": 0.75, "typos": True},
    "search.categories": {"mass": 0.0, "k": 30, "listings": 50_000, "vote": "trained"},
    "evaluate.metrics": [],
    "evaluate.gain": "exponential",
    "evaluate.unrated": "zero",
    "evaluate.slices": [],
    "evaluate.edits": {"kept": ["type"], "similarity": "colour_and_edges"},
}
SHARE = 0.5  # evaluate.selection_share of a search whose record does not say it
# Those of FREE that say where the data lies: they may change where the content was recorded and is the same.
PLACES = tuple(name for name in FREE if name.startswith("data.kwargs."))


def without_free(name: str, block):
    """Returns a block of `plain` settings without those that change no result.

    Args:
      name: dotted name of the block, such as "train".
      block: its settings; None for a block that the config does not have.
    """
    if not isinstance(block, dict):
        return block
    return {
        key: without_free(f"{name}.{key}", value)
        for key, value in block.items()
        if not matches(f"{name}.{key}", FREE) and BEFORE.get(f"{name}.{key}") != value
    }


def matches(name: str, patterns) -> bool:
    """Returns whether a dotted name is one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def blocks(config, verb: str) -> dict:
    """Returns the blocks a verb's result depends on, as plain settings: data, every earlier block, its own."""
    names = ["data"] + [name for name in verbs(config) if VERBS.index(name) <= VERBS.index(verb)]
    found = {name: without_free(name, plain(config.get(name))) for name in names}
    chosen = {split: side for split, side in sides.of(config).items() if side != sides.Side()}
    if "embed" in found and chosen:  # settings of the search that embed works by
        found["embed"] = {
            **found["embed"],
            "sides": {split: _side(side) for split, side in chosen.items()},
        }
    if "embed" in found and sides.wants_evidence(config):
        found["embed"] = {**found["embed"], "evidence": True}
    if "embed" in found and sides.wants_categories(config):
        wanted = {name: config["search"]["categories"][name] for name in ("listings", "vote")}
        found["embed"] = {**found["embed"], "categories": wanted}
    share = (config.get("evaluate") or {}).get("selection_share", SHARE)
    if "search" in found and sides.wants_truth(config) and share != SHARE:  # what it learned from must not be reported
        found["search"] = {**found["search"], "selection_share": share}
    return found


def _side(side) -> dict:
    """Returns a side as plain settings; without an adapter as it was before there were any."""
    found = dataclasses.asdict(side)
    return found if side.adapter else {name: value for name, value in found.items() if name != "adapter"}


def stage_hash(config, verb: str, folder=None) -> str:
    """Returns the hash of everything a verb's result depends on: its own block and, chained, all the earlier ones.

    Args:
      config: the whole config; its name and the later verbs' blocks do not count.
      verb: one of `VERBS`.
      folder: the work directory; an ensemble needs it, because its members' embeddings count too.

    Returns:
      A short hexadecimal hash.
    """
    return _chain(blocks(config, verb), member_hashes(config, folder))


def recorded_hash(record: dict) -> str:
    """Returns the hash of a record's blocks by today's table of `FREE`: an older table makes nothing stale."""
    kept = {name: without_free(name, block) for name, block in record["blocks"].items()}
    return _chain(kept, record.get("members", {}))


def _chain(blocks: dict, member_hashes: dict) -> str:
    digest = ""
    for name, block in blocks.items():
        content = [digest, name, block] + ([member_hashes] if name == "search" and member_hashes else [])
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return digest


def member_hashes(config, folder) -> dict:
    """Returns, per member of an ensemble, the hash of its embeddings as they were last made and when that was."""
    if not members(config):
        return {}
    if folder is None:
        raise ValueError("the hash of an ensemble needs its work directory: its members lie beside it")
    found = {}
    for member in members(config):
        record = read_record(member_folder(folder, member), "embed")
        found[member] = None if record is None else [record["hash"], record["finished"]]
    return found


def read_record(folder, verb: str) -> dict | None:
    """Returns the record of a finished verb, or None where it never finished or became stale."""
    stage = read_stage(as_path(folder), verb)
    return stage if stage is not None and "hash" in stage else None
