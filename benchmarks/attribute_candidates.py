"""Draws the share of a gallery that is scanned against the recall that is left: candidates by predicted attributes.

    python benchmarks/attribute_candidates.py --run=runs/fashion_attributes [--embeddings=runs/fashion_softmax] \\
        [--around 0 1000000] [--out=curve.json] [--plot=curve.png]

--run predicts attributes of queries and gallery and is trained already; vectors are those of its model, or of that of
--embeddings, which has the same catalogue. Each query scans the listings that share the most with it
(index/attribute/candidates.py), as many as a share of the gallery; recall@10 and its loss are against a full scan, with
a 95 % interval over paired queries: --queries of the selection half, drawn by --seed. A listing has the values of at
least --least probability; at most --most per field and query are keys. --around puts that many generated listings
around the gallery: noisy copies of random rows, with their attributes. With several numbers, each is measured.
"""

import argparse
import json
import pathlib
import sys
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import claims  # noqa: E402
import matplotlib  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.data.fields import Field  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import attribute  # noqa: E402
from retrieval_jax.index.attribute import candidates  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402

SHARES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.25, 0.5, 1.0)
K = 10
BARS = {0.07: 0.02, 0.25: 0.005}  # share scanned: recall@10 that may be lost


def field(probabilities: np.ndarray, least: float) -> Field:
    """Returns the values of at least a probability, [n, V], and the likeliest one of every row, as a field."""
    kept = probabilities >= least
    kept[np.arange(len(kept)), probabilities.argmax(1)] = True
    kept &= probabilities > 0
    _, values = np.nonzero(kept)
    indptr = np.concatenate([[0], np.cumsum(kept.sum(1))])
    names = [str(value) for value in range(probabilities.shape[1])]
    return Field(names, indptr, values, np.minimum(probabilities[kept], 1.0))


def keys(probabilities: dict[str, np.ndarray], query: int, most: int, least: float) -> dict[str, dict[str, float]]:
    """Returns the predicted attributes of a query: the likeliest values of every field."""
    out = {}
    for name, chances in probabilities.items():
        order = np.argsort(-chances[query], kind="stable")[:most]
        chosen = [value for place, value in enumerate(order) if not place or chances[query, value] >= least]
        out[name] = {str(value): float(min(1.0, chances[query, value])) for value in chosen}
    return out


