"""Settings of a work directory: as JSON, and compared with the ones it was made with."""

import json
import os
from typing import Any, NotRequired, Required, TypedDict

from retrieval_jax.errors import InputError
from retrieval_jax.files import documents, remote

_MOST_BYTES = 256 << 20  # of a config.json or a record, which lists every file of its verb


class _Settings(TypedDict, total=False):
    """config.json: a block of settings per verb."""

    name: str
    data: Required[dict[str, Any]]
    mine: dict[str, Any] | None
    train: dict[str, Any] | None
    embed: dict[str, Any] | None
    search: dict[str, Any] | None
    evaluate: dict[str, Any] | None
    report: dict[str, Any] | None


class _Data(TypedDict):
    """What a record keeps of the data, see `freshness.Data.of`."""

    places: list[str]
    stamp: str | None
    digests: dict[str, str]


class _Record(TypedDict):
    """stages/<verb>.json of a finished verb, see `records.record`."""

    hash: str
    blocks: dict[str, dict[str, Any] | None]
    outputs: dict[str, documents.Count | None]
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: NotRequired[documents.Count | None]
    finished: str
    commit: str | None
    hardware: dict[str, Any]
    summary: dict[str, Any]
    members: NotRequired[dict[str, Any]]
    data: NotRequired[_Data]


class _Stale(TypedDict):
    """stages/<verb>.json of a verb that has to run, see `records.invalidate`."""

    stale: str


def plain(value):
    """Returns settings as JSON holds them: ConfigDict -> dict, tuple -> list, NumPy scalar -> number.

    Args:
      value: a config, a block of one, or one setting.

    Raises:
      InputError: a value that JSON cannot hold.
    """
    if hasattr(value, "items"):
        # The items() of a ConfigDict resolve references.
        return {str(key): plain(item) for key, item in sorted(value.items())}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    raise InputError(
        f"a setting holds {value!r}, a {type(value).__name__}; settings are numbers, text, true/false, "
        "None, and tuples and dicts of these"
    )


def read_settings(folder) -> dict:
    """Returns config.json of a work directory, as JSON holds it.

    Args:
      folder: local path of the work directory.

    Raises:
      InputError: it is missing, or does not hold settings.
    """
    return documents.read(
        folder / "config.json",
        _Settings,
        remedy="restore it, or give another work directory",
        missing=f"{folder} is not a work directory; make one with `retrieval-jax run --config=... --workdir=...`",
        most_bytes=_MOST_BYTES,
    )


def read_stage(folder, verb: str) -> dict | None:
    """Returns what stages/<verb>.json holds: the record of a finished verb, or why it has to run; None without one.

    Args:
      folder: local path of the work directory.
      verb: one of `layout.VERBS`.

    Raises:
      InputError: the file is not a record.
    """
    file = folder / "stages" / f"{verb}.json"
    if not os.path.lexists(file):
        return None
    remedy = f"delete it, and `retrieval-jax {verb}` runs again"
    stage = documents.read(file, dict, remedy=remedy, most_bytes=_MOST_BYTES)
    documents.check(stage, _Record if "hash" in stage else _Stale, name=str(file), remedy=remedy)
    return stage


def read_config(folder, checkpoint: dict | None = None) -> dict:
    """Returns the settings a work directory was made with: nested dicts, sequences as tuples.

    Args:
      folder: the work directory.
      checkpoint: meta of one of its checkpoints. The settings it was trained with, and those that the embeddings
        there were made with, then override config.json, which belongs to the verb that started last.

    Raises:
      InputError: the folder has no config.json.
    """
    folder = remote.local_folder(folder)
    config = read_settings(folder)
    if checkpoint is not None:
        blocks = (read_stage(folder, "embed") or {}).get("blocks", {})
        made = {"train": checkpoint.get("config") or {}, "embed": blocks.get("embed") or {}}
        if checkpoint.get("image_size"):
            made["data"] = {"image_size": checkpoint["image_size"]}
        for name, block in made.items():
            known = config.get(name) or {}
            config[name] = {**known, **{key: value for key, value in block.items() if key in known}}
    return _tuples(config)


def _tuples(value):
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def changes(old, new, prefix: str = "") -> list[str]:
    """Returns the settings that differ between two configs.

    Args:
      old: settings as of `plain`.
      new: settings as of `plain`.
      prefix: dotted name of what is compared, "" for whole configs.

    Returns:
      One line per setting: "search.k: 50 -> 100".
    """
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            name = f"{prefix}.{key}" if prefix else key
            if key not in old:
                lines.append(f"{name}: (absent) -> {_short(new[key])}")
            elif key not in new:
                lines.append(f"{name}: {_short(old[key])} -> (absent)")
            else:
                lines += changes(old[key], new[key], name)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, (a, b) in enumerate(zip(old, new, strict=True)) for line in changes(a, b, f"{prefix}[{i}]")]
    if json.dumps(old) == json.dumps(new):
        return []
    return [f"{prefix}: {_short(old)} -> {_short(new)}"]


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
