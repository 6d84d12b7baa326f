"""Measures typed queries: what pre-training and clicks give, BM25 beside dense search, and words that search pictures.

    for seed in 0 1 2; do for clicks in 300 3000; do
      run="python -m retrieval_jax.run --config=configs/embedded_text.py"
      $run:clicks=$clicks,encoder=gru,seed=$seed --workdir=runs/text/gru_${clicks}_$seed
      $run:clicks=$clicks,seed=$seed --workdir=runs/text/triplet_${clicks}_$seed
      $run:clicks=$clicks,seed=$seed,pretrained=runs/text/masked_$seed --workdir=runs/text/masked_${clicks}_$seed
    done; done   # masked_$seed: configs/masked_titles.py:seed=$seed, before the others
    python benchmarks/text.py embedded runs/text --claims

    python -m retrieval_jax.run --config=configs/fashion_text.py:seed=0 --workdir=runs/text/fashion_0   # and 1
    python benchmarks/text.py fashion runs/text/fashion_0 runs/text/fashion_1 --claims

    run="python -m retrieval_jax.run --config=configs/text_picture.py"
    $run:catalogue=fashion,pictures=runs/fashion_pretrained,seed=0 --workdir=runs/text/pictures_0   # and 1
    python benchmarks/text.py pictures runs/text/pictures_0 runs/text/pictures_1 --attributes=runs/attributes --claims

    python benchmarks/text.py alike runs/text/masked_0 runs/text/masked_300_0 runs/text/triplet_300_0

`alike` prints the mean cosine of two texts that differ in the colour ("red mug", "blue mug"), in the thing, or in both.

Reads finished runs and trains nothing. Scores are of the report half of the queries; those of seeds are averaged per
query before queries are resampled (95 %). `--attributes` is a run of configs/fashion_attributes.py:heads=sigmoid: its
probabilities of the values that a query names, true ones even where the query is misspelt, are the scores of the
baseline (the sum of their logarithms).
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from retrieval_jax import inference, workdir  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.data.examples import Pictures  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.scoring.ranking import Ranking  # noqa: E402

SCORES = ("mrr", "map", "ndcg@10", "precision@50", "recall@50")
BUDGETS, METHODS = (300, 3000), ("gru", "triplet", "masked")
NAMES = {"gru": "BiGRU", "triplet": "the transformer", "masked": "the transformer with masked pre-training"}
LEARNED = ("usage + type", "gender + type + season", "synonym", "misspelt")  # where titles alone say little


def catalogue(folder: pathlib.Path, root: str):
    """Returns the catalogue of a run; `root` is where it lies now, "" for where the run says."""
    config = ConfigDict(workdir.read_config(folder))
    if root and "root" in config.data.kwargs:
        config.data.kwargs["root"] = root
    return loading.load(config.data)


def scores(folder: pathlib.Path, stage: str, catalog) -> dict[str, np.ndarray]:
    """Returns {score: [Q]} of a stage of a run, NaN outside the report half."""
    return reported(Ranking.load(folder / "rankings" / stage), catalog)


def reported(ranking: Ranking, catalog) -> dict[str, np.ndarray]:
    """Returns {score: [Q]} of a ranking, NaN outside the report half."""
    each = metrics.per_query(ranking, catalog.truth, (10,), SCORES)
    selection = metrics.selection_half(catalog.truth.query_ids)
    return {name: np.where(selection, np.nan, each[name]) for name in SCORES}


def kinds(catalog) -> dict[str, np.ndarray]:
    """Returns {kind: bool [Q]} of the queries."""
    column = np.asarray(catalog.query.column("kind"))
    return {name: column == number for number, name in enumerate(catalog.query.column_names["kind"])}


def claim(name: str, statement: str, metric: str, value: list, baseline: list, rows: np.ndarray, command: str) -> dict:
    """Returns a claim that `value` is above `baseline`: per seed [Q] scores, of the queries `rows`."""
    value, baseline = ([one[rows] for one in side] for side in (value, baseline))
    found = bootstrap.paired_bootstrap(np.mean(baseline, 0), np.mean(value, 0))
    return {
        "id": f"text-{name}", "system": "text", "statement": statement, "metric": metric,
        "value": {str(seed): float(np.nanmean(one)) for seed, one in enumerate(value)},
        "baseline": {str(seed): float(np.nanmean(one)) for seed, one in enumerate(baseline)},
        "difference": [found["difference"], found["low"], found["high"]], "holds": found["low"] > 0,
        "command": command,
    }  # fmt: skip


def embedded(root: pathlib.Path, command: str) -> list[dict]:
    """Prints the scores of unseen combinations by method and budget; returns the claims."""
    made, catalog = [], None
    print("| clicked queries | method | seeds |", " | ".join(SCORES), "|\n|---:|---|---:|" + "---:|" * len(SCORES))
    for clicks in BUDGETS:
        found = {}
        for method in METHODS:
            folders = sorted(root.glob(f"{method}_{clicks}_*"))
            if not folders:
                continue
            catalog = catalog or catalogue(folders[0], "")
            found[method] = {
                folder.name.rpartition("_")[2]: scores(folder, "trained/cosine", catalog) for folder in folders
            }
            rows = kinds(catalog)["unseen"]
            shown = [np.mean([np.nanmean(one[name][rows]) for one in found[method].values()]) for name in SCORES]
            print(f"| {clicks:,} | {NAMES[method]} | {len(folders)} |", " | ".join(f"{x:.3f}" for x in shown), "|")
        for worse, better in (("gru", "triplet"), ("triplet", "masked"), ("gru", "masked")):
            seeds = sorted(found.get(worse, {}).keys() & found.get(better, {}).keys())
            for name in SCORES if seeds else ():
                made.append(
                    claim(
                        f"embedded-{clicks}-{better}-over-{worse}-{name}",
                        f"unseen combinations, {clicks:,} clicked queries: {NAMES[better]} is above {NAMES[worse]}",
                        name,
                        [found[better][seed][name] for seed in seeds],
                        [found[worse][seed][name] for seed in seeds],
                        rows,
                        command,
                    )
                )
    return made


def fashion(folders: list[pathlib.Path], root: str, command: str) -> list[dict]:
    """Prints nDCG@10 of BM25, dense and fused search by kind of query; returns the claims."""
    catalog, made, metric = catalogue(folders[0], root), [], "ndcg@10"
    stages = {"BM25": "lexical/bm25", "dense": "trained/cosine", "fused": "ensemble/fusion"}
    found = {name: [scores(folder, stage, catalog)[metric] for folder in folders] for name, stage in stages.items()}
    print("| kind of query | queries |", " | ".join(stages), "|\n|---|---:|" + "---:|" * len(stages))
    every = {**kinds(catalog), "all": np.ones(len(catalog.query), bool)}
    for kind, rows in every.items():
        shown = " | ".join(f"{np.nanmean([np.nanmean(one[rows]) for one in found[name]]):.3f}" for name in stages)
        print(f"| {kind} | {int((~np.isnan(found['BM25'][0][rows])).sum())} | {shown} |")
        pairs = [("fused", "BM25"), ("fused", "dense"), *([("dense", "BM25")] if kind in LEARNED else [])]
        for better, worse in pairs:
            name = f"fashion-{kind.replace(' + ', '-')}-{better}-over-{worse}".lower()
            text = f"fashion, queries of the kind {kind!r}: {better} search is above {worse}"
            made.append(claim(name, text, metric, found[better], found[worse], rows, command))
    return made


def by_attributes(folder: pathlib.Path, catalog, root: str) -> Ranking:
    """Returns the ranking by the attribute head's probabilities of the values that each query names."""
    model = inference.load(folder)
    function, arguments = model.task.predict_fns["attributes"], inference.test_arguments(model.config)
    out = inference.predict(
        function, model.params, {"image": Pictures(catalog.gallery.images)}, mesh=model.mesh, **arguments
    )
    labels = {name: number for number, name in enumerate(model.data_info.label_names)}
    chance = np.log(np.maximum(out["probabilities"].astype(np.float64), 1e-9))
    total, unknown = np.zeros((len(catalog.query), len(catalog.gallery))), 0
    for field in ("type", "colour", "gender", "usage", "season"):
        for query, value in enumerate(named(catalog, root, field)):
            if value:
                unknown += f"{field}={value}" not in labels
                total[query] += chance[:, labels[f"{field}={value}"]] if f"{field}={value}" in labels else 0.0
    print(f"attribute head: {unknown} named values of queries are not among its labels and count alike for all")
    rows = np.argsort(-total, axis=1, kind="stable")[:, :100]
    return Ranking(catalog.query.ids, rows, np.take_along_axis(total, rows, axis=1).astype(np.float32))


