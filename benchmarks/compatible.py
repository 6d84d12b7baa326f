"""Scores query networks against the gallery of another network: M(q,q), M(q,g) and M(g,g), and what each costs.

    python -m retrieval_jax.run --config=configs/fashion_pretrained.py:path=weights/lite0.safetensors,epochs=3 \
        --workdir=runs/gallery
    for losses in all regression contrast rank relation none; do for seed in 0 1 2; do
      run="python -m retrieval_jax.run --config=configs/fashion_small_query.py:pictures=$PWD/runs/gallery"
      $run,losses=$losses,seed=$seed --workdir=runs/compatible/$losses-$seed
    done; done
    python benchmarks/compatible.py runs/gallery --networks all=runs/compatible/all-0,runs/compatible/all-1 \
        none=runs/compatible/none-0,runs/compatible/none-1 --plot=docs/compatible.png --claims

M(g,g) are the gallery network's queries on its gallery, M(q,g) a query network's on the same gallery, and M(q,q) a
query network's on a gallery that it embeds itself, here and now. A network is a name with one run per seed; scores of
seeds are averaged per query, and differences are paired (95 %). Plain cosines, report half of the queries; losses and
weights are chosen by M(q,g) of the selection half, printed too. Costs are of one picture through the network
alone: operations counted in the traced program, parameters, and the median time of a batch of one on this machine. A
gallery costs more than that by the test-time views of its run, which queries here do without: "flops with views".
The gallery's own run may be among the networks: its queries without views.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
from gallery_upgrade import METRIC, scored, vectors_of  # noqa: E402

from retrieval_jax import inference, views  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.embeddings import adapters  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.training import flops  # noqa: E402

PAIRS = ("M(q,q)", "M(q,g)", "M(g,g)")
SHARE, WITHIN = 1 / 20, 0.02  # of the gallery network's operations, and of its score
REPEATS = 30


def embedded(model, split, folder) -> np.ndarray:
    """Returns the unit vectors of a split by a network, without views."""
    name = model.config.embed.predict_fn
    function = model.task.predict_fns[name]
    columns = inference.columns(function, split, model.config, folder, name)
    arguments = inference.test_arguments(model.config)
    made = inference.predict(
        function, model.params, columns, mesh=model.mesh, desc=f"{folder} {split.name}", **arguments
    )
    return adapters.unit(made["embedding"])


def cost(model) -> dict[str, float]:
    """Returns what one picture costs: "flops", "flops with views" of its run, "parameters" of the network, and "ms"."""
    function = model.task.predict_fns[model.config.embed.predict_fn]
    size = inference.test_arguments(model.config)["image_size"]
    batch = {"image": np.zeros((1, *size, 3), np.uint8)}

    def run(params, batch):
        return function(params, batch)["embedding"]

    compiled, times = jax.jit(run).lower(model.params, batch).compile(), []
    for _ in range(REPEATS + 3):
        start = time.perf_counter()
        compiled(model.params, batch).block_until_ready()
        times.append(1000 * (time.perf_counter() - start))
    settings = model.config.embed.get("views", ())
    shown = views.with_views(function, settings, size)
    whole = {"image": np.zeros((1, *views.host_size(settings, size), 3), np.uint8)}
    used = {name: value for name, value in model.params.items() if name in ("backbone", "head_compatible")}
    return {
        "flops": flops.of(run, model.params, batch),
        "flops with views": flops.of(lambda params, batch: shown(params, batch)["embedding"], model.params, whole),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(used)),
        "ms": statistics.median(times[3:]),
    }


def main() -> None:
    """Prints the table, draws cost against score, and writes claims where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gallery", type=pathlib.Path, help="work directory of the gallery network, embedded")
    parser.add_argument("--networks", nargs="+", required=True, help="name=run,run,...: one run per seed")
    parser.add_argument("--root", default="", help="where the catalogue is now")
    parser.add_argument("--queries", type=pathlib.Path, help="file of query ids: score these alone, a line each")
    parser.add_argument("--new", action="store_true", help="the networks are new models for this old gallery")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of all numbers")
    parser.add_argument("--plot", type=pathlib.Path, help="picture file of cost against score")
    parser.add_argument("--claims", action="store_true", help="write into benchmarks/claims.json")
    args = parser.parse_args()
    large = inference.load(args.gallery)
    if args.root:
        large.config.data.kwargs["root"] = args.root
    catalog = loading.load(large.config.data)
    truth = catalog.truth
    report = ~metrics.selection_half(truth.query_ids)
    if args.queries:  # too few to divide, and nothing is chosen by them
        report = np.isin(truth.query_ids, args.queries.read_text().split())
        if not report.any():
            raise SystemExit(f"none of the catalogue's queries is in {args.queries}")
    gallery = vectors_of(args.gallery, "gallery", truth.gallery_ids)
    asked = vectors_of(args.gallery, "query", truth.query_ids)
    own = scored(asked, gallery, truth)[0]
    costs, found = {"gallery": cost(large)}, {}
    place = [{name: row for row, name in enumerate(split.ids)} for split in (catalog.query, catalog.gallery)]
    order = [[place[0][name] for name in truth.query_ids], [place[1][name] for name in truth.gallery_ids]]
    for one in args.networks:
        name, _, folders = one.partition("=")
        seeds = []
        for folder in map(pathlib.Path, folders.split(",")):
            model = inference.load(folder)
            if folder != args.gallery and model.data_info.target_space != large.space:
                raise SystemExit(f"{folder} learned the space {model.data_info.target_space}, not {large.space}")
            sides = [
                embedded(model, split, folder)[rows]
                for split, rows in zip((catalog.query, catalog.gallery), order, strict=True)
            ]
            seeds.append({"M(q,q)": scored(*sides, truth)[0], "M(q,g)": scored(sides[0], gallery, truth)[0]})
            seeds[-1] |= {"M(g,g)": own, "cosine": (sides[0] * asked).sum(axis=1)}
        found[name], costs[name] = seeds, cost(model)
    table = {name: _row(seeds, report) | costs[name] for name, seeds in found.items()}
    print(f"\n{METRIC} in percent, {int(np.isfinite(own[report]).sum()):,} queries of "
          f"{args.queries or 'the report half'}")  # fmt: skip
    print("gallery network: " + ", ".join(f"{key} {value:,.4g}" for key, value in costs["gallery"].items()))
    for name, row in table.items():
        print(f"{name}: " + ", ".join(f"{pair} {100 * row[pair]:.2f}" for pair in PAIRS), end="; ")
        for key in ("M(q,g) - M(q,q)", "M(g,g) - M(q,g)"):
            difference, low, high = (100 * value for value in row[key])
            print(f"{key} {difference:+.2f} ({low:+.2f} to {high:+.2f})", end="; ")
        print(
            f"cosine {row['cosine']:.3f}; selection half {100 * row['selection']:.2f}; seeds {row['seeds']}", end="; "
        )
        print(", ".join(f"{key} {row[key]:,.4g}" for key in ("flops", "parameters", "ms")))
    if args.out:
        args.out.write_text(json.dumps({"gallery": costs["gallery"], **table}, indent=1) + "\n")
    if args.plot:
        _plot(table, costs["gallery"], float(np.nanmean(own[report])), args.plot)
    if args.claims:
        command = " ".join(["python benchmarks/compatible.py", *sys.argv[1:]])
        made = _new(table, command) if args.new else _claims(table, costs["gallery"], metrics.chance(truth), command)
        if args.queries:
            name = args.queries.stem.replace("_", "-")
            made = [one | {"id": f"{one['id']}-{name}", "statement": f"{one['statement']}; {name}"} for one in made]
        claims.write(made)


