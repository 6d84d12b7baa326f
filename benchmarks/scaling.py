"""Measures what a listing costs the binary index in bytes and milliseconds, and works out machines for up to a billion.

    python benchmarks/scaling.py --folder=<folder> --out=benchmarks/scaling.json --claims
    python benchmarks/scaling.py --rows=20000,50000 --queries=20 --milvus-rows=1000            # small
    python benchmarks/scaling.py --from=benchmarks/scaling.json --core-hour=0.03 --qps=500  # other prices, no measuring

Vectors are random ones around random centres: bytes and milliseconds do not depend on what they mean; recall does, and
is measured elsewhere (binary.py, learned_codes.py). For every size an index on disk is written (codes and ids in
memory, float16 vectors mapped from the disk) and opened in a process of its own: anonymous memory after opening, and
processor milliseconds of one query at a time (median), with the default probes (a sixteenth of the cells) and with all
of them, as a flat index would scan. From these come nanoseconds per code scanned, microseconds per cell compared and
the rest of a query, and with them the tables: estimates, that is, for sizes that were not measured.

Sharded and unsharded results are compared bit by bit on the smallest size, Milvus-lite's coarse look with this index on
--milvus-rows of it. Prices are assumptions of the command line, not quotes.
"""

import argparse
import contextlib
import datetime
import json
import math
import multiprocessing
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import claims  # noqa: E402
import numpy as np  # noqa: E402
from memory import anonymous  # noqa: E402

from retrieval_jax.index import binary  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

SPAWN = multiprocessing.get_context("spawn")
SIZES = (10_000_000, 100_000_000, 1_000_000_000)
BLOCK = 8192
HOURS = 730  # of a month
FULL, BUSY = 0.7, 0.5  # of memory and disk, and of the cores, that may be planned with


def generate(file: pathlib.Path, rows: int, dim: int) -> np.ndarray:
    """Writes random float16 vectors around 1,000 random centres and returns them memory-mapped."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, dim), np.float32)
    out = np.lib.format.open_memmap(file, "w+", np.float16, (rows, dim))
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        out[start : start + count] = centres[rng.integers(0, 1000, count)] + rng.standard_normal(
            (count, dim), np.float32
        )
    out.flush()
    return np.load(file, mmap_mode="r")


def opened(folder: str, queries: np.ndarray, candidates: int, pipe) -> None:
    """Opens an index, searches one query at a time, and sends bytes and processor milliseconds."""
    before, start = anonymous(), time.perf_counter()
    store = binary.open(folder, candidates=candidates)
    line = {"open_seconds": time.perf_counter() - start, "memory_bytes": anonymous() - before}
    cells, usual = store.coder.cells, store.probes

    def milliseconds(work) -> float:
        spent = []
        for query in queries:
            start = time.process_time()
            work(query[None])
            spent.append(1e3 * (time.process_time() - start))
        return statistics.median(spent)

    store.search(queries[:1], 10)
    line |= {"cells": cells, "probes": usual}
    line["encode_ms"] = milliseconds(lambda query: store.coder.encode(query, usual))
    line["query_ms"] = milliseconds(lambda query: store.search(query, 10))
    store.probes = cells
    line["all_cells_ms"] = milliseconds(lambda query: store.search(query, 10))
    pipe.send(line)


def measure(base: pathlib.Path, rows: int, args) -> dict:
    """Returns the bytes and milliseconds of an index of that many rows."""
    vectors = generate(base / "vectors.npy", rows, args.dim)
    queries = np.asarray(vectors[np.random.default_rng(1).integers(0, rows, args.queries)], np.float32)
    queries += np.random.default_rng(2).standard_normal(queries.shape, np.float32) / 2
    folder = base / "index"
    shutil.rmtree(folder, ignore_errors=True)
    start = time.process_time()
    with binary.create(folder, vectors, dtype="float16", bits=args.bits, cells=int(rows**0.5)) as store:
        line = {"rows": rows, "fit_cpu_s": time.process_time() - start}
        start = time.process_time()
        for first in range(0, rows, 16 * BLOCK):
            some = np.asarray(vectors[first : first + 16 * BLOCK])
            store.add([f"listing-{row:09d}" for row in range(first, first + len(some))], some)
        line["add_cpu_us"] = 1e6 * (time.process_time() - start) / rows
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=opened, args=(str(folder), queries, args.candidates, there))
    process.start()
    line |= here.recv()
    process.join()
    for kind in ("vectors", "log"):
        line[f"{kind}_bytes"] = sum(file.stat().st_size for file in folder.rglob(f"*.{kind}"))
    print(
        f"| {rows:,} | {line['memory_bytes'] / rows:.0f} | {(line['vectors_bytes'] + line['log_bytes']) / rows:.0f} | "
        f"{line['query_ms']:.2f} | {line['all_cells_ms']:.2f} | {line['encode_ms']:.2f} | {line['open_seconds']:.1f} |",
        flush=True,
    )
    return line


def equal(first, second) -> float:
    """Returns the share of queries with the same rows and the same scores, bit by bit."""
    same = (first.item_rows == second.item_rows) & (first.scores.view(np.int32) == second.scores.view(np.int32))
    return float(same.all(1).mean())


def equalities(base: pathlib.Path, args) -> dict:
    """Returns the shares of equal results: shards against none, Milvus-lite's coarse look against this index."""
    vectors = np.load(base / "vectors.npy", mmap_mode="r")
    queries = np.asarray(vectors[:100], np.float32) + np.float32(0.01)
    settings = {"bits": args.bits, "candidates": args.candidates}
    whole = binary.Index(vectors, **settings).search(queries, 10)
    shards = (2, 3, 7)
    out = {"shards": min(equal(binary.Index(vectors, **settings, shards=n).search(queries, 10), whole) for n in shards)}
    print(f"\n{', '.join(map(str, shards))} shards against one, {len(vectors):,} rows: {out['shards']:.4f} of the "
          "queries equal bit by bit", flush=True)  # fmt: skip
    if args.milvus_rows:
        from retrieval_jax.index import milvus

        some = np.asarray(vectors[: args.milvus_rows], np.float32)
        made = milvus.Index(some, uri=str(base / "milvus.db"), coarse=settings)
        out["milvus"] = equal(made.search(queries, 10), binary.Index(some, **settings, cells=1).search(queries, 10))
        print(f"milvus-lite against the binary index, {len(some):,} rows: {out['milvus']:.4f} equal", flush=True)
    return out


