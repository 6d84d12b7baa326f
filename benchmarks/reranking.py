"""Times re-ranking: within each query's candidates against plain loops, and over the graph of queries and gallery.

    python benchmarks/reranking.py [--out=benchmarks/reranking.json]
    python benchmarks/reranking.py --queries=500 --gallery=5000 --sizes=1100,2200     # small, seconds

Prints ratios from one run: loops over part of the queries, before and after ours over all of them, and the largest
difference of their distances; then how time and memory grow with the graph. Memory is the anonymous memory (RssAnon) of
the re-ranking alone, beyond the vectors. The vectors are random unit vectors in products of about ten listings. Two
loop implementations follow the textbook method (Zhong et al., CVPR 2017): "sets" loops over pairs, points and members
of their sets; "arrays" loops over points only, with NumPy for distances and sets.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import memory  # noqa: E402
import numpy as np  # noqa: E402
import threadpoolctl  # noqa: E402

from retrieval_jax import index  # noqa: E402
from retrieval_jax.index import exact  # noqa: E402
from retrieval_jax.postprocess import global_reranking, reranking  # noqa: E402


def vectors(count: int, products: int, dim: int, seed: int) -> np.ndarray:
    """Returns unit vectors [count, dim] float32: a product's centre plus as much noise."""
    centres = np.random.default_rng(0).standard_normal((products, dim), np.float32)
    rng = np.random.default_rng(seed)
    out = rng.standard_normal((count, dim), np.float32)
    out += centres[rng.integers(products, size=count)]
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return out


def set_loops(query, gallery, candidates, k1=10, k2=6, lambda_value=0.5):
    """Re-ranks query by query in the textbook form, with Python loops over pairs, points and sets."""
    out = np.zeros(candidates.shape)
    for number, rows in enumerate(candidates):
        points = [query[number].astype(np.float64), *(gallery[row].astype(np.float64) for row in rows)]
        size = len(points)
        squared = [[float(((a - b) ** 2).sum()) for b in points] for a in points]
        scaled = [[value / max(row) for value in row] for row in squared]
        order = [sorted(range(size), key=lambda j, row=row: row[j]) for row in scaled]

        def reciprocal(i, k, order=order):
            return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

        encoding = []
        for i in range(size):
            first = reciprocal(i, k1)
            members = set(first)
            for j in first:
                brought = reciprocal(j, round(k1 / 2))
                if 3 * len(brought & first) > 2 * len(brought):
                    members |= brought
            weights = {j: math.exp(-scaled[i][j]) for j in members}
            total = sum(weights.values())
            encoding.append({j: weight / total for j, weight in weights.items()})
        expanded = []
        for i in range(size):
            mean = {}
            for j in order[i][:k2]:
                for member, weight in encoding[j].items():
                    mean[member] = mean.get(member, 0.0) + weight / k2
            expanded.append(mean)
        for j in range(1, size):
            shared = sum(min(weight, expanded[j].get(member, 0.0)) for member, weight in expanded[0].items())
            out[number, j - 1] = (1 - lambda_value) * (1 - shared / (2 - shared)) + lambda_value * scaled[0][j]
    return out


def array_loops(query, gallery, candidates, k1=10, k2=6, lambda_value=0.5):
    """Re-ranks query by query in the textbook form, looping over points, with NumPy for distances and sets."""
    out = np.zeros(candidates.shape)
    for number, rows in enumerate(candidates):
        points = np.vstack([query[number : number + 1], gallery[rows]])
        out[number] = encode(points, 1, k1, k2, lambda_value)[0]
    return out


