"""The runs that are served: each loaded when it is first asked for, and reloaded when its gallery is embedded again."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from retrieval_jax import looks, pairs
from retrieval_jax import workdir as work_directory
from retrieval_jax.errors import InputError, RunFailed, first_line
from retrieval_jax.files import atomic
from retrieval_jax.index.attribute.looks import Looks
from retrieval_jax.postprocess import new_queries
from retrieval_jax.server import gallery as gallery_lib
from retrieval_jax.server import networks
from retrieval_jax.server.gallery import Gallery
from retrieval_jax.server.networks import Networks

SIZES = (1, 4, 16)  # inputs of a network at once: few, because it is compiled for each of them
WATCHED = 2.0  # seconds between two looks at a run's files


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """One version of a run; a request that started with it ends with it.

    Attributes:
      gallery: what is searched.
      networks: what embeds the queries.
      config: the settings that both were made by.
      signature: of the files that it was read from: of its networks, and of its gallery.
    """

    gallery: Gallery
    networks: Networks
    config: dict
    signature: tuple

    def looks(self, vary: str = "") -> Looks:
        """Returns the gallery for completing looks, of a run that learned outfits.

        Args:
          vary: a field that should differ between looks; "" for none.

        Raises:
          InputError: there is no such field.
        """
        return self.gallery.looks(self.config["train"].get("task_kwargs"), self.networks.learned, vary)


class Run:
    """A run that is served.

    Args:
      name: in requests.
      folder: work directory, or folder of an exported model.
      log: called with a dict about what happened, for the log.

    Raises:
      InputError: neither a work directory nor an exported model, or one that cannot be searched by new queries.
    """

    def __init__(self, name: str, folder: pathlib.Path, log: Callable[[dict], None] = lambda _: None):
        self.name, self.folder, self._log = name, folder, log
        self.config = _config(folder)
        gallery_lib.check(folder, self.config)
        self.loaded: Loaded | None = None
        self.problem = ""  # why the last reload failed; the version before it is served on
        self._tried: tuple | None = None  # signature of the last reload: what failed fails again until files change
        self._lock = threading.Lock()

    def get(self) -> Loaded:
        """Returns the current version, after loading it where this is the first request.

        Raises:
          InputError: what is missing or damaged in the folder.
        """
        if self.loaded is None:
            with self._lock:
                if self.loaded is None:
                    loaded = self._load(None)
                    self.config, self.loaded, self.problem = loaded.config, loaded, ""
        return self.loaded

    def note(self) -> str:
        """Returns which stages of its search are not served, why, and what is; "" for none, without loading it."""
        try:
            exported = networks.is_exported(self.folder)
            found, note = ([], "") if exported else new_queries.of_run(self.folder, self.config)
        except (InputError, RunFailed):  # loading it says so
            return ""
        return f"{note}; searches use the stage {found[-1].name!r}" if note else ""

    def refresh(self) -> bool:
        """Loads the run again if its files are others than those that were read; returns whether it did."""
        before = self.loaded
        if before is None:
            return False
        signature = networks.signature(self.folder), gallery_lib.signature(self.folder, self.config)
        if signature in (before.signature, self._tried):
            return False
        self._tried = signature
        with self._lock:
            try:
                loaded = self._load(before)
                if loaded.networks is not before.networks:
                    warm(loaded.networks)  # while the version before it answers
                self.config, self.loaded, self.problem = loaded.config, loaded, ""
            except (InputError, RunFailed) as error:  # half-written, or wrong: the version before it is served on
                self.problem = first_line(error)
                self._log({"event": "reload failed", "run": self.name, "problem": self.problem})
                return False
        return True

    def _load(self, before: Loaded | None) -> Loaded:
        start, of_networks = time.monotonic(), networks.signature(self.folder)  # before anything is read
        config = _config(self.folder)
        # Sizes, transforms, views and functions are in the config; a model that was exported again has a new one.
        kept = before is not None and before.config == config and before.signature[0] == of_networks
        made = before.networks if kept else networks.load(self.folder, config)
        try:
            found, of_gallery = gallery_lib.load(self.folder, config, made)
        except InputError:
            if not kept:
                raise
            made = networks.load(self.folder, config)  # trained again as well
            found, of_gallery = gallery_lib.load(self.folder, config, made)
        found.index(found.stages[-1])
        if made.words is None and found.has_texts:
            found.lexical()
        loaded = Loaded(found, made, config, (of_networks, of_gallery))
        if made.learned is not None:
            loaded.looks()
        seconds = round(time.monotonic() - start, 2)
        self._log({"event": "loaded", "run": self.name, "listings": len(found), "seconds": seconds, "note": found.note})
        return loaded


class Runs:
    """All runs of a service, by name.

    Args:
      folders: work directories and exported folders; names are those of the folders, longer where two are equal.
      log: see `Run`.
      watched: seconds between two looks at the files; 0 for none.
    """

    def __init__(
        self, folders: Sequence[pathlib.Path], log: Callable[[dict], None] = lambda _: None, watched: float = WATCHED
    ):
        self._by_name = {name: Run(name, folder, log) for name, folder in _names(folders).items()}
        self._ended, self._log = threading.Event(), log
        if watched:
            threading.Thread(target=self._watch, args=(watched,), daemon=True, name="reload").start()

    def __iter__(self):
        return iter(self._by_name.values())

    def get(self, name: str = "") -> Run:
        """Returns a run, the first one for ""; raises InputError with near names."""
        if not name:
            return next(iter(self._by_name.values()))
        if name not in self._by_name:
            raise InputError(f"no run {name!r} is served here{pairs.near(name, list(self._by_name))}")
        return self._by_name[name]

    def load(self) -> None:
        """Loads all runs in a thread, one after the other, and compiles their programs; the service already answers."""

        def load() -> None:
            for run in self:
                try:
                    warm(run.get().networks)
                except Exception as error:  # requests get it again, as a sentence
                    run.problem = first_line(error)
                    self._log({"event": "load failed", "run": run.name, "problem": run.problem})

        threading.Thread(target=load, daemon=True, name="load").start()

    def close(self) -> None:
        """Ends the thread that looks at the files."""
        self._ended.set()

    def _watch(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            for run in self:
                try:
                    run.refresh()
                except Exception as error:  # the thread must go on for the other runs
                    run.problem = first_line(error)


def embed(key: tuple[Networks, str], inputs: list) -> list:
    """Runs a function of networks on the inputs of several requests, for `batching.Batcher`.

    Args:
      key: the networks, and the name of their function.
      inputs: pictures, texts, or pairs of them; at most the largest of SIZES.

    Returns:
      One result per input.
    """
    made, name = key
    size = next(size for size in SIZES if size >= len(inputs))
    padded = inputs + inputs[-1:] * (size - len(inputs))
    return list(getattr(made, name)(padded))[: len(inputs)]


def warm(made: Networks) -> None:
    """Compiles the programs for every number of inputs, so that no request waits for a compiler."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    kinds = looks.types_of(made.learned) if made.learned is not None else [""]
    inputs = {
        "items": (grey, kinds[0]),
        "pictures": grey,
        "boxes": grey,
        "words": "red shirt",
        "edited": (grey, "red shirt"),
        "attributes": grey,
    }
    for name, one in inputs.items():
        for size in SIZES if getattr(made, name) is not None else ():
            embed((made, name), [one] * size)


