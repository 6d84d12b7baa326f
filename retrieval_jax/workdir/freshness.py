"""Notices edited data: digests of what a verb read are kept in its record and compared before the next run.

Digests read the catalogue, which takes seconds (minutes where there are millions of pictures). So the record also holds
a stamp, of the names, sizes and times of the files: while that is the same, nothing is read. Times are in the stamp
alone: a catalogue that was copied or touched keeps its digests.
"""

import collections
import functools
import hashlib
import json
import os
import pathlib

from retrieval_jax import paths
from retrieval_jax.workdir import sides
from retrieval_jax.workdir.hashes import PLACES, matches, read_record
from retrieval_jax.workdir.layout import as_path, predecessor_folder
from retrieval_jax.workdir.settings import plain

# Which digests a verb's result depends on, by the beginning of their names ("train/titles", "mine.overrules"). The
# other verbs read what these wrote.
READS = {
    "mine": (
        *("train/ids", "train/titles", "train/categories", "train/pictures", "val/ids", "val/titles"),
        *("data.leave_out", "mine."),
    ),
    "train": ("train/", "photo/", "catalogue/tables", "train.init_from"),
    "embed": ("query/", "gallery/", "val/", "search."),
    "evaluate": ("catalogue/truth",),
}


def reads(config, verb: str) -> tuple[str, ...]:
    """Returns which digests a verb's result depends on: those of `READS`, and what settings make it read.

    Args:
      config: the whole config.
      verb: one of `layout.VERBS`.
    """
    found = READS.get(verb, ())
    other = (config.get("train") or {}).get("unlabelled", {}).get("split", "") if verb == "train" else ""
    if other:
        found += (f"{other}/",)
    search = config.get("search") or {}
    if verb == "search" and "lexical" in (*((config.get("embed") or {}).get("models") or ()), *search.get("join", ())):
        found += tuple(f"{split}/{part}" for split in sides.SPLITS for part in ("ids", "titles", "columns"))
    if verb == "search" and sides.wants_truth(config):
        found += ("catalogue/truth",)
    if verb == "embed" and sides.wants_categories(config):
        found += ("train/ids", "train/categories", "train/pictures")
    if verb == "search" and sides.wants_categories(config):
        found += ("train/categories", "val/categories", "gallery/categories", "gallery/columns")
    if verb == "search" and any(tuple(step)[:1] == ("quality",) for step in search.get("steps", ())):
        found += ("catalogue/tables", "gallery/columns", "gallery/pictures")
    return found


_BESIDE = ("data.leave_out", "mine.overrules", "mine.statistics")  # settings that name a file, or a folder of files
_MOST_FILES = 2_000_000  # of a stamp; a root with more (such as "/") has none, and its catalogue is always read


class Data:
    """The data of a config as it is now. The catalogue is read at the first question that needs it, and once."""

    def __init__(self, config, folder, since: "Data | None" = None):
        """Takes the stamp now, before any verb reads the catalogue.

        Args:
          config: the whole config.
          folder: the work directory.
          since: what was made before the catalogue was read: its stamp is kept, only other runs are looked at again.
        """
        self._config = config
        self._places = places(config)
        self._runs = _runs(config, folder)
        self._found = stamp(config) if since is None else since._found
        self._stamp = self._found and " ".join([self._found, *self._runs.values()])

    def of(self, verb: str) -> dict:
        """Returns what a verb's record keeps: "places", "stamp" and "digests"; {} for a verb that reads no data.

        Raises:
          InputError: the catalogue cannot be read.
        """
        if not (wanted := reads(self._config, verb)):
            return {}
        found = {name: digest for name, digest in self._digests.items() if name.startswith(wanted)}
        return {"places": self._places, "stamp": self._stamp, "digests": found}

    def changes(self, verb: str, recorded: dict | None) -> str:
        """Returns what changed since a verb's record was made ("train titles and images changed"), "" for nothing.

        Args:
          verb: one of `layout.VERBS`.
          recorded: what `of` returned then; None or {} in a record without digests, which is trusted.

        Raises:
          InputError: the catalogue cannot be read, though it is where it was or the config names another place.
        """
        if not recorded or (self._stamp is not None and recorded["stamp"] == self._stamp):
            return ""
        if self._gone and recorded["places"] == self._places:
            return ""
        old, new = recorded["digests"], self.of(verb)["digests"]
        names = new.keys() | (old.keys() - set(_BESIDE))  # a file that is gone was not edited
        return in_words([name for name in sorted(names) if old.get(name) != new.get(name)])

    def is_noted(self, recorded: dict | None) -> bool:
        """Returns whether a record's place and stamp are today's, or nothing can be noted (no data, or it is gone)."""
        if not recorded or (self._gone and recorded["places"] == self._places):
            return True
        return recorded["places"] == self._places and recorded["stamp"] == self._stamp

    @functools.cached_property
    def _digests(self) -> dict[str, str]:
        # Imported here: a command line that only asks for --help, and a machine that only searches, do without.
        from retrieval_jax.data import digest, loading

        catalog = loading.load(self._config["data"])
        found = {
            f"{part}/{key}": str(value) for part, keys in digest.of(catalog).items() for key, value in keys.items()
        }
        for name, split in catalog.splits().items():
            if f"{name}/categories" in found:
                found[f"{name}/categories"] = _named(split)
        for name in _BESIDE:
            if (file := pathlib.Path(_setting(self._config, name))) != pathlib.Path() and file.exists():
                found[name] = _content(file)
        return found | self._runs

    def missing(self) -> list[str]:
        """Returns the places of the data that no longer exist; of URLs nothing is known."""
        return [place for place in self._places if "://" not in place and not os.path.exists(place)]

    @functools.cached_property
    def _gone(self) -> bool:
        """Whether the data is no longer there; says so once, because then no edit can be noticed."""
        files = {_setting(self._config, name) for name in _BESIDE}
        missing = self.missing()
        if missing:
            print(f"data: {missing[0]} no longer exists; reusing what was made from it", flush=True)
        return not set(missing) <= files


