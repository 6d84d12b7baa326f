"""Searches the small networks of a super-net for the one that searches a gallery best under a budget.

    python -m retrieval_jax.run --config=configs/embedded_nas.py
    python -m retrieval_jax.nas runs/embedded_nas --flops=1.5e6
    python -m retrieval_jax.run --config=configs/embedded_nas.py:choice=<the architecture that it prints>

The run is one of the task `compatible` with the backbone "supernet". A candidate is scored with the super-net's weights
by its cross score M(q,g) on val: val pictures, embedded by the candidate, search the train pictures that the gallery
network has embedded, and right answers are the ten that the gallery network finds for the same picture itself. No query
of the catalogue is read. The budget is in operations (`Architecture.operations`, and the map into the gallery's space)
or in measured milliseconds per picture on this machine. Of a budget of operations, candidates use at least the share
LEAST, by either method, so that searches are compared at equal operations.

Methods: "random", the default, draws all candidates; "evolution" breeds them from the best PARENTS so far, by mutation
and crossover, after FIRST random ones, and so finds what the super-net overrates (docs/small_query.md). Every candidate
is a line of <out>/candidates.jsonl; a search that was stopped reads it and goes on, with the same result, and more
--evaluations continue it. <out>/best.json is the best one.

Source: Duggal et al., "Compatibility-aware Heterogeneous Visual Search" (CMP-NAS), arXiv 2105.06047; the evolution is
that of Guo et al., "Single Path One-Shot Neural Architecture Search", arXiv 1904.00420, one candidate at a time.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("nas")

import copy
import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from retrieval_jax import brief, inference, paths, workdir
from retrieval_jax.data import loading
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents, lock
from retrieval_jax.models.architectures import Architecture, Space, parse
from retrieval_jax.models.backbones import supernet
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.scoring import metrics
from retrieval_jax.tasks.parts import vectors
from retrieval_jax.training import sharding

METHODS = ("evolution", "random")
FIRST, PARENTS, MUTATED = 16, 4, 0.1  # random candidates, the best that breed, genes that a mutation draws anew
LEAST = 0.75  # of a budget of operations
TRIES = 2000  # candidates that may be drawn for one that is new and within the budget
K = 10
_MOST_QUERIES, _MOST_GALLERY = 1000, 20_000  # of val and train, by a hash of their ids
_TIMES = 30  # that a picture is embedded to measure a time


# ------------------------------------------------------------------------------------------------------------- scoring


@dataclasses.dataclass(frozen=True)
class Questions:
    """What candidates are asked: pictures of val, and what the gallery network finds for each.

    Attributes:
      columns: of val, for the predict function.
      rows: of val that are asked.
      gallery: float32 [G, D] unit vectors of train pictures by the gallery network.
      wanted: [Q, K] rows of `gallery`, what it finds itself.
    """

    columns: dict
    rows: np.ndarray
    gallery: np.ndarray
    wanted: np.ndarray

    __repr__ = brief.line


def _first(scores: np.ndarray) -> np.ndarray:
    return np.argpartition(-scores, min(K, scores.shape[1]) - 1, axis=1)[:, :K]


def _by_hash(ids, most: int) -> np.ndarray:
    return np.sort(np.argsort(metrics.hash_shares(list(ids)), kind="stable")[:most])


def questions(model: inference.Model) -> Questions:
    """Makes the questions of a run's val split.

    Args:
      model: of a run of the task `compatible`.

    Raises:
      InputError: the catalogue has no val split, or the gallery network was trained again since.
    """
    config, folder = model.config, pathlib.Path(model.folder)
    catalog = loading.load(config.data)
    if catalog.val is None or not len(catalog.val):
        raise InputError(f"catalogue {catalog.name} has no val split, by which candidates are scored")
    function = _function(model)
    columns = inference.columns(function, catalog.val, config, folder, "nas")
    columns["image"] = dataclasses.replace(
        columns["image"], source=sources.Cached(columns["image"].source, config.data.cache_bytes)
    )
    rows = _by_hash(catalog.val.ids, _MOST_QUERIES)
    table, _ = vectors.load(folder, len(catalog.train))
    gallery = normalize(table.values.reshape(len(table), -1)[_by_hash(catalog.train.ids, _MOST_GALLERY)])
    reads = dataclasses.replace(function, reads=("picture",))
    own = inference.columns(reads, catalog.val, config, folder, "nas")["picture"][rows]
    return Questions(columns, rows, gallery, _first(normalize(own) @ gallery.T))


def _function(model):
    return inference.named(model.task.predict_fns, model.config.embed.predict_fn)


def cross_scores(model: inference.Model, params: dict, asked: Questions) -> np.ndarray:
    """Returns the cross score of every question, [Q]: the share of the wanted rows among the first K that are found.

    Args:
      model: of the run, or of a small network by itself.
      params: its parameters; those of a super-net with a "choice".
      asked: of `questions`.
    """
    arguments = inference.test_arguments(model.config)
    made = inference.predict(_function(model), params, asked.columns, rows=asked.rows, mesh=model.mesh, **arguments)
    found = _first(normalize(made["embedding"]) @ asked.gallery.T)
    return (found[:, :, None] == asked.wanted[:, None, :]).any(-1).mean(-1)


# --------------------------------------------------------------------------------------------------------------- costs


def alone(model: inference.Model, architecture: Architecture) -> inference.Model:
    """Returns a small network of a super-net as a model by itself, with the super-net's weights.

    Args:
      model: of the run of the super-net.
      architecture: one that it holds.
    """
    config, side = copy.deepcopy(model.config), architecture.resolution
    with config.unlocked():
        config.train.model.kwargs.choice = str(architecture)
        config.data.image_size = (side, side)
        config.embed.image_size = ()
    task = inference.make_task(config, model.data_info)
    head = model.params["head_compatible"]
    vector = np.zeros((1, *head.get("out", head)["bias"].shape), np.float32)
    batch = {"image": np.zeros((1, side, side, 3), np.uint8), "picture": vector}
    like = jax.eval_shape(task.init, jax.random.key(0), batch)
    widths = [widths[-1] for widths in supernet.VARIANTS[config.train.model.variant].widths]
    params = supernet.sliced(model.params, like, architecture.rows(widths))
    return dataclasses.replace(model, config=config, task=task, params=params)


def operations(model: inference.Model, architecture: Architecture) -> int:
    """Returns the operations of one query picture: those of the network, and of the map into the gallery's space.

    Args:
      model: of the run of the super-net.
      architecture: one that it holds.
    """
    head, width = model.params["head_compatible"], sum(stage.width for stage in architecture.stages)
    if "kernel" in head:
        return architecture.operations() + 2 * width * head["kernel"].shape[1]
    (_, hidden), (_, dim) = (head[name]["kernel"].shape for name in ("hidden", "out"))
    return architecture.operations() + 2 * hidden * (width + dim)


def milliseconds(model: inference.Model) -> float:
    """Returns the median time to embed one picture, of the compiled network on its own.

    Args:
      model: of a small network by itself, see `alone`.
    """
    size = inference.test_arguments(model.config)["image_size"]
    batch, function = {"image": np.zeros((1, *size, 3), np.uint8)}, _function(model)
    params, times = sharding.put(model.params, model.mesh), []
    compiled = jax.jit(lambda params, batch: function(params, batch)["embedding"]).lower(params, batch).compile()
    for _ in range(_TIMES + 3):
        start = time.perf_counter()
        compiled(params, batch).block_until_ready()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])


# ---------------------------------------------------------------------------------------------------------- the search


def candidates(
    space: Space, method: str, seed: int, fits: Callable[[Architecture], bool], score: Callable[[Architecture], float]
) -> Iterator[tuple[Architecture, float, str]]:
    """Yields (architecture, score, "random", "mutation" or "crossover") of one new candidate after the other.

    A function of its arguments alone: where they give the same answers, the candidates are the same.

    Args:
      space: what there is to choose from.
      method: of METHODS.
      seed: of all that is drawn.
      fits: whether a candidate is within the budget.
      score: of a candidate, higher is better.
    """
    rng, sizes = np.random.default_rng(seed), space.sizes
    found: list[tuple[float, int, np.ndarray]] = []  # (-score, number, genes)
    seen = set()

    def parent():
        return sorted(found, key=lambda one: one[:2])[rng.integers(min(PARENTS, len(found)))][2]

    def mutated(genes):
        return np.where(rng.random(len(sizes)) < MUTATED, rng.integers(0, sizes), genes)

    def drawn() -> tuple[np.ndarray, str]:
        if method == "random" or len(found) < FIRST:
            return rng.integers(0, sizes), "random"
        if rng.random() < 0.5:
            return mutated(parent()), "mutation"
        return mutated(np.where(rng.random(len(sizes)) < 0.5, parent(), parent())), "crossover"

    while True:
        for _ in range(TRIES):
            genes, source = drawn()
            architecture = space.decode(genes)
            name = str(architecture)
            if name not in seen:
                seen.add(name)
                if fits(architecture):
                    break
        else:
            return  # the space has no others, or hardly any
        value = score(architecture)
        found.append((-value, len(found), genes))
        yield architecture, value, source


@dataclasses.dataclass(frozen=True)
class Budget:
    """What one query picture may cost: operations, or milliseconds; the other is 0."""

    flops: float = 0.0
    ms: float = 0.0

    def __post_init__(self):
        if (self.flops > 0) == (self.ms > 0):
            raise InputError("give the budget of a query picture: --flops=1.5e6, operations, or --ms=2, milliseconds")


def run(
    folder, out=None, *, budget: Budget, method: str = "random", evaluations: int = 64, seed: int = 0
) -> dict[str, Any]:
    """Searches the small networks of a super-net, or goes on with a search that was stopped.

    Args:
      folder: work directory of the run of the super-net.
      out: folder of the search; None for one below <folder>/nas, named by method, budget and seed.
      budget: of one query picture.
      method: of METHODS.
      evaluations: candidates to score.
      seed: of all that is drawn.

    Returns:
      The best line of candidates.jsonl: {"number", "choice", "flops", "ms" (of a budget of milliseconds), "score",
      "from"}, and the "evaluations".

    Raises:
      InputError: the run has no super-net, `out` holds another search, or nothing is within the budget.
    """
    model = inference.load(folder)
    space = space_of(model)
    chosen = {name: value for name, value in dataclasses.asdict(budget).items() if value}
    if out is None:
        out = pathlib.Path(folder) / "nas" / workdir.default_name(method, None, {**chosen, "seed": seed})
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with lock.held(out, "nas"):
        settings = {"space": model.space, "method": method, "seed": seed, **chosen}
        if (out / "search.json").exists() and atomic.read_json(out / "search.json") != settings:
            raise InputError(f"{out} holds the search of another super-net, budget or seed: give another --out")
        atomic.write_json(out / "search.json", settings)
        lines = [line for line in documents.lines(out / "candidates.jsonl") if "choice" in line]
        scored = {line["choice"]: line["score"] for line in lines if "score" in line}
        times = {line["choice"]: line["ms"] for line in lines if "ms" in line}
        asked: list[Questions] = []  # made when the first candidate is scored
        params = sharding.put(model.params, model.mesh)

        def write():
            atomic.write_text(out / "candidates.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

        def fits(architecture):
            if budget.flops:
                return LEAST * budget.flops <= operations(model, architecture) <= budget.flops
            name = str(architecture)
            if name not in times:  # what was measured stays: a second time would be another one
                times[name] = milliseconds(alone(model, architecture))
                lines.append({"choice": name, "ms": times[name]})
                write()
            return times[name] <= budget.ms

        def score(architecture):
            if str(architecture) in scored:
                return scored[str(architecture)]
            if not asked:
                asked.append(questions(model))
            genes = space.encode(architecture)
            return float(cross_scores(model, {**params, "choice": genes}, asked[0]).mean())

        found = []
        start, before = time.monotonic(), len(scored)
        for architecture, value, source in candidates(space, method, seed, fits, score):
            name = str(architecture)
            line = {"number": len(found), "choice": name, "flops": operations(model, architecture)}
            line |= {"ms": times[name]} if name in times else {}
            found.append({**line, "score": value, "from": source})
            if name not in scored:
                lines.append(found[-1])
                write()
            if value == max(one["score"] for one in found) and name not in scored:
                print(
                    f"nas: {len(found)} of {evaluations}: {value:.4f} {name}, {line['flops'] / 1e6:.3f} MFLOP",
                    flush=True,
                )
            if len(found) == evaluations:
                break
        if not found:
            raise InputError(f"no network of {folder} is within the budget{_costs(model, space, budget)}")
        best = {**max(found, key=lambda one: (one["score"], -one["number"])), "evaluations": len(found)}
        atomic.write_json(out / "best.json", best)
    made = len(found) - before
    spent = f", {(time.monotonic() - start) / made:.1f} s each" if made > 0 else ""
    print(f"nas: {len(found)} candidates, {max(0, made)} of them scored now{spent}; {out / 'candidates.jsonl'}")
    print(f"nas: the best has {best['score']:.4f}; to train it alone, give the config of {folder} {_argument(best)}")
    return best


def _argument(best: dict) -> str:
    side = parse(best["choice"]).resolution
    return (
        f"--config.train.model.kwargs.choice={best['choice']} --config.data.image_size='({side}, {side})', or to "
        f"embedded_nas the argument choice={best['choice']}"
    )


def _costs(model, space: Space, budget: Budget) -> str:
    if budget.ms:
        return f" of {budget.ms:g} ms on this machine: give more"
    ends = [operations(model, space.decode(genes)) for genes in (np.zeros_like(space.sizes), space.sizes - 1)]
    return f": --flops={budget.flops:g}, and they cost from about {ends[0]:,} to {ends[1]:,} operations"


def space_of(model: inference.Model) -> Space:
    """Returns what the super-net of a run holds; raises InputError for a run of another network.

    Args:
      model: of the run.
    """
    settings = model.config.train
    if settings.task != "compatible" or settings.model.name != "supernet" or settings.model.kwargs.get("choice"):
        raise InputError(
            f"{model.folder} is a run of the task {settings.task!r} with the backbone {settings.model.name!r}: search "
            f"a super-net of the task 'compatible', such as that of `{paths.command('run', '--config=embedded_nas')}`"
        )
    return supernet.VARIANTS[settings.model.variant]


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    if given.evaluations < 1:
        raise InputError(f"--evaluations={given.evaluations}: give a number of candidates, 1 or more")
    budget = Budget(given.flops, given.ms)
    run(given.folder, given.out, budget=budget, method=given.method, evaluations=given.evaluations, seed=given.seed)
