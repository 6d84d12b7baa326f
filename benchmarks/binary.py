"""Measures the binary index: recall on real embeddings, throughput against exact search, memory, write rates.

    python benchmarks/binary.py --queries=FOLDER --gallery=FOLDER [--out=benchmarks/binary.json]
    python benchmarks/binary.py --queries=... --gallery=... --rows=50000 --timed=200 --seconds=3      # small

FOLDERs hold embeddings (from `embed`), which are whitened with a fit on the gallery and normalised here. First:
recall@10 on these against exact search, for several code lengths and numbers of candidates. Then the index on disk:
--rows vectors, each a gallery vector plus isotropic noise of --noise times its length (harder than real neighbours),
searched with the same queries in alternating rounds by the binary index, index.exact and faiss's flat index, all over
memory-mapped files; here recall@10 is against index.exact. Memory is the anonymous memory of a process that only opens
and searches. Finally one process writes as fast as it can while another searches and refreshes. Kills are covered by a
test: `pytest -m long tests/index/test_binary_store.py`.
"""

import argparse
import contextlib
import datetime
import json
import multiprocessing
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from memory import Peak, anonymous  # noqa: E402

from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import binary, exact  # noqa: E402
from retrieval_jax.postprocess import whitening  # noqa: E402
from retrieval_jax.postprocess.l2 import normalize  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

