"""Search: embeddings -> post-processing -> index -> one ranking per stage.

    workdir/rankings/rankings.json               the stages in the order they were made
    workdir/rankings/<model>/<stage>/            a Ranking; the first stage is "cosine", each further one is named after
    its step workdir/rankings/trained/whitening_*.npz     what whitening fitted, for use from Python

The steps of `config.search.steps` are cumulative and for the trained model; "histogram" and "untrained" are there to
compare with and get the plain cosine. With `config.search.members` (names of work directories beside this one) the
members' trained embeddings are searched
together: there is no ranking before the step "ensemble" has joined them.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import re
import time

from retrieval_jax import index, postprocess
from retrieval_jax import workdir as work_directory
from retrieval_jax.embeddings import Embeddings, replace_folder
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State
from retrieval_jax.ranking import Ranking

FIRST_STAGE = "cosine"


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


def check_members(members: list[tuple[Embeddings, Embeddings]], names: tuple[str, ...]) -> None:
    """Raises InputError unless all members embedded the same queries and the same gallery, in the same order."""
    for name, sides in zip(names[1:], members[1:], strict=True):
        for split, side, first in zip(("query", "gallery"), sides, members[0], strict=True):
            if side.ids != first.ids:
                raise InputError(
                    f"the {split} ids of the members {names[0]} ({len(first)}) and {name} ({len(side)}) differ: "
                    "train and embed "
                    "all members on the same catalogue"
                )


def run(config, workdir) -> dict:
    """Ranks the gallery for every query and writes workdir/rankings, whole or not at all.

    Args:
      config: search.k, search.steps, search.members, embed.models; optionally search.index and search.index_kwargs.
      workdir: the work directory, with embeddings (or its members beside it).

    Returns:
      Summary: queries, gallery, k, and of each stage model, name, step and seconds.

    Raises:
      InputError: missing or unfitting embeddings, or steps that cannot be done.
    """
    workdir = pathlib.Path(workdir)
    k = config.search.k
    steps = parse_steps(config.search.get("steps", ()))
    make_index = index.get(config.search.get("index", "exact")).Index
    index_kwargs = dict(config.search.get("index_kwargs", {}))
    member_names = work_directory.members(config)
    if len(member_names) > 1 and not any(step.name == "ensemble" for step in steps):
        raise InputError(
            f"search.members names {len(member_names)} members, but search.steps has no 'ensemble' to join them: "
            "add one"
        )

    todo = []  # (model, members' names, members), all loaded before the first search: a missing one is told at once
    if member_names:
        members = []
        for name in member_names:
            stem, colon, arg = name.partition(":")
            folder = work_directory.member_folder(workdir, name)
            command = f"python -m retrieval_jax.run --config=configs/{stem}.py{colon}{arg} --workdir={folder}"
            members.append(load_member(folder, "trained", command))
        check_members(members, member_names)
        todo.append(("trained", member_names, members))
    else:
        for model in config.embed.models:
            command = f"python -m retrieval_jax.embed --config=... --workdir={workdir}"
            todo.append((model, (model,), [load_member(workdir, model, command)]))
        check_members([members[0] for _, _, members in todo], tuple(model for model, _, _ in todo))
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

        for model, names, members in todo:
            (folder / model).mkdir()
            state, start = State(members, None, names, folder / model), time.monotonic()
            if len(members) == 1:
                queries, gallery = members[0]
                state = dataclasses.replace(state, ranking=make_index(gallery, **index_kwargs).search(queries, k))
                save(model, FIRST_STAGE, state.ranking, start)
            for step in steps if model == "trained" else ():
                start = time.monotonic()
                state = postprocess.get(step.name).step(state, **step.kwargs)
                if len(state.members) > 1:
                    continue  # nothing to rank by before an ensemble
                if state.ranking is None:
                    queries, gallery = state.members[0]
                    state = dataclasses.replace(state, ranking=make_index(gallery, **index_kwargs).search(queries, k))
                save(model, step.stage, state.ranking, start, step)
        work_directory.write_json(folder / "rankings.json", {"stages": stages})

    replace_folder(workdir / "rankings", fill)
    queries, gallery = todo[0][2][0]
    for stage in stages:
        print(f"search: {stage['model']:>10} {stage['stage']:<12} {stage['seconds']:8.2f} s")
    return {"queries": len(queries), "gallery": len(gallery), "k": k, "stages": stages}


if __name__ == "__main__":
    from retrieval_jax import command_line

    command_line.main(run, "search")
