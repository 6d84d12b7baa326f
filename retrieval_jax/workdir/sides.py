"""The two sides of a search: which run, checkpoint and predict function embed the queries, and which the gallery.

`config.search.query_from` and `gallery_from` each hold

    run         "" for this run; the name of another config ("fashion_vit" or "quickstart:loss=softmax"), whose work
                directory lies beside this one and which `run` runs first; or a work directory, with a slash in it
    step        of the checkpoint; 0 for the latest
    which       "ema" (the moving average) or "params"
    predict_fn  "" for config.embed.predict_fn of that run
    adapter     of gallery_from alone: the folder of an adapter (`embeddings.adapters`) that maps what `run` has
                embedded into the space of the queries; its pictures are not embedded again. "" for none

They are about the model "trained". Its embeddings of a split lie in <workdir>/embeddings/<Side.folder>/<split> of the
work directory that searches, whichever run they come from: "trained" where nothing is set, else "trained-" and what is
set, so that no setting overwrites the embeddings of another.
"""

import dataclasses
import re

from retrieval_jax import pairs
from retrieval_jax.errors import InputError
from retrieval_jax.workdir.layout import CONFIG_NAME, as_path, default_name, member_folder, members

SPLITS = ("query", "gallery")
MODEL = "trained"


@dataclasses.dataclass(frozen=True)
class Side:
    """Where the embeddings of one side come from; see the module.

    Attributes:
      run: "" for this run, the name of a config, or a work directory.
      step: of the checkpoint; 0 for the latest.
      which: "ema" or "params".
      predict_fn: "" for config.embed.predict_fn of the run.
      adapter: folder of the adapter that the embeddings of the run go through; "" for none.
    """

    run: str = ""
    step: int = 0
    which: str = "ema"
    predict_fn: str = ""
    adapter: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder below <workdir>/embeddings."""
        given = dataclasses.asdict(self)
        changed = {name: value for name, value in given.items() if value != getattr(Side(), name)}
        return default_name(MODEL, overrides=changed)

    @property
    def config(self) -> str:
        """Name of the config of the other run; "" for this run, and for a run given by its work directory."""
        return self.run if re.fullmatch(CONFIG_NAME, self.run) else ""

    def workdir(self, workdir):
        """Returns the work directory of the run.

        Args:
          workdir: the work directory that searches.
        """
        if not self.run:
            return as_path(workdir)
        return member_folder(workdir, self.run) if self.config else as_path(self.run)

    def __str__(self) -> str:
        run = self.run or "this run"
        checkpoint = f"step {self.step}" if self.step else "the latest step"
        function = f", {self.predict_fn}" if self.predict_fn else ""
        adapter = f", through the adapter {self.adapter}" if self.adapter else ""
        return f"{run} at {checkpoint} ({self.which}{function}){adapter}"


def of(config) -> dict[str, Side]:
    """Returns the `Side` of the queries and of the gallery, {"query": ..., "gallery": ...}.

    Raises:
      InputError: an unknown key, a value of the wrong type, or sides in a search that has members.
    """
    search, found = config.get("search") or {}, {}
    for split in SPLITS:
        setting = f"config.search.{split}_from"
        given = dict(search.get(f"{split}_from") or {})
        known = {field.name: field.type for field in dataclasses.fields(Side)}
        for name, value in given.items():
            if name not in known:
                raise InputError(f"{setting} has no key {name!r}{pairs.near(name, known)}")
            if not isinstance(value, known[name]) or isinstance(value, bool):
                raise InputError(f"{setting}.{name} is {value!r}: give {'text' if known[name] is str else 'a number'}")
        side = Side(**given)
        if side.which not in ("ema", "params"):
            raise InputError(f"{setting}.which is {side.which!r}: give 'ema' (the moving average) or 'params'")
        if side.step < 0:
            raise InputError(f"{setting}.step is {side.step}: give the step of a checkpoint, or 0 for the latest")
        if side.adapter and (split == "query" or not side.run or side != Side(run=side.run, adapter=side.adapter)):
            raise InputError(
                f"{setting}.adapter is for the gallery that another run has embedded: set "
                "config.search.gallery_from.run beside it, and nothing else"
            )
        if side != Side() and members(config):
            raise InputError(f"{setting} is set, and config.search.members too: the members have sides of their own")
        found[split] = side
    return found


def regions(config) -> Side:
    """Returns the run that finds the regions to embed (config.embed.regions); `run` is "" if unset."""
    block = (config.get("embed") or {}).get("regions") or {}
    return Side(run=block.get("run", ""))


def wants_evidence(config) -> bool:
    """Returns whether the search reads evidence (`embeddings.evidence`), which embed then makes."""
    return any(
        entry[:1] in (("chosen",), ["chosen"])
        or (len(entry) == 2 and hasattr(entry[1], "get") and entry[1].get("fit_on") == "train")
        for entry in (config.get("search") or {}).get("steps", ())
        if isinstance(entry, (tuple, list))
    )


def wants_categories(config) -> bool:
    """Returns whether the search predicts categories, by embeddings of train and val that embed then makes."""
    return bool(((config.get("search") or {}).get("categories") or {}).get("mass", 0))


def wants_truth(config) -> bool:
    """Returns whether the search learns from the truth, or the clicks, of the selection half of the queries."""
    return any(
        entry[:1] in (("quality",), ["quality"])
        or (
            entry[:1] in (("fusion",), ["fusion"])
            and len(entry) == 2
            and hasattr(entry[1], "get")
            and entry[1].get("weights") == "chosen"
        )
        for entry in (config.get("search") or {}).get("steps", ())
        if isinstance(entry, (tuple, list))
    )


def other_runs(config) -> tuple[str, ...]:
    """Returns the names of the configs whose runs embeddings or regions are taken from, each once."""
    found = (*of(config).values(), regions(config))
    return tuple(dict.fromkeys(side.config for side in found if side.config))
