"""Searches a super-net by evolution and at random, and compares its scores with those of networks trained alone.

    python -m retrieval_jax.run --config=configs/embedded_nas.py --workdir=runs/embedded_nas   # after the quickstart
    for choice in $(python benchmarks/nas.py runs/embedded_nas --draw=8); do
      python -m retrieval_jax.run --config=configs/embedded_nas.py:choice=$choice --workdir=runs/nas_alone/$choice
    done
    python benchmarks/nas.py runs/embedded_nas --flops=1.5e6 --alone runs/nas_alone/* --claims

    # The networks that the searches printed, each trained alone as above, in runs/nas_winners/<choice>:
    python benchmarks/nas.py runs/embedded_nas --flops=1.5e6 --alone runs/nas_alone/* --winners runs/nas_winners/* \\
        --claims

Both methods have the same budget, which every candidate uses at least three quarters of, and the same number of
evaluations; searches differ in their seed. A search reads val alone (`retrieval_jax.nas`). Its best network is scored
twice with the super-net's weights: the cross score on val, which it was chosen by, and M(q,g) of the catalogue's
queries on the report half, which nothing was chosen by; with --winners also as it is trained alone and from scratch,
which is what would be used. Scores of searches are averaged per query, and differences are
paired (95 %).

The networks of --draw are drawn from all that the super-net holds, by a seed of their own. Each is trained alone and
from scratch; Spearman's rank correlation is of its val cross score with that of the super-net at the same choice, with
an interval by Fisher's transformation (Bonett and Wright, 2000). The baseline is a rank by operations alone, which
needs no super-net.
"""

import argparse
import json
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402
import scipy.stats  # noqa: E402
from gallery_upgrade import METRIC, scored, vectors_of  # noqa: E402

from retrieval_jax import inference, nas  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.embeddings import adapters  # noqa: E402
from retrieval_jax.models.architectures import parse  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402

WANTED = 0.6  # rank correlation
DRAWN = 1000  # seed of the networks that are trained alone


def drawn(space, count: int) -> list[str]:
    """Returns architectures of a space, drawn at random, each once."""
    rng, found = np.random.default_rng(DRAWN), {}
    while len(found) < count:
        found[str(space.decode(rng.integers(0, space.sizes)))] = None
    return list(found)


class Judge:
    """Scores networks: the cross score of each val question, and M(q,g) of each query of the catalogue."""

    def __init__(self, model):
        self.asked, catalog = nas.questions(model), loading.load(model.config.data)
        self.catalog, self.truth = catalog, catalog.truth
        folder = inference.learned_from(model.config, pathlib.Path(model.folder))
        self.gallery = vectors_of(folder, "gallery", self.truth.gallery_ids)
        self.queries = catalog.query.rows(self.truth.query_ids)

    def __call__(self, model, params) -> dict[str, np.ndarray]:
        """Returns {"val": [V], "queries": [Q]} of a model with some parameters."""
        name = model.config.embed.predict_fn
        function = model.task.predict_fns[name]
        columns = inference.columns(function, self.catalog.query, model.config, model.folder, name)
        made = inference.predict(function, params, columns, rows=self.queries, **inference.test_arguments(model.config))
        found = scored(adapters.unit(made["embedding"]), self.gallery, self.truth)[0]
        return {"val": nas.cross_scores(model, params, self.asked), "queries": found}


def spearman(first, second) -> list[float]:
    """Returns the rank correlation of two lists and the ends of its 95 % interval."""
    found = float(scipy.stats.spearmanr(first, second).statistic)
    if len(first) < 4 or abs(found) == 1 or not math.isfinite(found):
        return [found, -1.0, 1.0]
    half = 1.96 * math.sqrt((1 + found**2 / 2) / (len(first) - 3))
    return [found, math.tanh(math.atanh(found) - half), math.tanh(math.atanh(found) + half)]


