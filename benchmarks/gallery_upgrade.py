"""Measures what a gallery that an old model has embedded is worth to a new one: adapted, mixed, embedded again.

    config="--config=configs/fashion_pretrained.py:path=weights/tf_efficientnet_lite0.in1k.safetensors,epochs=3"
    python -m retrieval_jax.run $config,seed=0 --workdir=runs/old                    # and seed=1 in runs/new
    python benchmarks/gallery_upgrade.py runs/old:runs/new --root=data/fashion --claims

Reads finished runs and embeds nothing: where a sample is embedded again, its vectors are taken from the new run's own
gallery. Runs that start from the same public weights have spaces that are related, as the row without a map shows.
Several pairs are several seeds: their scores are averaged per query.

Rows of the table: the old model on its gallery; the new one on a gallery that is embedded again; new queries on the old
gallery without a map, where dimensions allow it; and on the old gallery through an adapter (linear or residual) that
was fitted on so many listings, which keep their old vectors here, so that the score is the adapter's alone. Then mixed
galleries: shares of the listings, in a random order, have their new vectors. "As they come" is the adapter without its
scale; "top" is how much of the first ten results is adapted beside how much of the gallery.
Plain cosines, all queries; the adapter sees no query, so nothing is tuned on them.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from retrieval_jax import workdir  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.embeddings import Embeddings, adapters  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.scoring.ranking import Ranking  # noqa: E402
from retrieval_jax.training import adapters as fitting  # noqa: E402

METRIC = "mar@10_capped"
ROWS = (500, 1000, 2000)  # listings that are embedded again and fitted on
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FITTED = 2000  # of the adapter of mixed galleries
WITHIN = 0.02


def vectors_of(folder: pathlib.Path, split: str, ids) -> np.ndarray:
    """Returns the unit vectors of a split in the order of some ids, as a run has embedded them."""
    found = Embeddings.load(folder / "embeddings" / "trained" / split)
    known, _, rows = adapters.common(ids, found.ids)
    if len(known) != len(ids):
        raise SystemExit(f"{folder} has embedded {len(known):,} of {len(ids):,} listings of {split}")
    return adapters.unit(found.vectors[rows])


def scored(queries: np.ndarray, gallery: np.ndarray, truth) -> tuple[np.ndarray, np.ndarray]:
    """Returns the score of every query, and the rows of its first ten results."""
    scores = queries @ adapters.unit(gallery).T
    rows = np.argpartition(-scores, 10, axis=1)[:, :10]
    rows.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, rows, 1), axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, 1)
    ranking = Ranking(truth.query_ids, rows, np.take_along_axis(scores, rows, 1))
    return metrics.per_query(ranking, truth, (10,), (METRIC,))[METRIC], rows


def pair(old: pathlib.Path, new: pathlib.Path, truth, seed: int) -> dict[str, dict]:
    """Returns {row of the table: {"each": [Q] scores, ...}} of one pair of runs."""
    before, after = ({s: vectors_of(f, s, i) for s, i in _ids(truth).items()} for f in (old, new))
    found = {
        "old on old": {"each": scored(before["query"], before["gallery"], truth)[0]},
        "embedded again": {"each": scored(after["query"], after["gallery"], truth)[0]},
    }
    if before["gallery"].shape == after["gallery"].shape:
        found["new on old, no map"] = {"each": scored(after["query"], before["gallery"], truth)[0]}
    order = np.random.default_rng(seed).permutation(len(before["gallery"]))
    for kind in adapters.KINDS:
        for count in ROWS:
            adapter = fitted(before["gallery"], after["gallery"], order[:count], kind, seed)
            each, _ = scored(after["query"], adapter(before["gallery"]), truth)
            found[f"{kind}, {count:,}"] = {"each": each, "cosine": adapter.facts["cosine"], "scale": adapter.scale}
            print(f"{old} -> {new}: {kind} on {count:,}: {100 * np.nanmean(each):.2f}", flush=True)
            if kind == "linear" and count == FITTED:
                mixed = adapter
    for name, adapter in (("mixed", mixed), ("mixed, as they come", dataclasses.replace(mixed, scale=1.0))):
        adapted = adapter(before["gallery"])
        for share in SHARES:
            is_new = np.zeros(len(adapted), bool)
            is_new[order[: round(share * len(order))]] = True
            each, rows = scored(after["query"], np.where(is_new[:, None], after["gallery"], adapted), truth)
            found[f"{name}, {100 * share:.0f} % new"] = {
                "each": each,
                "top": float((~is_new[rows]).mean()),
                "gallery": float((~is_new).mean()),
            }
    return found


def fitted(old: np.ndarray, new: np.ndarray, rows: np.ndarray, kind: str, seed: int) -> adapters.Adapter:
    """Returns an adapter fitted on some rows of two galleries."""
    weights, length, scale, facts = fitting.fit(old[rows], new[rows], kind=kind, seed=seed)
    return adapters.Adapter(kind, "old", "new", weights, length, scale, facts=facts)


def _ids(truth) -> dict:
    return {"query": truth.query_ids, "gallery": truth.gallery_ids}


def main() -> None:
    """Prints the table, and writes claims where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", help="old:new, two work directories")
    parser.add_argument("--root", default="", help="where the catalogue is now; by default where the first run says")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of all numbers")
    parser.add_argument("--claims", action="store_true", help="write into benchmarks/claims.json")
    args = parser.parse_args()
    folders = [tuple(map(pathlib.Path, one.split(":"))) for one in args.pairs]
    config = ConfigDict(workdir.read_config(folders[0][0]))
    if args.root:
        config.data.kwargs["root"] = args.root
    truth = loading.load(config.data).truth
    pairs = [pair(old, new, truth, seed) for seed, (old, new) in enumerate(folders)]
    again = np.mean([one["embedded again"]["each"] for one in pairs], axis=0)
    print(f"\n{METRIC} in percent, {int(np.isfinite(again).sum()):,} queries, {len(pairs)} pairs of runs")
    print(f"{'':28} {'score':>6} {'against embedded again (95 %)':>32} {'top':>6} {'gallery':>8}")
    table = {}
    for name in pairs[0]:
        each = np.mean([one[name]["each"] for one in pairs], axis=0)
        found = bootstrap.paired_bootstrap(again, each)
        table[name] = {"score": float(np.nanmean(each)), **found}
        table[name]["seeds"] = [float(np.nanmean(one[name]["each"])) for one in pairs]
        for key in ("top", "gallery", "cosine", "scale"):
            if key in pairs[0][name]:
                table[name][key] = float(np.mean([one[name][key] for one in pairs]))
        interval = f"{100 * found['difference']:+.2f} ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"
        ends = "".join(f"{table[name][key]:8.3f}" for key in ("top", "gallery") if key in table[name])
        print(f"{name:28} {100 * table[name]['score']:6.2f} {interval:>32} {ends}")
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")
    if args.claims:
        claims.write(_claims(table, pairs, " ".join(["python benchmarks/gallery_upgrade.py", *sys.argv[1:]])))


