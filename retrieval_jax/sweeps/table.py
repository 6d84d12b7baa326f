"""The table of a sweep: each line's scores with intervals over seeds, and its difference from the first line."""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
import rich.table
import scipy.stats

from retrieval_jax import output
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.scoring import comparing, tables
from retrieval_jax.sweeps.ranges import Line, text


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95 % interval of the mean over seeds, by Student's t; None for fewer than two seeds.

    Args:
      values: the score of each seed.
    """
    if len(values) < 2:
        return None
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = float(np.mean(values))
    return mean - float(half), mean + float(half)


def holm(values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number: with twenty lines, one of chance has p < 0.05.

    Args:
      values: p-values of several tests.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    order, out, largest = np.argsort(values, kind="stable"), [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        out[place] = largest
    return out


def rows(
    lines: Sequence[Line], finished: Sequence[Mapping[str, pathlib.Path]], asked: Mapping[str, Any], stage: str = ""
) -> list[dict[str, Any]]:
    """Scores every line and compares it with the first, query by query.

    Args:
      lines: the lines.
      finished: {seed: work directory} of each line's finished runs.
      asked: see `comparing.queries_of`.
      stage: "stage" or "model/stage", "" for the last of each run.

    Returns:
      A dict per line: "name", "settings" (those that tell lines apart), "seeds", "scores" ({name: {"mean", "low",
      "high", "seeds"}}), "against_first" (of the first score: see `bootstrap.paired_bootstrap`, "p_holm", "noise" and
      "verdict"; None for the first line and where either has no finished run) and "problem" (why a line has no scores).

    Raises:
      InputError: no query has a relevant listing.
    """
    comparing.check_scored(asked["truth"], asked["chosen"])
    out = []
    for line, folders in zip(lines, finished, strict=True):
        settings = {key: line.settings[key] for key in line.varied if key in line.settings}
        row = {"name": line.name, "settings": settings, "seeds": list(folders), "scores": {}, "against_first": None}
        try:
            each = [_means(folder, stage, asked) for folder in folders.values()]
            row["scores"] = {name: _score([one[name] for one in each]) for name in asked["names"] if each}
        except InputError as error:
            row["problem"] = str(error)
        out.append(row)
    for row, folders in zip(out[1:], finished[1:], strict=True):
        common = [seed for seed in folders if seed in finished[0]]  # a pair has the same seeds on both sides
        if not common or not row["scores"] or not out[0]["scores"]:
            continue
        try:
            compared = comparing.compare(
                [folders[seed] for seed in common], [finished[0][seed] for seed in common], stage=stage, **asked
            )
            row["against_first"] = {"seeds": common, **compared["scores"][asked["names"][0]]}
        except InputError as error:
            row["problem"] = str(error)
    paired = [row["against_first"] for row in out if row["against_first"]]
    for found, p in zip(paired, holm([one["p"] for one in paired]), strict=True):
        found["p_holm"] = p
        found["noise"], found["verdict"] = comparing.verdict(asked["names"][0], {**found, "p": p})
    return out


def _means(folder: pathlib.Path, stage: str, asked: Mapping[str, Any]) -> dict[str, float]:
    """Returns the mean scores of one run."""
    chosen = slice(None) if asked["chosen"] is None else asked["chosen"]
    _, each = comparing.scores(folder, stage, asked["truth"], asked["names"], asked["graded"], asked["asked"])
    return {name: float(np.nanmean(values[chosen])) for name, values in each.items()}


def _score(values: list[float]) -> dict[str, Any]:
    low, high = interval(values) or (None, None)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "seeds": values}


# ------------------------------------------------------------------------------------------------------------ written


def _cells(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Returns a line's cells: its name, the seeds, the scores, and the difference of the first one."""
    cells = [row["name"], str(len(row["seeds"]))]
    for name in names:
        found = row["scores"].get(name)
        spread = f" ± {100 * (found['high'] - found['mean']):.2f}" if found and found["high"] is not None else ""
        cells.append(f"{100 * found['mean']:.2f}{spread}" if found else "")
    found = row["against_first"]
    if not found:
        return [*cells, "", "", "", row.get("problem", "")]
    better = "better" if found["difference"] > 0 else "worse"
    return [
        *cells,
        f"{100 * found['difference']:+.2f}",
        f"{100 * found['low']:+.2f} to {100 * found['high']:+.2f}",
        f"{found['p_holm']:.4f}",
        "noise" if found["noise"] else better,
    ]


def _head(names: Sequence[str]) -> list[str]:
    return ["line", "seeds", *names, "difference", "95 %", "p (Holm)", "verdict"]


def show(found: Sequence[dict], names: Sequence[str], half: str) -> None:
    """Prints the table, in percent.

    Args:
      found: see `rows`.
      names: names of the scores, in order; the difference is of the first.
      half: which queries: "all", "selection" or "report".
    """
    title = f"percent, {half} queries; ± over seeds; difference of {names[0]} from the first line, paired by query"
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD)
    head = _head(names)
    cells = [[output.visible(cell) for cell in _cells(row, names)] for row in found]
    for name in head:
        table.add_column(name, justify="left" if name in ("line", "verdict") else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    tables.show(table, width=sum(widths) + 3 * len(widths) + 4)  # with its blanks


def write(folder: pathlib.Path, found: Sequence[dict], names: Sequence[str], about: Mapping[str, Any]) -> None:
    """Writes table.json, table.csv and table.md.

    Args:
      folder: the sweep's.
      found: see `rows`.
      names: names of the scores, in order.
      about: what else table.json holds.
    """
    atomic.write_json(folder / "table.json", {**about, "metrics": list(names), "lines": list(found)})
    keys = list(dict.fromkeys(key for row in found for key in row["settings"]))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    numbers = ["difference", "low", "high", "p", "p_holm", "wins", "losses", "ties"]
    spread = [f"{name} {part}" for name in names for part in ("mean", "low", "high")]
    writer.writerow(["line", *map(output.cell, keys), "seeds", *spread, *numbers, "verdict"])
    for row in found:
        scores = [(row["scores"].get(name) or {}).get(part) for name in names for part in ("mean", "low", "high")]
        against = row["against_first"] or {}
        values = [output.cell(text(row["settings"][key])) if key in row["settings"] else "" for key in keys]
        verdict = against.get("verdict", row.get("problem", ""))
        writer.writerow(
            [
                output.cell(row["name"]),
                *values,
                json.dumps(row["seeds"]),
                *scores,
                *map(against.get, numbers),
                output.cell(verdict),
            ]
        )
    atomic.write_text(folder / "table.csv", stream.getvalue())
    head = _head(names)
    lines = [head, ["---", *("---:" for _ in head[1:-1]), "---"], *(_cells(row, names) for row in found)]
    cells = [[output.visible(cell).replace("|", r"\|") for cell in line] for line in lines]
    atomic.write_text(folder / "table.md", "".join(f"| {' | '.join(line)} |\n" for line in cells))
