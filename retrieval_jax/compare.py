"""Compares runs query by query and says, with intervals, whether one is better or the difference is noise.

    python -m retrieval_jax.compare runs/new-seed=0 runs/new-seed=1 --against runs/old-seed=0 runs/old-seed=1
    python -m retrieval_jax.compare runs/new --stage=whitening --against runs/new --against_stage=cosine

Runs are work directories of one catalogue, with rankings. The runs of one side are the same recipe with several seeds:
their scores are averaged query by query. The difference is paired: both sides are resampled with the same queries
(`scoring.comparing`), so that query difficulty cancels.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("compare")

import ml_collections
import rich.box
import rich.table

from retrieval_jax import workdir
from retrieval_jax.data import fields, loading
from retrieval_jax.embeddings import adapters
from retrieval_jax.files import atomic
from retrieval_jax.scoring import comparing, tables
from retrieval_jax.workdir import sides


def print_comparison(found: dict) -> None:
    """Prints the result of `compare`: one line per score, and the verdict."""
    for side in ("new", "old"):
        print(f"{side}: {', '.join(map(' '.join, zip(found[side]['runs'], found[side]['stages'], strict=True)))}")
    first = next(iter(found["scores"].values()))
    table = rich.table.Table(title=f"{first['num_scored']:,} queries, percent", box=rich.box.SIMPLE_HEAD)
    for name in ("score", "new", "old", "difference", "95 %", "p", "wins", "losses", "ties"):
        table.add_column(name, justify="left" if name == "score" else "right", no_wrap=True)
    for name, row in found["scores"].items():
        table.add_row(
            name,
            f"{100 * row['new']:.2f}",
            f"{100 * row['old']:.2f}",
            f"{100 * row['difference']:+.2f}",
            f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}",
            f"{row['p']:.4f}",
            *(f"{row[key]:,}" for key in ("wins", "losses", "ties")),
        )
    tables.show(table, width=110)
    print(found["verdict"])


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    config = ml_collections.ConfigDict(workdir.read_config(given.against[0]))
    asked = comparing.queries_of(loading.load(config.data), config, fields.read, half=given.half, names=given.metrics)
    found = comparing.compare(given.new, given.against, stage=given.stage, old_stage=given.against_stage, **asked)
    print_comparison(found)
    for folder in (*given.new, *given.against):
        if adapter := sides.of(workdir.read_config(folder))["gallery"].adapter:
            print(f"{folder}: {adapters.Adapter.load(adapter).sentence()}")
    if given.out:
        atomic.write_json(given.out, {**found, "half": given.half})
