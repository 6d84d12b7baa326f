"""Measures the choice of search steps against plain cosine and the best step found with labels, run by run.

    python benchmarks/choosing.py quickstart_0=runs/quickstart fashion_0=runs/fashion_softmax --small=5

Reads embeddings and evidence that `embed` left in each run. The best step with labels is taken on the selection half
of the queries; everything is reported on the other half. --small=5 also draws five galleries of 250 listings from each
run, filled up with listings whose altered pictures were embedded. Each run's entry is written as soon as it is
finished. "by criterion" has what each criterion alone would have chosen; "leave one out" takes, for each run, the
criterion that was best on the others.
"""

import argparse
import datetime
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import ml_collections  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import workdir  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.embeddings import Embeddings, evidence  # noqa: E402
from retrieval_jax.postprocess import choosing  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

PUBLISHED = (("whitening", {}),)
SMALL = 250  # listings of a small gallery
NOISE = 0.01  # a point: more below the cosine than this, beyond its interval, breaks the claim


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
    return queries, gallery, found, [rows[a:b] for a, b in zip(indptr[:-1], indptr[1:], strict=True)]


def criteria(choice: dict) -> dict[str, int]:
    """Returns the row of the table that each criterion alone would choose; row 0 is the plain cosine."""
    rows = choice["rows"]
    whitenings = [i for i, row in enumerate(rows) if len(row["steps"]) == 1 and row["steps"][0][0] == "whitening"]
    most = rows[0]["hubs"] + choosing.HUBS_MORE * max(1.0, abs(rows[0]["hubs"]))
    few = [i for i in whitenings if rows[i]["hubs"] <= most]
    found = {"fewest hubs": min([0, *whitenings], key=lambda i: rows[i]["hubs"])}
    for name in rows[0]["means"]:
        for label, among in ((name, whitenings), (f"{name}, no more hubs", few)):
            good = [i for i in among if rows[i]["differences"][name][1] > 0]
            found[label] = max([0, *good], key=lambda i: rows[i]["means"][name])
    return found


def measure(queries, gallery, found, right, ids) -> dict:
    """Returns the table of a run with what the labels say about each row, and about what was chosen."""
    choice = choosing.choose_steps(queries, gallery, found)
    dev = metrics.selection_half(ids, 0.5)
    tried = [tuple((name, kwargs) for name, kwargs in row["steps"]) for row in choice["rows"]] or [()]
    more = [steps for steps in (*choosing.WHITENINGS, PUBLISHED) if steps not in tried]
    known: dict = {}
    scores = [choosing.recalls(choosing.apply(steps, queries, gallery, known), right) for steps in (*tried, *more)]
    best = max(range(len(scores)), key=lambda i: scores[i][dev].mean())
    chosen = tried.index(choosing.steps_of(choice))
    compared = bootstrap.paired_bootstrap(scores[0][~dev], scores[chosen][~dev])
    by = {name: float(scores[row][~dev].mean()) for name, row in (criteria(choice) if choice["rows"] else {}).items()}
    return {
        "queries": len(queries),
        "gallery": len(gallery),
        "cosine": float(scores[0][~dev].mean()),
        "published whitening": float(scores[len(tried) + more.index(PUBLISHED)][~dev].mean()),
        "chosen": float(scores[chosen][~dev].mean()),
        "chosen steps": choosing.sentence(choice["steps"]),
        "why": choice["why"],
        "notes": choice["notes"],
        "best with labels": float(scores[best][~dev].mean()),
        "best steps": choosing.sentence((*tried, *more)[best]),
        "over cosine": [compared[key] for key in ("difference", "low", "high")],
        "by criterion": by,
        "table": [
            {"steps": choosing.sentence(steps), "selection": float(s[dev].mean()), "report": float(s[~dev].mean())}
            for steps, s in zip((*tried, *more), scores, strict=True)
        ],
        "tried": choosing.table(choice),
    }


def small(queries, gallery, found, right, seed: int):
    """Returns a gallery of SMALL listings with all the queries whose right ones are in it."""
    random, rows, kept = np.random.default_rng(seed), set(), []
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


def left_out(runs: dict) -> dict:
    """Returns, for each run, the criterion that came closest to the labels on the others, and what it gives here."""
    out = {}
    for name, entry in runs.items():
        others = [other for key, other in runs.items() if key != name and other["by criterion"]]
        shared = [label for label in entry["by criterion"] if any(label in other["by criterion"] for other in others)]
        if shared:

            def loss(label, others=others):
                lost = [o["best with labels"] - o["by criterion"][label] for o in others if label in o["by criterion"]]
                return float(np.mean(lost))

            best = min(shared, key=loss)
            out[name] = {"criterion": best, "here": entry["by criterion"][best], "cosine": entry["cosine"]}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="name=folder, or name=folder:model")
    parser.add_argument("--small", type=int, default=0, help=f"galleries of {SMALL} listings to draw from each run")
    parser.add_argument("--out", default=str(pathlib.Path(__file__).with_name("choosing.json")))
    args = parser.parse_args()
    file = pathlib.Path(args.out)
    result = json.loads(file.read_text()) if file.exists() else {"runs": {}, "small": {}}
    for given in args.runs:
        name, _, where = given.partition("=")
        folder, _, model = where.partition(":")
        loaded = load(pathlib.Path(folder), model or "trained")
        result["runs"][name] = measure(*loaded, list(loaded[0].ids))
        for draw in range(args.small):
            part = small(*loaded, draw)
            result["small"][f"{name}, draw {draw}"] = measure(*part, list(part[0].ids))
        result["leave one out"] = left_out(result["runs"])
        result |= {"hardware": provenance.hardware(), "commit": provenance.commit()}
        result["date"] = datetime.date.today().isoformat()
        file.write_text(json.dumps(result, indent=1) + "\n")
    entries = {**result["runs"], **result["small"]}
    head = ("", "queries", "gallery", "cosine", "published", "chosen", "best with labels", "chosen steps")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name, entry in entries.items():
        scores = (entry[key] for key in ("cosine", "published whitening", "chosen", "best with labels"))
        shown = " | ".join(f"{100 * score:.1f}" for score in scores)
        print(f"| {name} | {entry['queries']} | {entry['gallery']} | {shown} | {entry['chosen steps']} |")
    worst = [name for name, entry in entries.items() if entry["over cosine"][2] < 0]
    print(f"below the cosine beyond noise: {', '.join(worst) or 'none'}")
    gains = [entry["over cosine"][0] for entry in entries.values()]
    spread = bootstrap.paired_bootstrap(np.zeros(len(gains)), np.array(gains))
    claim = {
        "id": "strength-chosen-steps",
        "system": "strength",
        "statement": "Search steps that are chosen without labels do not end below the plain cosine",
        "metric": "mar@10_capped, report half of the queries",
        "value": {name: round(entry["chosen"], 4) for name, entry in entries.items()},
        "baseline": {name: round(entry["cosine"], 4) for name, entry in entries.items()},
        "difference": [round(spread[key], 4) for key in ("difference", "low", "high")],
        "holds": not worst,
        "command": "python benchmarks/choosing.py " + " ".join(sys.argv[1:2] and ["name=folder ..."]),
    }
    claims.write([claim])


if __name__ == "__main__":
    main()
