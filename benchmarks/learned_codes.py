"""Measures learned sign codes against iterative quantisation and random rotations, at equal bits.

    python benchmarks/learned_codes.py runs/lite3_0 runs/lite3_1 --root=data/fashion --choose --claims
    python benchmarks/learned_codes.py runs/lite3_0 --bits=64 --root=data/fashion                       # small
    python benchmarks/learned_codes.py runs/plain_0 runs/plain_1 --trained=runs/codes_0,runs/codes_1 --bits=64 \
        --root=data/fashion --claims                       # codes that were trained with the features

Reads embeddings of finished runs (embeddings/<model>/gallery and query) and trains no network. Every coder is fitted on
the gallery. Scores, per query: recall@10 of the ten truly nearest listings, and mar@10 of the same product, by the ten
nearest codes alone and by exact cosine among the --candidates nearest codes. Differences are to the better of the two
rotations by the selection half, of the report half, seeds averaged per query before queries are resampled (95 %).

With --choose, the settings of both sides are chosen on the selection half of the first run by recall of the codes alone
at --chosen-at bits: rounds of iterative quantisation, and of the learned codes the learning rate, both temperatures and
the weight of the quantisation loss, one after the other; otherwise the defaults stand.

With --trained, networks whose training taught the signs of their embedding too (code_weight of the task image_title)
are compared with the same networks trained without, whose embeddings are coded afterwards; --bits is how wide both are.
"""

import argparse
import pathlib
import sys
import time
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from retrieval_jax import workdir  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import binary, exact  # noqa: E402
from retrieval_jax.index.binary import learned  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

ROUNDS = (0, 10, 50)
GRID = {
    "RATE": (0.1, 0.2, 0.4),
    "COSINES": (0.02, 0.03, 0.05),
    "CODES": (8.0, 12.0, 18.0),
    "QUANTISATION": (0.0, 0.1, 1.0),
}
METHODS = ("random", "itq", "learned")
LATER = ("itq", "learned", "signs")  # codes of networks that were trained without code_weight
COUNTS = (10, 20, 50, 100, 200, 400)  # candidates


class Side:
    """A run's vectors, their true neighbours, and the truth about products.

    Args:
      folder: a finished run.
      model: whose embeddings.
      root: where the catalogue is now, "" for where the run says.
    """

    def __init__(self, folder: pathlib.Path, model: str, root: str):
        config = ConfigDict(workdir.read_config(folder))
        if root and "root" in config.data.kwargs:
            config.data.kwargs["root"] = root
        self.truth = loading.load(config.data).truth
        found = [Embeddings.load(folder / "embeddings" / model / split) for split in ("gallery", "query")]
        self.gallery, self.queries = (Embeddings(one.ids, one.block(0, len(one)), one.meta) for one in found)
        self.true = exact.Index(self.gallery).search(self.queries, 10).item_rows
        self.report = ~metrics.selection_half(self.truth.query_ids)

    def score(self, index: binary.Index, candidates: int) -> dict[str, np.ndarray]:
        """Returns {score: [Q]} of the first ten by that many candidates."""
        index.candidates = candidates
        found = index.search(self.queries, 10)
        near = [np.isin(want, have).mean() for want, have in zip(self.true, found.item_rows, strict=True)]
        return {"recall@10": np.array(near)} | metrics.per_query(found, self.truth, (10,), ("mar@10",))


def fitted(side: Side, method: str, bits: int, chosen: dict) -> binary.Index:
    """Returns an index of the gallery with codes by a method, one cell and the chosen settings."""
    rounds = {"random": 0, "itq": chosen["rounds"]}.get(method, 10)
    kind = "itq" if method == "random" else method
    with mock.patch.multiple(learned, **chosen["learned"]):
        return binary.Index(side.gallery, bits=bits, cells=1, method=kind, rounds=rounds)


def choose(side: Side, bits: int) -> dict:
    """Returns the settings with the best recall by codes alone on the selection half, one after the other."""
    chosen = {"rounds": 10, "learned": {name: getattr(learned, name) for name in GRID}}

    def recall(method: str, now: dict) -> float:
        value = side.score(fitted(side, method, bits, now), 10)["recall@10"][~side.report].mean()
        print(f"  {method} {now['rounds'] if method == 'itq' else now['learned']}: {value:.4f}", flush=True)
        return float(value)

    chosen["rounds"] = max(ROUNDS[1:], key=lambda rounds: recall("itq", chosen | {"rounds": rounds}))
    for name, values in GRID.items():
        tried = {value: recall("learned", chosen | {"learned": chosen["learned"] | {name: value}}) for value in values}
        chosen["learned"][name] = max(values, key=tried.get)
    return chosen


