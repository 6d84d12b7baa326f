"""Where a run lives: the name of its work directory, its verbs, its members and the run it starts from."""

import hashlib
import json
import os
import pathlib
import re
import shlex

from retrieval_jax.files import remote
from retrieval_jax.workdir.settings import plain

VERBS = ("mine", "train", "embed", "search", "evaluate", "report")
# What each verb writes, relative to the work directory. Files that exist after the verb ran are recorded with their
# size; a folder of checkpoints only by the names in it, because what is inside belongs to the checkpoint library.
OUTPUTS = {
    "mine": ("attributes", "set_aside.csv"),  # the embedded catalogue sets nothing aside
    "train": ("checkpoints", "text"),
    "embed": ("embeddings",),
    "search": ("rankings",),
    "evaluate": ("metrics.json", "submission.csv"),
    "report": ("report.html",),
}
# What runs write into a work directory beside the verbs' OUTPUTS.
_WRITTEN = (
    "config.json",
    "run.json",
    "stages",
    "metrics.jsonl",
    "tensorboard",
    "tracking.json",
    "wandb",
    "mlruns",
    "profile",
    "checkpoint_scores",
    "nas",
    ".lock",
)
CLICK_LOG = "judgements.ndjson"  # of a folder that is served, also of an exported one: it stays when that is replaced
_MAX_NAME = 100
CONFIG_NAME = r"\w+(:[^/\\].*)?"  # "name" or "name:arg", where paths have a slash and URLs "://"


def as_path(path) -> pathlib.Path:
    """Returns the path of a work directory; for a URL, of the local folder that is kept in sync with it.

    Args:
      path: a local folder or a URL ("s3://bucket/folder"), as text or path.

    Raises:
      InputError: a URL that names no folder.
    """
    return remote.local_folder(path)


RUNLOCAL = ":runlocal"  # the argument of every config that makes the smallest version of an experiment


def default_name(stem: str, arg: str | None = None, overrides: dict | None = None) -> str:
    """Returns the folder name of a config with an argument and overrides: "quickstart-runlocal-search.k=50".

    Args:
      stem: name of the config file without ".py".
      arg: what follows the colon in `--config=file.py:arg`, or None.
      overrides: dotted setting -> value, as given on the command line.

    Returns:
      A name that is safe on every file system. One that is too long or loses characters ends in a hash of the whole.
    """
    parts = [stem] + ([arg] if arg else [])
    parts += [f"{key}={_text(value)}" for key, value in sorted((overrides or {}).items())]
    return safe_name("-".join(parts))


def safe_name(full: str) -> str:
    """Returns a text as the name of a folder, see `default_name`."""
    name = re.sub(r"[^\w.=+,-]+", "_", full, flags=re.ASCII).strip("_")
    if name == full and len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 9].rstrip('_-.')}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value), separators=(",", ":"))


def smoke_run(config) -> str:
    """Returns what to say of the scores of an experiment's smallest version, `:runlocal`; "" for any other run.

    Args:
      config: its name ends in ":runlocal", see `command_line.read`.
    """
    if not str(config.get("name") or "").endswith(RUNLOCAL):
        return ""
    return (
        f"this is a smoke run ({RUNLOCAL}): it shows that every step works, on little data and with few steps of "
        "training. Its scores say nothing about the method; leave the argument out for those"
    )


def verbs(config) -> tuple[str, ...]:
    """Returns the verbs of a config, in order.

    An ensemble starts at search, because its members do the rest; a config without a train block (public weights)
    starts at embed.
    """
    if members(config):
        return VERBS[VERBS.index("search") :]
    return VERBS if config.get("train") is not None else VERBS[VERBS.index("embed") :]


def members(config) -> tuple[str, ...]:
    """Returns the members of an ensemble ("fashion_convnext" or "fashion_convnext:arg"), or () for one model."""
    search = config.get("search")
    return tuple(search.get("members", ()) or ()) if search is not None else ()


def member_folder(folder, member: str):
    """Returns the work directory of another config's run: a folder beside this one."""
    stem, _, arg = member.partition(":")
    return as_path(folder).parent / default_name(stem, arg)


def predecessor(config) -> str:
    """Returns the config ("name" or "name:arg") of the run that a training starts from.

    "" where it starts from scratch, or from a folder (config.train.init_from with a slash in it).
    """
    train = config.get("train")
    init_from = (train.get("init_from", "") if train is not None else "") or ""
    return init_from if re.fullmatch(CONFIG_NAME, init_from) else ""


def predecessor_folder(config, folder):
    """Returns the work directory that a training starts from, or None; a config's name means one beside its own."""
    name = predecessor(config)
    if name:
        return member_folder(folder, name)
    train = config.get("train")
    return as_path(train.init_from) if train is not None and train.get("init_from") else None


def elsewhere(folder) -> str:
    """Returns what to do with a directory whose results are of something else."""
    if url := remote.url(folder):
        return f"Give another --workdir, or delete this one: {url}"
    foreign = sorted(set(os.listdir(folder)) - {*_WRITTEN, *(name for names in OUTPUTS.values() for name in names)})
    if foreign or os.path.ismount(folder) or os.path.islink(folder):  # a removal would hit more than the run
        also = f" (this one also holds {foreign[0]!r}, which no run wrote)" if foreign else ""
        return f"Give another --workdir{also}"
    return f"Give another --workdir, or delete this one: rm -r -- {shlex.quote(os.path.abspath(folder))}"
