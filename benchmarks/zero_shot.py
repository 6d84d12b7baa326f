"""Which weights a fusion of BM25 and a zero-shot encoder should have where no judged queries choose them.

    python benchmarks/zero_shot.py tables icecat_titles.csv.gz data/icecat
    STEPS="--config.search.steps=(('fusion', {'method': 'min_max', 'weights': 'chosen'}),)"
    run="python -m retrieval_jax.run --config=configs/zero_shot_text.py"
    $run:root=data/icecat --workdir=runs/zero/icecat "$STEPS"
    $run:root=data/fashion/text,qrels=truth.csv --workdir=runs/zero/fashion "$STEPS"
    $run --workdir=runs/zero/embedded "$STEPS"
    python benchmarks/zero_shot.py weights runs/zero/*

`tables` writes gallery.csv, train.csv, queries.csv and qrels.csv of a search for known items: a query is some words of
a product's short description, which is another text than the title that is searched, and its product is what is
relevant. Words with a digit (model numbers) are in every second query only.

`weights` prints nDCG@10 of the selection half by the encoder's weight, from the runs' fusion.json. The weight of
configs/zero_shot_text.py is the largest with which no catalogue is below BM25: what nobody judges must not do harm.
"""

import argparse
import csv
import gzip
import json
import pathlib
import re

import numpy as np

QUERIES = 2000
WORDS = (2, 5)  # of a query


def tables(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the tables of a search for known items."""
    with gzip.open(source, "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["title"].strip()]
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "gallery.csv", ("id", "title"), [(row["id"], row["title"]) for row in rows])
    write(folder / "train.csv", ("id", "title"), [(row["id"], row["title"]) for row in rows])
    rng = np.random.default_rng(0)
    queries, truth, seen = [], [], set()
    for at in rng.permutation(len(rows)).tolist():
        words = list(dict.fromkeys(re.findall(r"[^\W_][\w.+-]*", rows[at]["short_description"])))
        if len(queries) % 2:
            words = [word for word in words if not re.search(r"\d", word)]
        if len(words) < WORDS[1]:
            continue
        chosen = np.sort(rng.permutation(len(words))[: rng.integers(WORDS[0], WORDS[1] + 1)])
        text = " ".join([rows[at]["supplier"], *(words[one] for one in chosen)]).lower()
        if text in seen:
            continue
        seen.add(text)
        queries.append((f"known-{len(queries):04d}", text))
        truth.append((queries[-1][0], rows[at]["id"]))
        if len(queries) == QUERIES:
            break
    write(folder / "queries.csv", ("id", "query"), queries)
    write(folder / "qrels.csv", ("query", "gallery"), truth)
    print(f"{len(rows):,} titles, {len(queries):,} queries in {folder}")


def write(path: pathlib.Path, header: tuple, rows: list) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def weights(folders: list[pathlib.Path]) -> None:
    """Prints nDCG@10 by weight, and the largest weight with which no catalogue is below BM25."""
    curves = {}
    for folder in folders:
        found = json.loads((folder / "rankings" / "ensemble" / "fusion.json").read_text())
        (one,) = found["tried"]
        curves[folder.name] = np.array(one["scores"])
        grid = np.array(one["weights"])
    print("| weight of the encoder |", " | ".join(curves), "|")
    print("|---:|" + "---:|" * len(curves))
    for at, weight in enumerate(grid.tolist()):
        print(f"| {weight:.2f} |", " | ".join(f"{curve[at]:.4f}" for curve in curves.values()), "|")
    harmless = np.all([curve >= curve[0] for curve in curves.values()], axis=0)
    print(f"the largest weight with which none is below BM25: {grid[harmless].max():.2f}")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tables", "weights"))
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    given = parser.parse_args()
    if given.what == "tables":
        tables(*given.paths)
    else:
        weights(given.paths)


if __name__ == "__main__":
    main()