def _config(folder: pathlib.Path) -> dict:
    if networks.is_exported(folder):
        config = atomic.read_json(folder / "config.json").get("config")
    else:
        config = work_directory.read_config(folder)
    if not isinstance(config, Mapping) or not config.get("data"):
        raise InputError(f"{folder} is neither a work directory nor an exported model with its settings: export again")
    if work_directory.members(config):
        raise InputError(f"{folder} is an ensemble, which has no network of its own: serve its members")
    if config.get("train") is None:
        raise InputError(f"{folder} holds no trained network: serve a run that was trained, or an exported model")
    return json.loads(json.dumps(config)) if networks.is_exported(folder) else config


def _names(folders: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Returns {name: folder}; raises InputError for a folder that is given twice or does not exist."""
    out: dict[str, pathlib.Path] = {}
    for folder in folders:
        folder = pathlib.Path(folder).resolve()
        if not folder.is_dir():
            raise InputError(
                f"--workdir={folder} is not a folder: give that of a finished run, or of an exported model"
            )
        if folder in out.values():
            raise InputError(f"--workdir={folder} is given twice: give each folder once")
        name = folder.name if folder.name not in out else f"{folder.parent.name}-{folder.name}"
        while name in out:
            name += "-2"
        out[name] = folder
    return out
