"""Draws the README's picture, docs/rows.png, from a finished quickstart: users' photos and what was found for them.

    PYTHONPATH=. .venv/bin/python docs/make_rows.py --workdir=runs/quickstart

The queries are the first of a fixed random order, not chosen by how well they did.
"""

import argparse
import pathlib

import numpy as np

from retrieval_jax import report, workdir
from retrieval_jax.data import loading
from retrieval_jax.scoring.ranking import Ranking


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/quickstart"))
    parser.add_argument("--stage", default="cosine")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).with_name("rows.png"))
    given = parser.parse_args()
    catalog = loading.load(workdir.read_config(given.workdir)["data"])
    ranking = Ranking.load(given.workdir / "rankings" / "trained" / given.stage)
    rows = np.random.default_rng(given.seed).permutation(len(catalog.query))[: given.rows]
    report.rows_picture(catalog, ranking, catalog.truth, rows.tolist(), given.out)
    print(given.out)


if __name__ == "__main__":
    main()
