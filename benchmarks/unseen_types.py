"""Writes a copy of the fashion catalogue whose train split lacks 20 article types, and which queries are of those.

    python benchmarks/unseen_types.py data/fashion data/fashion_seen --attributes=data/fashion_attributes.csv.gz
    run="python -m retrieval_jax.run --config=configs/fashion_small_query.py"
    $run:pictures=$PWD/runs/gallery,network=same --config.data.kwargs.root=data/fashion_seen \\
        --workdir=runs/compatible/seen-0
    python benchmarks/compatible.py runs/gallery --root=data/fashion --networks seen=runs/compatible/seen-0 \\
        --queries=data/fashion_seen/unseen_queries.txt

What a query network has not seen: the gallery network has, as it has in a shop whose phones get a new category. Types
are drawn from those with enough queries; pictures are linked, not copied, so both folders are on one disk.
"""

import argparse
import csv
import gzip
import os
import pathlib
import random
import shutil
from collections import Counter


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=pathlib.Path, help="the catalogue")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    parser.add_argument("--attributes", type=pathlib.Path, required=True, help="fashion_attributes.csv.gz")
    parser.add_argument("--types", type=int, default=20, help="article types to leave out")
    parser.add_argument("--least", type=int, default=10, help="queries of such a type")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with gzip.open(args.attributes, "rt", newline="") as file:
        kinds = {row["UUID"]: (row["split"], row["articleType"]) for row in csv.DictReader(file)}
    queries = Counter(kind for split, kind in kinds.values() if split == "query")
    enough = sorted(kind for kind, count in queries.items() if count >= args.least)
    if len(enough) < args.types:
        raise SystemExit(f"{len(enough)} article types have {args.least} queries, and --types asks for {args.types}")
    chosen = set(random.Random(args.seed).sample(enough, args.types))
    shutil.copytree(args.root, args.out, copy_function=os.link)
    train = args.out / "metadata" / "train.csv"
    with train.open(newline="") as file:
        header, *rows = csv.reader(file)
    kept = [row for row in rows if kinds[row[0]][1] not in chosen]
    train.unlink()  # a link to the file of the whole catalogue
    with train.open("w", newline="") as file:
        csv.writer(file).writerows([header, *kept])
    asked = {"unseen": [], "seen": []}
    for name, (split, kind) in sorted(kinds.items()):
        if split == "query":
            asked["unseen" if kind in chosen else "seen"].append(name)
    for which, names in asked.items():
        (args.out / f"{which}_queries.txt").write_text("".join(f"{name}\n" for name in names))
    print(f"{len(rows):,} train listings: {len(kept):,} kept, {len(rows) - len(kept):,} of {', '.join(sorted(chosen))}")
    print(f"{len(asked['unseen']):,} queries of these types, {len(asked['seen']):,} of others")


if __name__ == "__main__":
    main()
