"""Measures the choice of search steps against plain cosine and the best step found with labels, run by run.

    python benchmarks/choosing.py quickstart_0=runs/quickstart fashion_0=runs/fashion_softmax --small=5

Reads embeddings and evidence that `embed` left in each run. The best step with labels is taken on the selection half
of the queries; everything is reported on both halves. --small=5 also draws five galleries of 250 listings from each
run, filled up with listings whose altered pictures were embedded. Each run's entry is written as soon as it is
finished. "rules" has what other criteria and thresholds would have chosen among the whitenings; "leave one out" takes,
for each run, the rule that lost least against the labels on the others. Tables: `--tables` prints them alone.
"""

import argparse
import datetime
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import ml_collections  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import workdir  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.embeddings import Embeddings, evidence  # noqa: E402
from retrieval_jax.postprocess import _trying, choosing, stand_ins  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

PUBLISHED = (("whitening", {}),)
TABLES = ("table", "tried")  # not kept of small galleries
SMALL = 250  # listings of a small gallery
POINT = 0.01


def load(folder: pathlib.Path, model: str):
    """Returns queries, gallery, evidence and the right rows of each query of a run."""
    queries, gallery = (Embeddings.load(folder / "embeddings" / model / side) for side in ("query", "gallery"))
    found = evidence.load(folder / "embeddings" / model / evidence.FOLDER)
    if (folder / "truth.npz").exists():
        with np.load(folder / "truth.npz") as truth:
            indptr, rows = truth["indptr"], truth["rows"]
    else:
        truth = loading.load(ml_collections.ConfigDict(workdir.read_config(folder)).data).truth
        indptr, rows = truth.indptr, truth.rows
    right = [rows[a:b] for a, b in zip(indptr[:-1], indptr[1:], strict=True)]
    kept = np.array([row for row, wanted in enumerate(right) if len(wanted)])
    sides = queries.take(kept), gallery.take(np.arange(len(gallery)))  # in memory
    return *sides, found, [right[row] for row in kept.tolist()]


def measure(queries, gallery, found, right) -> dict:
    """Returns what was chosen, what the labels say of it and of every other candidate."""
    started = time.process_time()
    choice = choosing.choose_steps(queries, gallery, found)
    took = time.process_time() - started
    dev = metrics.selection_half(list(queries.ids), 0.5)
    chosen = choosing.steps_of(choice)
    over = chosen[:1] if chosen and chosen[0][0] == "whitening" else ()
    tried = [(), *choosing.WHITENINGS, PUBLISHED, *((*over, *steps) for steps in choosing.NEIGHBOURS)]
    known: dict = {}
    scores = [_trying.recalls(_trying.apply(steps, queries, gallery, known), right) for steps in tried]
    best = max(range(len(tried)), key=lambda row: scores[row][dev].mean())
    at = tried.index(chosen)
    return {
        "queries": len(queries),
        "gallery": len(gallery),
        "dimensions": gallery.dim,
        "chosen": choosing.sentence(chosen),
        "best": choosing.sentence(tried[best]),
        "scores": {
            name: {"selection": float(scores[row][dev].mean()), "report": float(scores[row][~dev].mean())}
            for name, row in (("cosine", 0), ("published", tried.index(PUBLISHED)), ("chosen", at), ("best", best))
        },
        "over cosine": interval(scores[0], scores[at]),
        "over cosine, report half": interval(scores[0][~dev], scores[at][~dev]),
        "why": choice["why"],
        "notes": choice["notes"],
        "table": [
            {
                "steps": choosing.sentence(steps),
                "selection": float(each[dev].mean()),
                "report": float(each[~dev].mean()),
            }
            for steps, each in zip(tried, scores, strict=True)
        ],
        "tried": choosing.table(choice),
        "cpu_seconds": round(took, 1),
    }


def interval(first: np.ndarray, second: np.ndarray) -> list[float]:
    """Returns difference, low and high."""
    compared = bootstrap.paired_bootstrap(first, second, draws=2000)
    return [compared[key] for key in ("difference", "low", "high")]


