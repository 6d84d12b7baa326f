"""Search: embeddings -> post-processing -> index -> one ranking per stage.

    workdir/rankings/rankings.json               the stages in the order they were made
    workdir/rankings/<model>/<stage>/            a Ranking; the first stage is "cosine", each further one is named after
                                                 its step
    workdir/rankings/<model>/whitening_*.npz     what whitening fitted, for use from Python

The steps of `config.search.steps` are cumulative and for the trained model, or the public weights ("pretrained");
"histogram" and "untrained" are there to compare with and get the plain cosine. With `config.search.members` (names of
work directories beside this one) every member's trained embeddings go through the steps before "ensemble" or "fusion"
by themselves, as a model of the member's name; that step joins them, and what comes after it ranks by the ensemble, as
a model of that name. Members may hold the same listings in another order: they are read in the first one's.

A search over a million listings takes minutes. `config.search.stages` names the stages to make, where not all are
wanted: the steps of the others are done, and not searched. Vectors that a step changes are computed when the search
reads them (embeddings.Embeddings.map), not copied. Where `config.search.index_kwargs` names a folder to keep the index
in, the index of each searched stage lies in <folder>/<model>/<stage>.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("search")

import dataclasses
import inspect
import pathlib
import re
import time

from retrieval_jax import index, postprocess
from retrieval_jax import workdir as work_directory
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.files.atomic import replace_folder
from retrieval_jax.postprocess import State, ensemble
from retrieval_jax.scoring.ranking import Ranking

FIRST_STAGE = "cosine"
NETWORKS = ("trained", "pretrained")  # what the steps are for
JOINS = ("ensemble", "fusion")  # steps that make one member of all


@dataclasses.dataclass(frozen=True)
class Step:
    """One entry of search.steps: the stage's name (folder), the step's name and its arguments."""

    stage: str
    name: str
    kwargs: dict


def parse_steps(steps) -> list[Step]:
    """Checks search.steps before anything is computed.

    Args:
      steps: (name, kwargs) pairs; kwargs may hold stage="..." to give the stage another name than the step's.

    Returns:
      The steps, their stage names distinct.

    Raises:
      InputError: an unknown step or argument, or a stage name that is taken or is no folder name.
    """
    out, taken = [], {FIRST_STAGE}
    for entry in steps:
        if isinstance(entry, str) or len(entry) != 2:
            raise InputError(
                f"search.steps holds {entry!r}: write each step as (name, arguments), for instance ('whitening', {{}})"
            )
        name, kwargs = entry[0], dict(entry[1])
        stage = kwargs.pop("stage", name)
        accepted = list(inspect.signature(postprocess.get(name).step).parameters)[1:]
        unknown = sorted(set(kwargs) - set(accepted))
        if unknown:
            raise InputError(
                f"step {name} of search.steps has no argument {', '.join(unknown)}: it takes "
                f"{', '.join([*accepted, 'stage'])}"
            )
        if stage in taken:
            raise InputError(
                f"search.steps makes the stage {stage!r} twice: name one otherwise, ('{name}', "
                f"{{'stage': '{stage}_2'}})"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", stage):
            raise InputError(f"search.steps names a stage {stage!r}: a stage is a folder, use letters, digits, - and _")
        taken.add(stage)
        out.append(Step(stage, name, kwargs))
    return out


def load_member(folder: pathlib.Path, model: str, command: str) -> tuple[Embeddings, Embeddings]:
    """Returns the query and gallery embeddings of a model in a work directory.

    Args:
      folder: the work directory.
      model: "histogram", "untrained" or "trained".
      command: what makes the embeddings, for the message.

    Raises:
      InputError: they are missing, or query and gallery come from models that cannot be compared (meta["space"]).
    """
    sides = []
    for split in ("query", "gallery"):
        path = folder / "embeddings" / model / split
        if not (path / "embeddings.json").exists():
            raise InputError(f"no embeddings in {path}: make them first with `{command}`")
        sides.append(Embeddings.load(path))
    queries, gallery = sides
    spaces = [side.meta.get("space") for side in sides]
    if spaces[0] != spaces[1] or queries.dim != gallery.dim:
        raise InputError(
            f"{folder / 'embeddings' / model}: queries lie in space {spaces[0]!r} ({queries.dim} numbers) and the "
            "gallery in "
            f"{spaces[1]!r} ({gallery.dim}), distances between them mean nothing: embed both with the same checkpoint"
        )
    return queries, gallery


def check_stages(wanted, steps: list[Step]) -> set[str]:
    """Returns the names of the stages to make: all of them where none is named.

    Raises:
      InputError: a name that no stage has.
    """
    there = [FIRST_STAGE, *(step.stage for step in steps)]
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise InputError(f"search.stages names {unknown[0]!r}, but search.steps makes {', '.join(there)}")
    return set(wanted or there)


def run(config, workdir) -> dict:
    """Ranks the gallery for every query and writes workdir/rankings, whole or not at all.

    Args:
      config: the search block (k, steps, stages, members, index, index_kwargs) and embed.models.
      workdir: the work directory, with embeddings (or its members beside it).

    Returns:
      Summary: queries, gallery, k, and of each stage model, name, step and seconds (since the stage before it, with
      whatever the steps between them took).

    Raises:
      InputError: missing or unfitting embeddings, or steps that cannot be done.
    """
    workdir = pathlib.Path(workdir)
    k = config.search.k
    steps = parse_steps(config.search.steps)
    wanted = check_stages(config.search.get("stages", ()), steps)
    make_index = index.get(config.search.index).Index
    index_kwargs = dict(config.search.index_kwargs)
    member_names = work_directory.members(config)
    joins = next((i for i, step in enumerate(steps) if step.name in JOINS), len(steps))
    if member_names and joins == len(steps):
        raise InputError(
            f"search.members names {len(member_names)} members, but search.steps has no 'ensemble' (or 'fusion') to "
            "join them: add one"
        )

    # Everything is loaded before the first search: a missing one is told at once.
    sources = []  # (model, (queries, gallery))
    if member_names:
        for name in member_names:
            stem, colon, arg = name.partition(":")
            folder = work_directory.member_folder(workdir, name)
            command = f"python -m retrieval_jax.run --config=configs/{stem}.py{colon}{arg} --workdir={folder}"
            sources.append((folder.name, load_member(folder, "trained", command)))
    else:
        command = f"python -m retrieval_jax.embed --config=... --workdir={workdir}"
        sources = [(model, load_member(workdir, model, command)) for model in config.embed.models]
    models = tuple(model for model, _ in sources)
    aligned = [
        ensemble.align(side, [f"{model} ({split})" for model in models])
        for split, side in zip(("query", "gallery"), zip(*(sides for _, sides in sources), strict=True), strict=True)
    ]
    sources = list(zip(models, zip(*aligned, strict=True), strict=True))
    stages = []

    def fill(folder: pathlib.Path) -> None:
        def save(model: str, stage: str, ranking: Ranking, start: float, step: Step | None = None) -> None:
            entry = {
                "model": model,
                "stage": stage,
                "step": step and step.name,
                "kwargs": work_directory.plain(step.kwargs) if step else {},
            }
            ranking.save(folder / model / stage, **entry)
            stages.append({**entry, "seconds": round(time.monotonic() - start, 3)})

        def ranked(state: State, model: str, stage: str) -> State:
            if state.ranking is not None:
                return state
            (queries, gallery), kwargs = state.members[0], index_kwargs
            if kwargs.get("folder"):  # every stage searches other vectors, so each keeps an index of its own
                kwargs = {**kwargs, "folder": str(pathlib.Path(kwargs["folder"]) / model / stage)}
            return dataclasses.replace(state, ranking=make_index(gallery, **kwargs).search(queries, k))

        def walk(model: str, state: State, steps: list[Step], start: float) -> State:
            for step in steps:
                state = postprocess.get(step.name).step(state, **step.kwargs)
                if step.stage in wanted:
                    state = ranked(state, model, step.stage)
                    save(model, step.stage, state.ranking, start, step)
                    start = time.monotonic()
            return state

        finished = []
        for model, sides in sources:
            (folder / model).mkdir()
            start = time.monotonic()
            state = State([tuple(sides)], None, (model,), folder / model)
            if FIRST_STAGE in wanted or model not in NETWORKS and not member_names:
                state = ranked(state, model, FIRST_STAGE)
                save(model, FIRST_STAGE, state.ranking, start)
                start = time.monotonic()
            # The baselines are there to compare the plain cosine; members of an ensemble go as far as the join.
            if model in NETWORKS:
                walk(model, state, steps, start)
            elif member_names:
                finished.append(walk(model, state, steps[:joins], start))
        if member_names:
            (folder / "ensemble").mkdir()
            rankings = tuple(state.ranking for state in finished if state.ranking is not None)
            members = [state.members[0] for state in finished]
            state = State(members, None, models, folder / "ensemble", rankings)
            walk("ensemble", state, steps[joins:], time.monotonic())
        atomic.write_json(folder / "rankings.json", {"stages": stages})

    replace_folder(workdir / "rankings", fill)
    queries, gallery = sources[0][1]
    for stage in stages:
        print(f"search: {stage['model']:>10} {stage['stage']:<12} {stage['seconds']:8.2f} s")
    return {"queries": len(queries), "gallery": len(gallery), "k": k, "stages": stages}