def claim(bits: int, score: str, way: str, seeds: list[dict], report: np.ndarray, command: str) -> dict:
    """Returns a claim: learned codes are above the better rotation, by the report half of the queries.

    Args:
      bits: of the codes.
      score: its name.
      way: how results were found.
      seeds: per run, {method: {score: [Q]}}.
      report: [Q] which queries are in the report half; the other half says which rotation is better.
      command: what was run.
    """
    mean = {method: np.mean([seed[method][score] for seed in seeds], axis=0) for method in METHODS}
    other = max(("random", "itq"), key=lambda method: np.nanmean(mean[method][~report]))
    test = bootstrap.paired_bootstrap(mean[other][report], mean["learned"][report])
    what = "the ten nearest" if score == "recall@10" else "the same product"
    values = {
        method: {str(number): float(np.nanmean(seed[method][score][report])) for number, seed in enumerate(seeds)}
        for method in METHODS
    }
    return {
        "id": f"clicks-engine-codes-{bits}-{score}-{'alone' if way == 'codes alone' else 'ranked'}",
        "system": "clicks",
        "statement": f"fashion, {bits} bits, {way}: learned codes find {what} more often than "
        + ("iterative quantisation" if other == "itq" else "a random rotation (above iterative quantisation here)"),
        "metric": score,
        "value": values["learned"],
        "baseline": values[other],
        "difference": [test["difference"], test["low"], test["high"]],
        "holds": bool(test["low"] > 0),
        "command": command,
    }


def growth(bits: int, near: list[list[np.ndarray]], command: str) -> list[dict]:
    """Returns the claim that every larger number of candidates finds more, with the smallest of the steps."""
    each = [np.mean(seeds, axis=0) for seeds in near]
    tests = [bootstrap.paired_bootstrap(few, many) for few, many in zip(each, each[1:], strict=False)]
    at = min(range(len(tests)), key=lambda step: tests[step]["difference"])
    few, many = ({str(seed): float(value.mean()) for seed, value in enumerate(near[at + more])} for more in (0, 1))
    return [
        {
            "id": f"clicks-engine-candidates-{bits}",
            "system": "clicks",
            "statement": f"fashion, {bits} bits: recall of coarse + fine grows with every doubling or so of candidates "
            f"from {COUNTS[0]} to {COUNTS[-1]}; the smallest step, {COUNTS[at]} to {COUNTS[at + 1]}",
            "metric": "recall@10",
            "value": many,
            "baseline": few,
            "difference": [tests[at]["difference"], tests[at]["low"], tests[at]["high"]],
            "holds": all(test["low"] > 0 for test in tests),
            "command": command,
        }
    ]


