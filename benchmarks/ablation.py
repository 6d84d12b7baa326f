r"""Compares finished runs with a baseline, query by query, and prints a Markdown table.

    python benchmarks/ablation.py --budget=third --out=benchmarks/ablation_third.json runs/fashion_ablation-*
    python benchmarks/ablation.py --budget=double --out=benchmarks/ablation_double.json runs/fashion_ablation-* \
        --against runs/fashion_softmax*
    python benchmarks/ablation.py --table benchmarks/ablation_third.json

Runs are work directories of configs/fashion_ablation.py, or of fashion_mining.py, whose switch is the change. Runs that
differ only in the seed share a row, with their scores averaged query by query. The baseline is change=none at the same
budget, or the runs given with --against. The difference is paired: the 95 % interval and p come from resampling the
queries (`bootstrap.paired_bootstrap`). "selection" is the half of the queries on which choices are made, "report" the
other half.
"""

import argparse
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import ml_collections  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import workdir  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.scoring.ranking import Ranking  # noqa: E402

METRIC = "mar@10_capped"


def parse(name: str) -> tuple[str, str, int]:
    """Returns change, budget and seed from the name of a work directory."""
    pairs = dict(re.findall(r"(change|switch|budget|seed)=([^,]+)", name))
    change = pairs.get("change", pairs.get("switch", "none"))
    return change, pairs.get("budget", "third"), int(pairs.get("seed", 0))


def scores(folder: pathlib.Path, truth) -> dict[str, np.ndarray]:
    """Returns {stage: [Q] scores} of the trained model or the ensemble in a work directory."""
    found = {}
    for stage in json.loads((folder / "metrics.json").read_text())["stages"]:
        if stage["model"] in ("trained", "ensemble"):
            ranking = Ranking.load(folder / "rankings" / stage["model"] / stage["stage"])
            found[stage["stage"]] = metrics.per_query(ranking, truth)[METRIC]
    return found


def collect(folders: list[pathlib.Path], against: list[pathlib.Path], baseline: str, budget: str, share: float) -> dict:
    """Returns rows of all changes at one budget, each against the baseline, and their provenance."""
    truth = loading.load(ml_collections.ConfigDict(workdir.read_config(folders[0])).data).truth
    chosen = metrics.selection_half(truth.query_ids, share)
    runs = {}
    for folder in folders + against:
        change, its_budget, seed = parse(folder.name)
        if folder in against:
            change, its_budget = baseline, budget
        if its_budget == budget:
            record = json.loads((folder / "stages" / "train.json").read_text())
            runs.setdefault(change, {})[seed] = {"scores": scores(folder, truth), "train": record}
    if baseline not in runs:
        raise SystemExit(f"no run of change={baseline}, budget={budget} among the {len(folders)} work directories")
    rows = []
    for change, by_seed in runs.items():
        for stage in next(iter(by_seed.values()))["scores"]:
            seeds = sorted(set(by_seed) & set(runs[baseline]))
            if not all(stage in runs[baseline][seed]["scores"] for seed in seeds):
                continue
            mine = np.mean([by_seed[seed]["scores"][stage] for seed in seeds], axis=0)
            base = np.mean([runs[baseline][seed]["scores"][stage] for seed in seeds], axis=0)
            rows.append(
                {
                    "change": change,
                    "stage": stage,
                    "seeds": seeds,
                    "all": float(np.nanmean(mine)),
                    "each_seed": [float(np.nanmean(by_seed[seed]["scores"][stage])) for seed in seeds],
                    "selection": float(np.nanmean(mine[chosen])),
                    "report": float(np.nanmean(mine[~chosen])),
                    "against_baseline": bootstrap.paired_bootstrap(base, mine),
                    "cpu_seconds": [by_seed[seed]["train"]["cpu_seconds"] for seed in seeds],
                    "commits": sorted({by_seed[seed]["train"]["commit"] for seed in seeds}),
                }
            )
    made = next(iter(runs[baseline].values()))["train"]
    return {
        "baseline": baseline,
        "budget": budget,
        "commit": made["commit"],
        "hardware": made["hardware"],
        "finished": made["finished"][:10],
        "metric": METRIC,
        "rows": rows,
    }


def table(results: dict, stages: tuple[str, ...]) -> str:
    """Returns one Markdown table per stage, best on the selection half first."""
    lines = []
    for stage in stages:
        rows = sorted((row for row in results["rows"] if row["stage"] == stage), key=lambda row: -row["selection"])
        if rows:
            lines += [
                "",
                f"{stage}, budget {results['budget']}, {METRIC} in points:",
                "",
                f"| change | all (seeds) | selection | report | against {results['baseline']} [95 %] | p | "
                "wins / losses | CPU s |",
                "|---|---|---|---|---|---|---|---|",
            ]
        for row in rows:
            gain = row["against_baseline"]
            each = ", ".join(f"{100 * value:.1f}" for value in row["each_seed"])
            seeds = f" ({each})" if len(row["seeds"]) > 1 else ""
            difference = (
                ""
                if row["change"] == results["baseline"]
                else (f"{100 * gain['difference']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]")
            )
            lines.append(
                f"| {row['change']} | {100 * row['all']:.1f}{seeds} | {100 * row['selection']:.1f} | "
                f"{100 * row['report']:.1f} | {difference} | {gain['p']:.4f} | "
                f"{gain['wins']} / {gain['losses']} | {np.mean(row['cpu_seconds']):.0f} |"
            )
    return "\n".join(lines)


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=pathlib.Path, help="work directories, or with --table a results file")
    parser.add_argument("--baseline", default="none", help="change to compare the others with, or a name")
    parser.add_argument("--against", nargs="+", type=pathlib.Path, default=[], help="runs to use as the baseline")
    parser.add_argument("--budget", default="third")
    parser.add_argument("--selection-share", type=float, default=0.5)
    parser.add_argument("--stages", nargs="+", default=("cosine", "whitening", "reranking"))
    parser.add_argument("--out", type=pathlib.Path, help="results file to write")
    parser.add_argument("--table", action="store_true", help="only print the table of a results file")
    given = parser.parse_args()
    if given.table:
        results = json.loads(given.paths[0].read_text())
    else:
        results = collect(given.paths, given.against, given.baseline, given.budget, given.selection_share)
        if given.out:
            given.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results, tuple(given.stages)))


if __name__ == "__main__":
    run()
