"""Compares exact search with faiss's flat search on a CPU, in one process, and on a GPU with the chip's peak.

    python benchmarks/exact_search.py                              10,000 x 1,100,000 x 512, k = 100
    python benchmarks/exact_search.py --accelerator --dim=2048     the devices that JAX sees, bfloat16 and float32
    python benchmarks/exact_search.py --queries=500 --rows=20000   smaller

Vectors are drawn around centres, of length 1 (with --accelerator on the device), and memory-mapped from a file, so that
faiss can search the map directly;
ours does not assume unit length, so its time includes reading, measuring lengths and re-scoring in float64. Timings
alternate; memory is anonymous memory (RssAnon) beyond that before a search, sampled. If faiss sees a GPU, its flat GPU
index is measured too. The share of peak counts 2 * queries * rows * dim operations per search.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import memory  # noqa: E402
import numpy as np  # noqa: E402
import tqdm  # noqa: E402

from retrieval_jax import index  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

BLOCK = 8192  # vectors drawn at once


def draw(count: int, dim: int, centres: np.ndarray, seed: int, out: np.ndarray, device: bool) -> np.ndarray:
    """Fills `out` with unit vectors around centres, block by block, drawn by NumPy or on JAX's device."""
    block_of = on_device(centres) if device else on_host(centres)
    for start in tqdm.tqdm(range(0, count, BLOCK), desc="vectors", mininterval=1):
        stop = min(start + BLOCK, count)
        out[start:stop] = block_of(seed, start)[: stop - start]
    return out


def on_host(centres: np.ndarray):
    """Returns (seed, first row) -> [BLOCK, dim] unit vectors."""

    def block_of(seed, start):
        rng = np.random.default_rng((seed, start))
        block = rng.standard_normal((BLOCK, centres.shape[1]), np.float32)
        block += centres[rng.integers(0, len(centres), BLOCK)]
        return block / np.linalg.norm(block, axis=1, keepdims=True)

    return block_of


def on_device(centres: np.ndarray):
    """Returns the same as `on_host`; NumPy needs a minute for a million rows of 2,048, a GPU milliseconds."""
    import jax
    import jax.numpy as jnp

    centres = jnp.asarray(centres)

    @jax.jit
    def block_of(seed, start):
        noise, which = jax.random.split(jax.random.fold_in(jax.random.key(seed), start))
        block = jax.random.normal(noise, (BLOCK, centres.shape[1]))
        block += centres[jax.random.randint(which, BLOCK, 0, len(centres))]
        return block / jnp.linalg.norm(block, axis=1, keepdims=True)

    return lambda seed, start: np.asarray(block_of(seed, start))