def trained_codes(
    plain: list[Side], taught: list[Side], bits: int, candidates: int, chosen: dict, command: str
) -> list[dict]:
    """Prints how codes that were trained with the features compare, and returns the claims.

    Args:
      plain: runs without code_weight, one a seed, whose embeddings have as many dimensions as the codes bits.
      taught: the same with it.
      bits: of the codes.
      candidates: of exact cosine.
      chosen: settings of the other coders.
      command: what was run.
    """
    report, out = plain[0].report, []
    named = {method: (plain, method) for method in LATER} | {"trained": (taught, "signs")}
    indexes = {name: [fitted(side, method, bits, chosen) for side in sides] for name, (sides, method) in named.items()}
    for way, count in {"codes alone": 10, f"{candidates} candidates": candidates, "all vectors": 0}.items():
        found = {
            name: [
                side.score(index, count or len(side.gallery)) for side, index in zip(named[name][0], one, strict=True)
            ]
            for name, one in indexes.items()
        }
        for score in ("recall@10", "mar@10")[not count :]:
            values = {name: [float(np.nanmean(seed[score][report])) for seed in seeds] for name, seeds in found.items()}
            mean = {name: np.mean([seed[score] for seed in seeds], axis=0) for name, seeds in found.items()}
            shown = " | ".join(" ".join(f"{100 * value:.1f}" for value in one) for one in values.values())
            print(f"| {way} | {score} | {shown} |", end="")
            others = {"itq": "iterative quantisation", "learned": "codes that were learned afterwards"} if count else {}
            for other, name in others.items():
                test = bootstrap.paired_bootstrap(mean[other][report], mean["trained"][report])
                difference = [test["difference"], test["low"], test["high"]]
                print(" {:+.1f} ({:+.1f} to {:+.1f}) |".format(*(100 * value for value in difference)), end="")
                what = "the ten nearest by their own vectors" if score == "recall@10" else "the same product"
                out.append(
                    {
                        "id": f"clicks-engine-trained-{bits}-{score}-{'alone' if count == 10 else 'ranked'}-{other}",
                        "system": "clicks",
                        "statement": f"fashion, {bits} bits, {way}: codes trained with the features find {what} more "
                        f"often than {name}",
                        "metric": score,
                        "value": {str(seed): value for seed, value in enumerate(values["trained"])},
                        "baseline": {str(seed): value for seed, value in enumerate(values[other])},
                        "difference": difference,
                        "holds": bool(test["low"] > 0),
                        "command": command,
                    }
                )
            print(flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="finished runs, one a seed")
    parser.add_argument("--trained", default="", help="runs with code_weight, run,run,...: one for each of RUNS")
    parser.add_argument("--model", default="trained", help="whose embeddings")
    parser.add_argument("--root", default="", help="where the catalogue is now")
    parser.add_argument("--bits", default="64,128,256")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--choose", action="store_true", help="choose the settings instead of the defaults")
    parser.add_argument("--chosen-at", type=int, default=64, help="bits")
    parser.add_argument("--claims", action="store_true", help="write them")
    args = parser.parse_args()
    hardware = provenance.hardware()
    print(f"{hardware['cores']} cores of {hardware['processor']}, commit {str(provenance.commit())[:10]}", flush=True)
    sides = [Side(folder, args.model, args.root) for folder in args.runs]
    dim = sides[0].gallery.vectors.shape[1]
    print(f"{len(sides[0].queries):,} queries, {len(sides[0].gallery):,} listings, {dim} dimensions", flush=True)
    chosen = {"rounds": 10, "learned": {name: getattr(learned, name) for name in GRID}}
    if args.choose:
        chosen = choose(sides[0], args.chosen_at)
    print(f"settings: {chosen}", flush=True)
    ways = {"codes alone": 10, f"{args.candidates} candidates": args.candidates}
    found, written = {}, []
    taught = [pathlib.Path(folder) for folder in args.trained.split(",") if folder]
    places = {str(folder): f"runs/{folder.name}" for folder in args.runs} | {
        f"--root={args.root}": "--root=data/fashion",
        f"--trained={args.trained}": "--trained=" + ",".join(f"runs/{folder.name}" for folder in taught),
    }
    given = [places.get(one.rstrip("/"), one) for one in sys.argv[1:]]
    command = " ".join(["python benchmarks/learned_codes.py", *given])
    if taught:
        if len(taught) != len(sides):
            raise SystemExit(f"--trained has {len(taught)} runs, and {len(sides)} are there to compare them with")
        others = [Side(folder, args.model, args.root) for folder in taught]
        for bits in map(int, args.bits.split(",")):
            made = trained_codes(sides, others, bits, args.candidates, chosen, command)
            if args.claims:
                claims.write(made)
        return
    for bits in map(int, args.bits.split(",")):
        for side in sides:
            for method in METHODS:
                start = time.process_time()
                index = fitted(side, method, bits, chosen)
                spent = time.process_time() - start
                for way, count in ways.items():
                    found.setdefault((bits, way), {}).setdefault(method, []).append(side.score(index, count))
                print(f"  {bits} bits, {method}: fitted and encoded in {spent:.0f} CPU s", flush=True)
        for way in ways:
            seeds = [dict(zip(METHODS, one, strict=True)) for one in zip(*found[bits, way].values(), strict=True)]
            for score in ("recall@10", "mar@10"):
                report = sides[0].report
                means = [
                    " ".join(f"{100 * np.nanmean(seed[method][score][report]):.1f}" for seed in seeds)
                    for method in METHODS
                ]
                made = claim(bits, score, way, seeds, report, command)
                mean, low, high = (100 * value for value in made["difference"])
                print(f"| {bits} | {way} | {score} | {' | '.join(means)} | {mean:+.1f} [{low:+.1f}, {high:+.1f}] |",
                      flush=True)  # fmt: skip
                written.append(made)
        engines = [[fitted(side, method, bits, chosen) for side in sides] for method in ("itq", "learned")]
        for method, indexes in zip(("itq", "learned"), engines, strict=True):
            near = [
                [side.score(index, count)["recall@10"][side.report] for side, index in zip(sides, indexes, strict=True)]
                for count in COUNTS
            ]
            shares = " | ".join(f"{100 * np.mean(one):.1f}" for one in near)
            print(f"| {bits} | {method}, recall@10 by candidates {COUNTS} | {shares} |", flush=True)
            written += growth(bits, near, command) if method == "itq" else []
    if args.claims:
        claims.write(written)


if __name__ == "__main__":
    main()