SPAWN = multiprocessing.get_context("spawn")


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Returns the share of the true rows [Q, k] that were found [Q, k]."""
    return float(np.mean([np.isin(want, have).mean() for want, have in zip(true, found, strict=True)]))


def real(queries: np.ndarray, gallery: np.ndarray, bits: list[int], counts: list[int]) -> list[dict]:
    """Measures recall@10 on the embeddings themselves."""
    true = exact.Index(gallery).search(queries, 10).item_rows
    lines = []
    for length in bits:
        engine = binary.Index(gallery, bits=length)
        for count in counts:
            engine.candidates = count
            share = recall(engine.search(queries, 10).item_rows, true)
            lines.append({"bits": length, "bytes": length // 8, "candidates": count, "recall@10": share})
            print(f"| {length} | 1 / {32 * gallery.shape[1] // length} | {count} | {share:.4f} |", flush=True)
    return lines


def generate(file: pathlib.Path, gallery: np.ndarray, rows: int, noise: float, seed: int) -> np.ndarray:
    """Writes `rows` unit vectors around those of the gallery and returns them memory-mapped."""
    out = np.lib.format.open_memmap(file, "w+", np.float32, (rows, gallery.shape[1]))
    rng = np.random.default_rng(seed)
    for start in range(0, rows, 8192):
        count = min(8192, rows - start)
        block = rng.standard_normal((count, gallery.shape[1]), np.float32)
        block *= noise / gallery.shape[1] ** 0.5
        block += gallery[rng.integers(len(gallery), size=count)]
        out[start : start + count] = normalize(block)
    out.flush()
    return np.load(file, mmap_mode="r")


def opened(folder: str, queries: np.ndarray, settings: dict, pipe) -> None:
    """Opens an index, searches, and sends the anonymous memory that this took."""
    before = anonymous()
    start = time.perf_counter()
    store = binary.open(folder, **settings)
    seconds, held = time.perf_counter() - start, anonymous() - before
    with Peak() as peak:
        store.search(queries, 10)
    pipe.send({"open_seconds": seconds, "open_bytes": held, "search_peak_bytes": peak.bytes - before})


def write(folder: str, file: str, batch: int, seconds: float, pipe) -> None:
    """Adds, replaces and deletes batches in turn for `seconds`; sends the rate of each per second."""
    vectors, rng = np.load(file, mmap_mode="r"), np.random.default_rng(1)
    spent, done, number = dict.fromkeys(("add", "update", "delete"), 0.0), 0, 0
    with binary.open(folder, write=True) as store:
        store.delete(["nothing"])  # builds the id table before the clock starts
        pipe.send("ready")
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            ids = [f"new{number}-{row}" for row in range(batch)]
            for kind in spent:
                rows = [] if kind == "delete" else [np.array(vectors[rng.integers(0, len(vectors) - batch) :][:batch])]
                start = time.perf_counter()
                getattr(store, kind)(ids, *rows)
                spent[kind] += time.perf_counter() - start
            done, number = done + batch, number + 1
    pipe.send({kind: done / took for kind, took in spent.items()})


def search_rate(store, queries: np.ndarray, until) -> float:
    """Returns queries per second, searching 32 at a time with a refresh before each search."""
    start, count = time.perf_counter(), 0
    while not until():
        store.refresh()
        store.search(queries[count % len(queries) :][:32], 10)
        count += len(queries[count % len(queries) :][:32])
    return count / (time.perf_counter() - start)


def alone_and_beside(folder: pathlib.Path, file: pathlib.Path, queries, batch: int, seconds: float, settings: dict):
    """Returns the rates of writing and searching, alone and at the same time."""
    store, lines = binary.open(folder, **settings), {"batch": batch}
    begin = time.perf_counter()
    lines["searches alone"] = search_rate(store, queries, lambda: time.perf_counter() - begin > seconds)
    for together in (False, True):
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=write, args=(str(folder), str(file), batch, seconds, there))
        process.start()
        here.recv()
        if together:
            lines["searches beside writes"] = search_rate(store, queries, here.poll)
        for kind, rate in here.recv().items():
            lines[f"{kind} {'beside searches' if together else 'alone'}"] = rate
        process.join()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", required=True, help="folder of embeddings")
    parser.add_argument("--gallery", required=True, help="folder of embeddings")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--noise", type=float, default=0.7)
    parser.add_argument("--timed", type=int, default=1000, help="queries timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cells", type=int, help="by default sqrt(rows)")
    parser.add_argument("--candidates", default="200,500", help="searched with each of these")
    parser.add_argument("--seconds", type=float, default=20, help="per measurement of writes")
    parser.add_argument("--batches", default="1,100,1000", help="vectors per write")
    parser.add_argument("--folder", help="for the files, about 3 x rows x dim x 4 bytes; temporary by default")
    parser.add_argument("--out", help="JSON of the results")
    args = parser.parse_args()
    sides = [Embeddings.load(folder) for folder in (args.queries, args.gallery)]
    fitted = whitening.fit(sides[1])
    queries, gallery = (normalize(fitted.apply(side.block(0, len(side)))) for side in sides)
    dim = gallery.shape[1]
    results = {"rows": args.rows, "dim": dim, "noise": args.noise, "hardware": provenance.hardware(),
               "versions": provenance.versions(), "faiss": faiss.__version__, "commit": provenance.commit(),
               "date": datetime.date.today().isoformat()}  # fmt: skip
    print(
        f"{results['hardware']['cores']} cores of {results['hardware']['processor']}, {results['date']}, commit "
        f"{str(results['commit'])[:10]}\n\n{len(queries):,} queries, {len(gallery):,} vectors of {dim} dimensions\n"
    )
    print("| bits | of float32 | candidates | recall@10 |\n|---:|---:|---:|---:|")
    lengths = [dim // 8 * 8, dim * 3 // 16 * 8, 2 * dim // 8 * 8]
    results["real"] = real(queries, gallery, lengths, [50, 100, 200, 400])

    with contextlib.ExitStack() as stack:
        base = pathlib.Path(args.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        base.mkdir(parents=True, exist_ok=True)
        file, folder = base / "vectors.npy", base / "index"
        shutil.rmtree(folder, ignore_errors=True)
        vectors = generate(file, gallery, args.rows, args.noise, 0)
        timed = queries[np.random.default_rng(0).permutation(len(queries))[: args.timed]]
        start = time.perf_counter()
        cells = args.cells or int(args.rows**0.5)
        store = binary.create(folder, vectors, cells=cells)
        results["fit_seconds"] = time.perf_counter() - start
        start = time.perf_counter()
        store.add([f"p{row}" for row in range(args.rows)], vectors)
        results["bulk_adds_a_second"] = args.rows / (time.perf_counter() - start)
        store.close()

        counts = [int(count) for count in args.candidates.split(",")]
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=opened, args=(str(folder), timed[:256], {"candidates": counts[-1]}, there))
        process.start()
        results["memory"] = here.recv()
        process.join()
        disk = {kind: sum(part.stat().st_size for part in folder.rglob(f"*.{kind}")) for kind in ("vectors", "log")}
        results["memory"] |= {
            "float32_bytes": args.rows * dim * 4,
            "code_bytes": args.rows * (2 * dim // 8),
            "vectors_on_disk": disk["vectors"],
            "log_on_disk": disk["log"],
        }

        # Rounds alternate between the three; faiss.knn searches the mapped vectors like a flat index, without a copy.
        flat = faiss.METRIC_INNER_PRODUCT
        ours = {f"ours, {count} candidates": binary.open(folder, candidates=count) for count in counts}
        searches = {
            "index.exact": lambda: exact.Index(vectors).search(timed, 10).item_rows,
            "faiss flat": lambda: faiss.knn(timed, vectors, 10, metric=flat)[1],
        }
        searches |= {name: lambda store=store: store.search(timed, 10).item_rows for name, store in ours.items()}
        times, found = {name: [] for name in searches}, {}
        for _ in range(args.rounds):
            for name, search in searches.items():
                start = time.perf_counter()
                found[name] = search()
                times[name].append((time.perf_counter() - start) / len(timed))
        results["searches"] = []
        best = min(statistics.median(times[name]) for name in ("index.exact", "faiss flat"))
        print(
            f"\n{args.rows:,} vectors, {len(timed)} queries at once, {cells} cells, noise {args.noise}\n\n"
            "| | ms per query (fastest, slowest) | throughput, relative to the faster exact search | recall@10 |\n"
            "|---|---|---:|---:|"
        )
        for name, seconds in times.items():
            line = {
                "name": name,
                "ms": [1e3 * value for value in seconds],
                "ratio": best / statistics.median(seconds),
                "recall@10": recall(found[name], found["index.exact"]),
            }
            results["searches"].append(line)
            print(
                f"| {name} | {statistics.median(line['ms']):.2f} ({min(line['ms']):.2f}, {max(line['ms']):.2f}) | "
                f"{line['ratio']:.1f} | {line['recall@10']:.4f} |"
            )
        one = next(iter(ours.values()))
        waits = []
        for query in timed[:200]:
            start = time.perf_counter()
            one.search(query[None], 10)
            waits.append(1e3 * (time.perf_counter() - start))
        results["one_query_ms"] = [float(np.quantile(waits, share)) for share in (0.5, 0.95)]
        print(f"one query at a time: {results['one_query_ms'][0]:.1f} ms, 95 % within {results['one_query_ms'][1]:.1f}")

        held = results["memory"]
        print(
            f"\ncodes {held['code_bytes'] / 2**20:.0f} MiB, 1 / {held['float32_bytes'] / held['code_bytes']:.0f} of "
            f"float32; opening takes {held['open_bytes'] / 2**20:.0f} MiB of anonymous memory and "
            f"{held['open_seconds']:.1f} s, searching at most {held['search_peak_bytes'] / 2**20:.0f} MiB; "
            f"on disk: vectors {disk['vectors'] / 2**20:.0f} MiB, log {disk['log'] / 2**20:.0f} MiB; fitted in "
            f"{results['fit_seconds']:.0f} s, {results['bulk_adds_a_second']:.0f} vectors added per second\n"
        )
        results["writes"] = []
        print(
            "| per second, in batches of | add | update | delete | searches alone | searches during writes |\n"
            "|---:|---:|---:|---:|---:|---:|"
        )
        for batch in map(int, args.batches.split(",")):
            line = alone_and_beside(folder, file, queries, batch, args.seconds, {"candidates": counts[0]})
            results["writes"].append(line)
            cells = [
                f"{line[f'{kind} beside searches']:,.0f} (alone {line[f'{kind} alone']:,.0f})"
                for kind in ("add", "update", "delete")
            ]
            print(
                f"| {batch} | {' | '.join(cells)} | {line['searches alone']:.0f} | "
                f"{line['searches beside writes']:.0f} |",
                flush=True,
            )
        with binary.open(folder, write=True) as store:
            dead, start = store.dead, time.perf_counter()
            store.compact()
            results["compaction"] = {"dead": dead, "seconds": time.perf_counter() - start}
            print(f"\ncompaction of {dead:,} dead rows: {results['compaction']['seconds']:.1f} s")
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
