"""Collects finished runs into one small results file and prints its Markdown table.

    python benchmarks/collect.py --out=benchmarks/fashion.json runs/fashion_*
    python benchmarks/collect.py --table benchmarks/fashion.json

Scores, times and provenance are copied from what the verbs wrote to the work directories; the only things computed here
are mean and spread over runs that differ only in the seed.
"""

import argparse
import json
import pathlib
import re

METRICS = ("mar@10_capped", "mar@10", "recall@1", "map@10")
TRAINING = ("parameters", "epochs", "steps", "batch_size", "images_per_second", "seconds_of_steps")


def collect(folder: pathlib.Path) -> dict:
    """Returns scores and provenance of one work directory."""
    run = json.loads((folder / "run.json").read_text())
    stages = json.loads((folder / "metrics.json").read_text())["stages"]
    train = folder / "stages" / "train.json"
    trained = json.loads(train.read_text()) if train.exists() else {}
    made = trained or json.loads((folder / "stages" / "search.json").read_text())
    return {
        "run": folder.name,
        "commit": made["commit"],
        "hardware": made["hardware"],
        "versions": run["versions"],
        "finished": made["finished"][:10],
        "train": {
            **{key: trained[key] for key in ("seconds", "cpu_seconds") if key in trained},
            **{key: value for key, value in trained.get("summary", {}).items() if key in TRAINING},
        },
        "scores": [
            {
                "model": stage["model"],
                "stage": stage["stage"],
                **{name: stage[name] for name in METRICS},
                "se": stage["mar@10_capped_se"],
                **{half: stage[half]["mar@10_capped"] for half in ("selection", "report")},
            }
            for stage in stages
        ],
    }


def table(runs: list[dict]) -> str:
    """Returns a Markdown table with one row per run and stage; seeds of a run share a row, as mean and values."""
    rows, untrained = {}, set()
    for run in runs:
        name = re.sub(r"-seed=\d+$", "", run["run"])
        for score in run["scores"]:
            if score["model"] == "histogram":  # the same in every run
                rows.setdefault((score["model"], score["stage"]), [(score, {})])
            elif score["model"] == "untrained":  # the same in all runs of a network and seed: shown once
                if score["map@10"] not in untrained:
                    untrained.add(score["map@10"])
                    rows.setdefault((f"{name}, untrained", score["stage"]), []).append((score, {}))
            elif score["model"] in ("trained", "ensemble"):
                rows.setdefault((name, score["stage"]), []).append((score, run["train"]))
    lines = [
        "| run | stage | mar@10_capped | mar@10 | recall@1 | mAP@10 | report half | training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, stage), found in rows.items():

        def mean(key, found=found):
            return 100 * sum(score[key] for score, _ in found) / len(found)

        values = [100 * score["mar@10_capped"] for score, _ in found]
        spread = f" ({', '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
        seconds = [train["cpu_seconds"] for _, train in found if "cpu_seconds" in train]
        cost = f"{sum(seconds) / len(seconds):.0f} CPU s" if seconds and stage == "cosine" else ""
        rest = " | ".join(f"{mean(key):.1f}" for key in ("mar@10", "recall@1", "map@10", "report"))
        main = f"{mean('mar@10_capped'):.1f} ± {100 * found[0][0]['se']:.1f}{spread}"
        lines.append(f"| {name} | {stage} | {main} | {rest} | {cost} |")
    return "\n".join(lines)


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=pathlib.Path, help="work directories, or with --table a results file")
    parser.add_argument("--out", type=pathlib.Path, help="results file to write")
    parser.add_argument("--table", action="store_true", help="only print the table of a results file")
    given = parser.parse_args()
    if given.table:
        runs = [run for path in given.paths for run in json.loads(path.read_text())["runs"]]
    else:
        runs = [collect(path) for path in given.paths]
        if given.out:
            given.out.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    print(table(runs))


if __name__ == "__main__":
    run()
