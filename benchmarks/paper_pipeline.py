"""Measures the published pipeline at eProduct's size: whiten three members, concatenate, search, re-rank.

    python benchmarks/paper_pipeline.py --folder=/tmp/pipeline --out=benchmarks/paper_pipeline.json
    python benchmarks/paper_pipeline.py --gallery=20000 --queries=300 --dims=256,192,192      # smoke test, seconds

Random but clustered float16 shards (generated.py) are written first, by separate processes and untimed: 11.3 GB at full
size; they are kept in --folder for another run, or removed at the end. Then the verb search (retrieval_jax.search.run)
runs as in configs/eproduct_ensemble.py, with search.stages naming only the two stages of the ensemble. Vectors are
computed on read: nothing whitened or concatenated is ever written or held in memory.

Recall is MAR@10 with denominator min(10, relevant). The members' own cosines are scored on fewer queries (--few), to
show what whitening and concatenation add without searching four times.
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import functools
import json
import multiprocessing
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import generated  # noqa: E402
import numpy as np  # noqa: E402
from memory import Peak  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from retrieval_jax import index, postprocess, search  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.postprocess import whitening  # noqa: E402
from retrieval_jax.scoring import metrics  # noqa: E402
from retrieval_jax.scoring.ranking import Ranking, Truth  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402


def shards(folder: pathlib.Path, member: int, split: str) -> pathlib.Path:
    """Returns the folder of a member's embeddings, where the verb search expects them."""
    return folder / f"member{member}" / "embeddings" / "trained" / split


def generate(folder: pathlib.Path, sizes: dict) -> None:
    """Writes all members' shards below the folder, unless an earlier run of the same sizes left them there."""
    note = folder / "sizes.json"
    if note.exists() and json.loads(note.read_text()) == sizes:
        return
    note.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        waiting = [
            pool.submit(generated.write, shards(folder, member, split), split, count=sizes[split],
                        products=sizes["products"], dim=dim, member=member, seed=sizes["seed"])
            for member, dim in enumerate(sizes["dims"]) for split in ("gallery", "query")
        ]  # fmt: skip
        for one in waiting:
            one.result()
    note.write_text(json.dumps(sizes))


def truth_of(queries: Embeddings, gallery: Embeddings, sizes: dict) -> Truth:
    """Returns which gallery rows show the queries' products."""
    asked, _ = generated.styles_of("query", sizes["query"], sizes["products"], sizes["seed"])
    there, _ = generated.styles_of("gallery", sizes["gallery"], sizes["products"], sizes["seed"])
    order = np.argsort(there, kind="stable")
    starts, stops = (np.searchsorted(there[order], asked, side) for side in ("left", "right"))
    rows = [order[start:stop] for start, stop in zip(starts, stops, strict=True)]
    indptr = np.concatenate([[0], np.cumsum(stops - starts)])
    return Truth(queries.ids, gallery.ids, indptr, np.concatenate(rows))


@contextlib.contextmanager
def timed(owner, name: str, stage: str, stages: list[dict]):
    """Times every call of owner.name during the block, as a stage."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*args, **kwargs):
        with Peak() as peak:
            result = original(*args, **kwargs)
        gib = round(peak.bytes / 2**30, 3)
        stages.append({"stage": stage, "seconds": round(peak.seconds, 2), "anonymous_gib": gib})
        return result

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, original)


def pipeline(folder: pathlib.Path, members: int, k: int, kind: str) -> tuple[list[dict], float, float]:
    """Runs the verb search; returns its stages, total wall time and peak anonymous memory in GiB."""
    names = tuple(f"member{member}" for member in range(members))
    steps = (("whitening", {}), ("ensemble", {}), ("reranking", {}))
    config = ConfigDict({
        "name": "paper_pipeline",
        "search": {"k": k, "index": kind, "index_kwargs": {}, "members": names, "steps": steps,
                   "stages": ("ensemble", "reranking")}})  # fmt: skip
    stages = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(timed(whitening, "fit", "whitening: fit", stages))
        stack.enter_context(timed(postprocess.get("ensemble"), "step", "ensemble: concatenated queries", stages))
        stack.enter_context(timed(index.get(kind).Index, "search", "search over the concatenated vectors", stages))
        stack.enter_context(timed(postprocess.get("reranking"), "step", "re-ranking", stages))
        peak = stack.enter_context(Peak())
        search.run(config, folder / "ensemble")
    return stages, peak.seconds, peak.bytes / 2**30


def few_recalls(folder: pathlib.Path, members: int, few: int, truth: Truth, kind: str) -> dict[str, float]:
    """Returns the recall of each member's plain cosine on the first `few` queries."""
    out = {}
    for member in range(members):
        queries, gallery = (Embeddings.load(shards(folder, member, split)) for split in ("query", "gallery"))
        asked = queries.take(np.arange(min(few, len(queries))))
        ranking = index.get(kind).Index(gallery).search(asked, 10)
        out[f"member{member}, cosine, {len(asked)} queries"] = recall(ranking, truth, len(asked))
    return out