def _claims(table: dict, pairs: list, command: str) -> list[dict]:
    best = f"linear, {FITTED:,}"
    row = table[best]
    shared = {"system": "compatible", "metric": METRIC, "command": command}
    again, old = (dict(enumerate(table[name]["seeds"])) for name in ("embedded again", "old on old"))
    per_query = [np.mean([one[name]["each"] for one in pairs], axis=0) for name in ("old on old", best)]
    over = bootstrap.paired_bootstrap(*per_query)
    mixed = [table[f"mixed, {100 * share:.0f} % new"] for share in SHARES]
    first, last = (np.mean([one[f"mixed, {share} % new"]["each"] for one in pairs], axis=0) for share in (0, 100))
    rise = bootstrap.paired_bootstrap(first, last)
    steady = all(a["score"] <= b["score"] for a, b in zip(mixed, mixed[1:], strict=False))
    values = {str(seed): value for seed, value in enumerate(row["seeds"])}

    def named(scores):
        return {str(seed): value for seed, value in scores.items()}

    return [
        {
            "id": "compatible-upgrade-adapter",
            "statement": f"an old gallery through a linear adapter fitted on {FITTED:,} listings loses at most "
            f"{WITHIN} against embedding it again",
            "value": values,
            "baseline": named(again),
            "difference": [row["difference"], row["low"], row["high"]],
            "holds": bool(row["difference"] >= -WITHIN),
            **shared,
        },
        {
            "id": "compatible-upgrade-over-old",
            "statement": "new queries on the old gallery, adapted, score higher than the old model on its own gallery",
            "value": values,
            "baseline": named(old),
            "difference": [over["difference"], over["low"], over["high"]],
            "holds": bool(over["low"] > 0),
            **shared,
        },
        {
            "id": "compatible-upgrade-mixed",
            "statement": "a gallery at 0, 25, 50, 75, 100 % new vectors beside adapted ones rises steadily; the "
            "difference is from 0 to 100 %",
            "value": {f"{100 * share:.0f} %": one["score"] for share, one in zip(SHARES, mixed, strict=True)},
            "baseline": {f"{100 * share:.0f} %": mixed[0]["score"] for share in SHARES},
            "difference": [rise["difference"], rise["low"], rise["high"]],
            "holds": bool(steady),
            **shared,
        },
    ]


if __name__ == "__main__":
    main()
