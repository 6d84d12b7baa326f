"""Times preparing a catalogue, and reading the result compared with reading the original files.

    python benchmarks/prepare.py [--pictures=3000] [--rounds=3] [--side=256] [--out=benchmarks/prepare.json]
    python benchmarks/prepare.py --pictures=60 --rounds=1                                       # smoke test, seconds

The photos are those of benchmarks/pipeline.py: 500 x 500 pixels, about 50 kB. Preparing is timed as a whole, from the
table to the verified folder, with one process and with one per core. Reading is in random order by one thread: the
encoded bytes alone, and decoded; from the system's file cache, and after asking the system to evict the files from it
(a virtual disk may still have cached them elsewhere).

Prints rates (median and range) in Markdown, and what they mean for 1.3 million pictures.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402
from pipeline import write_pictures  # noqa: E402

from retrieval_jax import prepare  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

MILLIONS = 1.3


def read_rates(source, files, seed: int) -> dict[str, float]:
    """Returns pictures per second: bytes alone and decoded, from a warm and from an evicted file cache."""
    rows = np.random.default_rng(seed).permutation(len(source)).tolist()
    rates = {}
    for cache in ("warm", "cold"):
        for what, read in (("read", source.read), ("read and decoded", source.__getitem__)):
            for file in files:
                with open(file, "rb") as opened:
                    if cache == "warm":
                        opened.read()
                    else:
                        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begun = time.perf_counter()
            for row in rows:
                read(row)
            rates[f"{what}, {cache}"] = len(rows) / (time.perf_counter() - begun)
    return rates


def main():
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--out", help="JSON file for the numbers")
    given = parser.parse_args()
    cores, found = provenance.cores(), {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "Images").mkdir()
        before = write_pictures(root / "Images", given.pictures)
        lines = [f"{row},{row}.jpg,title of {row}" for row in range(given.pictures)]
        (root / "train.csv").write_text("\n".join(["id,image,title", *lines]) + "\n")
        kwargs = {"root": folder, "image_root": "Images", "files": {"train": "train.csv"}}
        config = ConfigDict({"data": {"source": "table", "kwargs": kwargs | {"columns": {"title": "title"}}}})
        os.sync()
        for number in range(given.rounds):
            for processes in sorted({1, cores}):
                out = root / f"out-{number}-{processes}"
                begun, used = time.perf_counter(), provenance.cpu_seconds()
                # several files per process, as in a large catalogue
                prepare.run(
                    config, out, side=given.side, processes=processes, shard_rows=max(1, given.pictures // (4 * cores))
                )
                rate = given.pictures / (time.perf_counter() - begun)
                found.setdefault(f"prepared, processes {processes}", []).append(rate)
                if processes == 1:  # insensitive to a busy machine
                    found.setdefault("prepared, in a second of processor time", []).append(
                        given.pictures / (provenance.cpu_seconds() - used)
                    )
            os.sync()
            sources = {
                "files": (loading.load(config.data).train.images, list((root / "Images").iterdir())),
                "records": (
                    loading.load({"source": "tfds", "kwargs": {"root": str(out)}}).train.images,
                    list(out.glob("*.array_record-*")),
                ),
            }
            for name, (source, files) in sources.items():
                for what, rate in read_rates(source, files, number).items():
                    found.setdefault(f"{name}: {what}", []).append(rate)
        after = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / given.pictures

    middle = {what: statistics.median(rates) for what, rates in found.items()}
    print(
        f"\n{given.pictures:,} pictures, {given.rounds} rounds, {cores} cores, {provenance.processor()}; "
        f"{before / 1e3:.1f} kB per picture before, {after / 1e3:.1f} kB prepared at {given.side}\n"
    )
    print("| | pictures per second | range |\n|---|--:|--:|")
    for what, rates in found.items():
        print(f"| {what} | {middle[what]:,.0f} | {min(rates):,.0f} to {max(rates):,.0f} |")
    one, used = (
        MILLIONS * 1e6 / middle[f"prepared, {what}"] / 3600
        for what in (f"processes {cores}", "in a second of processor time")
    )
    sizes = [f"{MILLIONS * size / 1e3:,.1f} GB" for size in (before, after)]
    print(
        f"\n{MILLIONS} million such pictures: {sizes[0]} before, {sizes[1]} prepared; "
        f"{used:.1f} hours of one core's time, {one:.1f} hours here with {cores}; read once in random order by "
        f"one thread: {MILLIONS * 1e6 / middle['files: read, cold'] / 60:.0f} minutes from files, "
        f"{MILLIONS * 1e6 / middle['records: read, cold'] / 60:.0f} from records, not cached"
    )
    if given.out:
        pathlib.Path(given.out).write_text(
            json.dumps(
                {
                    "pictures": given.pictures,
                    "side": given.side,
                    "bytes_before": before,
                    "bytes_after": after,
                    "hardware": provenance.hardware(),
                    "versions": provenance.versions(),
                    "rates": found,
                },
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
