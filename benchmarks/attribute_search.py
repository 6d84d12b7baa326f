"""Measures the attribute index: conditions, facets and memory at a million listings, beside faiss and Milvus.

    python benchmarks/attribute_search.py --folder=FOLDER [--out=benchmarks/attribute_search.json] [--claims]
    python benchmarks/attribute_search.py --folder=FOLDER --rows=20000 --values=2000 --timed=5          # small

Listings are generated: value r of --values occurs with probability 1 - exp(-c / r), with c such that a listing has
--attributes values on average; the values are dealt to 20 fields in turn, and a price is log-normal. Vectors are points
around 4,000 centres. They are kept in --folder (700 MB and the vectors), and read from there the next time.

Per selectivity: a query's top 10 under a condition of its own, of one value (50 %, 1 %) or of two (0.01 %); then the
counts of the ten largest values of every field among all matches, and those of every value. Each is measured in wall
time, which means little on a machine that does something else (the load is printed, and stands in the results), and
in processor time of all threads. faiss (IVF1024,SQ8, nprobe=32) is asked for ten times as many results and filtered
afterwards; recall is against brute force over the matching rows. Milvus-lite, which takes minutes per 10,000 listings
with this many attributes, gets --milvus-rows of them, with the attribute index beside it on the same ones. Kills:
`python tests/attribute_writes.py --kills=1000`.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from memory import anonymous  # noqa: E402

from retrieval_jax.index import attribute  # noqa: E402
from retrieval_jax.index import milvus as milvus_index  # noqa: E402
from retrieval_jax.index.attribute import Field, Table, facets, inner, storage  # noqa: E402
from retrieval_jax.index.attribute.table import to_rows  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

FIELDS, K = 20, 10
BARS = {"search": 20.0, "facets": 30.0, "memory": 1e9}
MADE_OF = ("rows", "values", "attributes", "dim", "seed")  # arguments that the listings and vectors depend on
COMMAND = "python benchmarks/attribute_search.py --folder=FOLDER --claims"


def chances(values: int, mean: float) -> np.ndarray:
    """Returns the probability of each value, [values], that sum to `mean`."""
    low, high = 0.0, float(values)
    for _ in range(60):
        middle = (low + high) / 2
        total = (1 - np.exp(-middle / np.arange(1, values + 1))).sum()
        low, high = (middle, high) if total < mean else (low, middle)
    return 1 - np.exp(-middle / np.arange(1, values + 1))


def listings(rows: int, values: int, mean: float, seed: int) -> dict:
    """Returns the fields of generated listings."""
    rng, chance, block = np.random.default_rng(seed), chances(values, mean), 1 << 16
    indptr, ids = [[np.zeros(1, np.int64)] for _ in range(FIELDS)], [[] for _ in range(FIELDS)]
    for start in range(0, rows, block):
        count = min(block, rows - start)
        for field in range(FIELDS):
            sizes = rng.binomial(count, chance[field::FIELDS])
            owner = [rng.choice(count, size, replace=False, shuffle=False).astype(np.uint16) for size in sizes]
            owner, value = np.concatenate(owner), np.repeat(np.arange(len(sizes), dtype=np.uint16), sizes)
            order = np.argsort(owner, kind="stable")
            ids[field].append(value[order])
            indptr[field].append(indptr[field][-1][-1] + np.cumsum(np.bincount(owner, minlength=count)))
    out = {}
    for field in range(FIELDS):
        names = [f"value{value}" for value in range(field, values, FIELDS)]
        out[f"field{field}"] = Field(names, np.concatenate(indptr[field]), np.concatenate(ids[field]))
        indptr[field] = ids[field] = None
    return out | {"price": rng.lognormal(3, 1, rows).astype(np.float32)}


def prepare(folder: pathlib.Path, args) -> None:
    """Writes listings and vectors into the folder, if they are not there; exits where they are of other arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    made, asked = folder / "made.json", {name: getattr(args, name) for name in MADE_OF}
    there = json.loads(made.read_text()) if made.exists() else None
    if there != asked and (there is not None or any(folder.iterdir())):
        sys.exit(f"{folder} was made of {there or 'unknown arguments'}, now {asked}: give another folder, or empty it")
    made.write_text(json.dumps(asked))
    if not (folder / "vectors.npy").exists():
        rng = np.random.default_rng(args.seed)
        centres = rng.standard_normal((4000, args.dim), np.float32)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        new = folder / "vectors.npy.new"  # renamed when it is whole
        out = np.lib.format.open_memmap(new, "w+", np.float32, (args.rows, args.dim))
        for start in range(0, args.rows, 50_000):
            count = min(50_000, args.rows - start)
            block = rng.standard_normal((count, args.dim), np.float32) * np.float32(0.7 / args.dim**0.5)
            block += centres[rng.integers(len(centres), size=count)]
            out[start : start + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
        out.flush()
        os.replace(new, folder / "vectors.npy")
    if not (folder / "table" / "values.json").exists():
        fields = listings(args.rows, args.values, args.attributes, args.seed)
        start, busy = time.perf_counter(), time.process_time()
        table = attribute.build(fields, args.rows)
        built = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - busy}
        (folder / "table").mkdir(exist_ok=True)
        storage.write(table, folder / "table")
        (folder / "built.json").write_text(json.dumps(built))