def unit_costs(lines: list[dict]) -> dict:
    """Returns bytes per listing and the parts of a query's processor time, from the largest size measured."""
    last = lines[-1]
    scanned = last["rows"] * last["probes"] / last["cells"]
    code_ns = 1e6 * (last["all_cells_ms"] - last["query_ms"]) / (last["rows"] - scanned)
    return {
        "memory_bytes": last["memory_bytes"] / last["rows"],
        "disk_bytes": (last["vectors_bytes"] + last["log_bytes"]) / last["rows"],
        "code_ns": code_ns,
        "cell_us": 1e3 * last["encode_ms"] / last["cells"],
        "rest_ms": max(0.0, last["query_ms"] - last["encode_ms"] - 1e-6 * code_ns * scanned),
        "share": last["probes"] / last["cells"],
    }


def plan(rows: int, unit: dict, args) -> dict:
    """Works out machines and cost of a gallery by arithmetic; see docs/scaling.md."""
    memory, disk = rows * unit["memory_bytes"] / 1e9, rows * unit["disk_bytes"] / 1e9
    scan = 1e-6 * unit["code_ns"] * rows * unit["share"]  # ms of one core
    fixed = unit["rest_ms"] + 1e-3 * unit["cell_us"] * math.sqrt(rows)  # ms, in every shard
    shards = max(1, math.ceil(memory / (FULL * args.memory)), math.ceil(disk / (FULL * args.disk)))
    while fixed + scan / shards > args.latency:  # a query is one core's work in every shard
        shards += 1
        if shards > 10_000:
            raise SystemExit(f"{fixed:.1f} ms of a query do not shrink with shards: allow more than {args.latency} ms")
    cores = 1e-3 * args.qps * (fixed * shards + scan) / BUSY
    reads = args.qps * args.candidates / args.reads
    replicas = max(args.replicas, math.ceil(cores / (shards * args.cores)), math.ceil(reads / shards))
    machines = shards * replicas
    wanted = {
        "memory": memory / (FULL * args.memory),
        "disk": disk / (FULL * args.disk),
        "processor": cores / args.cores,
        "reads": reads,
        "latency": shards if fixed + scan > args.latency else 0,
        "replicas": args.replicas,
    }
    month = args.cores * args.core_hour * HOURS + args.memory * args.memory_month + args.disk * args.disk_month
    return {
        "rows": rows,
        "memory_gb": memory,
        "disk_gb": disk,
        "ms": fixed + scan / shards,
        "core_ms": fixed * shards + scan,
        "shards": shards,
        "replicas": replicas,
        "machines": machines,
        "month": machines * month,
        "limit": max(wanted, key=wanted.get),
        "float32_gb": 4e-9 * args.dim * rows,
        "hnsw_gb": 1e-9 * (4 * args.dim + 2 * 16 * 4) * rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000,400000", help="sizes to measure, ascending")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--bits", type=int, default=256)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--milvus-rows", type=int, default=2000, help="0 leaves Milvus out")
    parser.add_argument("--folder", help="for the files, about 4 x rows x dim bytes; temporary by default")
    parser.add_argument("--from", dest="before", help="JSON of an earlier run: only the arithmetic")
    parser.add_argument("--qps", type=float, default=100, help="queries per second")
    parser.add_argument("--latency", type=float, default=50, help="most processor milliseconds of a query in a shard")
    parser.add_argument("--replicas", type=int, default=2, help="at least, so that a machine may fail")
    parser.add_argument("--cores", type=int, default=16, help="of a machine")
    parser.add_argument("--memory", type=float, default=64, help="GB of a machine")
    parser.add_argument("--disk", type=float, default=1000, help="GB of a machine")
    parser.add_argument("--reads", type=float, default=50_000, help="random reads per second of a machine's disk")
    parser.add_argument("--core-hour", type=float, default=0.03, help="assumed price of a core for an hour")
    parser.add_argument("--memory-month", type=float, default=3.0, help="assumed price of a GB of memory for a month")
    parser.add_argument("--disk-month", type=float, default=0.1, help="assumed price of a GB of disk for a month")
    parser.add_argument("--out", help="JSON of the results")
    parser.add_argument("--claims", action="store_true", help="write them")
    args = parser.parse_args()
    if args.before:
        results = json.loads(pathlib.Path(args.before).read_text())
        args.dim, args.bits, args.candidates = (results[name] for name in ("dim", "bits", "candidates"))
    else:
        results = {"dim": args.dim, "bits": args.bits, "candidates": args.candidates, "hardware": provenance.hardware(),
                   "versions": provenance.versions(), "commit": provenance.commit(),
                   "date": datetime.date.today().isoformat()}  # fmt: skip
        print(f"{results['hardware']['cores']} cores of {results['hardware']['processor']}, {args.dim} dimensions, "
              f"{args.bits} bits, {args.candidates} candidates\n")  # fmt: skip
        print("| listings | bytes of memory each | of disk | ms per query | all cells | of it the cells | s to open |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        with contextlib.ExitStack() as stack:
            base = pathlib.Path(args.folder or stack.enter_context(tempfile.TemporaryDirectory()))
            base.mkdir(parents=True, exist_ok=True)
            results["measured"], results["equal"] = [], {}
            for number, rows in enumerate(map(int, args.rows.split(","))):
                results["measured"].append(measure(base, rows, args))
                if not number:
                    results["equal"] = equalities(base, args)
        results["unit"] = unit_costs(results["measured"])
    unit = results["unit"]
    print(
        f"\na listing: {unit['memory_bytes']:.0f} bytes of memory, {unit['disk_bytes']:.0f} of disk; a code scanned: "
        f"{unit['code_ns']:.2f} ns; a cell compared: {unit['cell_us']:.3f} us; the rest of a query: "
        f"{unit['rest_ms']:.2f} ms\n\n{args.qps:g} queries a second, machines of {args.cores} cores, "
        f"{args.memory:g} GB, {args.disk:g} GB of disk; assumed: {args.core_hour:g} a core-hour, "
        f"{args.memory_month:g} a GB of memory and {args.disk_month:g} a GB of disk a month\n"
    )
    print(
        "| listings | codes, GB | vectors on disk, GB | ms in a shard | core-ms | shards x replicas | a month | limit |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---|")
    results["plans"] = [plan(rows, unit, args) for rows in SIZES]
    for line in results["plans"]:  # what Milvus's BIN_FLAT does: every code is scanned
        flat = plan(line["rows"], {**unit, "share": 1.0, "cell_us": 0.0}, args)
        line["flat"] = {name: flat[name] for name in ("ms", "core_ms", "shards", "replicas", "month", "limit")}
    for line in results["plans"]:
        print(
            f"| {line['rows']:,} | {line['memory_gb']:.1f} | {line['disk_gb']:,.0f} | {line['ms']:.1f} | "
            f"{line['core_ms']:.0f} | {line['shards']} x {line['replicas']} | {line['month']:,.0f} | {line['limit']} |"
        )
    print(
        "\n| listings | BIN_FLAT, core-ms | shards x replicas | a month | float32 in memory, GB | with HNSW (M = 16), "
        "GB |\n"
        "|---:|---:|---:|---:|---:|---:|"
    )
    for line in results["plans"]:
        print(
            f"| {line['rows']:,} | {line['flat']['core_ms']:,.0f} | {line['flat']['shards']} x "
            f"{line['flat']['replicas']} | {line['flat']['month']:,.0f} | {line['float32_gb']:,.0f} | "
            f"{line['hnsw_gb']:,.0f} |"
        )
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")
    if args.claims and not args.before:
        given = ["--folder=<folder>" if one == f"--folder={args.folder}" else one for one in sys.argv[1:]]
        said = {
            "shards": "2, 3 and 7 shards of the binary index merge to exactly the result of one",
            "milvus": "Milvus-lite's coarse and fine look equals the binary index on the same codes and candidates",
        }
        claims.write(
            {
                "id": f"clicks-engine-{name}",
                "system": "clicks",
                "statement": said[name],
                "metric": "share of queries with equal rows and scores, bit by bit",
                "value": {"0": share},
                "baseline": {"0": 1.0},
                "difference": [share - 1.0] * 3,
                "holds": share == 1.0,
                "command": " ".join(["python benchmarks/scaling.py", *given]),
            }
            for name, share in results["equal"].items()
        )


if __name__ == "__main__":
    main()