def places(config) -> list[str]:
    """Returns the folders and files that a config reads its data from, sorted; URLs as they are."""

    def walk(name, value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(f"{name}.{key}", item)
        elif value and isinstance(value, str) and (matches(name, PLACES) or name.endswith(".leave_out")):
            yield value

    beside = (_setting(config, name) for name in _BESIDE)
    found = {*walk("data", plain(config["data"])), *(file for file in beside if file)}
    return sorted(place if "://" in place else str(paths.expanded(place)) for place in found)


def stamp(config) -> str | None:
    """Returns a hash of the names, sizes and times of all files of a config's data; no file is opened.

    Returns:
      The hash; None where it would mean nothing: the data lies at a URL or in a library's default folder, is not
      there, or there are too many files.
    """
    found = places(config)
    if not found and config["data"].get("source") != "synthetic":
        return None
    digest, count = hashlib.blake2b(digest_size=8), 0
    for place in found:
        if "://" in place or not os.path.exists(place):
            return None
        for name, size, time in _files(place):
            digest.update(f"{name}\0{size}\0{time}\n".encode("utf-8", "surrogateescape"))
            count += 1
            if count > _MOST_FILES:
                return None
    return digest.hexdigest()


def _files(place: str):
    """Yields (name below the place, size, time) of a file, or of every file in a folder that is not hidden.

    Work directories below it do not count: a shop's config may lie, and run, beside its table.
    """
    if not os.path.isdir(place):
        status = os.stat(place)
        yield "", status.st_size, status.st_mtime_ns
        return
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(place, below)) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except PermissionError:  # nor can the catalogue read it
            continue
        if {"config.json", "stages"} <= {entry.name for entry in entries}:
            continue
        for entry in entries:
            name = os.path.join(below, entry.name)
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    waiting.append(name)
                elif entry.is_file():
                    status = entry.stat()
                    yield name, status.st_size, status.st_mtime_ns
            except OSError:  # a loop of links, or a file that has just been removed
                continue


def _runs(config, folder) -> dict[str, str]:
    """Returns the ids of the other runs whose networks a config takes, by setting; of those that have a record."""
    folders = {f"search.{split}_from": side.workdir(folder) for split, side in sides.of(config).items() if side.run}
    if (earlier := predecessor_folder(config, folder)) is not None:
        folders["train.init_from"] = earlier
    records = {name: read_record(there, "train") for name, there in folders.items()}
    found = {name: str(one["summary"].get("run", one["finished"])) for name, one in records.items() if one is not None}
    name = "search.gallery_from.adapter"
    if (adapter := sides.of(config)["gallery"].adapter) and (file := as_path(adapter) / "adapter.json").exists():
        found[name] = _content(file)
    return found


def in_words(names: list[str]) -> str:
    """Returns ["train/ids", "train/titles", "mine.overrules"] as "train ids and titles, mine.overrules changed"."""
    parts: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        split, _, part = name.partition("/")
        parts[split] += [part] if part else []
    words = [" ".join([split, _listed(some)]).strip() for split, some in parts.items()]
    words = [f"the network of config.{word}" if word.endswith("_from") else word for word in words]
    words = [
        f"the content of config.{word}" if word in _BESIDE or word.endswith(".adapter") else word for word in words
    ]
    return f"{', '.join(words)} changed" if words else ""


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _setting(config, name: str) -> str:
    """Returns the text of a dotted setting, "" where the config does not have it."""
    block, _, key = name.partition(".")
    return (config.get(block) or {}).get(key, "") or ""


def _named(split) -> str:
    """Returns a digest of a split's categories by their names: a new category in another split shifts the numbers."""
    import numpy as np

    found = hashlib.sha256()
    for level, names in enumerate(split.category_names):
        used, place = np.unique(split.categories[:, level], return_inverse=True)
        found.update(json.dumps([names[code] if code >= 0 else None for code in used]).encode())
        found.update(place.astype(np.int32).tobytes())
    return found.hexdigest()


def _content(path: pathlib.Path) -> str:
    """Returns a digest of a file, or of all files of a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(path).as_posix()} {content}\n".encode())
    return digest.hexdigest()
