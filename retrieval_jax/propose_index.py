"""Proposes an index: measures speed and recall against exact search of approximate indexes on a run's vectors.

    python -m retrieval_jax.propose_index runs/quickstart --recall=0.98
    python -m retrieval_jax.propose_index runs/quickstart --whiten --k=100 --max_bytes=300 --factories HNSW32 IVF64,SQ8

Builds each index, searches with more and more probes and candidates, and prints a table, the cheapest setting that
reaches the recall, and the config lines for it. Cheapest means most queries per second within --max_bytes of memory per
vector. Writes folder/index_proposal/{settings.json,curve.png}. Speeds are for this machine with all its threads and for
batched queries; exact search is measured too, and proposed if nothing beats it.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("propose_index")

import json
import math
import pathlib
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np

from retrieval_jax import arguments, index, paths, workdir
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.errors import InputError, naming
from retrieval_jax.files import atomic
from retrieval_jax.postprocess import State, whitening
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.workdir import provenance, sides

EXACT = "exact"


def factories(rows: int, dim: int) -> list[str]:
    """Returns faiss factory strings worth trying for a gallery; a learned rotation (OPQ) only up to 256 dimensions.

    Args:
      rows: number of gallery rows.
      dim: dimension of the vectors.
    """
    lists = 2 ** max(2, min(round(math.log2(4 * math.sqrt(max(1, rows)))), int(math.log2(max(4, rows / 39)))))
    pieces = _divisor(dim, 4)
    found = ["HNSW32", "HNSW32,SQ8", f"IVF{lists},Flat", f"IVF{lists},SQ8", f"RR{dim},IVF{lists},RaBitQ"]
    if pieces >= 4:  # four bits per piece of four dimensions, the layout of faiss's in-register fast scan
        found.append(f"IVF{lists},PQ{pieces}x4fs")
    if dim <= 256 and (small := _divisor(dim, 8)) >= 4:  # wider rotations take an hour to train
        found.append(f"OPQ{small},IVF{lists},PQ{small}x4fs")
    return found


def _divisor(dim: int, numbers: int) -> int:
    """Returns the largest number of equal pieces of at least `numbers` dimensions, preferring even numbers."""
    fitting = [pieces for pieces in range(1, dim // numbers + 1) if dim % pieces == 0]
    return max([pieces for pieces in fitting if pieces % 2 == 0] or fitting or [1])


def parameters(factory: str) -> list[str]:
    """Returns the search parameters to try, from fast to thorough."""
    if ivf := re.search(r"IVF(\d+)", factory):
        lists = int(ivf[1])
        return [f"nprobe={2**power}" for power in range(int(math.log2(max(1, lists))) + 1)]
    if "HNSW" in factory:
        return [f"efSearch={2**power}" for power in range(4, 11)]
    return [""]


def per_query_recall(found: Ranking, wanted: Ranking) -> np.ndarray:
    """Returns the share of the k exact results that an approximate search found, per query.

    Args:
      found: ranking of the approximate index, with exact scores.
      wanted: ranking of exact search, for the same queries and k.

    Returns:
      [Q]; a row that scores as high as the last exact result counts, whatever its id.
    """
    for name, ranking in (("found", found), ("wanted", wanted)):
        arguments.instance(ranking, Ranking, name, "recall")
    if found.query_ids != wanted.query_ids or found.gallery_sha256 != wanted.gallery_sha256:
        raise InputError(
            "recall: the two rankings have different queries or galleries: search both with the same vectors"
        )
    there = wanted.item_rows >= 0
    last = np.where(there, wanted.scores, np.inf).min(1, keepdims=True)
    right = np.count_nonzero((found.item_rows >= 0) & (found.scores >= last), axis=1)
    return np.minimum(right, there.sum(1)) / np.maximum(1, there.sum(1))


def queries_per_second(search: Callable[[], object], count: int, seconds: float = 0.3) -> float:
    """Returns the median speed of a search with `count` queries, run at least three times and for `seconds`."""
    times = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        search()
        times.append(time.perf_counter() - start)
        if sum(times) > 20 * seconds:
            break
    return count / statistics.median(times)


def measure(
    queries: Embeddings,
    gallery: Embeddings,
    *,
    k: int = 10,
    tried: Sequence[str] = (),
    candidates: Sequence[int] = (1, 4, 16),
    report: Callable[[dict], None] = lambda row: None,
) -> list[dict]:
    """Measures exact search, then every setting of every approximate index.

    Args:
      queries: queries to search with.
      gallery: gallery to search.
      k: results per query.
      tried: faiss factory strings; () for `factories`.
      candidates: multiples of k to re-score exactly.
      report: called with each row as it is measured.

    Returns:
      Rows: index, factory, parameters, candidates, recall, margin (half its 95 % interval), queries_per_second,
      bytes_per_vector, build_seconds. The number of candidates grows while recall improves, the number of probes until
      nothing is missing.

    Raises:
      InputError: no queries, too small a gallery, or a factory that faiss rejects.
    """
    where = "propose_index"
    k = arguments.integer(k, "k", where)
    candidates = [
        arguments.integer(n, "candidates", where) for n in arguments.sequence(candidates, "candidates", where)
    ]
    tried = [arguments.text(name, "tried", where, "HNSW32") for name in arguments.sequence(tried, "tried", where)]
    if not candidates:
        raise InputError("propose_index: candidates is empty, expected multiples of k such as (1, 4, 16)")
    if not len(queries) or len(gallery) <= k:
        raise InputError(
            f"{len(queries)} queries in a gallery of {len(gallery)} are too few to measure recall@{k}: use more "
            "queries, a larger gallery or a smaller k"
        )
    engine = index.get(EXACT).Index(gallery)
    wanted = engine.search(queries, k)
    rows = []

    def add(row: dict, search: Callable[[], Ranking]) -> float:
        each = per_query_recall(search(), wanted)
        row |= {
            "recall": float(each.mean()),
            "margin": float(1.96 * each.std() / math.sqrt(len(each))),
            "queries_per_second": queries_per_second(search, len(queries)),
        }
        rows.append(row)
        report(row)
        return row["recall"]

    names = {"index": EXACT, "factory": "", "parameters": "", "candidates": 0}
    add({**names, "bytes_per_vector": 0.0, "build_seconds": 0.0}, lambda: engine.search(queries, k))
    for factory in tried or factories(len(gallery), gallery.dim):
        start = time.perf_counter()
        try:
            made = index.get("faiss_index").Index(gallery, factory=factory)
        except InputError as error:
            if tried:
                raise
            print(f"{factory} is left out: {error}", flush=True)  # nobody asked for it by name
            continue
        built, size = time.perf_counter() - start, made.bytes_per_vector()
        for setting in parameters(factory):
            made.set_parameters(setting)
            recall = -1.0
            for multiple in sorted(candidates):
                made.candidates, before = min(multiple * k, len(gallery)), recall
                recall = add({"index": "faiss_index", "factory": factory, "parameters": setting,
                              "candidates": made.candidates, "bytes_per_vector": size, "build_seconds": built},
                             lambda made=made: made.search(queries, k))  # fmt: skip
                if recall == 1.0 or recall <= before:
                    break
            if recall == 1.0:
                break
    return rows


def cheapest(rows: Sequence[dict], recall: float, max_bytes: float = 0.0) -> dict | None:
    """Returns the fastest setting that reaches a recall within a memory limit; None if there is none.

    Args:
      rows: from `measure`.
      recall: recall to reach.
      max_bytes: memory limit per vector; 0 for no limit. Exact search reads the vectors from disk and counts as 0.
    """
    fitting = [
        row for row in rows if row["recall"] >= recall and (not max_bytes or row["bytes_per_vector"] <= max_bytes)
    ]
    return max(fitting, key=lambda row: row["queries_per_second"], default=None)


def config_lines(row: dict) -> str:
    """Returns the config lines that select a setting, a row of `measure`."""
    if row["index"] == EXACT:
        return 'config.search.index = "exact"'
    settings = {key: row[key] for key in ("factory", "parameters", "candidates")}
    return f'config.search.index = "{row["index"]}"\nconfig.search.index_kwargs = {json.dumps(settings)}'


def draw(rows: Sequence[dict], file: pathlib.Path | BinaryIO, k: int, recall: float) -> None:
    """Plots speed against recall, with the Pareto front of each index.

    Args:
      rows: from `measure`.
      file: PNG to write, a path or an open file.
      k: results per query.
      recall: recall to reach, drawn as a line.
    """
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(dict.fromkeys(row["factory"] or EXACT for row in rows)):
        best, points = 0.0, []
        own = [row for row in rows if (row["factory"] or EXACT) == name]
        for row in sorted(own, key=lambda row: (-row["recall"], -row["queries_per_second"])):
            if row["queries_per_second"] > best:
                best = row["queries_per_second"]
                points.append((row["recall"], best))
        size = f"{own[0]['bytes_per_vector']:.0f} bytes per vector" if own[0]["factory"] else "from disk"
        axes.plot(*zip(*points, strict=True), marker="osD^v<>PX*"[number % 10], label=f"{name} ({size})")
    axes.axvline(recall, color="grey", linestyle=":")
    axes.set(xlabel=f"recall@{k} against exact search", ylabel="queries per second", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120, format="png")


def load(folder: pathlib.Path, model: str, count: int, whiten: bool) -> tuple[Embeddings, Embeddings]:
    """Returns queries and gallery of a work directory.

    Args:
      folder: the work directory.
      model: model whose embeddings to load, "trained" those of the two sides that the run's config chooses; "" for the
        trained one, otherwise the public weights.
      count: number of queries, evenly spaced among all.
      whiten: applies the step `whitening`.

    Raises:
      InputError: there are no embeddings.
    """
    chosen = dict.fromkeys(sides.SPLITS, sides.Side())
    if (folder / "config.json").exists():  # the two sides of "trained" may be of two networks
        chosen = sides.of(workdir.read_config(folder))
    own = {split: side.folder for split, side in chosen.items()}
    made = {path.parent.parent.name for path in folder.glob("embeddings/*/gallery/embeddings.json")}
    there = sorted({sides.MODEL if name == own["gallery"] else name for name in made})
    model = model or next((name for name in (sides.MODEL, "pretrained", *there) if name in there), sides.MODEL)
    if model not in there:
        raise InputError(
            f"no embeddings of {model!r} in {folder} (available: {', '.join(there) or 'none'}): make them with "
            f"`{paths.command('embed', '--config=...', f'--workdir={folder}')}`"
        )
    folders = own if model == sides.MODEL else dict.fromkeys(sides.SPLITS, model)
    queries, gallery = (
        Embeddings.load(folder / "embeddings" / folders[split] / split, verify=True) for split in sides.SPLITS
    )
    if queries.meta.get("space") != gallery.meta.get("space") or queries.dim != gallery.dim:
        raise InputError(
            f"{folder}: the queries of {model!r} are in the space {queries.meta.get('space')!r} with {queries.dim} "
            f"dimensions, the gallery in {gallery.meta.get('space')!r} with {gallery.dim}: embed both with one "
            "checkpoint"
        )
    if whiten:
        [(queries, gallery)] = whitening.step(State([(queries, gallery)])).members
    rows = spread(len(queries), count)
    return Embeddings(queries.ids.take(rows), queries.vectors[rows], queries.meta), gallery


def _line(row: dict) -> str:
    name = " ".join(filter(None, (row["factory"] or EXACT, row["parameters"])))
    return (
        f"{name:<42} {row['candidates'] or '':>10} {row['recall']:>7.4f} +- {row['margin']:.4f} "
        f"{row['queries_per_second']:>11.0f} {row['bytes_per_vector']:>9.0f} {row['build_seconds']:>9.1f}"
    )


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    arguments.number(given.max_bytes, "--max_bytes", "propose_index", low=0)
    if not 0 < given.recall <= 1 or min(given.k, given.queries, *given.candidates) < 1:
        raise InputError("--recall must be above 0 and at most 1; --k, --queries and --candidates must be at least 1")
    queries, gallery = load(given.folder, given.model, given.queries, given.whiten)
    print(f"{len(queries):,} queries in {len(gallery):,} x {gallery.dim}; {_hardware()}\n")
    print(
        f"{'index':<42} {'candidates':>10} {f'recall@{given.k}':>17} {'queries / s':>11} {'bytes / v':>9} "
        f"{'build / s':>9}"
    )
    rows = measure(queries, gallery, k=given.k, tried=given.factories, candidates=given.candidates,
                   report=lambda row: print(_line(row), flush=True))  # fmt: skip
    chosen = cheapest(rows, given.recall, given.max_bytes)

    out = given.folder / "index_proposal"
    with naming(out):
        out.mkdir(exist_ok=True)
    atomic.write(out / "curve.png", lambda stream: draw(rows, stream, given.k, given.recall))
    asked = {key: str(value) if key == "folder" else value for key, value in vars(given).items() if key != "verb"}
    text = {"asked": asked, "hardware": provenance.hardware(), "commit": provenance.commit(),
            "chosen": chosen, "rows": rows}  # fmt: skip
    atomic.write_json(out / "settings.json", text)
    print(f"\nwritten: {out / 'curve.png'}, {out / 'settings.json'}")
    if chosen is None:
        best = max(rows, key=lambda row: row["recall"])
        within = f" within {given.max_bytes:g} bytes per vector" if given.max_bytes else ""
        print(f"\nnothing reaches {given.recall}{within}; the best recall is:\n{_line(best)}")
        return
    ratio = chosen["queries_per_second"] / rows[0]["queries_per_second"]
    print(
        f"\ncheapest for recall@{given.k} >= {given.recall}: {ratio:.1f} x the speed of exact search, recall "
        f"{chosen['recall']:.4f} +- {chosen['margin']:.4f}. In the config:\n"
    )
    print(config_lines(chosen))
    if chosen["index"] != EXACT and chosen["recall"] - chosen["margin"] < given.recall:
        print(
            f"\n(with {len(queries)} queries the recall may also be below {given.recall}; more --queries narrow "
            "the interval)"
        )


def _hardware() -> str:
    machine = provenance.hardware()
    return f"{machine['processor']}, {machine['cores']} cores"