def named(catalog, root: str, field: str) -> list[str]:
    """Returns the value of a field that each query names, "" where it names none."""
    import csv

    with (pathlib.Path(root) / "text" / "queries.csv").open(newline="") as file:
        values = {row["id"]: row[f"named_{field}"] for row in csv.DictReader(file)}
    return [values[name] for name in catalog.query.ids]


def pictures(folders: list[pathlib.Path], attributes: pathlib.Path, root: str, command: str) -> list[dict]:
    """Prints words against pictures by kind of query, beside the attribute head; returns the claims."""
    catalog, made = catalogue(folders[0], root), []
    found = [scores(folder, "trained/cosine", catalog) for folder in folders]
    base = reported(by_attributes(attributes, catalog, root), catalog) if attributes else None
    names = ("ndcg@10", "recall@50")
    print("| kind of query | words: nDCG@10 | R@50 | attribute head: nDCG@10 | R@50 |\n|---|---:|---:|---:|---:|")
    for kind, rows in {**kinds(catalog), "all": np.ones(len(catalog.query), bool)}.items():
        words = [np.mean([np.nanmean(one[name][rows]) for one in found]) for name in names]
        head = [np.nanmean(base[name][rows]) if base else np.nan for name in names]
        print(f"| {kind} |", " | ".join(f"{x:.3f}" for x in (*words, *head)), "|")
        for name in names if base else ():
            text = f"fashion, queries of the kind {kind!r} against pictures: learned words are above the attribute head"
            key = f"pictures-{kind.replace(' + ', '-')}-{name}"
            value = [one[name] for one in found]
            made.append(claim(key, text, name, value, [base[name]] * len(value), rows, command))
    return made


