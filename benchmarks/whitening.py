"""Measures whitening fitted on a gallery on disk: time, anonymous memory and error, against sklearn's IncrementalPCA.

    python benchmarks/whitening.py --folder=/tmp/pipeline --out=benchmarks/whitening.json
    python benchmarks/whitening.py --rows=6000 --dim=128 --peer-rows=2000      # smoke test, seconds

Reads float16 shards (from generated.py, written first by a separate process, untimed, kept in --folder). sklearn fits
only --peer-rows rows, because it is slow, and its time is scaled to all rows; our fit of the same rows is timed as
well. "float32 products" is our fit with blocks multiplied in float32 and accumulated in float64: the alternative that
was rejected, with what it would save and cost. Errors are those of whitened vectors against an in-memory float64 fit of
--check-rows rows, and also for the embeddings in the folder --real.
"""

import argparse
import contextlib
import datetime
import json
import multiprocessing
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import generated  # noqa: E402
import numpy as np  # noqa: E402
from memory import Peak  # noqa: E402
from sklearn.decomposition import IncrementalPCA  # noqa: E402

from retrieval_jax.embeddings import Embeddings, moments  # noqa: E402
from retrieval_jax.postprocess import whitening  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402


def float32_moments(rows) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and covariance like embeddings.moments, but with products in float32."""
    count, width = rows.shape
    spread = np.unique(np.linspace(0, count - 1, min(count, moments.SHIFT_ROWS)).astype(int))
    shift = np.asarray(rows[spread], np.float32).mean(0)
    total, second = np.zeros(width), np.zeros((width, width))
    for start in range(0, count, moments.FIT_ROWS):
        block = np.asarray(rows[start : start + moments.FIT_ROWS], np.float32) - shift
        total += block.sum(0, dtype=np.float64)
        second += block.T @ block
    offset = total / count
    return shift + offset, second / count - np.outer(offset, offset)


def whitened(mean: np.ndarray, covariance: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Returns vectors whitened with these moments, float64."""
    directions, scale = whitening.inverse_root(covariance, 1e-7)
    return (vectors - mean) @ ((directions * scale) @ directions.T)


def errors(vectors: np.ndarray) -> dict[str, float]:
    """Returns the largest error of whitened values, ours and with float32 products, against a plain float64 fit."""
    wide = np.asarray(vectors, np.float64)
    some = wide[:: max(1, len(wide) // 2000)]
    mean = wide.mean(0)
    expected = whitened(mean, (wide - mean).T @ (wide - mean) / len(wide), some)
    ours, narrow = whitened(*moments.moments(vectors), some), whitened(*float32_moments(vectors), some)
    return {"ours": float(np.abs(ours - expected).max()), "float32 products": float(np.abs(narrow - expected).max())}


def peer(rows, batch: int) -> IncrementalPCA:
    """Fits sklearn's streaming PCA with all directions, including whitening."""
    pca = IncrementalPCA(whiten=True)
    for start in range(0, len(rows), batch):
        pca.partial_fit(rows[start : start + batch])
    return pca


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_100_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--peer-rows", type=int, default=100_000)
    parser.add_argument("--check-rows", type=int, default=20_000)
    parser.add_argument("--real", help="folder of embeddings to report errors for as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="for the shards, kept; by default temporary and removed at the end")
    parser.add_argument("--out", help="JSON of the results")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(args.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        shards = folder / "member0" / "embeddings" / "trained" / "gallery"  # where paper_pipeline.py writes them
        if not (shards / "embeddings.json").exists():
            process = multiprocessing.get_context("spawn").Process(
                target=generated.write, args=(shards, "gallery"),
                kwargs=dict(count=args.rows, products=max(1, args.rows // 10), dim=args.dim, member=0, seed=args.seed),
            )  # fmt: skip
            process.start()
            process.join()
        gallery = Embeddings.load(shards)
        if gallery.vectors.shape != (args.rows, args.dim):
            raise SystemExit(f"{shards} holds {gallery.vectors.shape}: change --rows and --dim, or --folder")
        lines = {}

        def line(name: str, rows: int, work) -> None:
            with Peak() as peak:
                work()
            lines[name] = {"rows": rows, "seconds": round(peak.seconds, 2), "us_a_row": 1e6 * peak.seconds / rows,
                           "anonymous_mib": round((peak.bytes - peak.before) / 2**20, 1)}  # fmt: skip

        count = min(args.peer_rows, args.rows)
        part = Embeddings(gallery.ids[:count], _first(gallery, count))
        batch = max(5 * args.dim, 1)
        line("sklearn IncrementalPCA", count, lambda: peer(part.vectors, batch))
        line("ours, the same rows", count, lambda: whitening.fit(part))
        line("float32 products, the same rows", count, lambda: float32_moments(part.vectors))
        line("ours, all rows", args.rows, lambda: whitening.fit(gallery))
        wrong = {"generated": errors(np.asarray(gallery.block(0, args.check_rows)))}
        if args.real:
            real = Embeddings.load(args.real)
            wrong["real"] = errors(real.block(0, len(real)))
    ratio = lines["sklearn IncrementalPCA"]["us_a_row"] / lines["ours, the same rows"]["us_a_row"]
    results = {"rows": args.rows, "dim": args.dim, "lines": lines, "ratio_to_sklearn": round(ratio, 1), "errors": wrong,
               "hardware": provenance.hardware(), "versions": provenance.versions(), "commit": provenance.commit(),
               "date": datetime.date.today().isoformat()}  # fmt: skip
    print(
        f"\n{args.rows:,} x {args.dim}, float16 on disk; {results['hardware']['cores']} cores of "
        f"{results['hardware']['processor']}, {results['date']}, commit {str(results['commit'])[:10]}"
    )
    print(f"| | rows | seconds | scaled to {args.rows:,} rows | anonymous MiB more |\n|---|---|---|---|---|")
    for name, row in lines.items():
        scaled = row["us_a_row"] * args.rows / 1e6
        print(f"| {name} | {row['rows']:,} | {row['seconds']:.1f} | {scaled:.0f} | {row['anonymous_mib']:.0f} |")
    print(f"sklearn takes {ratio:.1f} x our time per row")
    for name, values in wrong.items():
        print(f"largest error of a whitened value, {name}: " + ", ".join(f"{k} {v:.1e}" for k, v in values.items()))
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


def _first(gallery: Embeddings, count: int) -> list[np.ndarray]:
    """Returns the arrays that hold the first `count` rows, still memory-mapped."""
    starts = gallery.vectors.starts
    return [array[: count - first] for array, first in zip(gallery.vectors.arrays, starts[:-1], strict=True)
            if first < count]  # fmt: skip


if __name__ == "__main__":
    main()