def _row(seeds: list[dict], report: np.ndarray) -> dict:
    """Returns the means of the report half, both paired differences [mean, low, high], and the scores of each seed;
    "cosine" is that of a query's vector to the gallery network's own of the same picture."""
    mean = {pair: np.mean([one[pair] for one in seeds], axis=0) for pair in PAIRS}
    row = {pair: float(np.nanmean(each[report])) for pair, each in mean.items()}
    for low, high in (("M(q,q)", "M(q,g)"), ("M(q,g)", "M(g,g)")):
        apart = bootstrap.paired_bootstrap(mean[low][report], mean[high][report])
        row[f"{high} - {low}"] = [apart["difference"], apart["low"], apart["high"]]
    row["cosine"] = float(np.mean([one["cosine"][report].mean() for one in seeds]))
    row["selection"] = float(np.nanmean(mean["M(q,g)"][~report]))
    row["seeds"] = {pair: [round(float(np.nanmean(one[pair][report])), 4) for one in seeds] for pair in PAIRS}
    return row


def _plot(table: dict, gallery: dict, score: float, file: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.axhline(100 * score, color="grey", linewidth=0.8)
    axes.annotate("gallery network", (gallery["flops"] / 1e6, 100 * score + 1), ha="right", va="bottom", fontsize=8)
    axes.plot([gallery["flops"] / 1e6], [100 * score], "s")
    for pair, marker in (("M(q,q)", "o"), ("M(q,g)", "^")):
        axes.plot(
            [row["flops"] / 1e6 for row in table.values()],
            [100 * row[pair] for row in table.values()],
            marker,
            label=pair,
        )
    gap, highest = 2.6, {}  # percent between two labels, and the last label of each cost, which others stand above
    for name, row in sorted(table.items(), key=lambda one: one[1]["M(q,g)"]):
        column = round(3 * np.log10(row["flops"]))  # networks of about one cost
        highest[column] = max(100 * row["M(q,g)"], highest.get(column, -gap) + gap)
        axes.annotate(f"  {name}", (row["flops"] / 1e6, highest[column]), va="center", fontsize=8)
    axes.set(
        xscale="log",
        xlim=(None, 2.5 * gallery["flops"] / 1e6),
        ylim=(-3, 70),
        xlabel="MFLOP a query picture",
        ylabel=f"{METRIC}, percent",
    )
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def _by_seed(row: dict, pair: str) -> dict[str, float]:
    return {str(seed): value for seed, value in enumerate(row["seeds"][pair])}


def _new(table: dict, command: str) -> list[dict]:
    """Returns a claim for each new model: its queries on the old gallery are better than those of the old model."""
    out = []
    for name, row in table.items():
        difference, low, high = row["M(g,g) - M(q,g)"]
        out.append(
            {
                "id": f"compatible-new-model-{name}",
                "system": "compatible",
                "statement": f"fashion, no picture embedded again: a new model, trained by '{name}', searches the old "
                "gallery better than the old model does",
                "metric": METRIC,
                "value": _by_seed(row, "M(q,g)"),
                "baseline": _by_seed(row, "M(g,g)"),
                "difference": [-difference, -high, -low],
                "holds": bool(high < 0),
                "command": command,
            }
        )
    return out


def _claims(table: dict, gallery: dict, chance: dict, command: str) -> list[dict]:
    """Returns the claims of the cheap network with the best M(q,g) on the selection half, and of that without loss."""
    shared, out = {"system": "compatible", "metric": METRIC, "command": command}, []
    if "none" in table:
        guessed, row = chance[METRIC], table["none"]
        out.append(
            {
                "id": "compatible-none-is-chance",
                "statement": "without a compatible loss the cross score is that of chance",
                "value": _by_seed(row, "M(q,g)"),
                "baseline": {str(seed): guessed for seed in range(len(row["seeds"]["M(q,g)"]))},
                "difference": [row["M(q,g)"] - guessed] * 3,
                "holds": bool(row["M(q,g)"] < 0.01),
                **shared,
            }
        )
    learned = {name: row for name, row in table.items() if name != "none"}
    if not learned:
        return out

    def chosen(of: str) -> str:
        small = [name for name in learned if learned[name]["flops"] <= SHARE * gallery[of]]
        return max(small or learned, key=lambda name: learned[name]["selection"])

    best = chosen("flops")
    row = learned[best]
    for low, high in (("M(q,q)", "M(q,g)"), ("M(q,g)", "M(g,g)")):
        difference = row[f"{high} - {low}"]
        names = f"{low[2]}{low[4]}-{high[2]}{high[4]}"
        out.append(
            {
                "id": f"compatible-order-{names}",
                "statement": f"unseen fashion products: {low} < {high} with the losses '{best}'",
                "value": _by_seed(row, high),
                "baseline": _by_seed(row, low),
                "difference": difference,
                "holds": bool(difference[1] > 0),
                **shared,
            }
        )
    for of, tag, what in (
        ("flops", "cost", "the gallery network's operations"),
        (
            "flops with views",
            "cost-with-views",
            "the operations that a picture of the gallery was embedded with, views",
        ),
    ):
        name = chosen(of)
        row, share = learned[name], learned[name]["flops"] / gallery[of]
        if share > SHARE:
            continue  # no network is that small
        lost = row["M(g,g) - M(q,g)"]
        out.append(
            {
                "id": f"compatible-{tag}",
                "statement": f"a query network of at most 1/20 of {what} (1/{1 / share:.0f}, '{name}') "
                f"loses at most {WITHIN} on average",
                "value": _by_seed(row, "M(q,g)"),
                "baseline": _by_seed(row, "M(g,g)"),
                "difference": [-lost[0], -lost[2], -lost[1]],
                "holds": bool(lost[0] <= WITHIN),
                **shared,
            }
        )
    return out


if __name__ == "__main__":
    main()