def recall(ranking: Ranking, truth: Truth, count: int | None = None) -> float:
    """Returns MAR@10 (capped) of the first `count` queries."""
    if count is not None:
        indptr = truth.indptr[: count + 1]
        truth = Truth(truth.query_ids[:count], truth.gallery_ids, indptr, truth.rows[: indptr[-1]])
    return round(float(np.nanmean(metrics.per_query(ranking, truth)["mar@10_capped"])), 4)  # NaN: no relevant listing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=1_100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dims", default="2048,1536,1536", help="one per member")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--index", default="exact")
    parser.add_argument("--few", type=int, default=500, help="queries for the members' own cosines; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="for the shards, kept; by default temporary and removed at the end")
    parser.add_argument("--out", help="JSON of the results")
    args = parser.parse_args()
    dims = [int(dim) for dim in args.dims.split(",")]
    sizes = {"gallery": args.gallery, "query": args.queries, "products": max(1, args.gallery // 10), "dims": dims,
             "seed": args.seed}  # fmt: skip
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(args.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        generate(folder, sizes)
        stages, seconds, gib = pipeline(folder, len(dims), args.k, args.index)
        truth = truth_of(*(Embeddings.load(shards(folder, 0, split)) for split in ("query", "gallery")), sizes)
        recalls = few_recalls(folder, len(dims), args.few, truth, args.index) if args.few else {}
        for stage in ("ensemble", "reranking"):
            ranking = Ranking.load(folder / "ensemble" / "rankings" / "ensemble" / stage)
            recalls[{"ensemble": "whitened and concatenated", "reranking": "re-ranked"}[stage]] = recall(ranking, truth)
        if args.folder:
            shutil.rmtree(folder / "ensemble")
    rows, width = args.gallery, sum(dims)
    tera = {"fit": sum(rows * dim * dim for dim in dims) / 1e12,
            "whitening of every row, once": 2 * sum(rows * dim * dim for dim in dims) / 1e12,
            "search": 2 * args.queries * rows * width / 1e12}  # fmt: skip
    results = {**sizes, "k": args.k, "index": args.index, "stages": stages, "seconds": round(seconds, 1),
               "anonymous_gib": round(gib, 3), "recall": recalls,
               "tera_operations": {name: round(value, 2) for name, value in tera.items()},
               "hardware": provenance.hardware(), "versions": provenance.versions(), "commit": provenance.commit(),
               "date": datetime.date.today().isoformat()}  # fmt: skip
    print(f"\n{args.queries:,} queries, {rows:,} gallery listings, members of {args.dims} dimensions; "
          f"{results['hardware']['cores']} cores of {results['hardware']['processor']}, {results['date']}, "
          f"commit {str(results['commit'])[:10]}")  # fmt: skip
    print("| stage | seconds | peak anonymous GiB |\n|---|---|---|")
    for stage in stages:
        print(f"| {stage['stage']} | {stage['seconds']:.1f} | {stage['anonymous_gib']:.2f} |")
    print(f"| the verb search, total | {seconds:.1f} | {gib:.2f} |")
    print("| MAR@10 of | |\n|---|---|")
    for name, value in recalls.items():
        print(f"| {name} | {100 * value:.1f} % |")
    print("tera-operations: " + ", ".join(f"{name} {value:.1f}" for name, value in tera.items()))
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