def encode(points, queries, k1, k2, lambda_value):
    """Returns distances [queries, rest] among points, the first of which are queries."""
    count = len(points)
    points = points.astype(np.float64)
    distance = 2.0 - 2.0 * points @ points.T
    distance = np.maximum(distance, 0.0)
    distance[np.arange(count), np.arange(count)] = 0.0
    distance = distance / distance.max(axis=1, keepdims=True)
    rank = np.argsort(distance, axis=1, kind="stable")
    weights = np.zeros((count, count))

    def reciprocal(point, k):
        forward = rank[point, : k + 1]
        backward = rank[forward, : k + 1]
        return forward[np.where(backward == point)[0]]

    for point in range(count):
        first = reciprocal(point, k1)
        members = first
        for candidate in first:
            brought = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(brought, first)) > 2 / 3 * len(brought):
                members = np.append(members, brought)
        members = np.unique(members)
        weight = np.exp(-distance[point, members])
        weights[point, members] = weight / weight.sum()
    if k2 > 1:
        weights = np.stack([weights[rank[point, :k2]].mean(axis=0) for point in range(count)])
    holders = [np.where(weights[:, point] != 0)[0] for point in range(count)]
    out = np.zeros((queries, count - queries))
    for point in range(queries):
        shared = np.zeros(count)
        for member in np.where(weights[point] != 0)[0]:
            shared[holders[member]] += np.minimum(weights[point, member], weights[holders[member], member])
        jaccard = 1.0 - shared / (2.0 - shared)
        out[point] = ((1 - lambda_value) * jaccard + lambda_value * distance[point])[queries:]
    return out


