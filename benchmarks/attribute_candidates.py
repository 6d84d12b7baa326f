"""Draws the share of a gallery that is scanned against the recall that is left: candidates by predicted attributes.

    python benchmarks/attribute_candidates.py ARRAYS.npz [--out=curve.json] [--plot=curve.png] [--around=1000000]

ARRAYS.npz holds

    queries [Q, D], gallery [G, D]              vectors
    query_<field> [Q, V], gallery_<field> [G, V]   probabilities of each value of a field, any number of fields
    truth_indptr [Q + 1], truth_rows            rows of the gallery that are right for each query

Each query scans the listings that share the most with it (index/attribute/candidates.py), as many as a share of the
gallery; recall@10 and its loss are against a full scan, with a 95 % interval over paired queries. A listing has the
values of at least --least probability; at most --most per field and query are keys. --around puts that many generated
listings around the gallery: noisy copies of random rows, with their attributes.
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax.index import attribute  # noqa: E402

SHARES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.25, 0.5, 1.0)
K = 10


def field(probabilities: np.ndarray, least: float) -> attribute.Field:
    """Returns the values of at least a probability, [n, V], and the likeliest one of every row, as a field."""
    kept = probabilities >= least
    kept[np.arange(len(kept)), probabilities.argmax(1)] = True
    kept &= probabilities > 0
    _, values = np.nonzero(kept)
    indptr = np.concatenate([[0], np.cumsum(kept.sum(1))])
    names = [str(value) for value in range(probabilities.shape[1])]
    return attribute.Field(names, indptr, values, np.minimum(probabilities[kept], 1.0))


def keys(probabilities: dict[str, np.ndarray], query: int, most: int, least: float) -> dict[str, dict[str, float]]:
    """Returns the predicted attributes of a query: the likeliest values of every field."""
    out = {}
    for name, chances in probabilities.items():
        order = np.argsort(-chances[query], kind="stable")[:most]
        chosen = [value for place, value in enumerate(order) if not place or chances[query, value] >= least]
        out[name] = {str(value): float(min(1.0, chances[query, value])) for value in chosen}
    return out


def surrounded(arrays: dict, rows: int, seed: int) -> dict:
    """Returns the arrays with generated listings behind the gallery's: noisy copies with their row's attributes."""
    rng = np.random.default_rng(seed)
    gallery = arrays["gallery"]
    chosen = rng.integers(len(gallery), size=rows)
    noise = rng.standard_normal((rows, gallery.shape[1]), np.float32) * (gallery.std(0) * 0.7).astype(np.float32)
    out = {**arrays, "gallery": np.concatenate([gallery, gallery[chosen] + noise])}
    for name in arrays:
        if name.startswith("gallery_"):
            out[name] = np.concatenate([arrays[name], arrays[name][chosen]])
    return out


def recalls(rows: np.ndarray, truth: list[np.ndarray]) -> np.ndarray:
    """Returns recall@10, over at most 10 right rows, of every query; NaN where nothing is right."""
    found = [np.isin(right, have).sum() / min(K, len(right)) if len(right) else np.nan
             for right, have in zip(truth, rows, strict=True)]  # fmt: skip
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays", help="the .npz")
    parser.add_argument("--least", type=float, default=0.1, help="smallest probability of a value that counts")
    parser.add_argument("--most", type=int, default=5, help="keys per field and query")
    parser.add_argument("--around", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    parser.add_argument("--plot")
    args = parser.parse_args()
    with np.load(args.arrays, allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    indptr, right = arrays["truth_indptr"], arrays["truth_rows"]
    truth = [right[begin:end] for begin, end in zip(indptr[:-1], indptr[1:], strict=True)]
    if args.around:
        arrays = surrounded(arrays, args.around, args.seed)
    sides = {
        side: {name.removeprefix(side): array for name, array in arrays.items() if name.startswith(side)}
        for side in ("query_", "gallery_")
    }
    fields = {name: field(array, args.least) for name, array in sides["gallery_"].items()}
    index, count = attribute.Index(arrays["gallery"], fields=fields), len(arrays["gallery"])
    full = recalls(index.find(arrays["queries"], K).ranking.item_rows, truth)
    known = ~np.isnan(full)
    attributes = [keys(sides["query_"], query, args.most, args.least) for query in range(len(full))]
    rng, lines = np.random.default_rng(args.seed), []
    print(f"{known.sum():,} queries, {count:,} listings, full scan: recall@10 {full[known].mean():.4f}\n")
    print("| share allowed | scanned | recall@10 | lost (95 %) |\n|---:|---:|---:|---|")
    for share in SHARES:
        rows = [index.candidates(one, max(1, int(share * count))) for one in attributes]
        have = recalls(index.among(arrays["queries"], rows, K).item_rows, truth)
        lost = (full - have)[known]
        means = [rng.choice(lost, len(lost)).mean() for _ in range(2000)]
        low, high = np.quantile(means, [0.025, 0.975])
        line = {"share": share, "scanned": float(np.mean([len(one) for one in rows]) / count),
                "recall": float(have[known].mean()), "lost": [float(lost.mean()), float(low), float(high)]}  # fmt: skip
        lines.append(line)
        text = f"{lost.mean():.4f} ({low:.4f}, {high:.4f})"
        print(f"| {share:.0%} | {line['scanned']:.1%} | {line['recall']:.4f} | {text} |")
    if args.out:
        text = json.dumps({"listings": count, "full": float(full[known].mean()), "curve": lines}, indent=1)
        pathlib.Path(args.out).write_text(text + "\n")
    if args.plot:
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        axes.plot([line["scanned"] for line in lines], [line["recall"] for line in lines], marker="o")
        axes.axhline(full[known].mean(), linestyle="--", color="grey", label="full scan")
        axes.set(xscale="log", xlabel="share of the gallery scanned", ylabel="recall@10")
        axes.legend()
        figure.savefig(args.plot, dpi=120)


if __name__ == "__main__":
    main()