def add_evidence(entry: dict, queries, gallery, found) -> None:
    """Adds to the table of a run what each kind of evidence says of every whitening, and what rules would choose."""
    known: dict = {}
    trials, _ = stand_ins.trials(queries, gallery, found)
    real, scores = choosing.real_trial(queries, gallery, trials), {trial.name: [] for trial in trials}
    rows = entry["table"][: 1 + len(choosing.WHITENINGS)]
    for row, steps in zip(rows, [(), *choosing.WHITENINGS], strict=True):
        for trial in trials:
            each = _trying.recalls(
                _trying.apply(steps, trial.queries, trial.gallery, known, trial.fit_rows), trial.right
            )
            scores[trial.name].append(each)
            row[trial.name] = [float(each.mean()), *interval(scores[trial.name][0], each)]
        row["hubs"] = _trying.hubness(_trying.apply(steps, real.queries, real.gallery, known), len(real.gallery))
    entry["rules"] = rules(rows, scores)


def rules(rows: list[dict], scores: dict[str, list[np.ndarray]]) -> dict[str, int]:
    """Returns the row of the table that each rule would choose; row 0 is the plain cosine."""
    kinds, hubs = list(scores), [row["hubs"] for row in rows]
    found = {"fewest hubs": int(np.argmin(hubs))}
    for label, main, veto in (("titles", kinds[0], None), ("altered", kinds[-1], None), ("both", kinds[0], kinds[-1])):
        for more in (0.1, 0.3, 1.0, None):
            most = np.inf if more is None else hubs[0] + more * max(1.0, abs(hubs[0]))
            good = [at for at in range(1, len(rows)) if rows[at][main][2] > 0 and hubs[at] <= most]
            good = [at for at in good if veto is None or rows[at][veto][3] >= 0]
            name = f"{label}, {'any hubs' if more is None else f'{more:.0%} more hubs'}"
            best = max([0, *good], key=lambda at: rows[at][main][0])
            near = [at for at in good if interval(scores[main][best], scores[main][at])[2] >= 0]
            found[f"{name}, the best"] = best
            found[f"{name}, fewest of equals"] = min(near, key=lambda at: hubs[at], default=0)
    return found


def left_out(runs: dict) -> dict:
    """Returns, for each run, the rule that lost least against the labels on the other runs, and what it gives here."""
    lost = {
        name: {
            rule: entry["scores"]["best"]["report"] - entry["table"][at]["report"]
            for rule, at in entry["rules"].items()
        }
        for name, entry in runs.items()
    }
    out = {}
    for name, entry in runs.items():
        others = [lost[other] for other in runs if other != name]
        if others:
            means = {rule: float(np.mean([other[rule] for other in others])) for rule in entry["rules"]}
            least = min(means.values())
            equal = [rule for rule in means if means[rule] <= least + 1e-9]
            here = [entry["table"][entry["rules"][rule]]["report"] for rule in equal]
            out[name] = {
                "rules": equal,
                "loss on the others": least,
                "here": [min(here), max(here)],
                **{key: entry["scores"][key]["report"] for key in ("cosine", "chosen", "best")},
            }
    return out


def small(queries, gallery, found, right, seed: int):
    """Returns a gallery of SMALL listings with all the queries whose right ones are in it."""
    random, rows = np.random.default_rng(seed), set()
    for query in random.permutation(len(queries)).tolist():
        new = rows | set(right[query].tolist())
        if len(new) > SMALL * 0.8:
            break
        rows = new
    seen = set() if found.altered is None else set(found.altered.ids)
    others = [row for row in random.permutation(len(gallery)).tolist() if row not in rows]
    fill = sorted(others, key=lambda row: gallery.ids[row] not in seen)[: SMALL - len(rows)]
    chosen = np.array(sorted(rows | set(fill)))
    kept = [query for query in range(len(queries)) if np.isin(right[query], chosen).all()]
    places = [np.searchsorted(chosen, right[query]) for query in kept]
    return queries.take(np.array(kept)), gallery.take(chosen), found, places


