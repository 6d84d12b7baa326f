"""Checks before a verb starts what would stop it, or a later one, only after hours: catalogue, splits, free disk.

Each verb's `check(config, folder)` calls these; `run` calls the checks of all verbs that are due before the first of
them writes. What needs JAX (networks, weights, memory of a step) is in estimate.py.
"""

import functools
import importlib
import os
import pathlib
import shutil

from retrieval_jax.errors import InputError
from retrieval_jax.workdir import records
from retrieval_jax.workdir.hashes import read_record
from retrieval_jax.workdir.layout import as_path, verbs

_SPARE = 64 * 2**20  # bytes that must stay free: logs, records, files of the system


def due(config, folder, data, module) -> list:
    """Returns the checks of all verbs that are due: functions without arguments, see `together`.

    Args:
      config: the whole config.
      folder: the work directory.
      data: the config's `freshness.Data`.
      module: function from the name of a verb to its module.
    """
    started, found = False, []
    for verb in verbs(config):
        started = started or records.reason_to_run(config, folder, verb, data) is not None
        check = getattr(module(verb), "check", None) if started else None
        if check is not None:
            found.append(functools.partial(check, config, folder))
    return found


def catalogue(config, folder, *splits: str):
    """Loads the catalogue and checks that it has splits with listings.

    Args:
      config: the whole config.
      folder: the work directory.
      *splits: their names.

    Returns:
      The `data.catalog.Catalog`; None where it cannot be read and mine has not run: mine reads it first, refuses it
      with the same words, and lists every bad row.

    Raises:
      InputError: it cannot be read, or a split is missing or empty.
    """
    try:
        catalog = importlib.import_module("retrieval_jax.data.loading").load(config["data"])
    except InputError:
        if "mine" in verbs(config) and read_record(folder, "mine") is None:
            return None
        raise
    for name in splits:
        if not len(catalog.split(name)):
            raise InputError(f"catalogue {catalog.name}: the {name} split has no listings")
    return catalog


def disk(folder, needed: dict[str, int], remedy: str) -> None:
    """Checks that the disk of a work directory has room for what a verb will write.

    Args:
      folder: the work directory, which may be missing.
      needed: {name in words: bytes}.
      remedy: settings that need less, for the message.

    Raises:
      InputError: it has not; the message says how much is needed and free.
    """
    there = pathlib.Path(os.path.abspath(as_path(folder)))
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError:  # a file system that does not say
        return
    total = sum(needed.values())
    if total and total + _SPARE > free:
        needed = needed | {"reserve": _SPARE}
        parts = ", ".join(f"{name} {size_text(size)}" for name, size in needed.items())
        raise InputError(
            f"the disk of {there} has {size_text(free)} free, and this needs about {size_text(total + _SPARE)} "
            f"({parts}): free some, give a --workdir on another disk, or set {remedy}"
        )


def written(folder) -> int:
    """Returns the bytes of the files below a folder; 0 if it does not exist."""
    return sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*") if file.is_file())


def size_text(count: int) -> str:
    """Returns a number of bytes in words, such as "1.5 GiB"."""
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    return f"{count / unit:,.1f} {name}"


def together(checks) -> None:
    """Calls several checks and raises the problems of all of them in one message.

    Args:
      checks: functions without arguments that raise InputError.

    Raises:
      InputError: what one of them raises, or a list of what several raise, each problem once.
    """
    problems = {}
    for one in checks:
        try:
            one()
        except InputError as error:
            problems.setdefault(str(error), error)
    if len(problems) == 1:
        raise next(iter(problems.values()))
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise InputError(f"{len(problems)} things would stop this run, so nothing was started:{listed}")