def main() -> None:
    """Draws architectures, or searches, prints both tables, and writes claims where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="work directory of the super-net")
    parser.add_argument("--draw", type=int, default=0, help="print so many architectures to train alone, and stop")
    parser.add_argument("--flops", type=float, default=1.5e6, help="budget of the searches")
    parser.add_argument("--searches", type=int, default=3, help="of each method")
    parser.add_argument("--evaluations", type=int, default=64, help="of each search")
    parser.add_argument("--alone", nargs="*", default=(), type=pathlib.Path, help="work directories of small networks")
    parser.add_argument(
        "--winners", nargs="*", default=(), type=pathlib.Path, help="work directories of what the searches found, alone"
    )
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of all numbers")
    parser.add_argument("--claims", action="store_true", help="write into benchmarks/claims.json")
    args = parser.parse_args()
    model = inference.load(args.folder)
    space = nas.space_of(model)
    if args.draw:
        print("\n".join(drawn(space, args.draw)))
        return
    judge, budget = Judge(model), nas.Budget(flops=args.flops)

    def of_choice(text):
        return judge(model, {**model.params, "choice": space.encode(parse(text))})

    found = {method: [] for method in nas.METHODS}
    for method, of_method in found.items():
        for seed in range(args.searches):
            best = nas.run(args.folder, budget=budget, method=method, evaluations=args.evaluations, seed=seed)
            of_method.append({**best, **of_choice(best["choice"])})
    trained = {}
    for folder in args.winners:
        own = inference.load(folder)
        trained[own.config.train.model.kwargs.choice] = judge(own, own.params)
    for one in (one for of_method in found.values() for one in of_method if trained):
        if one["choice"] not in trained:
            raise SystemExit(f"--winners has no network {one['choice']}: train it alone, or give none")
        one |= {f"{side} alone": value for side, value in trained[one["choice"]].items()}
    half = ~metrics.selection_half(judge.truth.query_ids)
    report = {"val": slice(None), "queries": half}
    sides = {**report, "queries alone": half} if trained else report
    table = {"searches": {}, "difference": {}, "alone": [], "rank": {}}
    print(f"\n{args.searches} searches of {args.evaluations} evaluations, at most {args.flops / 1e6:g} MFLOP; percent")
    for method, of_method in found.items():
        rows = [
            {key: one[key] for key in ("choice", "flops", "score", "evaluations")}
            | {side: float(np.nanmean(one[side][rows])) for side, rows in sides.items()}
            for one in of_method
        ]
        table["searches"][method] = rows
        for row in rows:
            print(f"{method}: {', '.join(f'{side} {100 * row[side]:.2f}' for side in sides)}, "
                  f"{row['flops'] / 1e6:.2f} MFLOP, {row['choice']}")  # fmt: skip
    for side, rows in sides.items():
        each = [np.mean([one[side][rows] for one in found[method]], axis=0) for method in ("random", "evolution")]
        apart = bootstrap.paired_bootstrap(*each)
        table["difference"][side] = [apart[key] for key in ("difference", "low", "high")]
        shown = [100 * value for value in table["difference"][side]]
        print(f"evolution - random, {side}: {shown[0]:+.2f} ({shown[1]:+.2f} to {shown[2]:+.2f})")
    for folder in args.alone:
        own = inference.load(folder)
        choice = own.config.train.model.kwargs.choice
        both = {"alone": judge(own, own.params), "super-net": of_choice(choice)}
        row = {"choice": choice, "flops": nas.operations(model, parse(choice))}
        row |= {
            f"{who} {side}": float(np.nanmean(one[side][report[side]])) for who, one in both.items() for side in report
        }
        table["alone"].append(row)
        print(", ".join(f"{key} {100 * value:.2f}" for key, value in row.items() if " " in key), end="; ")
        print(f"{row['flops'] / 1e6:.2f} MFLOP, {choice}")
    if len(args.alone) > 2:
        lists = {key: [row[key] for row in table["alone"]] for key in table["alone"][0] if key != "choice"}
        for side in report:
            for first in (f"super-net {side}", "flops"):
                table["rank"][f"{first}: alone {side}"] = spearman(lists[first], lists[f"alone {side}"])
        for name, (value, low, high) in table["rank"].items():
            print(f"Spearman, {name}: {value:.2f} ({low:.2f} to {high:.2f}), {len(args.alone)} networks")
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")
    if args.claims:
        claims.write(_claims(table, " ".join(["python benchmarks/nas.py", *sys.argv[1:]]), args))


def _claims(table: dict, command: str, args) -> list[dict]:
    shared, out = {"system": "compatible", "command": command}, []
    names = {
        "val": "the cross score on val that searches go by",
        "queries": "M(q,g) of queries that no search has read, with the super-net's weights",
        "queries alone": "M(q,g) of queries that no search has read, trained alone",
    }
    for side, what in names.items():
        if side not in table["difference"]:
            continue
        values = [
            {str(seed): row[side] for seed, row in enumerate(table["searches"][method])}
            for method in ("evolution", "random")
        ]
        out.append(
            {
                "id": f"compatible-nas-{side.replace(' ', '-')}",
                "statement": f"evolution finds better small networks than random search at equal operations and "
                f"{args.evaluations} evaluations: {what}",
                "metric": "share of the gallery network's first ten" if side == "val" else METRIC,
                "value": values[0],
                "baseline": values[1],
                "difference": table["difference"][side],
                "holds": bool(table["difference"][side][1] > 0),
                **shared,
            }
        )
    if table["rank"]:
        rank = table["rank"]["super-net val: alone val"]
        out.append(
            {
                "id": "compatible-nas-rank",
                "statement": f"the super-net ranks {len(table['alone'])} networks as training each alone does: "
                f"Spearman at least {WANTED}",
                "metric": "Spearman's rank correlation of val cross scores; the baseline ranks by operations",
                "value": {"0": rank[0]},
                "baseline": {"0": table["rank"]["flops: alone val"][0]},
                "difference": [value - WANTED for value in rank],
                "holds": bool(rank[0] >= WANTED),
                **shared,
            }
        )
    return out


if __name__ == "__main__":
    main()