def predicted(model, folder, split, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the probabilities of each field's values for some listings of a split, {field: [n, values]}."""
    function = inference.named(model.task.predict_fns, "attributes")
    columns = inference.columns(function, split, model.config, folder, "the predict function 'attributes'")
    out = inference.predict(function, model.params, columns, rows=rows, mesh=model.mesh, desc=split.name,
                            **inference.test_arguments(model.config))["probabilities"]  # fmt: skip
    learned = model.data_info.fields
    parts = np.split(out, np.cumsum([one.values for one in learned])[:-1], axis=1)
    return {one.name: part for one, part in zip(learned, parts, strict=True)}


def read(args) -> dict:
    """Returns vectors, predicted attributes and right rows of a sample of queries and of the gallery."""
    model = inference.load(args.run)
    if args.root:
        with model.config.unlocked():
            model.config.data.kwargs["root"] = args.root
    catalog = loading.load(model.config.data)
    if catalog.truth is None:
        sys.exit(f"{args.run}: its catalogue has no truth, so no recall can be measured")
    half = metrics.selection_half(list(catalog.query.ids), model.config.evaluate.selection_share)
    rows = np.flatnonzero(half & (catalog.truth.num_relevant > 0))
    if len(rows) > args.queries:
        rows = np.sort(np.random.default_rng(args.seed).choice(rows, args.queries, replace=False))
    vectors = {}
    for name, split in (("query", catalog.query), ("gallery", catalog.gallery)):
        found = Embeddings.load(pathlib.Path(args.embeddings or args.run) / "embeddings" / args.model / name)
        if list(found.ids) != list(split.ids):
            sys.exit(f"the {name} embeddings are of other listings than the catalogue's, or in another order")
        vectors[name] = np.asarray(found.vectors[:], np.float32)
    if args.dims:
        centred = vectors["gallery"] - vectors["gallery"].mean(0)
        axes = np.linalg.eigh(centred.T @ centred)[1][:, : -args.dims - 1 : -1]
        vectors = {name: one @ axes for name, one in vectors.items()}
    indptr, right = catalog.truth.indptr, catalog.truth.rows
    gallery = predicted(model, pathlib.Path(args.run), catalog.gallery, np.arange(len(catalog.gallery)))
    return {
        "queries": vectors["query"][rows],
        "gallery": vectors["gallery"],
        "attributes": predicted(model, pathlib.Path(args.run), catalog.query, rows),
        "fields": {name: field(chances, args.least) for name, chances in gallery.items()},
        "truth": [right[indptr[row] : indptr[row + 1]] for row in rows],
    }


def surrounded(data: dict, rows: int, seed: int) -> dict:
    """Returns the data with generated listings behind the gallery's: noisy copies with their row's attributes."""
    rng = np.random.default_rng(seed)
    gallery = data["gallery"]
    taken = np.concatenate([np.arange(len(gallery)), rng.integers(len(gallery), size=rows)])
    spread, vectors = (gallery.std(0) * 0.7).astype(np.float32), np.empty((len(taken), gallery.shape[1]), np.float32)
    vectors[: len(gallery)] = gallery
    for start in range(len(gallery), len(taken), 20_000):  # in memory once: a million vectors are gigabytes
        part = taken[start : start + 20_000]
        vectors[start : start + len(part)] = gallery[part]
        vectors[start : start + len(part)] += rng.standard_normal((len(part), gallery.shape[1]), np.float32) * spread
    fields = {name: one.take(taken) for name, one in data["fields"].items()}
    return {**data, "gallery": vectors, "fields": fields}


def recalls(rows: np.ndarray, truth: list[np.ndarray]) -> np.ndarray:
    """Returns recall@10, over at most 10 right rows, of every query; NaN where nothing is right."""
    found = [np.isin(right, have).sum() / min(K, len(right)) if len(right) else np.nan
             for right, have in zip(truth, rows, strict=True)]  # fmt: skip
    return np.array(found)


def measure(data: dict, args) -> dict:
    """Returns the curve of one gallery and prints it."""
    index, count = attribute.Index(data["gallery"], fields=data["fields"]), len(data["gallery"])
    full = recalls(index.find(data["queries"], K).ranking.item_rows, data["truth"])
    scanned = np.zeros((len(SHARES), len(full)))
    have = np.zeros_like(scanned)
    for query, truth in enumerate(data["truth"]):
        shared = candidates.worth(index.table, keys(data["attributes"], query, args.most, args.least))
        for number, share in enumerate(SHARES):
            rows = candidates.best(shared, max(1, int(share * count)), index.exact.place)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # fewer than ten candidates count as what they miss
                found = index.among(data["queries"][query : query + 1], [rows], K).item_rows
            scanned[number, query] = len(rows) / count
            (have[number, query],) = recalls(found, [truth])
    lines = []
    print(f"\n{len(full):,} queries, {count:,} listings, full scan: recall@10 {full.mean():.4f}\n")
    print("| share allowed | scanned | recall@10 | lost (95 %) |\n|---:|---:|---:|---|")
    for number, share in enumerate(SHARES):
        lost = bootstrap.paired_bootstrap(have[number], full)
        line = {"share": share, "scanned": float(scanned[number].mean()), "recall": float(have[number].mean()),
                "lost": [lost["difference"], lost["low"], lost["high"]]}  # fmt: skip
        lines.append(line)
        text = f"{lost['difference']:.4f} ({lost['low']:.4f}, {lost['high']:.4f})"
        print(f"| {share:.0%} | {line['scanned']:.1%} | {line['recall']:.4f} | {text} |")
    return {"listings": count, "queries": len(full), "full": float(full.mean()), "curve": lines}


def claims_of(curves: list[dict], command: str) -> list[dict]:
    """Returns the claims: at most so much recall is lost where so large a share is scanned."""
    made = []
    for one in curves:
        for share, most in BARS.items():
            (line,) = (line for line in one["curve"] if line["share"] == share)
            made.append({
                "id": f"attributes-candidates-{one['listings']}-{share:g}", "system": "attributes",
                "statement": f"{one['listings']:,} listings: scanning the {share:.0%} that share most predicted "
                             f"attributes loses at most {most} of recall@10; the difference is to that",
                "metric": "recall@10 lost", "value": {"0": line["lost"][0]}, "baseline": {"0": most},
                "difference": [lost - most for lost in line["lost"]], "holds": line["lost"][0] <= most,
                "command": command,
            })  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="work directory of a run that learned attributes")
    parser.add_argument("--embeddings", default="", help="work directory with the embeddings, if not that of --run")
    parser.add_argument("--model", default="trained", help="whose embeddings")
    parser.add_argument("--root", default="", help="where the catalogue is now, if not where the run says")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--least", type=float, default=0.1, help="smallest probability of a value that counts")
    parser.add_argument("--most", type=int, default=5, help="keys per field and query")
    parser.add_argument("--dims", type=int, default=0, help="principal components of the vectors; 0 for all dimensions")
    parser.add_argument("--around", type=int, nargs="+", default=[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    parser.add_argument("--plot")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    args = parser.parse_args()
    data = read(args)
    curves = [measure(surrounded(data, rows, args.seed) if rows else data, args) for rows in args.around]
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps({"command": sys.argv[1:], "galleries": curves}, indent=1) + "\n")
    if args.claims:
        claims.write(claims_of(curves, f"python benchmarks/attribute_candidates.py {' '.join(sys.argv[1:])}"))
    if args.plot:
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for one in curves:
            scanned, recall = ([line[name] for line in one["curve"]] for name in ("scanned", "recall"))
            (drawn,) = axes.plot(scanned, recall, marker="o", label=f"{one['listings']:,} listings")
            axes.axhline(one["full"], linestyle="--", color=drawn.get_color())
        axes.set(xscale="log", xlabel="share of the gallery scanned", ylabel="recall@10 (dashed: full scan)")
        axes.legend()
        figure.savefig(args.plot, dpi=120)


if __name__ == "__main__":
    main()
