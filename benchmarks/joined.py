"""Measures what colour_and_edges adds to trained networks: each alone, joined half and half, and with chosen weights.

    python benchmarks/joined.py runs/fashion_best runs/fashion_best-seed=1 --root=data/fashion --out=joined.json
    python benchmarks/joined.py runs/fashion_best --steps='[["chosen", {}]]'
    python benchmarks/joined.py runs/fashion_best runs/fashion_vit --all       # and all of these networks with it
    python benchmarks/joined.py ... --claim=strength-fine-tuned --bars single=0.62 joined=0.67 all=0.69

Reads the embeddings of finished runs, "trained" and "colour_and_edges", and trains nothing. The networks go through
--steps before they are joined, by default none. "chosen" are the weights that the step ensemble finds without labels;
"with labels" are the best of the same grid on the selection half, which nobody could know. Prints a Markdown table:
mar@10_capped over both halves of the queries, and the difference of the chosen weights to the better member alone on
the report half, query by query, with a 95 % interval. --claim writes into claims.json whether every network reaches the
bars: alone, joined with colour_and_edges by chosen weights, and all of them joined. Two cores: half a minute a run of
7,000 gallery listings.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from retrieval_jax import workdir as workdirs  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.embeddings import Embeddings, Ids, evidence  # noqa: E402
from retrieval_jax.index import exact  # noqa: E402
from retrieval_jax.postprocess import State, _weights, ensemble, walk, whitening_by_parts  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

METRIC = "mar@10_capped"


def load(folder: pathlib.Path, model: str) -> State:
    """Returns the state of one model of a run."""
    both = tuple(Embeddings.load(folder / "embeddings" / model / split) for split in ("query", "gallery"))
    found = evidence.load(folder / "embeddings" / model / evidence.FOLDER)
    return State([both], None, (model if model != "trained" else folder.name,), evidence=(found,))


def network(folder: pathlib.Path, steps: list) -> State:
    """Returns the trained network of a run after steps that change vectors."""
    states = walk.walk(load(folder, "trained"), [walk.FIRST, *walk.parse(steps)], lambda *_: None, ())
    return list(states)[-1][1]


def joined(states: list[State], weights) -> tuple[State, list[float]]:
    """Returns the joined state, and the weights that it has."""
    state = State([state.members[0] for state in states], None, tuple(state.names[0] for state in states))
    if weights == ensemble.CHOSEN:
        sides = [ensemble.align(side, state.names) for side in zip(*state.members, strict=True)]
        weights = _weights.choose(list(zip(*sides, strict=True)), state.names)[0]
    return ensemble.step(state, weights=weights), list(weights)


def scores(state: State, truth) -> np.ndarray:
    """Returns the score of every query."""
    queries, gallery = state.members[0]
    return metrics.per_query(exact.Index(gallery).search(queries, 10), truth, (10,))[METRIC]


def measure(states: list[State], truth, selection: np.ndarray) -> tuple[dict, dict[str, np.ndarray]]:
    """Measures each of some members alone and joined; the last one is colour_and_edges. Returns the scores of every
    query of the report half, too."""
    names = [state.names[0] for state in states]
    found = {name: scores(state, truth) for name, state in zip(names, states, strict=True)}
    equal, _ = joined(states, [1.0] * len(states))
    chosen, weights = joined(states, ensemble.CHOSEN)
    found |= {"equal weights": scores(equal, truth), "chosen": scores(chosen, truth)}
    rows = {"equal weights": [round(1 / len(states), 4)] * len(states), "chosen": weights}
    if len(states) == 2:
        tried = {weight: scores(joined(states, [1 - weight, weight])[0], truth) for weight in _weights.GRID[2:-1:2]}
        best = max(tried, key=lambda weight: np.nanmean(tried[weight][selection]))
        found["with labels"], rows["with labels"] = tried[best], [round(1 - best, 4), best]
    better = max(names, key=lambda name: np.nanmean(found[name][selection]))
    return {
        "rows": [
            {
                "system": name,
                "weights": rows.get(name),
                "selection": float(np.nanmean(each[selection])),
                "report": float(np.nanmean(each[~selection])),
            }
            for name, each in found.items()
        ],
        "better": better,
        "difference": bootstrap.paired_bootstrap(found[better][~selection], found["chosen"][~selection]),
    }, {name: each[~selection] for name, each in found.items()}


def claim(name: str, kind: str, bar: float, scores: dict[str, np.ndarray], command: str) -> dict:
    """Returns the claim that every network reaches a bar on the report half; the interval is of their mean."""
    what = {"single": "alone", "joined": "joined with colour_and_edges", "all": "all networks and colour_and_edges"}
    means = {folder: float(np.nanmean(each)) for folder, each in scores.items()}
    each = np.nanmean(list(scores.values()), axis=0)
    spread = bootstrap.paired_bootstrap(np.full(len(each), bar), each)
    return {
        "id": f"{name}-{kind}",
        "system": "strength",
        "statement": f"{what[kind]}: at least {bar} on the fashion catalogue",
        "metric": f"{METRIC}, report half of the queries",
        "value": {folder: round(mean, 4) for folder, mean in means.items()},
        "baseline": dict.fromkeys(means, bar),
        "difference": [round(spread[key], 4) for key in ("difference", "low", "high")],
        "holds": min(means.values()) >= bar,
        "command": command,
    }


def show(title: str, measured: dict) -> None:
    """Prints a table."""
    print(f"\n{title}\n\n| system | weights | selection half | report half |\n|---|---|---:|---:|")
    for row in measured["rows"]:
        weights = " / ".join(f"{weight:.2f}" for weight in row["weights"] or ())
        print(f"| {row['system']} | {weights} | {100 * row['selection']:.1f} | {100 * row['report']:.1f} |")
    gain = {name: round(100 * value, 2) for name, value in measured["difference"].items() if isinstance(value, float)}
    print(f"\nchosen - {measured['better']} on the report half, points: {gain}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path, help="work directories of one catalogue")
    parser.add_argument("--root", default="", help="where the catalogue lies now, if not where the runs say")
    parser.add_argument("--steps", type=json.loads, default=[], help="of the networks, before they are joined; JSON")
    parser.add_argument("--all", action="store_true", help="join all networks, too")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--claim", default="", help="id that the claims begin with")
    parser.add_argument("--bars", nargs="*", default=[], help="single=, joined= or all= and a score")
    given = parser.parse_args()
    bars = {kind: float(bar) for kind, bar in (one.split("=") for one in given.bars)}
    config = ConfigDict(workdirs.read_config(given.folders[0]))
    with config.unlocked():
        if given.root:
            config.data.kwargs["root"] = given.root
    truth = loading.load(config.data).truth
    truth = dataclasses.replace(truth, query_ids=Ids.of(truth.query_ids), gallery_ids=Ids.of(truth.gallery_ids))
    selection = metrics.selection_half(truth.query_ids, 0.5)
    networks = [network(folder, given.steps) for folder in given.folders]
    hand_made = whitening_by_parts.step(load(given.folders[0], "colour_and_edges"))
    results: dict[str, dict] = {}
    reported: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in ("single", "joined", "all")}
    for state in networks:
        name = state.names[0]
        results[name], each = measure([state, hand_made], truth, selection)
        reported["single"][name], reported["joined"][name] = each[name], each["chosen"]
        show(name, results[name])
    if given.all:
        results["all"], each = measure([*networks, hand_made], truth, selection)
        reported["all"]["all"] = each["chosen"]
        show("all networks", results["all"])
    command = f"python benchmarks/joined.py {' '.join(folder.name for folder in given.folders)} ..."
    claims.write([claim(given.claim, kind, bar, reported[kind], command) for kind, bar in bars.items()])
    if given.out:
        date = datetime.date.today().isoformat()
        entry = {"date": date, "hardware": provenance.hardware(), "steps": given.steps, "metric": METRIC}
        given.out.write_text(json.dumps({**entry, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