def alternate(runs: dict, rounds: int) -> tuple[dict, dict, dict]:
    """Returns each run's last result, seconds and peak memory over alternating rounds."""
    results, seconds, beyond = {}, {name: [] for name in runs}, {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            with memory.Peak() as peak:
                results[name] = run()
            seconds[name].append(peak.seconds)
            beyond[name].append(peak.bytes - peak.before)
            print(f"round {number + 1}, {name}: {seconds[name][-1]:.2f} s", flush=True)
    return results, seconds, beyond


def same_sets(found: np.ndarray, wanted: np.ndarray) -> float:
    """Returns the share of queries for which both found the same set of rows."""
    return float(np.mean([set(a) == set(b) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


def on_cpu(queries, gallery, given) -> dict:
    import faiss

    engine_kind = index.get("exact")
    results, seconds, beyond = alternate(
        {
            "ours": lambda: engine_kind.Index(gallery).search(queries, given.k).item_rows,
            "faiss flat": lambda: faiss.knn(queries, gallery, given.k, metric=faiss.METRIC_INNER_PRODUCT)[1],
        },
        given.rounds,
    )
    pairs = zip(seconds["faiss flat"], seconds["ours"], strict=True)
    return {
        "seconds": seconds,
        "faiss_over_ours": statistics.median(a / b for a, b in pairs),
        "peak_bytes": {name: max(values) for name, values in beyond.items()},
        "same_sets": same_sets(results["ours"], results["faiss flat"]),
        "gflops": {name: 2e-9 * queries.size * len(gallery) / min(values) for name, values in seconds.items()},
    }


def faiss_for_gpus():
    """Returns faiss if it is installed and sees a GPU, otherwise None."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss if hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() else None


def on_devices(queries, gallery, given) -> dict:
    import jax

    from retrieval_jax.training import telemetry

    accelerator = index.get("accelerator")
    kind = jax.devices()[0].device_kind
    peak = given.peak or (telemetry.peak_flops() or 0) * 1e-12 * len(jax.local_devices())
    forms = {"bfloat16, scores of the device": ("bfloat16", "float32"),
             "bfloat16, float64 on the host": ("bfloat16", "float64"),
             "float32, scores of the device": ("float32", "float32")}  # fmt: skip
    out = {"device": kind, "devices": len(jax.local_devices()), "peak_tflops": peak, "forms": {}}
    few = queries[:: max(1, len(queries) // 100)]
    wanted = index.get("exact").Index(gallery).search(few, given.k).item_rows
    for name, (dtype, rescore) in forms.items():
        made = accelerator.Index(gallery, dtype=dtype, rescore=rescore, margin=given.margin, group=given.group,
                                 query_block=given.query_block, gallery_block=given.gallery_block)  # fmt: skip
        start = time.perf_counter()
        made.search(queries, given.k)  # reads the gallery and compiles
        first = time.perf_counter() - start
        made.looks = dict.fromkeys(made.looks, 0)
        times = []
        for _ in range(given.rounds):
            start = time.perf_counter()
            made.search(queries, given.k)
            times.append(time.perf_counter() - start)
        tflops = 2e-12 * queries.size * len(gallery) / min(times)
        out["forms"][name] = row = {
            "seconds": times, "first_seconds": first, "tflops": tflops,
            "share_of_peak": tflops / peak if peak else None,
            "certified_share": 1 - made.looks["second"] / made.looks["queries"] if dtype == "bfloat16" else None,
            "looks": dict(made.looks), "same_sets_as_cpu": same_sets(made.search(few, given.k).item_rows, wanted),
        }  # fmt: skip
        print(f"{name}: {json.dumps(row)}", flush=True)
        made.wide = made.narrow = None
        del made
    if (faiss := faiss_for_gpus()) is not None:
        for half in (False, True):
            settings = faiss.GpuIndexFlatConfig()
            settings.useFloat16 = half
            flat = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), gallery.shape[1], settings)
            for first in range(0, len(gallery), 65536):
                flat.add(np.ascontiguousarray(gallery[first : first + 65536]))
            flat.search(queries[:16], given.k)
            times = []
            for _ in range(given.rounds):
                start = time.perf_counter()
                found = flat.search(queries, given.k)[1]
                times.append(time.perf_counter() - start)
            name = f"faiss GPU flat, {'float16' if half else 'float32'}"
            out["forms"][name] = {"seconds": times, "same_sets_as_cpu": same_sets(
                found[:: max(1, len(queries) // 100)], wanted)}  # fmt: skip
            print(f"{name}: {json.dumps(out['forms'][name])}", flush=True)
            del flat
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--centres", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--accelerator", action="store_true", help="measure the devices that JAX sees")
    parser.add_argument("--margin", type=int, default=64, help="of the accelerator index, like the next three")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--query_block", type=int, default=2048)
    parser.add_argument("--gallery_block", type=int, default=8192)
    parser.add_argument("--peak", type=float, default=0, help="10^12 bfloat16 operations per second, all devices")
    parser.add_argument("--folder", help="for the file of vectors; temporary by default")
    parser.add_argument("--out", type=pathlib.Path, help="JSON; by default benchmarks/exact_search[_accelerator].json")
    given = parser.parse_args()
    name = f"exact_search{'_accelerator' if given.accelerator else ''}.json"
    given.out = given.out or pathlib.Path(__file__).with_name(name)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        centres = 0.8 * np.random.default_rng(0).standard_normal((given.centres, given.dim), np.float32)
        file = np.lib.format.open_memmap(f"{folder}/gallery.npy", "w+", np.float32, (given.rows, given.dim))
        draw(given.rows, given.dim, centres, 1, file, given.accelerator)
        file.flush()
        del file
        gallery = np.load(f"{folder}/gallery.npy", mmap_mode="r")
        queries = np.empty((given.queries, given.dim), np.float32)
        draw(given.queries, given.dim, centres, 2, queries, given.accelerator)
        del centres
        found = (on_devices if given.accelerator else on_cpu)(queries, gallery, given)
    asked = {key: value for key, value in vars(given).items() if key not in ("out", "folder")}
    found = {"date": datetime.date.today().isoformat(), "commit": provenance.commit(),
             "versions": provenance.versions(), "hardware": provenance.hardware(), "asked": asked, **found}  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: found[key] for key in found if key not in ("versions",)}, indent=1))


if __name__ == "__main__":
    main()
