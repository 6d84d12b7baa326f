"""Evaluate: rankings + truth -> metrics.json, and a submission in eProduct's format.

Choices (how many steps, which k1) are made on the selection half of the queries and reported on the other half: a query
belongs to a half by a hash of its id, so the halves are the same in every run and for every model.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import rich.box
import rich.console
import rich.table

from retrieval_jax import metrics
from retrieval_jax import workdir as work_directory
from retrieval_jax.data import catalog as catalog_module
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.ranking import Ranking, Truth, list_stages, matching_stages

SUBMISSION_DEPTH = 10
SUMMARY = ("mar@10", "mar@10_capped", "recall@1", "map@10", "num_queries", "num_scored", "num_without_relevant")
DEFINITIONS = {
    "mar@K": "share of the relevant listings found among the first K, mean over queries (denominator: number of "
    "relevant listings)",
    "mar@K_capped": "the same with the denominator min(K, number of relevant listings)",
    "recall@1": "share of queries whose first result is relevant",
    "map@K": "average precision of the first K over min(K, number of relevant listings), mean over queries",
    "*_se": "standard error of the mean over queries",
    "num_scored": "queries with a relevant listing; the means are over these; num_queries = num_scored + "
    "num_without_relevant",
    "selection, report": "the same over two halves of the queries, by sha256 of the id: choices are made on "
    "selection, told on report",
}


def write_submission(
    file: str | os.PathLike, ranking: Ranking, gallery_ids: Sequence[str], depth: int = SUBMISSION_DEPTH
) -> None:
    """Writes eProduct's submission CSV: no header, one line a query: query_uuid,id1 id2 ... id10.

    Args:
      file: where to; written whole or not at all.
      ranking: [Q, k]; repeated rows are written once, a query's own id never.
      gallery_ids: G ids, the gallery of the ranking.
      depth: results a query, fewer where the ranking holds fewer.

    Raises:
      InputError: the ranking is of another gallery, or an id holds a blank, which the format cannot say.
    """
    gallery_ids = Ids.of(gallery_ids)
    if ranking.gallery_sha256 and ranking.gallery_sha256 != gallery_ids.sha256():
        raise InputError(
            "the ranking was made with another gallery than the catalogue's (ids or their order differ): embed "
            "and search again"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for query, rows in zip(ranking.query_ids, ranking.item_rows.tolist(), strict=True):
        found = dict.fromkeys(gallery_ids[row] for row in rows if row >= 0)
        found.pop(query, None)
        chosen = list(found)[:depth]
        for item in chosen:
            if item.split() != [item]:
                raise InputError(
                    f"gallery id {item!r} is empty or holds a blank: a submission separates ids by blanks, rename it"
                )
        writer.writerow([query, " ".join(chosen)])
    work_directory.write_bytes(file, text.getvalue().encode("utf-8"))


def score(ranking: Ranking, truth: Truth, ks: Sequence[int], selection: np.ndarray) -> dict:
    """Returns `metrics.evaluate` over all queries, with "selection" and "report": the same over the two halves."""
    halves = {"selection": selection, "report": ~selection}
    return {
        **metrics.evaluate(ranking, truth, ks),
        **{name: metrics.evaluate(ranking, truth, ks, chosen=chosen) for name, chosen in halves.items()},
    }


def print_scores(rows: list[dict]) -> None:
    """Prints the score table: one line per model and stage, in percent.

    Args:
      rows: the "stages" of metrics.json.
    """
    counts = rows[0] if rows else {"num_scored": 0, "num_queries": 0}
    title = f"{counts['num_scored']} of {counts['num_queries']} queries have a relevant listing"
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD)
    columns = ("mar@10", "mar@10_capped", "recall@1", "map@10")
    for name, justify in [
        ("model", "left"),
        ("stage", "left"),
        *((column, "right") for column in columns),
        ("± se (capped)", "right"),
    ]:
        table.add_column(name, justify=justify, no_wrap=True)

    def number(value) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    for row in rows:
        table.add_row(
            row["model"], row["stage"], *(number(row[name]) for name in columns), number(row["mar@10_capped_se"])
        )
    rich.console.Console(width=max(100, rich.console.Console().width)).print(table)


def run(config, workdir) -> dict:
    """Scores every ranking of the work directory and writes metrics.json and submission.csv.

    Args:
      config: data, evaluate.ks, evaluate.selection_share, evaluate.submission_stage ("stage" or "model/stage").
      workdir: the work directory, with rankings.

    Returns:
      Summary: the last stage's main scores, or that nothing could be scored.

    Raises:
      InputError: no rankings, or rankings of other queries or of another gallery than the catalogue's.
    """
    workdir = pathlib.Path(workdir)
    stages = list_stages(workdir)
    settings = config.evaluate
    submitted = matching_stages(stages, settings.submission_stage, "config.evaluate.submission_stage")[-1]
    catalog = catalog_module.load(config.data)
    gallery_ids = Ids.of(catalog.split("gallery").ids)
    rankings = {stage: Ranking.load(workdir / "rankings" / stage[0] / stage[1]) for stage in stages}
    query_ids = Ids.of(catalog.split("query").ids)
    for stage, ranking in rankings.items():
        if ranking.query_ids != query_ids:
            raise InputError(
                f"the ranking {'/'.join(stage)} has {len(ranking)} queries, the catalogue {len(query_ids)}, or in "
                "another order: "
                "embed and search this catalogue again"
            )
    write_submission(workdir / "submission.csv", rankings[submitted], gallery_ids)
    print(f"evaluate: wrote {workdir / 'submission.csv'} from the stage {'/'.join(submitted)}")
    file = workdir / "metrics.json"
    if catalog.truth is None:
        file.unlink(missing_ok=True)  # an older one would be of other data
        print(
            f"evaluate: the catalogue {catalog.name} says nothing about which listings are right, so nothing is scored"
        )
        return {"scored": False, "submission_stage": "/".join(submitted)}

    truth = dataclasses.replace(
        catalog.truth, query_ids=Ids.of(catalog.truth.query_ids), gallery_ids=Ids.of(catalog.truth.gallery_ids)
    )
    ks = sorted({*settings.ks, 10})  # the published metric is always there
    selection = metrics.selection_half(truth.query_ids, settings.selection_share)
    rows = [
        {"model": stage[0], "stage": stage[1], **score(ranking, truth, ks, selection)}
        for stage, ranking in rankings.items()
    ]
    work_directory.write_json(
        file, {"stages": rows, "definitions": DEFINITIONS, "submission_stage": "/".join(submitted)}
    )
    print_scores(rows)
    last = rows[-1]
    return {
        "scored": True,
        "model": last["model"],
        "stage": last["stage"],
        "submission_stage": "/".join(submitted),
        **{name: last[name] for name in SUMMARY},
    }


if __name__ == "__main__":
    from retrieval_jax import command_line

    command_line.main(run, "evaluate")