def local(arguments) -> dict:
    """Times local re-ranking."""
    products = max(1, arguments.gallery // 10)
    gallery = vectors(arguments.gallery, products, arguments.dim, 1)
    query = vectors(arguments.queries, products, arguments.dim, 2)
    candidates = exact.Index(gallery).search(query, arguments.candidates).item_rows
    part = np.random.default_rng(3).permutation(len(query))[: arguments.loop_queries]
    reranking.local_k_reciprocal(query[:50], gallery, candidates[:50])  # warm up
    kinds = {"sets": set_loops, "arrays": array_loops}
    seconds, results = dict.fromkeys(kinds, 0.0), []
    for half in (part[::2], part[1::2]):
        for name, loops in kinds.items():
            with threadpoolctl.threadpool_limits(1, "blas"):  # as in ours: more threads slow down matrices this small
                start = time.perf_counter()
                results.append((half, loops(query[half], gallery, candidates[half])))
                seconds[name] += time.perf_counter() - start
        if len(results) == len(kinds):
            with memory.Peak() as peak:
                found = reranking.local_k_reciprocal(query, gallery, candidates)
            start = time.perf_counter()
            alone = reranking.local_k_reciprocal(query, gallery, candidates, threads=1)
            one = time.perf_counter() - start
            assert np.array_equal(alone, found), "the result depends on the number of threads"
    largest = max(float(np.abs(found[half] - expected).max()) for half, expected in results)
    ours, ours_one = (1e3 * value / len(query) for value in (peak.seconds, one))
    out = {
        "queries": len(query), "candidates": candidates.shape[1], "dim": arguments.dim, "gallery": len(gallery),
        "threads": reranking.cores(), "loop_queries": len(part), "ms_a_query": ours, "ms_a_query_one_thread": ours_one,
        "seconds": peak.seconds, "peak_bytes": peak.bytes - peak.before, "largest_difference": largest,
    }  # fmt: skip
    print(f"\nlocal, {len(query):,} queries x {out['candidates']} candidates x {arguments.dim} dimensions, loops over "
          f"{len(part)} of them")  # fmt: skip
    print("\n| form | ms per query | speed-up of ours | with one thread |\n|---|---|---|---|")
    for name in kinds:
        took = 1e3 * seconds[name] / len(part)
        out[f"{name}_ms_a_query"], out[f"faster_than_{name}"] = took, took / ours
        out[f"one_thread_faster_than_{name}"] = took / ours_one
        print(f"| loops over {name} | {took:.2f} | {took / ours:.0f} x | {took / ours_one:.0f} x |")
    print(f"| ours | {ours:.3f} | | |\n| ours, one thread | {ours_one:.3f} | | |\n\n{peak.seconds:.1f} s, peak memory "
          f"{out['peak_bytes'] / 2**20:.0f} MiB, largest difference {largest:.1e}, bitwise equal with one thread",
          flush=True)  # fmt: skip
    return out


def graph(arguments) -> dict:
    """Times global re-ranking on growing graphs, and against the dense form on a small one."""
    settings = {"k1": 20, "k2": 6, "lambda_value": 0.3}
    # The dense form uses n x n matrices and loops, so the graph is small.
    small, dim = arguments.dense, arguments.dim
    query, gallery = vectors(small // 11, small // 11, dim, 4), vectors(small - small // 11, small // 11, dim, 5)
    start = time.perf_counter()
    dense = encode(np.concatenate([query, gallery]), len(query), **settings)
    dense_seconds = time.perf_counter() - start
    candidates = exact.Index(gallery).search(query, 100).item_rows
    start = time.perf_counter()
    rows, distance = global_reranking.global_k_reciprocal(query, gallery, candidates, **settings)
    seconds = time.perf_counter() - start
    out = {
        "dense": {
            "points": small, "dense_seconds": dense_seconds, "seconds": seconds,
            "times_faster": dense_seconds / seconds,
            "largest_difference": float(np.abs(distance - np.take_along_axis(dense, rows, 1)).max()),
            "lists_differ": int((np.abs(np.sort(dense, axis=1)[:, : rows.shape[1]] - distance) > 1e-5).sum()),
        }
    }  # fmt: skip
    print(f"\nglobal, {small} points, against the dense form: {out['dense']['times_faster']:.0f} x, largest difference "
          f"{out['dense']['largest_difference']:.1e}, {out['dense']['lists_differ']} places differ")  # fmt: skip

    searched = []
    plain = index.nearest_rows

    def timed(*args, **kwargs):
        start = time.perf_counter()
        found = plain(*args, **kwargs)
        searched.append(time.perf_counter() - start)
        return found

    index.nearest_rows = timed
    out["sizes"] = []
    print("\n|   points | seconds | spent searching | growth ** | peak MiB | vectors MiB |\n|---|---|---|---|---|---|")
    for size in arguments.sizes:
        products = max(1, size // 11)
        query, gallery = vectors(products, products, dim, 6), vectors(size - products, products, dim, 7)
        candidates = exact.Index(gallery).search(query, 100).item_rows
        searched.clear()
        with memory.Peak() as peak:
            global_reranking.global_k_reciprocal(query, gallery, candidates, **settings)
        row = {"queries": len(query), "gallery": len(gallery), "dim": dim, "seconds": peak.seconds,
               "search_seconds": sum(searched), "peak_bytes": peak.bytes - peak.before,
               "vector_bytes": query.nbytes + gallery.nbytes}  # fmt: skip
        before = out["sizes"][-1] if out["sizes"] else None
        if before:
            grown = math.log(size / (before["queries"] + before["gallery"]))
            row["exponent"] = math.log(row["seconds"] / before["seconds"]) / grown
        out["sizes"].append(row)
        exponent = f"{row['exponent']:.2f}" if before else "-"
        print(f"| {size:8,} | {row['seconds']:7.1f} | {row['search_seconds']:7.1f} | {exponent} | "
              f"{row['peak_bytes'] / 2**20:.0f} | {row['vector_bytes'] / 2**20:.0f} |", flush=True)  # fmt: skip
    index.nearest_rows = plain
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--gallery", type=int, default=100_000, help="gallery rows for local re-ranking")
    parser.add_argument("--loop_queries", type=int, default=60, help="queries for the loops")
    parser.add_argument("--dense", type=int, default=1_650, help="points of the dense form; 0 skips the global part")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")],
                        default=[11_000, 33_000, 110_000], help="graph sizes for global re-ranking")  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "reranking.json")
    arguments = parser.parse_args()
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    model = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    out = {
        "date": datetime.date.today().isoformat(), "commit": done.stdout.strip(), "numpy": np.__version__,
        "cpu": f"{model[0] if model else platform.machine()}, {reranking.cores()} cores",
        "load_before": os.getloadavg()[0],
    }  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in out.items()))
    out["local"] = local(arguments)
    if arguments.dense:
        out["global"] = graph(arguments)
    arguments.out.write_text(json.dumps(out, indent=1) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