def conditions(table: Table, share: float, count: int, rng) -> list:
    """Returns conditions that about a share of the rows meets, of one value, or of two for very small shares."""

    def near(share: float, most: int) -> np.ndarray:
        return np.argsort(np.abs(np.log(np.maximum(table.sizes, 1) / table.rows / share)), kind="stable")[:most]

    out = []
    for _ in range(count):
        values = [rng.choice(near(share, 8))] if share > 1e-3 else rng.choice(near(share**0.5, 200), 2, replace=False)
        clauses = [(table.fields[table.field_of[value]], (table.names[value],)) for value in values]
        out.append(attribute.parse({"required": clauses}))
    return out


def timed(function) -> tuple[object, tuple[float, float]]:
    """Returns a function's result, and in ms its wall time and the processor time of all threads."""
    start, busy = time.perf_counter(), time.process_time()
    out = function()
    return out, (1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - busy))


def truth(vectors, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns the K rows of highest cosine by brute force."""
    scores = np.concatenate([vectors[rows[at : at + 65536]] @ query for at in range(0, len(rows), 65536)])
    return rows[np.argsort(-scores, kind="stable")[:K]]


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.isin(true, found).mean()) if len(true) else 1.0


def summary(times: list[tuple[float, float]]) -> dict:
    """Returns medians in ms, and the 95 % interval of the median wall time by bootstrap."""
    wall, busy = np.array(times).T
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(wall, len(wall))) for _ in range(2000)]
    return {
        "wall_ms": float(np.median(wall)),
        "wall_95": [float(edge) for edge in np.quantile(medians, [0.025, 0.975])],
        "processor_ms": float(np.median(busy)),
    }


def measure(index: attribute.Index, vectors, args) -> list[dict]:
    """Returns a line per selectivity."""
    rng, table = np.random.default_rng(args.seed + 1), index.table
    other = faiss.index_factory(args.dim, f"IVF{min(1024, args.rows // 40)},SQ8", faiss.METRIC_INNER_PRODUCT)
    other.train(np.ascontiguousarray(vectors[:: max(1, args.rows // 65536)]))
    other.add(np.ascontiguousarray(vectors))
    other.nprobe = 32
    lines = []
    for share in (0.5, 0.01, 0.0001):
        queries = vectors[rng.integers(args.rows, size=args.timed)] + rng.standard_normal(
            (args.timed, args.dim), np.float32
        ) * np.float32(0.5 / args.dim**0.5)
        parts = {"search": [], "facets": [], "facets of every value": [], "facets of four fields": [], "faiss": []}
        recalls, faiss_recalls, short, sizes = [], [], [], []
        for query, given in zip(queries, conditions(table, share, args.timed, rng), strict=True):
            matches = table.matching(given)
            rows = to_rows(matches)
            want = truth(vectors, query / np.linalg.norm(query), rows)
            found, took = timed(lambda query=query, given=given: index.find(query[None], K, given))
            parts["search"].append(took)

            def post(query=query, matches=matches):
                return [row for row in other.search(query[None], 10 * K)[1][0].tolist() if row in matches][:K]

            filtered, took = timed(post)
            parts["faiss"].append(took)
            for name, options in (("facets", {"top": 10}), ("facets of every value", {}),
                                  ("facets of four fields", {"fields": table.fields[:4]})):  # fmt: skip
                if name == "facets" or len(parts[name]) < args.slow:
                    parts[name].append(timed(lambda m=matches, options=options: facets.count(table, m, **options))[1])
            recalls.append(recall(found.ranking.item_rows[0], want))
            faiss_recalls.append(recall(np.array(filtered), want))
            short.append(len(filtered) < min(K, len(rows)))
            sizes.append(len(rows))
        line = {"share": share, "matches": statistics.median(sizes), "recall": float(np.mean(recalls)),
                "faiss_recall": float(np.mean(faiss_recalls)), "faiss_short": float(np.mean(short)),
                **{name: summary(times) for name, times in parts.items()}}  # fmt: skip
        lines.append(line)
        print(
            f"| {share:.2%} | {line['matches']:,.0f} | "
            + " | ".join(f"{part['wall_ms']:.1f} ({part['processor_ms']:.1f})" for part in map(line.get, parts))
            + f" | {line['recall']:.3f} | {line['faiss_recall']:.3f} | {line['faiss_short']:.0%} |",
            flush=True,
        )
    return lines


def milvus(args) -> dict | None:
    """Returns times and recall of Milvus-lite's filter and of the attribute index on the same, fewer listings."""
    if not args.milvus_rows:
        return None
    rng, rows = np.random.default_rng(args.seed + 2), args.milvus_rows
    vectors = rng.standard_normal((rows, args.dim), np.float32)
    table = attribute.build(listings(rows, args.values, args.attributes, args.seed), rows)
    ours = attribute.Index(vectors, fields=table)
    out = {"rows": rows, "searches": []}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        theirs = milvus_index.Index(vectors, uri=f"{folder}/milvus.db", fields=inner.milvus_fields(table))
        out["load_seconds"] = time.perf_counter() - start
        for share in (0.5, 0.01, 0.0001):
            took, both = {"ours": [], "milvus": []}, []
            for given in conditions(table, share, args.slow, rng):
                query = rng.standard_normal((1, args.dim), np.float32)
                found, spent = timed(lambda query=query, given=given: ours.find(query, K, given).ranking)
                took["ours"].append(spent)
                text = inner.milvus_filter(given, table)
                other, spent = timed(lambda query=query, text=text: theirs.search(query, K, filter=text))
                took["milvus"].append(spent)
                both.append(recall(other.item_rows[0], found.item_rows[0][found.item_rows[0] >= 0]))
            line = {
                "share": share,
                "recall": float(np.mean(both)),
                **{name: summary(one) for name, one in took.items()},
            }
            out["searches"].append(line)
            walls = [line[name]["wall_ms"] for name in ("milvus", "ours")]
            print(f"milvus-lite, {rows:,} listings, {share:.2%}: wall {walls[0]:.1f} ms, recall {line['recall']:.3f}; "
                  f"the attribute index {walls[1]:.1f} ms")  # fmt: skip
    return out


def write_claims(results: dict) -> None:
    """Writes what was measured, with its bars, into benchmarks/claims.json."""
    from claims import write

    made = []
    for line in results["lines"]:
        share = f"{line['share']:.2%}".rstrip("0").rstrip(".%") + " %"
        for name, bar, what in (
            ("search", BARS["search"], "a condition and the top 10"),
            ("facets", BARS["facets"], "counts of each field's ten largest values"),
            ("facets of every value", BARS["facets"], f"counts of all {results['values']:,} values"),
        ):
            part = line[name]
            made.append({
                "id": f"attributes_{name.replace(' ', '_')}_{line['share']:g}", "system": "attributes",
                "statement": f"{results['rows']:,} listings, {share} match: {what} (median wall time on 2 cores at a "
                             f"load of {results['load'][0]:.1f}; processor time {part['processor_ms']:.1f} ms)",
                "metric": "ms", "value": {"0": part["wall_ms"]}, "baseline": {"0": bar},
                "difference": [part["wall_ms"] - bar, *(edge - bar for edge in part["wall_95"])],
                "holds": part["wall_ms"] <= bar, "command": COMMAND,
            })  # fmt: skip
        gap = line["recall"] - line["faiss_recall"]
        made.append({
            "id": f"attributes_recall_{line['share']:g}", "system": "attributes",
            "statement": f"{share} match: filtered recall@10, beside faiss's ten times as many results, filtered",
            "metric": "recall@10", "value": {"0": line["recall"]}, "baseline": {"0": line["faiss_recall"]},
            "difference": [gap, gap, gap], "holds": line["recall"] == 1.0, "command": COMMAND,
        })  # fmt: skip
    held = results["memory"]["anonymous_bytes"] + results["memory"]["mapped_bytes"]
    made.append({
        "id": "attributes_memory", "system": "attributes",
        "statement": "memory beyond the vectors, in memory and mapped from files", "metric": "bytes",
        "value": {"0": held}, "baseline": {"0": BARS["memory"]}, "difference": [held - BARS["memory"]] * 3,
        "holds": held <= BARS["memory"], "command": COMMAND,
    })  # fmt: skip
    write(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="where listings and vectors are kept")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--values", type=int, default=20_000)
    parser.add_argument("--attributes", type=float, default=200, help="values per listing, on average")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--timed", type=int, default=40, help="queries per selectivity")
    parser.add_argument("--slow", type=int, default=5, help="of which so many are timed where one takes long")
    parser.add_argument("--milvus-rows", type=int, default=5000, help="0 leaves Milvus out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON of the results")
    parser.add_argument("--claims", action="store_true", help="write them into benchmarks/claims.json too")
    args = parser.parse_args()
    prepare(args.folder, args)
    vectors = np.load(args.folder / "vectors.npy", mmap_mode="r")
    results = {"rows": args.rows, "values": args.values, "attributes": args.attributes, "dim": args.dim,
               "hardware": provenance.hardware(), "versions": provenance.versions(), "commit": provenance.commit(),
               "date": datetime.date.today().isoformat(), "load": os.getloadavg()}  # fmt: skip
    built = args.folder / "built.json"
    results["build"] = json.loads(built.read_text()) if built.exists() else None
    print(f"{results['hardware']['cores']} cores of {results['hardware']['processor']}, {results['date']}, load "
          f"{results['load'][0]:.1f}, commit {str(results['commit'])[:10]}\n")  # fmt: skip

    before, start = anonymous(), time.perf_counter()
    index = attribute.Index(vectors, fields=args.folder / "table")
    results["open_seconds"] = time.perf_counter() - start
    index.facets()  # reads every posting
    index.scan._encode()
    index.find(np.ones((1, args.dim), np.float32), K)
    mapped = (args.folder / "table" / "entries.npy").stat().st_size
    results["memory"] = {"anonymous_bytes": anonymous() - before, "mapped_bytes": mapped}
    print(
        "memory beyond the vectors: {anonymous_bytes:,} bytes, and {mapped_bytes:,} mapped\n".format(
            **results["memory"]
        )
    )
    head = ["selectivity", "matches", "search", "facets: ten values per field", "every value",
            "four fields, every value", "faiss, filtered afterwards", "recall", "faiss's", "faiss short"]  # fmt: skip
    print("ms of wall time, median (processor time of all threads)\n")
    print(f"| {' | '.join(head)} |\n|---{'|---:' * (len(head) - 1)}|")
    results["lines"] = measure(index, vectors, args)
    results["milvus"] = milvus(args)
    results["load"] = [*results["load"], *os.getloadavg()]
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")
    if args.claims:
        write_claims(results)


if __name__ == "__main__":
    main()