def show(result: dict) -> None:
    """Prints the tables of docs/choosing_steps.md."""
    halves = ("selection", "report")
    head = ("", "queries", "gallery", "cosine", "published", "chosen", "best with labels", "chosen - cosine", "steps")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name, entry in {**result["runs"], **result["small"]}.items():
        shown = [
            " / ".join(f"{100 * entry['scores'][key][half]:.1f}" for half in halves)
            for key in ("cosine", "published", "chosen", "best")
        ]
        gain = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in entry["over cosine"]))
        cells = name, entry["queries"], entry["gallery"], *shown, gain, f"{entry['chosen']} (best: {entry['best']})"
        print(f"| {' | '.join(map(str, cells))} |")
    names = list(result["runs"])
    print(f"\n| rule | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for rule in next(iter(result["runs"].values()))["rules"]:
        shown = [f"{100 * entry['table'][entry['rules'][rule]]['report']:.1f}" for entry in result["runs"].values()]
        print(f"| {rule} | {' | '.join(shown)} |")
    print("\nleave one out:")
    for name, entry in result["leave one out"].items():
        low, high = (100 * score for score in entry["here"])
        others = ", ".join(f"{key} {100 * entry[key]:.1f}" for key in ("cosine", "chosen", "best"))
        print(f"{name}: {low:.1f} to {high:.1f} ({others}) by {'; '.join(entry['rules'])}")


def claim(result: dict, command: str) -> None:
    """Writes the claims."""
    entries = {**result["runs"], **result["small"]}
    value = {name: round(entry["scores"]["chosen"]["report"], 4) for name, entry in entries.items()}
    shared = {"system": "strength", "metric": "mar@10_capped, report half of the queries", "value": value}
    for id_, other, missed, statement in (
        (
            "strength-chosen-steps",
            "cosine",
            [name for name, entry in entries.items() if entry["over cosine"][2] < 0],
            "Search steps that are chosen without labels do not end below the plain cosine, beyond noise",
        ),
        (
            "strength-chosen-steps-near-best",
            "best",
            [
                name
                for name, e in result["runs"].items()
                if e["scores"]["chosen"]["report"] < e["scores"]["best"]["report"] - POINT
            ],
            "Search steps that are chosen without labels are within a point of the best ones found with labels on the "
            "selection half, on every whole catalogue",
        ),
    ):
        baseline = {name: round(entry["scores"][other]["report"], 4) for name, entry in entries.items()}
        gains = np.array([value[name] - baseline[name] for name in entries])
        difference = [round(number, 4) for number in interval(np.zeros(len(gains)), gains)]
        claims.write(
            [
                {
                    "id": id_,
                    **shared,
                    "statement": statement,
                    "baseline": baseline,
                    "difference": difference,
                    "holds": not missed,
                    "command": command,
                    **({"why": f"not on {', '.join(missed)}"} if missed else {}),
                }
            ]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="name=folder, or name=folder:model")
    parser.add_argument("--small", type=int, default=0, help=f"galleries of {SMALL} listings to draw from each run")
    parser.add_argument("--tables", action="store_true", help="print the tables of what was measured before, and stop")
    parser.add_argument("--out", default=str(pathlib.Path(__file__).with_name("choosing.json")))
    args = parser.parse_args()
    file = pathlib.Path(args.out)
    result = json.loads(file.read_text()) if file.exists() else {"runs": {}, "small": {}}
    for given in args.runs if not args.tables else ():
        name, _, where = given.partition("=")
        folder, _, model = where.partition(":")
        loaded = load(pathlib.Path(folder), model or "trained")
        entry = result["runs"][name] = measure(*loaded)
        add_evidence(entry, *loaded[:3])
        entry["rules"]["the choice"] = [row["steps"] for row in entry["table"]].index(entry["chosen"])
        for draw in range(args.small):
            drawn = measure(*small(*loaded, draw))
            result["small"][f"{name}, draw {draw}"] = {key: drawn[key] for key in drawn if key not in TABLES}
        result |= {"hardware": provenance.hardware(), "commit": provenance.commit()}
        result["date"] = datetime.date.today().isoformat()
        file.write_text(json.dumps(result, indent=1) + "\n")
    result["leave one out"] = left_out(result["runs"])
    show(result)
    if not args.tables:
        file.write_text(json.dumps(result, indent=1) + "\n")
        claim(result, f"python benchmarks/choosing.py name=folder ... --small={args.small}")


if __name__ == "__main__":
    main()