def alike(folders: list[pathlib.Path]) -> None:
    """Prints how alike texts are that differ in the colour, in the thing, or in both."""
    colours = ("red", "blue", "green", "black", "white", "pink", "yellow", "brown")
    things = ("t-shirt", "mug", "lamp", "dress", "backpack", "sofa")
    texts = [f"{colour} {thing}" for colour in colours for thing in things]
    colour, thing = np.divmod(np.arange(len(texts)), len(things))
    print("| run | other colour | other thing | both other |\n|---|---:|---:|---:|")
    for folder in folders:
        vectors = inference.load(folder).embed_text(texts)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = vectors @ vectors.T
        same_colour, same_thing = colour[:, None] == colour, thing[:, None] == thing
        chosen = (~same_colour & same_thing, same_colour & ~same_thing, ~same_colour & ~same_thing)
        print(f"| {folder.name} |", " | ".join(f"{cosine[one].mean():.3f}" for one in chosen), "|")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("embedded", "fashion", "pictures", "alike"))
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="work directories; for embedded the folder of all")
    parser.add_argument("--attributes", type=pathlib.Path, help="run of the attribute head")
    parser.add_argument("--root", default="data/fashion", help="where the fashion catalogue is")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    given = parser.parse_args()
    command = f"python benchmarks/text.py {' '.join(sys.argv[1:])}"
    if given.what == "alike":
        alike(given.runs)
        return
    if given.what == "embedded":
        made = embedded(given.runs[0], command)
    elif given.what == "fashion":
        made = fashion(given.runs, given.root, command)
    else:
        made = pictures(given.runs, given.attributes, given.root, command)
    for one in made:
        low, high = one["difference"][1:]
        print(f"{'holds' if one['holds'] else 'does not hold':14} {one['statement']}: {one['metric']} "
              f"{one['difference'][0]:+.4f} ({low:+.4f} to {high:+.4f})")  # fmt: skip
    if given.claims:
        claims.write(made)


if __name__ == "__main__":
    main()
